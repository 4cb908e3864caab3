"""Finds the vectors that someone brings, in the layouts that tools write, and reads them block by block in constant memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mcp_server.errors import CollectionError, IngestError
from mcp_server.indexes.zarr_files import find_array, read_blocks
from mcp_server.ingest.imports.npy import find_npy, read_npy
from mcp_server.ingest.imports.parquet import find_vectors, read_vectors

Block = NDArray[np.float32] | NDArray[np.float16]
Layout = Literal["npy", "clip-retrieval", "zarr", "parquet"]

ACCEPTED = "an .npy or .npz file, a folder of .npy files, clip-retrieval's output folder, a Zarr zip or folder, or Parquet"

_TABLES = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".tsv")
_VECTORS_FOLDER, _METADATA_FOLDER = "img_emb", "metadata"


@dataclass(frozen=True)
class VectorPart:
    """Vectors of one file: rows that follow each other.

    Attributes:
        name: the file's name, for messages.
        count: how many vectors it has.
        number: the last number in its name, which pairs it with its metadata; None without one.
        metadata: the file whose rows describe these vectors, row by row; None when it is not known from the layout.
        vector_column: the column of `metadata` that holds the vectors themselves; "" when they are elsewhere.
    """

    name: str
    count: int
    number: int | None = None
    metadata: Path | None = None
    vector_column: str = ""
    read: Callable[[], Iterable[NDArray[Any]]] = field(repr=False, kw_only=True)


@dataclass(frozen=True)
class VectorSource:
    """Vectors in row order. Nothing of them is in memory.

    Attributes:
        layout: what was recognised.
        parts: the files, in the order of their rows.
        width: D, of every part.
        dtype: how they are stored: float16, float32 or float64.
        findings: what is odd and not fatal, in sentences.
    """

    layout: Layout
    parts: tuple[VectorPart, ...]
    width: int
    dtype: np.dtype[Any]
    findings: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """N, over all parts."""
        return sum(part.count for part in self.parts)

    def blocks(self) -> Iterator[tuple[int, Block]]:
        """Yield (first row, block (n, D) float32 or float16) until all rows were read, each once. float64 is rounded to float32.

        Raises:
            IngestError: a file is damaged, or holds another number of rows than its header says.
        """
        row = 0
        for part in self.parts:
            end = row + part.count
            try:
                for block in part.read():
                    yield row, _narrowed(block)
                    row += len(block)
            except CollectionError as error:
                raise IngestError(str(error)) from error
            if row != end:
                raise IngestError(
                    f"{part.name} gave {row - end + part.count:,} vectors of the {part.count:,} it announces. Write it again."
                )


def open_vectors(path: Path, *, described: bool = False) -> VectorSource:
    """Find the vectors in `path` and say how many there are and how wide. Reads headers only.

    A folder is read as clip-retrieval's output (`img_emb/*.npy` beside `metadata/`), else as its .npy files, else as its Parquet files,
    else as a Zarr store. Files follow each other in numeric order: part 10 comes after part 9. Where the metadata is named elsewhere, they
    are `described`: what lies in `metadata/` is not looked at.

    Raises:
        IngestError: nothing that can be read is there, and the message says what is accepted; or parts and tables do not pair.
    """
    if not path.exists():
        raise IngestError(f"There are no vectors at {path}; accepted: {ACCEPTED}.")
    if path.is_dir():
        return _folder(path, described)
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        return _npy_parts("npy", [path], {})
    if suffix == ".parquet":
        return _parquet_parts([path])
    return _zarr(path)


def in_numeric_order(files: Iterable[Path]) -> list[Path]:
    """Sort files by name, numbers in it by their value: part_9 before part_10."""
    return sorted(files, key=lambda file: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", file.name)])


def number_of(file: Path) -> int | None:
    """Return the last number in a file's name, without its suffix and the total of "3-of-8"; None when there is none."""
    found = re.findall(r"\d+", re.sub(r"[-_]of[-_]\d+$", "", file.stem))
    return int(found[-1]) if found else None


def metadata_parts(folder: Path) -> dict[int, Path]:
    """Return the tables in `folder` by their number, those of the first suffix found; {} when they have none.

    Raises:
        IngestError: two have the same number.
    """
    for suffix in _TABLES:
        files = in_numeric_order(file for file in folder.iterdir() if file.suffix.lower() == suffix)
        if files:
            return _by_number(files)
    return {}


def _by_number(files: Iterable[Path]) -> dict[int, Path]:
    found: dict[int, Path] = {}
    for file in files:
        number = number_of(file)
        if number is not None and found.setdefault(number, file) != file:
            raise IngestError(
                f"{found[number].name} and {file.name} both have the number {number}, by which vectors and tables are paired. "
                "Give each file a number of its own, or one table for all with --metadata."
            )
    return found


def _folder(path: Path, described: bool) -> VectorSource:
    inner = path / _VECTORS_FOLDER
    if inner.is_dir() and (files := _npy_files(inner)):
        return _npy_parts("clip-retrieval", files, {} if described else _beside(path))
    if files := _npy_files(path):
        tables = _beside(path.parent) if path.name == _VECTORS_FOLDER and not described else {}
        return _npy_parts("clip-retrieval" if tables else "npy", files, tables)
    if files := in_numeric_order(path.glob("*.parquet")):
        return _parquet_parts(files)
    return _zarr(path)


def _beside(output: Path) -> dict[int, Path]:
    folder = output / _METADATA_FOLDER
    return metadata_parts(folder) if folder.is_dir() else {}


def _npy_files(folder: Path) -> list[Path]:
    files = in_numeric_order(folder.glob("*.npy"))
    return [file for file in files if file.name.startswith(f"{_VECTORS_FOLDER}_")] or files


def _npy_parts(layout: Layout, files: list[Path], tables: dict[int, Path]) -> VectorSource:
    arrays = [find_npy(file) for file in files]
    if tables:
        _by_number(files)
    widest = max(arrays, key=lambda array: array.dtype.itemsize)
    numbers = [number_of(file) for file in files]
    for array in arrays:
        _same_width(array.file, array.shape[1], arrays[0].file, arrays[0].shape[1])
    parts = tuple(
        VectorPart(array.file.name, array.shape[0], number, _table(array.file, number, tables), read=partial(read_npy, array))
        for array, number in zip(arrays, numbers, strict=True)
    )
    return VectorSource(layout, parts, arrays[0].shape[1], widest.dtype.newbyteorder("="), tuple(_gaps(numbers, tables)))


def _table(file: Path, number: int | None, tables: dict[int, Path]) -> Path | None:
    if not tables:
        return None
    if number is None or number not in tables:
        why = "it has no number to find it by" if number is None else f"there is no table numbered {number} beside the others"
        raise IngestError(f"{file.name} has vectors but no metadata: {why}. Add it, or give one table for all with --metadata.")
    return tables[number]


def _gaps(numbers: list[int | None], tables: Iterable[int]) -> Iterator[str]:
    """Say which parts are missing between the first and the last there are, or are metadata of."""
    known = [number for number in numbers if number is not None]
    first, last = min([*known, *tables], default=0), max([*known, *tables], default=0)
    if len(known) == len(numbers) and last - first + 1 > len(known):
        there = set(known)
        missing = next(number for number in range(first, last + 1) if number not in there)
        count = last - first + 1 - len(known)
        lost = f"{missing} is missing" if count == 1 else f"{count:,} are missing, the first is {missing}"
        yield f"of the parts {first} to {last}, {lost}"


def _parquet_parts(files: list[Path]) -> VectorSource:
    tables = [find_vectors(file) for file in files]
    filled = [table for table in tables if table.count] or tables  # Spark writes parts without rows, whose width no list tells
    for table in filled:
        _same_width(table.file, table.width, filled[0].file, filled[0].width)
    parts = tuple(
        VectorPart(table.file.name, table.count, number_of(table.file), table.file, table.column, read=partial(read_vectors, table))
        for table in tables
    )
    return VectorSource("parquet", parts, filled[0].width, max((table.dtype for table in tables), key=lambda dtype: dtype.itemsize))


def _zarr(path: Path) -> VectorSource:
    try:
        array = find_array(path)
    except CollectionError as error:
        raise IngestError(f"{path} holds no vectors that can be read. Accepted: {ACCEPTED}. As Zarr: {error}") from error
    part = VectorPart(path.name, array.shape[0], read=lambda: (block for _, block in read_blocks(array)))
    return VectorSource("zarr", (part,), array.shape[1], array.dtype)


def _same_width(file: Path, width: int, first: Path, first_width: int) -> None:
    if width != first_width:
        raise IngestError(
            f"The vectors of {file.name} are {width} wide, those of {first.name} {first_width}. Import one model's at a time."
        )


def _narrowed(block: NDArray[Any]) -> Block:
    if block.dtype.itemsize <= 4:
        return block
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite, which is counted as unusable
        return block.astype(np.float32)
