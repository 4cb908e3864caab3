"""Reads the vectors of a NumPy file, .npy or .npz, block by block: no pickle, and no more than one block in memory."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mcp_server.errors import IngestError, clipped

BLOCK_BYTES = 16 * 2**20

_EXPECTED = "expected one array (N, D) of float16, float32 or float64"
_NAMES = ("embeddings", "image_embeddings", "img_emb", "vectors")
"""Arrays of an .npz that are the vectors although it holds others too."""
# What reading a damaged .npy or .npz raises; BadZipFile and zlib.error derive from Exception alone.
_DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    RuntimeError,
    NotImplementedError,
    SyntaxError,  # the header is parsed as Python's literals
    tokenize.TokenError,
    TypeError,
    KeyError,
)


@dataclass(frozen=True)
class NpyArray:
    """Where an array of vectors is and what it looks like.

    Attributes:
        file: an .npy, or the .npz that holds it.
        member: its name inside the .npz; "" for an .npy.
        shape: (N, D), D at least 1.
        dtype: float16, float32 or float64 in either byte order.
        columns_first: stored column by column.
        offset: where the numbers start, in bytes.
    """

    file: Path
    member: str
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    columns_first: bool
    offset: int


def find_npy(file: Path) -> NpyArray:
    """Return the array in `file`; of an .npz the only one, or the one called `embeddings`. Reads the header only.

    Raises:
        IngestError: it is damaged, cut short, or holds something else.
    """
    try:
        member = _member(file) if file.suffix.lower() == ".npz" else ""
        with _opened(file, member) as stream:
            return _header(file, member, stream)
    except _DAMAGE as error:
        raise IngestError(
            f"{file} cannot be read as a NumPy file ({clipped(error, 120)}); {_EXPECTED}. Save it again with numpy.save."
        ) from error


def read_npy(array: NpyArray) -> Iterator[NDArray[Any]]:
    """Yield the rows of `array` in order, in blocks (n, D) of some 16 MiB, in the machine's byte order.

    Raises:
        IngestError: the file ends early, or was changed since `find_npy`.
    """
    rows, width = array.shape
    step = max(1, BLOCK_BYTES // (width * array.dtype.itemsize))
    native = array.dtype.newbyteorder("=")
    try:
        with _opened(array.file, array.member) as stream:
            stream.seek(array.offset)
            for start in range(0, rows, step):
                count = min(step, rows - start)
                block = _columns(stream, array, start, count) if array.columns_first else _numbers(stream, array.dtype, count * width)
                yield block.reshape(count, width).astype(native, copy=False)
    except _DAMAGE as error:
        raise IngestError(f"{array.file} is damaged ({clipped(error, 120)}). Save it again with numpy.save.") from error


@contextmanager
def _opened(file: Path, member: str) -> Generator[IO[bytes]]:
    if not member:
        with file.open("rb") as stream:
            yield stream
        return
    with zipfile.ZipFile(file) as archive, archive.open(member) as stream:
        yield stream


def _member(file: Path) -> str:
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
    named = [name for name in names if name.removesuffix(".npy") in _NAMES]
    chosen = names if len(names) == 1 else named
    if len(chosen) != 1:
        held = clipped(", ".join(name.removesuffix(".npy") for name in names) or "no array", 80)
        raise IngestError(f"{file} holds {held}; give an .npz with one array, or one called 'embeddings', or save that array as .npy.")
    return chosen[0]


def _header(file: Path, member: str, stream: IO[bytes]) -> NpyArray:
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise IngestError(f"{file} is an .npy of version {version[0]}.{version[1]}, which only arrays of named fields have; {_EXPECTED}.")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, columns_first, dtype = read(stream)
    if len(shape) != 2 or shape[0] < 0 or shape[1] < 1 or dtype.kind != "f" or dtype.itemsize > 8:
        raise IngestError(f"{file} holds an array of shape {shape} and type {clipped(dtype)}; {_EXPECTED}.")
    offset = stream.tell()
    needed, there = offset + shape[0] * shape[1] * dtype.itemsize, _size(file, member)
    if there < needed:
        raise IngestError(f"{file} is cut short: {there:,} of {needed:,} bytes. Copy or save it again.")
    if member and columns_first and shape[0] > 1:
        raise IngestError(f"{file} holds its array column by column; save it again with numpy.ascontiguousarray, or as .npy.")
    return NpyArray(file, member, (shape[0], shape[1]), dtype, columns_first and shape[0] > 1, offset)


def _size(file: Path, member: str) -> int:
    if not member:
        return file.stat().st_size
    with zipfile.ZipFile(file) as archive:
        return archive.getinfo(member).file_size


def _numbers(stream: IO[bytes], dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    data = bytearray()
    while missing := count * dtype.itemsize - len(data):
        piece = stream.read(missing)
        if not piece:
            raise EOFError("the file ends early")
        data += piece
    return np.frombuffer(data, dtype)


def _columns(stream: IO[bytes], array: NpyArray, start: int, count: int) -> NDArray[Any]:
    """Read rows [start, start + count) of an array that is stored column by column."""
    rows, width = array.shape
    block = np.empty((count, width), array.dtype)
    for column in range(width):
        stream.seek(array.offset + (column * rows + start) * array.dtype.itemsize)
        block[:, column] = _numbers(stream, array.dtype, count)
    return block
