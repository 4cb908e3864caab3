"""Posting lists: for each of K owners (tags or values), the rows that have it.

Owners that many rows have, and stretches of neighbouring owners that many rows have together, keep those rows as bits as well. So the union
of any owners is a few operations on bits and a short list of rows, and the union of neighbours, a range of values, is never a long list.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_server.stores.bits import Bits, Mask, bits_of_rows, no_bits, words

Ints = NDArray[np.int64]
Rows = NDArray[np.signedinteger[Any]]

_SHARE = 32
"""A block has at least one row in so many, so its bits take at most as much memory as its rows."""
_GROUP = 8
_SHORT = 4_096
"""Stretches of up to so many rows on average are put together first."""
_LONG = 80
"""From so many rows on, a stretch is taken by itself in less time than together with others row by row."""


@dataclass(frozen=True)
class Blocks:
    """B stretches of neighbouring owners, ascending and apart, each with at least one row in 32, or a single such owner.

    Attributes:
        starts: (B,) int64, the first owner of each.
        stops: (B,) int64, the owner after its last.
        bits: (B, words) uint64, the rows that have any owner of the stretch.
    """

    starts: Ints
    stops: Ints
    bits: NDArray[np.uint64]

    def add(self, bits: Bits, chosen: Ints) -> None:
        """Add the rows of the blocks `chosen`, ascending and distinct, to `bits`.

        Eight neighbours from a multiple of eight on are added as one; their bits are kept once made, an eighth of the memory of `bits`.
        """
        for group, members in groupby(chosen.tolist(), lambda block: block // _GROUP):
            blocks = list(members)
            for part in [self._group(group)] if len(blocks) == _GROUP else (self.bits[block] for block in blocks):
                np.bitwise_or(bits, part, out=bits)

    def _group(self, at: int) -> Bits:
        found = self._groups.get(at)
        if found is None:
            found = np.bitwise_or.reduce(self.bits[at * _GROUP : (at + 1) * _GROUP], axis=0)
            self._groups[at] = found
        return found

    @cached_property
    def _groups(self) -> dict[int, Bits]:
        return {}


@dataclass(frozen=True)
class Postings:
    """K lists in one array. Takes 4 bytes for each pair of owner and row, up to 4 more for blocks, and 8 for each owner.

    Attributes:
        rows: (P,) int32 or int64; the rows of owner 0, then of owner 1, and so on; ascending and distinct within each.
        offsets: (K + 1,) int64; owner k has `rows[offsets[k]:offsets[k + 1]]`.
        blocks: stretches of owners whose rows are there as bits.
        row_count: N, how many rows there are in all.
    """

    rows: Rows
    offsets: Ints
    blocks: Blocks
    row_count: int

    @property
    def size(self) -> int:
        """K, how many owners there are."""
        return len(self.offsets) - 1

    def union(self, spans: Ints) -> Bits:
        """Return the rows that have any of some owners.

        Args:
            spans: (R, 2) int64, owners from the first up to, not including, the second; ascending and apart, as `spans_of` makes them.
        """
        if not len(spans):
            return no_bits(self.row_count)
        inside = self._blocks_inside(spans)
        # what is left between and beside the blocks: a stretch begins where a span does or a block ends
        starts = np.sort(np.concatenate((spans[:, 0], self.blocks.stops[inside])))
        stops = np.sort(np.concatenate((spans[:, 1], self.blocks.starts[inside])))
        bits = bits_of_rows(_stretches(self.rows, self.offsets[starts], self.offsets[stops]), self.row_count)
        self.blocks.add(bits, inside)
        return bits

    def counts(self, mask: Mask | None = None) -> Ints:
        """Return, for each owner, how many of its rows there are, or how many of them `mask` holds."""
        if mask is None:
            return np.diff(self.offsets)
        passed = np.zeros(len(self.rows) + 1, dtype=np.int64)
        np.cumsum(mask[self.rows], out=passed[1:])
        return np.diff(passed[self.offsets])

    def _blocks_inside(self, spans: Ints) -> Ints:
        """Return the blocks that lie wholly in one of `spans`."""
        span = np.searchsorted(spans[:, 0], self.blocks.starts, side="right") - 1
        return np.flatnonzero((span >= 0) & (spans[span, 1] >= self.blocks.stops))


def spans_of(slices: Ints) -> Ints:
    """Return slices, (S, 2) from and up to, in any order, as (R, 2) spans, ascending and apart; empty ones are left out."""
    slices = slices[slices[:, 0] < slices[:, 1]]
    if len(slices) < 2:
        return slices
    slices = slices[np.argsort(slices[:, 0])]
    reached = np.maximum.accumulate(slices[:, 1])
    breaks = np.flatnonzero(slices[1:, 0] > reached[:-1])
    return np.column_stack((slices[_after(breaks), 0], reached[_up_to(breaks, len(slices))]))


def spans_of_owners(owners: Ints) -> Ints:
    """Return owners, ascending and distinct, as (R, 2) spans."""
    if not len(owners):
        return np.zeros((0, 2), dtype=np.int64)
    breaks = np.flatnonzero(np.diff(owners) != 1)
    return np.column_stack((owners[_after(breaks)], owners[_up_to(breaks, len(owners))] + 1))


def _after(breaks: Ints) -> Ints:
    """Return where stretches begin that end at `breaks`."""
    return np.concatenate(([0], breaks + 1))


def _up_to(breaks: Ints, count: int) -> Ints:
    """Return where stretches of `count` in all end."""
    return np.concatenate((breaks, [count - 1]))


def build_postings(owners: Ints, rows: Ints, owner_count: int, row_count: int) -> Postings:
    """Return the posting lists of (owner, row) pairs in any order; pairs may repeat. Takes O(P log P) time."""
    # one sortable number for a pair; 2**63 is far above owners times rows
    pairs = owners * max(row_count, 1) + rows
    # sorting and dropping repeats by hand: np.unique hashes, which takes several times as long here
    pairs.sort()
    pairs = pairs[np.concatenate((np.ones(min(len(pairs), 1), dtype=np.bool_), pairs[1:] != pairs[:-1]))]
    owner, row = np.divmod(pairs, max(row_count, 1))
    offsets = np.searchsorted(owner, np.arange(owner_count + 1, dtype=np.int64))
    narrow = row.astype(np.int32 if row_count < 2**31 else np.int64)
    return Postings(narrow, offsets.astype(np.int64), _blocks(narrow, offsets, row_count), row_count)


def _blocks(rows: Rows, offsets: Ints, row_count: int) -> Blocks:
    least = max(1, row_count // _SHARE)
    common = np.flatnonzero(np.diff(offsets) >= least)
    starts: list[int] = []
    stops: list[int] = []
    start, last = 0, len(offsets) - 1
    while start < last:
        stop = int(np.searchsorted(offsets, offsets[start] + least))
        next_common = int(np.searchsorted(common, start))
        if next_common < len(common) and common[next_common] < stop:
            # a common owner is a block by itself, so that it alone can be asked for; what comes before it is too little for one
            start = int(common[next_common])
            stop = start + 1
        if stop > last:
            break
        starts.append(start)
        stops.append(stop)
        start = stop
    bits = [bits_of_rows([rows[offsets[start] : offsets[stop]]], row_count) for start, stop in zip(starts, stops, strict=True)]
    stacked = np.stack(bits) if bits else np.zeros((0, words(row_count)), dtype=np.uint64)
    return Blocks(np.array(starts, dtype=np.int64), np.array(stops, dtype=np.int64), stacked)


def _stretches(rows: Rows, starts: Ints, stops: Ints) -> list[Rows]:
    """Return `rows[start:stop]` of all pairs of `starts` and `stops`, many short ones put together; none for empty ones."""
    filled = starts < stops
    starts, stops = starts[filled], stops[filled]
    counts = stops - starts
    total = int(counts.sum())
    if len(starts) * _LONG <= max(total, 64 * _LONG):
        parts = [rows[start:stop] for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
        return [np.concatenate(parts)] if len(parts) > 1 and total <= len(parts) * _SHORT else parts
    steps = np.ones(total, dtype=np.int64)
    steps[0] = starts[0]
    steps[np.cumsum(counts)[:-1]] = starts[1:] - stops[:-1] + 1
    return [rows[np.cumsum(steps, out=steps)]]
