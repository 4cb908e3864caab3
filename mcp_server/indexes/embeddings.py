"""The vectors of a collection, read once into memory."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_server.errors import CollectionError, IndexMismatchError
from mcp_server.indexes.row_memory import RowMemory, Rows, row_memory
from mcp_server.indexes.zarr_files import find_array, read_blocks

logger = logging.getLogger(__name__)

UNIT_TOLERANCE = 1e-3
"""How far from 1 a length may be and still count as unit: float16 rounds each number by up to 2**-11 of itself."""
_TILE = 4096


@dataclass(frozen=True, eq=False)
class Embeddings:
    """N vectors of width D as they were stored. Nothing in it changes; safe to share between threads.

    Attributes:
        memory: the rows and a FAISS scanner over the same bytes.
        norms: (N,) float32, length of each row, summed in float64. Not finite where the row is not.
        unusable: (N,) bool, True for rows that are not finite or have no length.
        normalised: True when every usable row already has unit length, to within float16 rounding.
    """

    memory: RowMemory = field(repr=False)
    norms: NDArray[np.float32] = field(repr=False)
    unusable: NDArray[np.bool_] = field(repr=False)
    normalised: bool

    @property
    def rows(self) -> Rows:
        """(N, D) float16 or float32, read-only, the values as stored (float64 rounded to float32)."""
        return self.memory.rows

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
    if not embeddings.normalised:
        lengths = embeddings.norms[~embeddings.unusable]
        logger.warning(
            "embeddings.not_unit file=%s rows=%d shortest=%.4g longest=%.4g", path, embeddings.size, lengths.min(), lengths.max()
        )
    if unusable := int(embeddings.unusable.sum()):
        logger.warning("embeddings.unusable file=%s rows=%d unusable=%d", path, embeddings.size, unusable)
    return embeddings


def embeddings_shape(path: Path) -> tuple[int, int]:
    """Return (N, D) of the embeddings in `path` from its metadata alone. Raises what `load_embeddings` raises."""
    return find_array(path).shape


def _filled(size: int, width: int, dtype: np.dtype[Any], blocks: Iterable[tuple[int, NDArray[Any]]]) -> Embeddings:
    memory = row_memory(size, width, np.dtype(np.float16 if dtype.itemsize == 2 else np.float32))
    lengths = np.zeros(size, np.float64)
    filled = 0
    for start, block in blocks:
        with np.errstate(over="ignore", invalid="ignore"):  # a float64 too large for float32 becomes infinite, hence unusable
            memory.rows[start : start + len(block)] = block
        for first in range(start, start + len(block), _TILE):
            tile = memory.rows[first : min(first + _TILE, start + len(block))].astype(np.float64)
            lengths[first : first + len(tile)] = np.sqrt(np.einsum("ij,ij->i", tile, tile))
        filled += len(block)
    if filled != size:
        raise CollectionError(f"Embeddings are damaged: {filled} of {size} rows could be read. Write the file again.")
    unusable = ~np.isfinite(lengths) | (lengths == 0)
    with np.errstate(over="ignore"):
        norms = lengths.astype(np.float32)
    for array in (memory.rows, norms, unusable):
        array.flags.writeable = False
    return Embeddings(memory, norms, unusable, bool(np.all(np.abs(lengths[~unusable] - 1) <= UNIT_TOLERANCE)))
