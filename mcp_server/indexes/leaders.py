"""Decides, item by item in order, which items are originals; and which vectors are alike."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_DOUBT = 1e-5
"""A float32 product may be off by less than this; nearer to the threshold, the cosine is summed in float64."""
_CHECKED_AT_ONCE = 4096


class Leaders:
    """The originals among M items, as known so far. Not for several threads.

    Attributes:
        result: (M,) int64, the position of each item's original, its own if it is one, -1 while undecided.
        undecided: positions to decide, ascending, as they were at the beginning.
        is_undecided: (M,) bool, the same.
    """

    def __init__(self, known: NDArray[np.int64]) -> None:
        """Take over what `known`, (M,) positions or -1, says, unless the original it names is no original."""
        standing = (known >= 0) & (known[known] == known)  # -1 looks at the last item, which does not matter
        self.result: NDArray[np.int64] = np.where(standing, known, -1)
        self.is_undecided: NDArray[np.bool_] = ~standing
        self.undecided: NDArray[np.int64] = np.flatnonzero(~standing)
        self.known_originals: NDArray[np.int64] = np.flatnonzero(self.result == np.arange(len(known)))
        self._wished = known

    @property
    def taking_part(self) -> NDArray[np.int64]:
        """Positions, ascending, of all that is undecided or a known original; nothing else is ever compared."""
        return np.union1d(self.undecided, self.known_originals)

    def are_originals(self, positions: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which of `positions` are originals by now."""
        return self.result[positions] == positions

    def decide(self, item: int, near: NDArray[np.int64]) -> bool:
        """Make `item` join the first original among `near`, earlier items like it; return False, and decide nothing, if none is one.

        An item that an earlier run assigned goes back to that original if it is one again.
        """
        wished = int(self._wished[item])
        if 0 <= wished != item and self.result[wished] == wished:
            self.result[item] = wished
            return True
        originals = near[self.are_originals(near)]
        if len(originals) == 0:
            return False
        self.result[item] = originals.min()
        return True

    def make_original(self, item: int) -> None:
        """Decide that `item` is an original."""
        self.result[item] = item


def alike(left: NDArray[np.float32], right: NDArray[np.float32], threshold: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs (place in `left`, place in `right`) whose dot product, summed in float64, is at least `threshold`.

    Sorted by place in `left`, then in `right`. Does not depend on what other vectors are in the call.
    """
    scores = left @ right.T
    lefts, rights = np.nonzero(scores >= threshold - _DOUBT)
    doubtful = np.flatnonzero(scores[lefts, rights] < threshold + _DOUBT)
    keep = np.ones(len(lefts), np.bool_)
    for start in range(0, len(doubtful), _CHECKED_AT_ONCE):
        part = doubtful[start : start + _CHECKED_AT_ONCE]
        # einsum, unlike a BLAS product, sums every pair in the same order
        exact = np.einsum("ij,ij->i", left[lefts[part]].astype(np.float64), right[rights[part]].astype(np.float64))
        keep[part] = exact >= threshold
    return lefts[keep], rights[keep]
