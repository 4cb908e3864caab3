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
SKIPPED = np.float32(-1e30)
_ALLOWED = -1e29


@dataclass(frozen=True, eq=False)
class Estimates:
    """Estimated scores: `offset + factor * value`, off by at most `slack` + the row's own error, `errors` (0 where it is None).

    Attributes:
        values: (M,) float32, at most -1e29 for rows that must not be returned.
        rows: the row of each value, (L,) int64, L <= M, values beyond being no rows; None: value i is of row i.
        peaks: the maxima of `values` by group if there are whole blocks of them, else None.
        factor: above 0.
        errors: (N,) float32 by row, and `largest_error` the maximum of it.
    """

    values: NDArray[np.float32]
    rows: NDArray[np.int64] | None
    peaks: NDArray[np.float32] | None
    slack: float
    factor: float = 1.0
    offset: float = 0.0
    errors: NDArray[np.float32] | None = None
    largest_error: float = 0.0

    def highest(self, k: int) -> NDArray[np.int64]:
        """Return the `k` rows of highest estimate, or all that may be returned if they are fewer; in no order."""
        at = self._places(self._threshold(k))
        values = self.values[at]
        if len(values) > k:
            at = at[np.argpartition(values, len(values) - k)[len(values) - k :]]
        return self._rows_at(at)

    def floor(self, k: int) -> float:
        """Return a bound that the cosine of at least `k` rows reaches, where rows have no errors of their own and are `k` at least."""
        values = self.values[self._places(self._threshold(k))]
        return self.offset + self.factor * float(np.partition(values, len(values) - k)[len(values) - k]) - self.slack

    def contenders(self, floor: float) -> NDArray[np.int64]:
        """Return the rows whose cosine may reach `floor`: no other row does."""
        least = floor - self.slack - self.offset
        at = self._places((least - self.largest_error) / self.factor)
        rows = self._rows_at(at)
        if self.errors is None:
            return rows
        return rows[self.factor * self.values[at].astype(np.float64) + self.errors[rows] >= least]

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
