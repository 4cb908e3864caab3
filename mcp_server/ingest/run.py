"""Turns a folder of pictures into a collection, and keeps it so: scan, plan, decode, embed, publish. `ingest_folder` is the whole walk.

What only a run with news needs is imported there: one without takes a moment.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from mcp_server.config import root_of
from mcp_server.errors import IngestError
from mcp_server.ingest.claim import alone
from mcp_server.ingest.config_section import enter_section, sections_of, value_in, with_section
from mcp_server.ingest.ledger import Ledger
from mcp_server.ingest.own_metadata import enter_metadata
from mcp_server.ingest.placing import absolute_model, check_place, collection_section
from mcp_server.ingest.plan import make_plan
from mcp_server.ingest.replacing import finish_replacing, nothing_left, replaced
from mcp_server.ingest.report import IngestReport, Times, check_report, nothing_readable, report_of, write_report
from mcp_server.ingest.scan import scan
from mcp_server.ingest.wishes import Options, Wishes, remembered
from mcp_server.ingest.write import CATALOG_FILE, EMBEDDINGS_FILE, check_writable, missing, writing

if TYPE_CHECKING:
    from mcp_server.encoders.base import ImageEncoder
    from mcp_server.ingest.catalog.write_catalog import CatalogReport

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]

FIRST_LOOK_SECONDS = 15.0
"""A collection that was not there before can be searched after so long, with the pictures embedded by then."""
LOOK_EVERY_SECONDS = 60.0
_LOOK_SHARE = 20
"""Publishing in between may take a twentieth of the time."""
_AHEAD = 2
"""Batches decoded ahead of the model."""
_FACTS_AT_ONCE = 500
_SAMPLED = 100


def ingest_folder(
    folder: Path,
    destination: Path,
    config_file: Path,
    name: str,
    model: str,
    device: str = "auto",
    options: Options | None = None,
    progress: Progress | None = None,
    *,
    root: Path | None = None,
    original_base: str | None = None,
    replace: bool = False,
    encoder: ImageEncoder | None = None,
) -> IngestReport:
    """Bring the collection `name` up to what lies below `folder`, or make it, and enter it in `config_file`.

    Only new and changed files are decoded and embedded. Each batch is kept at once: after a kill at any moment the collection serves what
    it served before, and the next run goes on from the last batch to the same end. What can be wrong with the arguments is found before the
    model is loaded, and the model is loaded only if there is something to embed.

    Args:
        folder: pictures, in any depth. Only read.
        destination: folder of the collection's files; made if it is not there.
        config_file: made if it is not there. A section that is there stays as it is, unless `replace`.
        name: section of the configuration, and what callers say.
        model: open_clip name, `hf-hub:org/repo` or `local-dir:PATH` (from the working folder). Entered in the section: the vectors are of
            no use with another.
        device: auto, cpu, cuda, cuda:N or mps.
        options: how the user wants it; what is not given is as in the last run.
        progress: called with (files done, files to do) after each batch: first of files to be read again, then of those to be embedded.
        root: folder that relative paths of the configuration start at; default: `config.root_of(config_file)`.
        original_base: what `OriginalMediaURL` says: a URL, folder or zip; default: `folder`.
        replace: build anew what is there.
        encoder: the image tower to use in place of loading `model`.

    Raises:
        IngestError: with what to do: a bad name, no pictures, a collection that is there, unusable metadata or configuration, a full disk.
        EncoderError: the model cannot be loaded or failed.
    """
    started = time.perf_counter()
    folder, destination, config_file = folder.absolute(), destination.absolute(), config_file.absolute()
    model = absolute_model(model)
    finish_replacing(destination)
    check_place(destination, config_file, name, replace=replace, goes_on=True)
    base = (root or root_of(config_file)).absolute()
    values = collection_section(destination, base, model, original_base or str(folder))
    with_section(config_file, name, values)  # which refuses what a configuration cannot hold
    if replace or name not in sections_of(config_file):
        check_writable(config_file.resolve().parent, config_file, "--config")
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise IngestError(f"{folder} {what}. Give the folder that holds the pictures.")
    if folder == destination:
        raise IngestError("A collection cannot lie among the pictures it is made of. Give another --out.")
    options = options or Options()
    if options.report is not None:
        check_report(Path(options.report))
    enter = partial(_enter_section, config_file, name, values)

    def run(job: _Job) -> IngestReport:
        return job.run(model, lambda: encoder or _load(model, device), progress)

    if replace and destination.exists():
        with writing(destination), alone(destination):
            report = replaced(destination, folder, model, lambda ledger, work: run(_Job(ledger, folder, work, options, None)))
            enter(anew=True)
    else:
        with nothing_left(destination), writing(destination), Ledger.open(destination) as ledger:
            report = run(_Job(ledger, folder, destination, options, enter))
            enter(anew=replace)
        if report.moved_from is not None and original_base is None:
            old = collection_section(destination, base, model, str(report.moved_from))
            _follow(config_file, name, old["OriginalMediaURL"], values["OriginalMediaURL"])
    times = report.times
    times.total = time.perf_counter() - started
    logger.info(
        "ingest.done collection=%s pictures=%d embedded=%d failed=%d seconds=%.1f waiting=%.1f model=%.1f writing=%.1f decoding=%.1f",
        name,
        report.pictures,
        report.embedded,
        len(report.failed),
        times.total,
        times.waiting,
        times.model,
        times.writing,
        times.decoding,
    )
    return report


class _Job:
    """One run over one ledger."""

    def __init__(self, ledger: Ledger, folder: Path, work: Path, options: Options, enter: Callable[[], None] | None) -> None:
        """`enter` is called after each publication, to make the collection known; None: nobody is to see it before the end."""
        self._ledger = ledger
        self._folder = folder
        self._work = work
        self._options = options
        self._enter = enter
        self._catalog: CatalogReport | None = None
        self._times = Times()

    def run(self, model: str, load: Callable[[], ImageEncoder], progress: Progress | None) -> IngestReport:
        """Do all that is to be done, publish it, and tell."""
        ledger, folder = self._ledger, self._folder
        moved_from = _check_same(ledger, folder, model)
        wishes = remembered(ledger, self._options)
        if ledger.pictures() and _is_lost(ledger, self._work):
            ledger.embed_all_again()
        plan = make_plan(ledger, folder, scan(folder))
        metadata = enter_metadata(ledger, folder, wishes)
        _read_facts(ledger, folder, self._times, progress)
        embedded = 0
        if todo := ledger.count(1):
            started = time.perf_counter()
            encoder = load()
            self._times.loading = time.perf_counter() - started
            _bind(ledger, folder, model, encoder)
            due = time.monotonic() + (FIRST_LOOK_SECONDS if missing(self._work) else LOOK_EVERY_SECONDS)
            for files, pictures in _embed(ledger, folder, encoder, self._times):
                embedded += pictures
                if progress is not None:
                    progress(files, todo)
                if self._enter is not None and files < todo and ledger.pictures() and time.monotonic() >= due:
                    due = self._publish_meanwhile(wishes)
        if not ledger.pictures():
            raise nothing_readable(ledger, plan)
        _bind(ledger, folder, model, None)
        if ledger.setting("dirty") or missing(self._work):
            self._publish(wishes)
        if self._options.report is not None:  # before the run ends, so that the next one can write what this one could not
            write_report(Path(self._options.report), ledger, plan)
        report = report_of(ledger, plan, embedded, metadata, self._catalog, self._times, moved_from)
        ledger.ended(wishes.options)
        return report

    def _publish(self, wishes: Wishes, *, final: bool = True) -> None:
        from mcp_server.ingest.publish import publish

        started = time.perf_counter()
        self._catalog = publish(self._ledger, self._work, wishes, final=final)
        if self._enter is not None:
            self._enter()
        self._times.writing += time.perf_counter() - started

    def _publish_meanwhile(self, wishes: Wishes) -> float:
        """Publish what is done, and return when to do so again, on the monotonic clock. What refuses now may not at the end."""
        started = time.monotonic()
        try:
            self._publish(wishes, final=False)
        except IngestError as error:
            logger.warning("ingest.not_published_yet reason=%s", error)
        return time.monotonic() + max(LOOK_EVERY_SECONDS, _LOOK_SHARE * (time.monotonic() - started))


def _is_lost(ledger: Ledger, work: Path) -> bool:
    """Tell whether vectors or thumbnails that were published are no longer there. A catalog is made from the ledger alone."""
    gone = missing(work)
    if gone != [CATALOG_FILE]:
        return bool(gone)
    from mcp_server.indexes.fingerprints import fingerprint_of

    return fingerprint_of(work / EMBEDDINGS_FILE) not in (ledger.setting("embeddings"), ledger.setting("next_embeddings"))


def _check_same(ledger: Ledger, folder: Path, model: str) -> Path | None:
    """Refuse to mix the pictures of two folders, or the vectors of two models, in one collection. Return where a folder that moved was."""
    known, before = ledger.setting("model", model), Path(ledger.setting("folder", str(folder)))
    if known != model:
        raise IngestError(
            f"The collection was made with the model {known}; vectors of {model} do not fit to them. Leave --model out, or use --replace."
        )
    if before == folder or (before.is_dir() and before.samefile(folder)):
        return None
    sample = ledger.database.execute('SELECT source FROM files WHERE "row" IS NOT NULL ORDER BY sha256 LIMIT ?', (_SAMPLED,)).fetchall()
    if before.is_dir() or 2 * sum((folder / source).exists() for (source,) in sample) < len(sample):
        raise IngestError(
            f"The collection holds the pictures of {before}, not of {folder}. Give another --name, or --replace to build it anew."
        )
    return before


def _bind(ledger: Ledger, folder: Path, model: str, encoder: ImageEncoder | None) -> None:
    """Note what the collection is made of from now on."""
    width = ledger.setting("width")
    if encoder is not None and width not in (None, encoder.width):
        raise IngestError(f"The collection's vectors are {width} wide, the model makes {encoder.width}. Use --replace to build it anew.")
    with ledger.transaction():
        ledger.set("model", model)
        ledger.set("folder", str(folder))
        if encoder is not None:
            ledger.set("width", encoder.width)


def _load(model: str, device: str) -> ImageEncoder:
    from mcp_server.encoders.open_clip import load_image_encoder

    return load_image_encoder(model, device)


def _read_facts(ledger: Ledger, folder: Path, times: Times, progress: Progress | None) -> None:
    """Read again the facts of files that changed, but perhaps not in their bytes."""
    if not (todo := ledger.count(2)):
        return
    from mcp_server.ingest.workers import Workers

    done = 0
    with Workers(folder, None) as workers:
        facts = workers.examine(ledger.tasks(2))
        while many := list(islice(facts, _FACTS_AT_ONCE)):
            ledger.commit_facts(many)
            done += len(many)
            if progress is not None:
                progress(done, todo)
        times.decoding += workers.take_seconds()


def _embed(ledger: Ledger, folder: Path, encoder: ImageEncoder, times: Times) -> Iterator[tuple[int, int]]:
    """Decode, embed and enter all that is to be; yield after each batch how many files are done, and how many pictures it had."""
    from mcp_server.ingest.embed import embed
    from mcp_server.ingest.workers import Workers

    files = 0
    with Workers(folder, encoder.sizing) as workers:
        for batch in embed(workers.decode(ledger.tasks(1), _AHEAD * encoder.batch), encoder):
            started = time.perf_counter()
            ledger.commit(batch.pictures, batch.vectors, batch.failed)
            times.writing += time.perf_counter() - started
            times.waiting += batch.waited
            times.model += batch.computed
            times.decoding += workers.take_seconds()
            files += batch.files
            yield files, len(batch.pictures)


def _enter_section(config_file: Path, name: str, values: Mapping[str, str], *, anew: bool = False) -> None:
    """Enter the collection in the configuration as it is by now, unless it is there already."""
    if anew or name not in sections_of(config_file):
        enter_section(config_file, name, values)


def _follow(config_file: Path, name: str, old: str, new: str) -> None:
    """Let the configuration follow a folder that moved, unless it says something else of it."""
    if value_in(config_file, name, "OriginalMediaURL") == old:
        enter_section(config_file, name, {"OriginalMediaURL": new})
