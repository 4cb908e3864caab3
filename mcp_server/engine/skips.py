"""The skip set: seen ∪ excluded ∪ rejected by the filter ∪ rows that cannot be returned, as one mask with a count per reason."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_FEW = 1_000
"""A thousandth of the rows is a short list."""


@dataclass(frozen=True)
class SkipSet:
    """Which rows a search must not return, and why.

    `matching + filtered` is every searchable row; `allowed + seen + excluded + in_full_groups` is `matching`: a row hidden for two reasons
    is counted for the first of filter, seen, excluded, group.

    Attributes:
        mask: (N,) bool, True for rows to skip. Not shared with anyone.
        hidden: (H,) int64, ascending, the rows that pass the filter but are skipped as seen or excluded.
    """

    mask: NDArray[np.bool_]
    hidden: NDArray[np.int64]
    matching: int
    filtered: int
    seen: int
    excluded: int
    in_full_groups: int
    allowed: int


def build_skip_set(
    rejected: NDArray[np.bool_],
    matching: int,
    searchable: int,
    seen_rows: NDArray[np.int64],
    excluded_rows: NDArray[np.int64],
    full_groups: NDArray[np.bool_] | None = None,
) -> SkipSet:
    """Return the skip set of one search.

    Args:
        rejected: (N,) bool, all rows but those that a medium claims, that are usable and that pass the filter; becomes the set's mask.
        matching: how many rows are not in `rejected`.
        searchable: how many rows a medium claims and are usable, whether they pass or not.
        seen_rows: rows shown before, any order, repeats allowed.
        excluded_rows: rows the caller excluded, one by one or by group.
        full_groups: (N,) bool, rows of groups that have been shown often enough.

    None of the other arguments is changed.
    """
    skipped = rejected
    seen = _hide(seen_rows, skipped)
    excluded = _hide(excluded_rows, skipped)
    full = 0
    if full_groups is not None:
        full = int(np.count_nonzero(full_groups & ~skipped))
        skipped |= full_groups
    return SkipSet(
        mask=skipped,
        hidden=np.sort(np.concatenate([seen, excluded])),
        matching=matching,
        filtered=searchable - matching,
        seen=len(seen),
        excluded=len(excluded),
        in_full_groups=full,
        allowed=matching - len(seen) - len(excluded) - full,
    )


def _hide(rows: NDArray[np.int64], skipped: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Mark those of `rows` that were not `skipped` before, and return them, each once."""
    if not len(rows):
        return rows
    fresh = rows[~skipped[rows]]
    if len(fresh) > len(skipped) // _FEW:
        marked = np.zeros(len(skipped), dtype=np.bool_)
        marked[fresh] = True
        fresh = np.flatnonzero(marked)  # a pass over bytes takes less time than sorting a long list
    else:
        fresh = np.unique(fresh)
    skipped[fresh] = True
    return fresh
