"""Writes the two zip files of a collection: the vectors and the thumbnails. The same input gives the same bytes."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_server.ingest.pictures.suffixes import readable_suffixes

EMBEDDINGS_KEY = "embeddings"
HALF_PRECISION_FROM = 100_000
"""From this many pictures on, vectors are stored as float16: half the bytes, cosines within about 5e-4."""

_CHUNK_BYTES = 16 * 2**20
_OLDEST_DATE = (1980, 1, 1, 0, 0, 0)  # the first a zip can hold; a real one would make every build differ

Rows = NDArray[Any]
"""(n, width) float32 or float16."""
Stored = type[np.float32] | type[np.float16]


def stored_dtype(count: int) -> Stored:
    """Return the type in which `count` vectors are stored. The one place that decides it."""
    return np.float32 if count < HALF_PRECISION_FROM else np.float16


def write_embeddings(file: Path, blocks: Iterable[Rows], count: int, width: int, dtype: Stored) -> None:
    """Write a Zarr v3 group with one array, `embeddings`, (count, width) of `dtype`, as an uncompressed zip; a few chunks in memory.

    `blocks` come in row order, `count` rows together, of any length and either type.

    Raises:
        ValueError: the blocks hold more or fewer rows.
    """
    rows_per_chunk = max(1, min(count, _CHUNK_BYTES // (width * np.dtype(dtype).itemsize)))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in _metadata(file, count, width, rows_per_chunk, dtype):
            archive.writestr(_entry(name), data)
        written = 0
        for number, chunk in enumerate(_chunks(blocks, rows_per_chunk, width, np.dtype(dtype))):
            # a chunk that the array does not fill is stored whole.
            # Source: Zarr core specification v3, "Regular grids"; the bytes codec writes C order, little-endian
            padded = np.zeros((rows_per_chunk, width), dtype=np.dtype(dtype).newbyteorder("<"))
            padded[: len(chunk)] = chunk
            with archive.open(_entry(f"{EMBEDDINGS_KEY}/c/{number}/0"), "w", force_zip64=True) as target:
                target.write(padded.data)
            written += len(chunk)
    if written != count:
        raise ValueError(f"{written} rows came, {count} were announced")


def _metadata(file: Path, count: int, width: int, rows_per_chunk: int, dtype: Stored) -> list[tuple[str, bytes]]:
    """Return the entries that describe the array, as zarr itself writes them."""
    import zarr

    folder = file.with_name(file.name + ".folder")
    group = zarr.create_group(store=str(folder), zarr_format=3)
    group.create_array(
        EMBEDDINGS_KEY,
        shape=(count, width),
        chunks=(rows_per_chunk, width),
        dtype=np.dtype(dtype).name,
        compressors=None,  # unit vectors do not shrink, and uncompressed they load at the speed of the disk
        dimension_names=("row", "dimension"),
    )
    try:
        return [(path.relative_to(folder).as_posix(), path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()]
    finally:
        shutil.rmtree(folder)


class ThumbnailsWriter:
    """Packs thumbnails into one uncompressed zip, in the order they are added."""

    def __init__(self, file: Path) -> None:
        self._archive = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED)

    def add(self, name: str, data: bytes, sha256: str) -> None:
        """Store `data` under `name`, a relative path with "/" that was not used before, for the picture file with that SHA-256."""
        entry = _entry(name)
        entry.comment = _mark(sha256)
        self._archive.writestr(entry, data)

    def close(self) -> None:
        """Write the zip's directory; may be called twice."""
        self._archive.close()


def is_thumbnail_of(entry: zipfile.ZipInfo, sha256: str) -> bool:
    """Tell whether `entry` of a thumbnails zip was made of the picture file with that SHA-256."""
    return entry.comment == _mark(sha256)


def _mark(sha256: str) -> bytes:
    return sha256[:16].encode("ascii")


def thumbnail_name(source: str) -> str:
    """Return the name in the thumbnails zip of the picture at `source`: its path, with ".webp" added where it ends otherwise.

    Different pictures have different names: to a path such as "a.jpg.webp", which is what "a.jpg" is called here, ".webp" is added too.
    """
    stem, _, ending = source.rpartition(".")
    inner = stem.rpartition("/")[2].rpartition(".")
    is_free = ending.lower() == "webp" and not (inner[1] and f".{inner[2].lower()}" in readable_suffixes())
    return source if is_free else f"{source}.webp"


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _OLDEST_DATE)
    entry.create_system = 3
    entry.external_attr = 0o644 << 16
    return entry


def _chunks(blocks: Iterable[Rows], size: int, width: int, dtype: np.dtype[Any]) -> Iterator[Rows]:
    """Regroup row blocks into chunks of `size` rows; the last may be shorter."""
    chunk: Rows = np.empty((size, width), dtype)
    filled = 0
    for block in blocks:
        taken = 0
        while taken < len(block):
            step = min(size - filled, len(block) - taken)
            chunk[filled : filled + step] = block[taken : taken + step]
            filled, taken = filled + step, taken + step
            if filled == size:
                yield chunk
                filled = 0
    if filled:
        yield chunk[:filled]
