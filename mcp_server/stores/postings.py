"""Posting lists: for each of K owners (tags or values), the rows that have it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Postings:
    """K lists in one array.

    Attributes:
        rows: (P,) int32 or int64; the rows of owner 0, then of owner 1, and so on; ascending and distinct within each.
        offsets: (K + 1,) int64; owner k has `rows[offsets[k]:offsets[k + 1]]`.
    """

    rows: NDArray[np.signedinteger]
    offsets: Ints

    @property
    def size(self) -> int:
        """K, how many owners there are."""
        return len(self.offsets) - 1

    def mark(self, mask: Mask, start: int, stop: int) -> None:
        """Set `mask` at every row of the owners from `start` up to, not including, `stop`."""
        mask[self.rows[self.offsets[start] : self.offsets[stop]]] = True

    def counts(self, mask: Mask | None = None) -> Ints:
        """Return, for each owner, how many of its rows there are, or how many of them `mask` holds."""
        if mask is None:
            return np.diff(self.offsets)
        passed = np.zeros(len(self.rows) + 1, dtype=np.int64)
        np.cumsum(mask[self.rows], out=passed[1:])
        return np.diff(passed[self.offsets])


def build_postings(owners: Ints, rows: Ints, owner_count: int, row_count: int) -> Postings:
    """Return the posting lists of (owner, row) pairs in any order; pairs may repeat. Takes O(P log P) time."""
    # one sortable number for a pair; 2**63 is far above owners times rows
    pairs = owners * max(row_count, 1) + rows
    # sorting and dropping repeats by hand: np.unique hashes, which takes several times as long here
    pairs.sort()
    pairs = pairs[np.concatenate((np.ones(min(len(pairs), 1), dtype=np.bool_), pairs[1:] != pairs[:-1]))]
    owner, row = np.divmod(pairs, max(row_count, 1))
    offsets = np.searchsorted(owner, np.arange(owner_count + 1, dtype=np.int64))
    narrow = np.int32 if row_count < 2**31 else np.int64
    return Postings(row.astype(narrow), offsets.astype(np.int64))
