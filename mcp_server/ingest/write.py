"""Builds a collection's files aside and puts them in place in one step, so that a kill leaves the old collection or none."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
import zipfile
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path

from mcp_server.config import not_writable
from mcp_server.errors import IngestError
from mcp_server.stores.sqlite_uri import uri_of

EMBEDDINGS_FILE = "embeddings.zarr.zip"
CATALOG_FILE = "collection.db"
THUMBNAILS_FILE = "thumbnails.zip"

_STALE_SECONDS = 24 * 3600


@contextmanager
def staging_folder(destination: Path) -> Generator[Path]:
    """Yield a new folder beside `destination`; whatever happens, it is gone afterwards. Sweeps up what a killed run left a day ago.

    Raises:
        IngestError: the place cannot be written, or the disk is full.
    """
    prefix = f".{destination.name}.partial-"
    with writing(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        for left in destination.parent.glob(f"{prefix}*"):
            if _newest_change(left) < time.time() - _STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=destination.parent))
        folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put_in_place(staging: Path, destination: Path, *, thumbnails: bool = True) -> None:
    """Move the finished files of `staging` to `destination`, where they have nothing to do with what is there.

    A new folder appears with one rename. In a folder that is there, the old catalog goes first and the new one comes last: without a
    catalog there is no collection, so old and new files are never served together. Other files of the folder stay. What is not in `staging`
    is taken to be in place already, but thumbnails if the new collection has none.
    """
    with writing(destination):
        if not destination.exists():
            for file in staging.iterdir():
                to_disk(file)
            staging.rename(destination)
            return
        if (staging / CATALOG_FILE).exists():  # else it was moved before this was cut short
            (destination / CATALOG_FILE).unlink(missing_ok=True)
        if not thumbnails:
            (destination / THUMBNAILS_FILE).unlink(missing_ok=True)
        move_into(staging, destination)


def move_into(staging: Path, destination: Path) -> None:
    """Rename those of the three files that are in `staging` into `destination`, the catalog last."""
    names = [name for name in (EMBEDDINGS_FILE, THUMBNAILS_FILE, CATALOG_FILE) if (staging / name).exists()]
    for name in names:
        to_disk(staging / name)
    for name in names:
        (staging / name).replace(destination / name)
    to_disk(destination)


def missing(destination: Path) -> list[str]:
    """Return which of the three files are not there, or not whole."""
    archives = (EMBEDDINGS_FILE, THUMBNAILS_FILE)
    return [name for name in archives if not zipfile.is_zipfile(destination / name)] + (
        [] if _has_medias(destination / CATALOG_FILE) else [CATALOG_FILE]
    )


def _has_medias(catalog: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"{uri_of(catalog.absolute())}?mode=ro", uri=True)) as opened:
            return opened.execute("SELECT 1 FROM medias LIMIT 1").fetchone() is not None
    except sqlite3.Error:  # it is not there, or damaged
        return False


@contextmanager
def writing(destination: Path) -> Generator[None]:
    """Turn what the disk and SQLite refuse into a sentence for the person who runs the command."""
    try:
        yield
    except OSError as error:
        hint = "If a server has the collection open, stop it; else check space and rights, then run again."
        raise IngestError(f"Cannot write {destination}: {error.strerror or error}. {hint}") from error
    except sqlite3.Error as error:
        raise IngestError(f"Cannot write the catalog of {destination}: {error}. Check space and rights, then run again.") from error


@contextmanager
def writing_file(file: Path, option: str) -> Generator[None]:
    """The same for a single file, which `option` of the command names."""
    try:
        yield
    except OSError as error:
        raise IngestError(
            f"Cannot write {file}: {error.strerror or error}. Check space and rights, or name another with {option}."
        ) from error


def check_writable(folder: Path, file: Path, option: str) -> None:
    """Refuse a `file` that cannot be written, since its `folder` cannot, or could not be made.

    Raises:
        IngestError: with what to do.
    """
    if wrong := not_writable(folder):
        raise IngestError(f"Cannot write {file}: {wrong}. Name another with {option}.")


def _newest_change(folder: Path) -> float:
    try:
        return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except OSError:
        return time.time()


def to_disk(path: Path) -> None:
    """Return when what was written to the file or folder `path` would survive a loss of power."""
    if path.is_dir():
        if os.name == "posix":  # elsewhere folders cannot be opened, and renames are written through
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        return
    with path.open("rb+") as opened:
        os.fsync(opened.fileno())
