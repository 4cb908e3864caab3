"""Passes over many rows that estimate their scores: over the rows themselves or over their codes, picked out or one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_server.indexes import lanes
from mcp_server.indexes.code_table import CodedQuery
from mcp_server.indexes.codes import Codes
from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.estimates import BLOCK, GROUP, SKIPPED, Estimates, peaks_of, room_for
from mcp_server.indexes.kernels import UNIT_ROUNDOFF, dots, rounding
from mcp_server.indexes.masks import LONG_RUN, STRETCH, Allowed, Occupied
from mcp_server.indexes.picked import Picked
from mcp_server.indexes.projections import Projections
from mcp_server.indexes.scoring import cosines
from mcp_server.indexes.spare import Spare

_TILE_BYTES = 2**19
"""Rows are picked out so many bytes at a time: they stay in a core's cache, and the threads seldom wait for the interpreter."""
_ALONE_BYTES = 2**22
"""Less is picked out by one thread: it is done before another one would be of use."""
_BLOCKS_AT_ONCE = 4
"""A scan's values of so many blocks fit into the cache of a core until their maxima are taken."""
_PIECES = 8
"""Long passes have at least so many pieces if they have so many blocks or tiles, so that both threads are busy to the end."""
_SAFE = (2.0**-100, 2.0**100)
"""Lengths of rows whose products with a unit query neither vanish nor overflow in float32."""

_spare = Spare(lanes.LANES)

Weigh = Callable[[NDArray[np.float32], slice, NDArray[np.float32]], None]
"""Makes values of sums: takes the sums of a stretch of rows, the stretch, and where the values go."""


@dataclass(frozen=True, eq=False)
class Scope:
    """Which rows a sweep is over.

    Attributes:
        skip: (N,) bool, rows that must not be returned, unusable ones among them.
        allowed: what it lets through.
        rows: (M,) int64, the rows to pick out; None: all are scanned.
    """

    skip: NDArray[np.bool_]
    allowed: Allowed
    rows: NDArray[np.int64] | None

    def narrowed(self, rows: NDArray[np.int64], gather: float, scan: float) -> Scope:
        """Return what is quicker, by what a row costs: to pick out `rows`, some of these, or to scan all."""
        return replace(self, rows=None if len(rows) * gather > self.allowed.occupied.rows * scan else rows)


class Picker:
    """Picks rows of a table. Safe to use from several threads."""

    def __init__(self, table: NDArray[Any]) -> None:
        self._table = table

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self._table.shape[1] * self._table.itemsize

    def parts(self, rows: NDArray[np.int64]) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Yield which of `rows`, and these rows of the table, good until the next are asked for."""
        ends = np.flatnonzero(np.diff(rows) != 1) + 1
        if len(ends) * LONG_RUN < len(rows):  # most follow each other
            for first, stop in pairwise([0, *ends.tolist(), len(rows)]):
                yield slice(first, stop), self._table[rows[first] : rows[first] + stop - first]
            return
        # "clip": without it numpy makes a copy first
        yield from _tiles(self._table, rows, lambda some, out: np.take(self._table, some, axis=0, out=out, mode="clip"))


class FilePicker:
    """Reads rows from a file, so that little of it stays mapped."""

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self._embeddings.width * self._embeddings.rows.itemsize

    def parts(self, rows: NDArray[np.int64]) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Yield which of `rows`, and these rows, good until the next are asked for."""
        yield from _tiles(self._embeddings.rows, rows, self._embeddings.take)


class RowSweep:
    """Estimates from the rows as stored: float32 sums, the query in the type of the rows."""

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings
        self._picker = Picker(embeddings.rows) if embeddings.file is None else FilePicker(embeddings)
        usable = embeddings.norms[~embeddings.unusable]
        self._all_usable = len(usable) == embeddings.size
        self._is_safe = not len(usable) or bool(_SAFE[0] <= usable.min() and usable.max() <= _SAFE[1])
        with np.errstate(over="ignore"):  # of lengths that are not safe, and then not used
            inverse = np.where(embeddings.unusable, 0, 1 / np.where(embeddings.unusable, 1, embeddings.norms))
            self._inverse = inverse.astype(np.float32)

    def estimates(self, unit: NDArray[np.float64], scope: Scope) -> Estimates:
        """Return estimates over `scope` for the query `unit`, (D,) of unit length."""
        if scope.rows is not None:
            return self.gathered(unit, scope.rows)
        return self.scanned(unit, scope.skip, scope.allowed.occupied)

    def gathered(self, unit: NDArray[np.float64], rows: NDArray[np.int64]) -> Estimates:
        """Return estimates of `rows`, usable ones."""
        if not self._is_safe:
            return Estimates(cosines(self._embeddings, rows, unit), rows, None, 2 * UNIT_ROUNDOFF)
        query, slack = self._query(unit)
        (values,) = _gather((query,), self._picker, rows)
        values *= self._inverse[rows]
        return Estimates(values, rows, None, slack)

    def estimates_of(self, unit: NDArray[np.float64], picked: Picked) -> Estimates:
        """Return what `gathered` returns for rows that have been read."""
        if not self._is_safe:
            return self.gathered(unit, picked.rows)
        query, slack = self._query(unit)
        return Estimates(dots(query, picked.stored) * self._inverse[picked.rows], picked.rows, None, slack)

    def scanned(self, unit: NDArray[np.float64], skip: NDArray[np.bool_], occupied: Occupied) -> Estimates:
        """Return estimates of all rows, skipped and unusable ones (which `skip` must hold) marked."""
        if not self._is_safe:
            return self.gathered(unit, np.flatnonzero(~skip))
        query, slack = self._query(unit)

        def weigh(sums: NDArray[np.float32], rows: slice, out: NDArray[np.float32]) -> None:
            with np.errstate(invalid="ignore"):  # of unusable rows; here, since each thread has a state of its own
                np.multiply(sums, self._inverse[rows], out=out)
            if not self._all_usable:
                out[self._embeddings.unusable[rows]] = 0  # else NaN, which no mask can cover

        values, peaks = _scan(query, self._embeddings.rows, skip, occupied, weigh)
        self._embeddings.passed()
        return Estimates(values, None, peaks, slack)

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

    def __init__(self, codes: Codes | Projections) -> None:
        self._query = codes.query
        self._table = codes.table
        self._picker = Picker(codes.table.codes)

    def query(self, unit: NDArray[np.float64]) -> CodedQuery:
        """Return the query `unit`, (D,) of unit length, in the terms of the codes."""
        return self._query(unit)

    def estimates(self, query: CodedQuery, scope: Scope) -> Estimates:
        """Return estimates over `scope`."""
        return self.gathered(query, scope.rows) if scope.rows is not None else self.scanned(query, scope.skip, scope.allowed.occupied)

    def gathered(self, query: CodedQuery, rows: NDArray[np.int64]) -> Estimates:
        """Return estimates of `rows`."""
        (sums,) = _gather((query.code,), self._picker, rows)
        if len(rows) < BLOCK:
            self._weigh(query, sums, rows, sums)
            return _upper(query, sums, rows, None)
        values = room_for(len(rows))
        self._weigh(query, sums, rows, values[: len(rows)])
        return _upper(query, values, rows, peaks_of(values))

    def finer(self, query: CodedQuery, rows: NDArray[np.int64]) -> Estimates:
        """Return estimates of `rows` that do not suffer from the query's own rounding, for twice the sums."""
        rest, rest_factor, slack = query.rest
        sums, rest_sums = _gather((query.code, rest), self._picker, rows)
        sums += rest_sums * np.float32(rest_factor / query.factor)
        self._weigh(query, sums, rows, sums)
        return replace(_upper(query, sums, rows, None), slack=slack)

    def scanned(self, query: CodedQuery, skip: NDArray[np.bool_], occupied: Occupied) -> Estimates:
        """Return estimates of all rows, those in `skip` marked."""

        def weigh(sums: NDArray[np.float32], rows: slice, out: NDArray[np.float32]) -> None:
            self._weigh(query, sums, rows, out)

        values, peaks = _scan(query.code, self._table.codes, skip, occupied, weigh)
        return _upper(query, values, None, peaks)

    def _weigh(self, query: CodedQuery, sums: NDArray[np.float32], rows: slice | NDArray[np.int64], out: NDArray[np.float32]) -> None:
        """Put into `out` how high, in the query's factor, each of `rows` may score."""
        np.multiply(sums, self._table.scale[rows], out=out)
        out += self._table.margin[rows] * np.float32(query.margin_factor / query.factor)
        if self._table.along is not None:
            out += self._table.along[rows] * np.float32(query.along_factor / query.factor)


def _upper(query: CodedQuery, values: NDArray[np.float32], rows: NDArray[np.int64] | None, peaks: NDArray[np.float32] | None) -> Estimates:
    return Estimates(values, rows, peaks, query.slack, query.factor, query.offset, both_ways=False)


def _at_once(row_bytes: int) -> int:
    """Return how many rows are picked out at a time."""
    return max(1, _TILE_BYTES // row_bytes)


def _tiles(
    table: NDArray[Any], rows: NDArray[np.int64], read: Callable[[NDArray[np.int64], NDArray[Any]], NDArray[Any]]
) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Yield which of `rows`, and these rows of `table`, which `read` puts into memory that is used again."""
    row_bytes = table.shape[1] * table.itemsize
    at_once = _at_once(row_bytes)
    memory = _spare.take(at_once * row_bytes)
    tile = memory[: at_once * row_bytes].view(table.dtype).reshape(at_once, -1)
    for first in range(0, len(rows), at_once):
        some = rows[first : first + at_once]
        yield slice(first, first + len(some)), read(some, tile[: len(some)])
    _spare.give_back(memory)


def _gather(queries: tuple[NDArray[Any], ...], picker: Picker | FilePicker, rows: NDArray[np.int64]) -> list[NDArray[np.float32]]:
    """Return, for each query, its products with `rows`."""
    sums = [np.empty(len(rows), np.float32) for _ in queries]
    tile = _at_once(picker.row_bytes)
    at_once = tile * max(1, len(rows) // (tile * _PIECES))
    if len(rows) * picker.row_bytes < _ALONE_BYTES:
        at_once = max(1, len(rows))

    def piece(start: int) -> None:
        here = [out[start : start + at_once] for out in sums]
        for some, picked in picker.parts(rows[start : start + at_once]):
            for query, out in zip(queries, here, strict=True):
                out[some] = dots(query, picked)

    lanes.each(piece, range(0, len(rows), at_once))
    return sums


def _scan(
    query: NDArray[Any], table: NDArray[Any], skip: NDArray[np.bool_], occupied: Occupied, weigh: Weigh
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the products of `query` with all rows of `table`, made values by `weigh`, and their maxima by group."""
    size = len(table)
    values = room_for(size)
    peaks = np.empty(len(values) // GROUP, np.float32)
    step = BLOCK * max(1, min(_BLOCKS_AT_ONCE, size // (_PIECES * BLOCK)))

    def blocks(first: int) -> None:
        last = min(first + step, size)
        here = values[first:last]
        stretches = occupied.stretches[first // STRETCH : -(-last // STRETCH)]
        if not stretches.any():
            here[:] = SKIPPED
            peaks[first // GROUP : (first + step) // GROUP] = SKIPPED
            return
        if stretches.all():
            weigh(dots(query, table[first:last]), slice(first, last), here)
        else:
            here[:] = SKIPPED
            for start, stop in _runs(stretches):
                some = slice(first + start * STRETCH, min(first + stop * STRETCH, last))
                weigh(dots(query, table[some]), some, values[some])
        skipped = skip[first:last]
        if skipped.any():
            # adding is several times quicker than writing where a mask says so
            here += np.multiply(skipped.view(np.int8), SKIPPED, dtype=np.float32)
        peaks[first // GROUP : (first + step) // GROUP] = peaks_of(values[first : first + step])

    lanes.each(blocks, range(0, size, step))
    return values, peaks


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the stretches of True, from and up to."""
    edges = np.flatnonzero(np.diff(flags.view(np.int8), prepend=0, append=0))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
