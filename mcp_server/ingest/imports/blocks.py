"""Looks at vectors as they pass: which cannot be used, and which have not unit length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_server.errors import IngestError
from mcp_server.indexes.embeddings import UNIT_TOLERANCE
from mcp_server.ingest.imports.vectors import Block, VectorSource
from mcp_server.ingest.write_archives import stored_dtype

_TILE = 4096


class CheckedVectors:
    """The blocks of a source, made ready to be stored, and what was found in them. Read once, by one thread.

    Attributes:
        dtype: in which they are to be stored: float32, or float16 from 100,000 rows on; as brought when they are not normalised.
        unusable: (N,) bool, True for rows that are not finite or have no length.
        not_unit: how many usable rows had another length than 1.
    """

    def __init__(self, source: VectorSource, *, normalise: bool, progress: Callable[[int, int], None] | None = None) -> None:
        self.dtype = stored_dtype(source.count)
        if not normalise and self.dtype is np.float16 and source.dtype.itemsize > 2:
            self.dtype = np.float32  # float16 ends at 65,504, and vectors of any length may be longer
        self.unusable: NDArray[np.bool_] = np.zeros(source.count, np.bool_)
        self.not_unit = 0
        self._source = source
        self._normalise = normalise
        self._progress = progress

    def blocks(self) -> Iterator[Block]:
        """Yield the rows in order: unit length when normalising, zeros in the place of rows that are not finite.

        Raises:
            IngestError: a file is damaged, or no row at all can be used.
        """
        for start, block in self._source.blocks():
            for at in range(0, len(block), _TILE):
                yield self._checked(start + at, block[at : at + _TILE])
            if self._progress is not None:
                self._progress(start + len(block), self._source.count)
        if self.unusable.all():
            raise IngestError(f"None of the {self._source.count:,} vectors can be used: each is all zeros, or has NaN or infinity in it.")

    def _checked(self, start: int, tile: Block) -> Block:
        wide: NDArray[Any] = tile.astype(np.float64)
        lengths = np.sqrt(np.einsum("nd,nd->n", wide, wide))
        usable = np.isfinite(lengths) & (lengths > 0)
        off = usable & (np.abs(lengths - 1) > UNIT_TOLERANCE)
        self.unusable[start : start + len(tile)] = ~usable
        self.not_unit += int(off.sum())
        if usable.all() and not (self._normalise and off.any()):
            return tile
        rows = wide.astype(np.float32)
        if self._normalise:
            rows[off] = wide[off] / lengths[off, np.newaxis]
        rows[~usable] = 0
        return rows
