"""The vectors of a collection: read once into memory, or laid down once beside the cache and mapped from there."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_server.errors import CollectionError, IndexMismatchError
from mcp_server.indexes.row_file import RowFile
from mcp_server.indexes.zarr_files import find_array, read_blocks

logger = logging.getLogger(__name__)

Rows = NDArray[np.float16] | NDArray[np.float32]

UNIT_TOLERANCE = 1e-3
"""How far from 1 a length may be and still count as unit: float16 rounds each number by up to 2**-11 of itself."""
_TILE = 4096
_MEASURED_AT_ONCE = 256
"""Rows in float64 that stay in the cache of a core until their lengths are known."""


@dataclass(frozen=True, eq=False)
class Embeddings:
    """N vectors of width D as they were stored. Nothing in it changes; safe to share between threads.

    Attributes:
        rows: (N, D) float16 or float32, read-only, the values as stored (float64 rounded to float32).
        norms: (N,) float64, length of each row. Not finite where the row is not.
        unusable: (N,) bool, True for rows that are not finite or have no length.
        normalised: True when every usable row already has unit length, to within float16 rounding.
        file: the file that `rows` are mapped from; None when they are in memory.
    """

    rows: Rows = field(repr=False)
    norms: NDArray[np.float64] = field(repr=False)
    unusable: NDArray[np.bool_] = field(repr=False)
    normalised: bool
    file: RowFile | None = field(default=None, repr=False)

    def take(self, rows: NDArray[np.int64], out: NDArray[Any] | None = None) -> Rows:
        """Return (M, D), a copy of `rows`, each in 0..N-1, in `out` if there is one: the way to read some of a mapped file."""
        if self.file is not None:
            return self.file.take(rows, out)
        # "clip": without it numpy makes a copy first
        return self.rows[rows] if out is None else np.take(self.rows, rows, axis=0, out=out, mode="clip")

    def passed(self) -> None:
        """Say that much of `rows` was read in passing, so that a mapped file is let go of."""
        if self.file is not None:
            self.file.let_go()

    @property
    def size(self) -> int:
        """N."""
        return self.rows.shape[0]

    @property
    def width(self) -> int:
        """D."""
        return self.rows.shape[1]

    @classmethod
    def from_rows(cls, rows: NDArray[Any]) -> Embeddings:
        """Return a copy of `rows`, (N, D) float16, float32 or float64 (rounded to float32).

        Raises:
            IndexMismatchError: another shape or type.
        """
        if rows.ndim != 2 or rows.shape[1] < 1 or rows.dtype.kind != "f":
            raise IndexMismatchError(f"Embeddings must be (N, D) of float16 or float32; got {rows.shape} of {rows.dtype}.")
        blocks = ((start, rows[start : start + _TILE]) for start in range(0, rows.shape[0], _TILE))
        return _filled(rows.shape[0], rows.shape[1], rows.dtype, blocks)


def load_embeddings(path: Path) -> Embeddings:
    """Return the embeddings in `path`: a Zarr zip store or folder, v2 or v3, an array (N, D) or a group with one called `embeddings`.

    Reads every chunk once; the file is opened read-only and closed again. N may be 0.

    Raises:
        CollectionError: nothing is there, or it is damaged.
        IndexMismatchError: an array of another shape or type.
    """
    array = find_array(path)
    embeddings = _filled(*array.shape, array.dtype, read_blocks(array))
    log_oddities(embeddings, path)
    return embeddings


def log_oddities(embeddings: Embeddings, path: Path) -> None:
    """Say in the log what is odd about embeddings read from `path`."""
    if not embeddings.normalised:
        lengths = embeddings.norms[~embeddings.unusable]
        logger.warning(
            "embeddings.not_unit file=%s rows=%d shortest=%.4g longest=%.4g", path, embeddings.size, lengths.min(), lengths.max()
        )
    if unusable := int(embeddings.unusable.sum()):
        logger.warning("embeddings.unusable file=%s rows=%d unusable=%d", path, embeddings.size, unusable)


def embeddings_shape(path: Path) -> tuple[int, int]:
    """Return (N, D) of the embeddings in `path` from its metadata alone. Raises what `load_embeddings` raises."""
    return find_array(path).shape


def _filled(size: int, width: int, dtype: np.dtype[Any], blocks: Iterable[tuple[int, NDArray[Any]]]) -> Embeddings:
    rows, norms = np.zeros((size, width), stored_type(dtype)), np.zeros(size, np.float64)
    filled = 0
    for block, lengths in measured(blocks, rows.dtype):
        rows[filled : filled + len(block)], norms[filled : filled + len(block)] = block, lengths
        filled += len(block)
    checked_count(filled, size)
    rows.flags.writeable = False
    return embeddings_of(rows, norms)


def stored_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type in which rows of `dtype` are kept: float16 as it is, anything else as float32."""
    return np.dtype(np.float16 if dtype.itemsize == 2 else np.float32)


def measured(blocks: Iterable[tuple[int, NDArray[Any]]], dtype: np.dtype[Any]) -> Iterator[tuple[NDArray[Any], NDArray[np.float64]]]:
    """Yield each of `blocks`, (first row, rows) in order, as `dtype`, with the length of each row."""
    for _, block in blocks:
        with np.errstate(over="ignore", invalid="ignore"):  # a float64 too large for float32 becomes infinite, hence unusable
            rows = block.astype(dtype, copy=False)
        norms = np.empty(len(rows), np.float64)
        for first in range(0, len(rows), _MEASURED_AT_ONCE):
            tile = rows[first : first + _MEASURED_AT_ONCE].astype(np.float64)
            norms[first : first + _MEASURED_AT_ONCE] = np.sqrt(np.einsum("ij,ij->i", tile, tile))
        yield rows, norms


def checked_count(filled: int, size: int) -> None:
    """Refuse embeddings of which rows are missing. Raises CollectionError."""
    if filled != size:
        raise CollectionError(f"Embeddings are damaged: {filled} of {size} rows could be read. Write the file again.")


def embeddings_of(rows: Rows, norms: NDArray[np.float64], file: RowFile | None = None) -> Embeddings:
    """Return `rows` with what follows from the length of each."""
    unusable = ~np.isfinite(norms) | (norms == 0)
    for array in (norms, unusable):
        array.flags.writeable = False
    return Embeddings(rows, norms, unusable, bool(np.all(np.abs(norms[~unusable] - 1) <= UNIT_TOLERANCE)), file)
