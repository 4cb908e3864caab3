"""At most so many members of a group: which groups are full, and the best rows that keep to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mcp_server.domain.search import Neighbors
from mcp_server.indexes.base import Index
from mcp_server.indexes.scoring import best_first
from mcp_server.stores.catalog import Catalog

_AHEAD = 4
"""How many times the hits still missing are fetched at once."""
_LEAST_AHEAD = 64


@dataclass(frozen=True)
class GroupCap:
    """How many more members of each group may be shown. Items without a group are never held back.

    Attributes:
        catalog: says who is in which group.
        most: members of one group, at least 1.
        used: members shown before, by group.
    """

    catalog: Catalog
    most: int
    used: dict[int, int]

    @classmethod
    def after(cls, catalog: Catalog, most: int, shown_rows: NDArray[np.int64]) -> GroupCap:
        """Return the cap as it stands when `shown_rows`, each once, have been shown."""
        groups, counts = np.unique(catalog.group_of_row[shown_rows], return_counts=True)
        return cls(catalog, most, {int(group): int(count) for group, count in zip(groups, counts, strict=True) if group >= 0})

    def full(self) -> NDArray[np.bool_]:
        """Return (N,) bool, True for the rows of groups that have been shown often enough."""
        rows = np.zeros(len(self.catalog.group_of_row), np.bool_)
        rows[self._members(self.used)] = True
        return rows

    def room(self, allowed: NDArray[np.bool_]) -> int:
        """Return how many of the `allowed` rows, (N,) bool, can still be shown in all."""
        rows = self.catalog.rows
        first = np.flatnonzero(np.diff(rows.groups, prepend=-1))  # members are sorted by group: where each group begins
        counts = np.add.reduceat(allowed[rows.group_rows], first, dtype=np.int64) if len(first) else np.zeros(0, np.int64)
        room = np.full(len(first), self.most, np.int64)
        groups = np.array(list(self.used), np.int64)
        room[np.searchsorted(rows.groups[first], groups)] -= np.array(list(self.used.values()), np.int64)
        held_back = counts - np.clip(room, 0, counts)
        return int(np.count_nonzero(allowed)) - int(held_back.sum())

    def search(self, index: Index, vector: NDArray[np.float32], n: int, skip: NDArray[np.bool_]) -> Neighbors:
        """Return the best `n` rows not in `skip` that keep to the cap, taken from the best on, as a scan of all in order would.

        Order and ties as `Index.search`. Fewer than `n` come only when no other row may be shown. `skip` is not changed.
        """
        skip = skip | self.full()
        used = Counter(self.used)
        rows: list[int] = []
        scores: list[np.float32] = []
        approximation: str | None = None
        while len(rows) < n and (allowed := int(np.count_nonzero(~skip))):
            near = index.search(vector, min(allowed, max(_LEAST_AHEAD, _AHEAD * (n - len(rows)))), skip)
            approximation = approximation or near.approximation
            if not len(near.rows):
                break
            for row, score in zip(near.rows.tolist(), near.scores, strict=True):
                group = int(self.catalog.group_of_row[row])
                if group < 0 or used[group] < self.most:
                    rows.append(row)
                    scores.append(score)
                    if group >= 0:
                        used[group] += 1
            # those not taken belong to groups that are full now, as do all their other members
            skip[near.rows] = True
            skip[self._members(used)] = True
        # an approximate index may bring late what it missed before
        found = best_first(np.array(rows, np.int64), np.array(scores, np.float32), self.catalog.media_of_row, n)
        return replace(found, approximation=approximation)

    def _members(self, used: Mapping[int, int]) -> NDArray[np.int64]:
        """Return the rows of all members of the groups that are full by `used`."""
        return self.catalog.rows_of_groups(group for group, count in used.items() if count >= self.most).rows
