"""Builds a collection's files aside and puts them in place in one step, so that a kill leaves the old collection or none."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mcp_server.errors import IngestError
from mcp_server.ingest.embed import Embedded
from mcp_server.ingest.fields import Field
from mcp_server.ingest.metadata import Metadata
from mcp_server.ingest.write_archives import ThumbnailsWriter, stored_dtype, thumbnail_names, write_embeddings
from mcp_server.ingest.write_catalog import CatalogRow, write_catalog

EMBEDDINGS_FILE = "embeddings.zarr.zip"
CATALOG_FILE = "collection.db"
THUMBNAILS_FILE = "thumbnails.zip"

_STALE_SECONDS = 24 * 3600


class CollectionWriter:
    """Takes embedded pictures batch by batch and writes the three files of a collection into an empty folder.

    `sources` are the pictures added so far, in the order of their rows.
    """

    def __init__(self, folder: Path, pictures: Sequence[str], width: int) -> None:
        """Prepare for up to all of `pictures`, with vectors of `width`, in `folder`."""
        self.sources: list[str] = []
        self._folder = folder
        self._width = width
        self._dtype = stored_dtype(len(pictures))
        self._names = thumbnail_names(pictures)
        self._vectors: list[NDArray[np.float32 | np.float16]] = []
        self._thumbnails = ThumbnailsWriter(folder / THUMBNAILS_FILE)

    def add(self, batch: Embedded) -> None:
        """Write the thumbnails of `batch` and keep its vectors."""
        for picture in batch.pictures:
            self._thumbnails.add(self._names[picture.source], picture.thumbnail)
            self.sources.append(picture.source)
        self._vectors.append(batch.vectors.astype(self._dtype))

    def finish(self, metadata: Metadata) -> tuple[Field, ...]:
        """Write embeddings and catalog of all pictures added; return the catalog's fields."""
        self.close()
        write_embeddings(self._folder / EMBEDDINGS_FILE, self._vectors, len(self.sources), self._width)
        rows = [
            CatalogRow(source, self._names[source], metadata.groups.get(source), metadata.rows.get(source, {})) for source in self.sources
        ]
        return write_catalog(self._folder / CATALOG_FILE, rows)

    def close(self) -> None:
        """Close the thumbnails; may be called twice."""
        self._thumbnails.close()


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


def publish(staging: Path, destination: Path) -> None:
    """Move the finished files of `staging` to `destination`.

    A new folder appears with one rename. In a folder that is there, the old catalog goes first and the new one comes last: without a
    catalog there is no collection, so old and new files are never served together. Other files of the folder stay.
    """
    with writing(destination):
        for file in staging.iterdir():
            _to_disk(file)
        if not destination.exists():
            staging.rename(destination)
            return
        (destination / CATALOG_FILE).unlink(missing_ok=True)
        for name in (EMBEDDINGS_FILE, THUMBNAILS_FILE, CATALOG_FILE):
            (staging / name).replace(destination / name)


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


def _newest_change(folder: Path) -> float:
    try:
        return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except OSError:
        return time.time()


def _to_disk(file: Path) -> None:
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())
