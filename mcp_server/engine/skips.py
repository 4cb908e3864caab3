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
    skipped = searchable & passing
    matching = int(np.count_nonzero(skipped))
    np.logical_not(skipped, out=skipped)
    hidden = np.zeros(len(searchable), dtype=np.bool_)
    seen = _hide(seen_rows, skipped, hidden)
    excluded = _hide(excluded_rows, skipped, hidden)
    full = 0
    if full_groups is not None:
        full = int(np.count_nonzero(full_groups & ~skipped))
        skipped |= full_groups
    return SkipSet(
        mask=skipped,
        hidden=hidden,
        matching=matching,
        filtered=int(np.count_nonzero(searchable)) - matching,
        seen=seen,
        excluded=excluded,
        in_full_groups=full,
        allowed=matching - seen - excluded - full,
    )


def _hide(rows: NDArray[np.int64], skipped: NDArray[np.bool_], hidden: NDArray[np.bool_]) -> int:
    """Mark those of `rows` that were not `skipped` before in both masks, and return how many they are."""
    fresh = rows[~skipped[rows]]
    if not len(fresh):
        return 0
    before = int(np.count_nonzero(hidden))  # a pass over bytes takes less time than looking for repeats in a long list
    skipped[fresh] = True
    hidden[fresh] = True
    return int(np.count_nonzero(hidden)) - before
