"""Writes the two zip files of a collection: the vectors and the thumbnails. The same input gives the same bytes."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

EMBEDDINGS_KEY = "embeddings"
HALF_PRECISION_FROM = 100_000
"""From this many pictures on, vectors are stored as float16: half the bytes, cosines within about 5e-4."""

_CHUNK_BYTES = 16 * 2**20
_OLDEST_DATE = (1980, 1, 1, 0, 0, 0)  # the first a zip can hold; a real one would make every build differ


def stored_dtype(count: int) -> type[np.float32] | type[np.float16]:
    """Return the type in which `count` vectors are stored. The one place that decides it."""
    return np.float32 if count < HALF_PRECISION_FROM else np.float16


def write_embeddings(file: Path, batches: Sequence[NDArray[np.float32 | np.float16]], count: int, width: int) -> None:
    """Write a Zarr v3 group with one array, `embeddings`, (count, width), as an uncompressed zip.

    `batches` come in row order, `count` rows together, at least one, all of the type that is stored.
    """
    import zarr

    dtype = batches[0].dtype
    folder = file.with_name(file.name + ".folder")
    rows_per_chunk = max(1, min(count, _CHUNK_BYTES // (width * dtype.itemsize)))
    group = zarr.create_group(store=str(folder), zarr_format=3)
    array = group.create_array(
        EMBEDDINGS_KEY,
        shape=(count, width),
        chunks=(rows_per_chunk, width),
        dtype=dtype.name,
        compressors=None,  # unit vectors do not shrink, and uncompressed they load at the speed of the disk
        dimension_names=("row", "dimension"),
    )
    for start, block in _blocks(batches, rows_per_chunk):
        array[start : start + len(block)] = block
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            with (folder / name).open("rb") as source, archive.open(_entry(name), "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, 2**20)
    shutil.rmtree(folder)


class ThumbnailsWriter:
    """Packs thumbnails into one uncompressed zip, in the order they are added."""

    def __init__(self, file: Path) -> None:
        self._archive = zipfile.ZipFile(file, "w", zipfile.ZIP_STORED)

    def add(self, name: str, data: bytes) -> None:
        """Store `data` under `name`, a relative path with "/" that was not used before."""
        self._archive.writestr(_entry(name), data)

    def close(self) -> None:
        """Write the zip's directory; may be called twice."""
        self._archive.close()


def thumbnail_names(sources: Iterable[str]) -> dict[str, str]:
    """Return each picture's name in the thumbnails zip: its path, with ".webp" added where it ends otherwise; no name twice."""
    paths = list(sources)
    taken = {path for path in paths if path.lower().endswith(".webp")}
    names = {path: path for path in taken}
    for path in paths:
        if path not in names:
            name = f"{path}.webp"
            while name in taken:
                name = f"{name}.webp"
            taken.add(name)
            names[path] = name
    return names


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _OLDEST_DATE)
    entry.create_system = 3
    entry.external_attr = 0o644 << 16
    return entry


def _blocks(batches: Iterable[NDArray[np.float32 | np.float16]], size: int) -> Iterator[tuple[int, NDArray[np.float32 | np.float16]]]:
    """Regroup row batches into blocks of `size` rows, so that each chunk is written once; yield each with its first row."""
    start, held, rows = 0, list[NDArray[np.float32 | np.float16]](), 0
    for batch in batches:
        held.append(batch)
        rows += len(batch)
        while rows >= size:
            joined = np.concatenate(held)
            yield start, joined[:size]
            start, held, rows = start + size, [joined[size:]], rows - size
    if rows:
        yield start, np.concatenate(held)
