"""Scores with a known error, and what is left to look at closely: the rows that could be among the best k, and no others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcp_server.indexes.codes import Codes

BLOCK = 32_768
"""Rows scanned at a time. The maxima of a block's groups are taken as soon as it is scored, while it is in the cache."""
GROUP = 64
"""Rows of a group: `BLOCK / GROUP` apart from each other, which is the quickest way to take maxima."""
_STRIDE = BLOCK // GROUP
SKIPPED = np.float32(-1e30)
_ALLOWED = np.float32(-1e29)
_SORTED_AT_ONCE = 16_384


@dataclass(frozen=True, eq=False)
class Estimates:
    """Estimated scores. For each row, |value - cosine| <= `slack` + the row's own error, `errors` (0 where it is None).

    Attributes:
        values: (M,) float32, at most -1e29 for rows that must not be returned.
        rows: (M,) int64, the row of each value; None: value i is of row i, and M is a multiple of `BLOCK`.
        peaks: the maxima of `values` by group, of a scan; None of a gather.
        errors: (N,) float32 by row, and `largest_error` the maximum of it.
    """

    values: NDArray[np.float32]
    rows: NDArray[np.int64] | None
    slack: float
    peaks: NDArray[np.float32] | None = None
    errors: NDArray[np.float32] | None = None
    largest_error: float = 0.0

    @classmethod
    def coded(
        cls, codes: Codes, slack: float, values: NDArray[np.float32], rows: NDArray[np.int64] | None, peaks: NDArray[np.float32] | None
    ) -> Estimates:
        """Return estimates made from `codes`, whose rows differ in how far they may be off."""
        return cls(values, rows, slack, peaks, codes.error, codes.largest_error)

    def highest(self, k: int) -> NDArray[np.int64]:
        """Return the `k` rows of highest value, or all that may be returned if they are fewer; in no order."""
        at = self._places(self._threshold(k))
        values = self.values[at]
        if len(values) > k:
            at = at[np.argpartition(values, len(values) - k)[len(values) - k :]]
        return self._rows_at(at)

    def floor(self, k: int) -> float:
        """Return a bound that the cosine of at least `k` rows reaches, rows of one error only; `k` is at most the rows there are."""
        values = self.values if self.rows is not None else self.values[self._places(self._threshold(k))]
        return float(np.partition(values, len(values) - k)[len(values) - k]) - self.slack

    def contenders(self, floor: float) -> NDArray[np.int64]:
        """Return the rows whose cosine may reach `floor`: no other row does."""
        least = np.nextafter(np.float32(floor - self.slack), np.float32(-np.inf))
        if self.errors is None:
            return self._rows_at(self._places(least))
        at = self._places(np.float32(least - self.largest_error))
        rows = self._rows_at(at)
        return rows[self.values[at] + self.errors[rows] >= least]

    def _threshold(self, k: int) -> np.float32:
        """Return a value that at least `k` values reach, and few others; below all of them when there are not so many."""
        if self.peaks is not None and len(self.peaks) > k:
            return max(np.partition(self.peaks, len(self.peaks) - k)[len(self.peaks) - k], _ALLOWED)
        if len(self.values) > max(k, _SORTED_AT_ONCE):
            return max(np.partition(self.values, len(self.values) - k)[len(self.values) - k], _ALLOWED)
        return _ALLOWED

    def _places(self, least: np.float32) -> NDArray[np.int64]:
        """Return where values are at least `least`."""
        if self.peaks is None:
            return np.flatnonzero(self.values >= max(least, _ALLOWED))
        groups = np.flatnonzero(self.peaks >= max(least, _ALLOWED))
        firsts = groups // _STRIDE * BLOCK + groups % _STRIDE
        at = (firsts[:, None] + np.arange(0, BLOCK, _STRIDE)).ravel()
        return at[self.values[at] >= max(least, _ALLOWED)]

    def _rows_at(self, at: NDArray[np.int64]) -> NDArray[np.int64]:
        return at if self.rows is None else self.rows[at]


def peaks_of(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the maxima by group of one block, (BLOCK,) float32."""
    return block.reshape(GROUP, _STRIDE).max(axis=0)
