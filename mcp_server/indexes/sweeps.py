"""Passes over many rows that estimate their scores: over the rows themselves or over their codes, picked out or one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_server.indexes import lanes
from mcp_server.indexes.codes import CodedQuery, Codes
from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.estimates import BLOCK, SKIPPED, Estimates, peaks_of
from mcp_server.indexes.kernels import UNIT_ROUNDOFF, dots, rounding
from mcp_server.indexes.scoring import cosines

_TILE = 512
_PIECE = 4_096
"""Rows picked out at a time by one thread."""
_STRETCH = 1_024
"""A scan passes over so many skipped rows in a row without looking at them."""
_SAFE = (2.0**-100, 2.0**100)
"""Lengths of rows whose products with a unit query neither vanish nor overflow in float32."""

Finish = Callable[[NDArray[np.float32], slice], None]


@dataclass(frozen=True, eq=False)
class Occupied:
    """Where a scan must look.

    Attributes:
        stretches: (ceil(N / 1024),) bool, True where a stretch of rows has one that may be returned.
        rows: how many rows are in those stretches.
    """

    stretches: NDArray[np.bool_]
    rows: int


def occupied_stretches(skip: NDArray[np.bool_]) -> Occupied:
    """Return where `skip`, (N,) bool, is False."""
    whole = len(skip) // _STRETCH * _STRETCH
    stretches = np.empty(-(-len(skip) // _STRETCH), np.bool_)
    words = skip[:whole].view(np.uint64).reshape(-1, _STRETCH // 8)
    stretches[: len(words)] = np.bitwise_and.reduce(words, axis=1) != np.uint64(0x0101010101010101)
    if whole < len(skip):
        stretches[-1] = not skip[whole:].all()
    return Occupied(stretches, min(int(np.count_nonzero(stretches)) * _STRETCH, len(skip)))


class RowSweep:
    """Estimates from the rows as stored: float32 sums, the query in the type of the rows."""

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings
        usable = embeddings.norms[~embeddings.unusable]
        self._all_usable = len(usable) == embeddings.size
        self._is_safe = not len(usable) or bool(_SAFE[0] <= usable.min() and usable.max() <= _SAFE[1])
        with np.errstate(over="ignore"):  # of lengths that are not safe, and then not used
            inverse = np.where(embeddings.unusable, 0, 1 / np.where(embeddings.unusable, 1, embeddings.norms))
            self._inverse = inverse.astype(np.float32)

    def gathered(self, unit: NDArray[np.float64], rows: NDArray[np.int64]) -> Estimates:
        """Return estimates of `rows`, usable ones, for the query `unit`."""
        if not self._is_safe:
            return Estimates(cosines(self._embeddings, rows, unit), rows, 2 * UNIT_ROUNDOFF)
        query, slack = self._query(unit)
        values = np.empty(len(rows), np.float32)
        _gather(query, self._embeddings.rows, rows, values)
        self._embeddings.looked_at(rows)
        values *= self._inverse[rows]
        return Estimates(values, rows, slack)

    def scanned(self, unit: NDArray[np.float64], skip: NDArray[np.bool_], occupied: Occupied) -> Estimates:
        """Return estimates of all rows, skipped and unusable ones (which `skip` must hold) marked."""
        if not self._is_safe:
            return self.gathered(unit, np.flatnonzero(~skip))
        query, slack = self._query(unit)

        def finish(values: NDArray[np.float32], rows: slice) -> None:
            if not self._all_usable:
                values[self._embeddings.unusable[rows]] = 0  # else NaN, which no mask can cover
            values *= self._inverse[rows]

        values, peaks = _scan(query, self._embeddings.rows, skip, occupied, finish)
        self._embeddings.looked_at(slice(0, self._embeddings.size))
        return Estimates(values, None, slack, peaks)

    def _query(self, unit: NDArray[np.float64]) -> tuple[NDArray[Any], float]:
        """Return the query in the type of the rows, and by how much an estimate may be off.

        |<p, x> - <q, x>| <= |p - q| |x| for the rounded query p; then the sum's own rounding; then that of x / |x| and of a cosine.
        """
        query = unit.astype(self._embeddings.rows.dtype)
        wide = query.astype(np.float64)
        missed, length = float(np.linalg.norm(wide - unit)), float(np.linalg.norm(wide))
        return query, missed + rounding(len(unit)) * length + 6 * UNIT_ROUNDOFF


class CodeSweep:
    """Estimates from codes of one byte a number."""

    def __init__(self, codes: Codes) -> None:
        self.codes = codes

    def gathered(self, query: CodedQuery, rows: NDArray[np.int64]) -> Estimates:
        """Return estimates of `rows`."""
        values = np.empty(len(rows), np.float32)
        _gather(query.code, self.codes.codes, rows, values)
        values *= self.codes.scale[rows] * np.float32(query.factor)
        values += np.float32(query.offset)
        return Estimates.coded(self.codes, query.slack, values, rows, None)

    def scanned(self, query: CodedQuery, skip: NDArray[np.bool_], occupied: Occupied) -> Estimates:
        """Return estimates of all rows, those in `skip` marked."""
        factor, offset, scale = np.float32(query.factor), np.float32(query.offset), self.codes.scale

        def finish(values: NDArray[np.float32], rows: slice) -> None:
            values *= scale[rows]
            values *= factor
            values += offset

        values, peaks = _scan(query.code, self.codes.codes, skip, occupied, finish)
        return Estimates.coded(self.codes, query.slack, values, None, peaks)


def _gather(query: NDArray[Any], table: NDArray[Any], rows: NDArray[np.int64], out: NDArray[np.float32]) -> None:
    """Write the product of `query` with each of `rows` of `table` to `out`."""

    def piece(start: int) -> None:
        tile = np.empty((min(_TILE, len(rows)), table.shape[1]), table.dtype)
        for first in range(start, min(start + _PIECE, len(rows)), _TILE):
            some = rows[first : first + _TILE]
            picked = tile[: len(some)]
            np.take(table, some, axis=0, out=picked, mode="clip")  # "clip": without it numpy makes a copy first
            dots(query, picked, out[first : first + len(some)])

    lanes.each(piece, range(0, len(rows), _PIECE))


def _scan(
    query: NDArray[Any], table: NDArray[Any], skip: NDArray[np.bool_], occupied: Occupied, finish: Finish
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the products of `query` with all rows of `table`, made scores by `finish`, in whole blocks, and the maxima by group."""
    size = len(table)
    blocks = -(-size // BLOCK)
    values = np.empty(blocks * BLOCK, np.float32)
    peaks = np.empty((blocks, len(peaks_of(values[:BLOCK]))), np.float32)

    def block(number: int) -> None:
        first = number * BLOCK
        last = min(first + BLOCK, size)
        here = values[first : first + BLOCK]
        stretches = occupied.stretches[first // _STRETCH : -(-last // _STRETCH)]
        if not stretches.any():
            here[:] = SKIPPED
            peaks[number] = SKIPPED
            return
        if last - first == BLOCK and stretches.all():
            dots(query, table[first:last], here)
        else:
            here[:] = 0
            for start, stop in _runs(stretches):
                some = slice(first + start * _STRETCH, min(first + stop * _STRETCH, last))
                dots(query, table[some], values[some])
        finish(here[: last - first], slice(first, last))
        # adding is several times quicker than writing where a mask says so
        here[: last - first] += np.multiply(skip[first:last].view(np.int8), SKIPPED, dtype=np.float32)
        here[last - first :] = SKIPPED
        peaks[number] = peaks_of(here)

    lanes.each(block, range(blocks))
    return values, peaks.ravel()


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the stretches of True, from and up to."""
    edges = np.flatnonzero(np.diff(flags.view(np.int8), prepend=0, append=0))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
