"""The skip set: seen ∪ excluded ∪ rejected by the filter ∪ rows that cannot be returned, as one mask with a count per reason."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SkipSet:
    """Which rows a search must not return, and why.

    `matching + filtered` is every searchable row; `allowed + seen + excluded + in_full_groups` is `matching`: a row hidden for two reasons
    is counted for the first of filter, seen, excluded, group.

    Attributes:
        mask: (N,) bool, True for rows to skip. Not shared with anyone.
        hidden: (N,) bool, True for rows that pass the filter but are skipped as seen or excluded.
    """

    mask: NDArray[np.bool_]
    hidden: NDArray[np.bool_]
    matching: int
    filtered: int
    seen: int
    excluded: int
    in_full_groups: int
    allowed: int


def build_skip_set(
    searchable: NDArray[np.bool_],
    passing: NDArray[np.bool_],
    seen_rows: NDArray[np.int64],
    excluded_rows: NDArray[np.int64],
    full_groups: NDArray[np.bool_] | None = None,
) -> SkipSet:
    """Return the skip set of one search.

    Args:
        searchable: (N,) bool, rows that a medium claims and that are usable.
        passing: (N,) bool, rows that pass the filter; all True without one.
        seen_rows: rows shown before, any order, repeats allowed.
        excluded_rows: rows the caller excluded, one by one or by group.
        full_groups: (N,) bool, rows of groups that have been shown often enough.

    None of the arguments is changed.
    """
    matching = searchable & passing
    seen = np.zeros(len(searchable), dtype=np.bool_)
    seen[seen_rows] = True
    seen &= matching
    excluded = np.zeros(len(searchable), dtype=np.bool_)
    excluded[excluded_rows] = True
    excluded &= matching & ~seen
    hidden = seen | excluded
    skipped = ~matching | hidden
    full = 0
    if full_groups is not None:
        full = int(np.count_nonzero(full_groups & ~skipped))
        skipped |= full_groups
    matches = int(np.count_nonzero(matching))
    seen_count, excluded_count = int(np.count_nonzero(seen)), int(np.count_nonzero(excluded))
    return SkipSet(
        mask=skipped,
        hidden=hidden,
        matching=matches,
        filtered=int(np.count_nonzero(searchable)) - matches,
        seen=seen_count,
        excluded=excluded_count,
        in_full_groups=full,
        allowed=matches - seen_count - excluded_count - full,
    )
