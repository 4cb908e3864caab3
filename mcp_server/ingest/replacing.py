"""Builds a collection anew beside the one that is there, which serves until then, and puts it in its place. A kill is mended later."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from mcp_server.ingest.claim import LEDGER_FOLDER, alone, forget
from mcp_server.ingest.ledger import Ledger, adopt
from mcp_server.ingest.report import IngestReport
from mcp_server.ingest.write import CATALOG_FILE, EMBEDDINGS_FILE, put_in_place, writing


def replaced(destination: Path, folder: Path, model: str, run: Callable[[Ledger, Path], IngestReport]) -> IngestReport:
    """Let `run` make a collection of `folder` with `model` aside, and put it in the place of the one in `destination`.

    What an earlier call of the same left is gone on with. To be called inside `alone(destination)`.
    """
    work = _aside(destination)
    if work.exists():
        with Ledger.open(work) as ledger:
            same = (ledger.setting("folder"), ledger.setting("model")) in ((str(folder), model), (None, None))
        if not same:  # left by a replacing run of something else
            shutil.rmtree(work)
    with nothing_left(work), Ledger.open(work) as ledger:
        report = run(ledger, work)
        ledger.set("takes_over", 1)
    _take_over(work, destination)
    return report


def finish_replacing(destination: Path) -> None:
    """Put in place what a run with `replace` had ready when it was cut short."""
    work = _aside(destination)
    if not work.exists() or not destination.exists():
        return
    with writing(destination), alone(destination):
        if not Ledger.exists(work):  # it was moved; nothing else of worth is there
            shutil.rmtree(work)
            return
        with Ledger.open(work) as ledger:
            is_ready = bool(ledger.setting("takes_over"))
        if is_ready:
            _take_over(work, destination)


def _take_over(work: Path, destination: Path) -> None:
    """Put the collection in `work`, its ledger last, in the place of the one in `destination`. Can be done again if it was cut short."""
    forget(destination)  # first of all: the old ledger must never stand beside the new files
    put_in_place(work, destination)
    adopt(work, destination)
    shutil.rmtree(work)


def _aside(destination: Path) -> Path:
    return destination.parent / f".{destination.name}.replace"


@contextmanager
def nothing_left(work: Path) -> Generator[None]:
    """When the block fails before anything was embedded, leave `work` as if nothing had been tried. A ledger that was there stays."""
    was_there = Ledger.exists(work)
    try:
        yield
    except BaseException:
        is_collection = (work / CATALOG_FILE).exists() or (work / EMBEDDINGS_FILE).exists()
        if not was_there and not is_collection and Ledger.exists(work) and not Ledger.has_begun(work):
            shutil.rmtree(work / LEDGER_FOLDER, ignore_errors=True)
        if work.is_dir() and not any(work.iterdir()):
            work.rmdir()
        raise
