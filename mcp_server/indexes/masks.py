"""What a mask lets through: how many rows, in which stretches, and which ones. One pass over the mask, the rest over one bit a row."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

STRETCH = 1_024
"""A scan passes over so many skipped rows in a row without looking at them."""
LONG_RUN = 64
"""From so many rows that follow each other on, looking at them where they lie is quicker than picking them out first."""
_WORD = 64
_ALL = np.uint64(2**64 - 1)
_FEW = 8
"""Where no more than one row in so many is let through, rows hardly follow each other, bytes of skipped rows are passed over,"""
_SPARSE = 64
"""and here words of them first."""
_LONG = 2**16
"""In a shorter mask that takes more time than it saves."""


@dataclass(frozen=True, eq=False)
class Occupied:
    """Where a scan must look.

    Attributes:
        stretches: (ceil(N / 1024),) bool, True where a stretch of rows has one that may be returned.
        rows: how many rows are in those stretches.
    """

    stretches: NDArray[np.bool_]
    rows: int


class Allowed:
    """The rows that `skip`, (N,) bool, lets through. `skip` must not change meanwhile."""

    def __init__(self, skip: NDArray[np.bool_]) -> None:
        """Look at `skip` once."""
        self._skip = skip
        bits = np.packbits(skip, bitorder="little")
        self._words = np.full(-(-len(skip) // STRETCH) * STRETCH // _WORD, _ALL)  # what is beyond the end counts as skipped
        self._words.view(np.uint8)[: len(bits)] = bits
        if len(skip) % 8:
            self._words.view(np.uint8)[len(bits) - 1] |= np.uint8(0xFF << len(skip) % 8 & 0xFF)
        self.count = len(self._words) * _WORD - int(np.bitwise_count(self._words).sum(dtype=np.int64))

    @cached_property
    def occupied(self) -> Occupied:
        """Stretches that have such a row."""
        stretches = np.bitwise_and.reduce(self._words.reshape(-1, STRETCH // _WORD), axis=1) != _ALL
        return Occupied(stretches, min(int(np.count_nonzero(stretches)) * STRETCH, len(self._skip)))

    @cached_property
    def runs(self) -> int:
        """Of how many runs of rows that follow each other they consist."""
        begins = self._words << np.uint64(1)  # by what comes before each row: a skipped one
        begins[:1] |= np.uint64(1)
        begins[1:] |= self._words[:-1] >> np.uint64(_WORD - 1)
        begins &= ~self._words
        return int(np.bitwise_count(begins).sum(dtype=np.int64))

    @property
    def are_in_runs(self) -> bool:
        """Whether most of them follow each other for so long that they are best looked at where they lie."""
        return self.count * _FEW > self.occupied.rows and self.runs * LONG_RUN < self.count

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """The rows, (count,) int64, ascending."""
        if self.count > len(self._skip) // _FEW or len(self._skip) < _LONG:
            return np.flatnonzero(~self._skip)
        # from words to bytes to bits, each time only those that let something through; always of bools, for which numpy has a quick way
        kept = ~self._words
        words = np.flatnonzero(kept != 0) if self.count < len(self._skip) // _SPARSE else None
        some = (kept if words is None else kept[words]).view(np.uint8)
        at = np.flatnonzero(some != 0)
        here = np.flatnonzero(np.unpackbits(some[at], bitorder="little").view(np.bool_))
        eights = at if words is None else _WORD // 8 * words[at >> 3] + (at & 7)
        return 8 * eights[here >> 3] + (here & 7)
