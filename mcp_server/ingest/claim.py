"""One ingest or import at a time works on a collection."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mcp_server.errors import IngestError

LEDGER_FOLDER = ".ingest"
"""Inside a collection's folder; safe to delete, but the next run then starts anew."""

_LOCK = "lock"


@contextmanager
def alone(destination: Path) -> Generator[None]:
    """Keep every other ingest and import away from the collection in `destination` while the block runs.

    Raises:
        IngestError: another one is at work on it.
    """
    folder = destination / LEDGER_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise IngestError(f"Another ingest is at work on {destination}. Wait until it has ended.") from error
    try:
        yield
    finally:
        lock.release()
        if all(left.name == _LOCK for left in folder.iterdir()):  # nothing is remembered here
            with suppress(OSError):
                (folder / _LOCK).unlink(missing_ok=True)  # on Windows releasing it has done so
                folder.rmdir()


def forget(destination: Path) -> None:
    """Remove the ledger in `destination`, whose files are about to be others. To be called inside `alone`."""
    for left in (destination / LEDGER_FOLDER).iterdir():
        if left.name != _LOCK:
            shutil.rmtree(left) if left.is_dir() else left.unlink()
