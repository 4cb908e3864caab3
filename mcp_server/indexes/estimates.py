"""Scores with a known error, and what is left to look at closely: the rows that could be among the best k, and no others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK = 8_192
"""Values come in whole blocks, of whose groups the maxima are taken."""
GROUP = 16
"""Rows of a group: `BLOCK / GROUP` apart from each other, which is the quickest way to take maxima."""
_STRIDE = BLOCK // GROUP
_WIDER = 4
_SPARSE = 64
"""To look into one group costs as much as to pass over so many."""
SKIPPED = np.float32(-1e30)
_ALLOWED = -1e29
_NONE: NDArray[np.float64] = np.empty(0)


@dataclass(frozen=True, eq=False)
class Estimates:
    """Estimated scores: no cosine is above `offset + factor * value + slack`.

    Attributes:
        values: (M,) float32, at most -1e29 for rows that must not be returned.
        rows: the row of each value, (L,) int64, L <= M, values beyond being no rows; None: value i is of row i.
        peaks: the maxima of `values` by group if there are whole blocks of them, else None.
        factor: above 0.
        both_ways: whether no cosine is below `offset + factor * value - slack` either.
    """

    values: NDArray[np.float32]
    rows: NDArray[np.int64] | None
    peaks: NDArray[np.float32] | None
    slack: float
    factor: float = 1.0
    offset: float = 0.0
    both_ways: bool = True

    def highest(self, k: int) -> NDArray[np.int64]:
        """Return the `k` rows of highest estimate, or all that may be returned if they are fewer; in no order."""
        at = self._places(self._threshold(k))
        values = self.values[at]
        if len(values) > k:
            at = at[np.argpartition(values, len(values) - k)[len(values) - k :]]
        return self._rows_at(at)

    def floor(self, k: int, reached: NDArray[np.float64] = _NONE) -> float:
        """Return a bound that the cosine of at least `k` rows reaches, where estimates are good both ways.

        `reached` is what cosines of other rows are at least; with those there must be `k` rows.
        """
        assert self.both_ways
        values = self.values[self._places(self._threshold(k))]
        if not len(reached):
            return self.offset + self.factor * float(np.partition(values, len(values) - k)[len(values) - k]) - self.slack
        lowest = np.concatenate((reached, self.offset + self.factor * values.astype(np.float64) - self.slack))
        return float(np.partition(lowest, len(lowest) - k)[len(lowest) - k])

    def contenders(self, floor: float) -> NDArray[np.int64]:
        """Return the rows whose cosine may reach `floor`: no other row does."""
        return self._rows_at(self._places((floor - self.slack - self.offset) / self.factor))

    def _threshold(self, k: int) -> float:
        """Return a value that at least `k` values reach, and not many more; below all of them when there are not so many."""
        if self.peaks is None:
            return _ALLOWED
        # maxima of maxima: fewer to sort, and k of them are still k different rows
        wide = self.peaks.reshape(-1, _WIDER, _STRIDE // _WIDER).max(axis=1).ravel()
        some = wide if len(wide) > k else self.values
        return float(np.partition(some, len(some) - k)[len(some) - k]) if len(some) > k else _ALLOWED

    def _places(self, least: float) -> NDArray[np.int64]:
        """Return where values are at least `least`."""
        bound = max(np.nextafter(np.float32(least), np.float32(-np.inf)), np.float32(_ALLOWED))
        if self.peaks is None:
            return np.flatnonzero(self.values >= bound)
        groups = np.flatnonzero(self.peaks >= bound)
        if len(groups) * _SPARSE > len(self.peaks):
            return np.flatnonzero(self.values >= bound)
        firsts = groups // _STRIDE * BLOCK + groups % _STRIDE
        at = (firsts[:, None] + np.arange(0, BLOCK, _STRIDE)).ravel()
        return at[self.values[at] >= bound]

    def _rows_at(self, at: NDArray[np.int64]) -> NDArray[np.int64]:
        return at if self.rows is None else self.rows[at]


def room_for(count: int) -> NDArray[np.float32]:
    """Return room for `count` values in whole blocks, what is too much of it marked as skipped."""
    values = np.empty(-(-count // BLOCK) * BLOCK, np.float32)
    values[count:] = SKIPPED
    return values


def peaks_of(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the maxima by group of whole blocks."""
    return block.reshape(-1, GROUP, _STRIDE).max(axis=1).ravel()
