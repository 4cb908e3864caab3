"""Which medium is at which row of the embeddings, and which rows belong to which group."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Found:
    """Rows of the ids asked for.

    Attributes:
        rows: (M,) int64, no row twice.
        unknown: how many different ids have no row.
    """

    rows: Ints
    unknown: int


@dataclass(frozen=True)
class Members:
    """Rows of the members of some groups, one entry for each member of each group asked for.

    Attributes:
        rows: (M,) int64.
        asked: (M,) int64, position of the group in what was asked for, ascending.
    """

    rows: Ints
    asked: Ints


@dataclass(frozen=True)
class RowMap:
    """Frozen lookups from media ids and group ids to rows. Safe to call from several threads.

    Attributes:
        media_of_row: (N,) int64, the media id at each row, -1 for none.
        group_of_row: (N,) int64, the group of that medium, -1 for none.
        media: the media ids there are, ascending and distinct.
        media_rows: the row of each.
        groups: the groups of all members, ascending.
        group_rows: the row of each member.
    """

    media_of_row: Ints
    group_of_row: Ints
    media: Ints
    media_rows: Ints
    groups: Ints
    group_rows: Ints

    def __post_init__(self) -> None:
        for array in vars(self).values():
            array.setflags(write=False)

    @classmethod
    def of(cls, media_of_row: Ints, group_of_row: Ints) -> RowMap:
        """Sort two (N,) arrays with -1 for none. Their media ids are distinct."""
        mapped = np.flatnonzero(media_of_row >= 0)
        rows = mapped[np.argsort(media_of_row[mapped], kind="stable")]
        grouped = mapped[group_of_row[mapped] >= 0]
        members = grouped[np.argsort(group_of_row[grouped], kind="stable")]
        return cls(media_of_row, group_of_row, media_of_row[rows], rows, group_of_row[members], members)

    def lookup(self, media: Ints) -> Ints:
        """Return the row of each media id, -1 for those without one."""
        if not (len(self.media) and len(media)):
            return np.full(len(media), -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(self.media, media), len(self.media) - 1)
        return np.where(self.media[at] == media, self.media_rows[at], -1)

    def members(self, groups: Ints) -> Members:
        """Return the rows whose group is among `groups`, group by group, ascending within each."""
        first = np.searchsorted(self.groups, groups, side="left")
        counts = np.searchsorted(self.groups, groups, side="right") - first
        asked = np.repeat(np.arange(len(groups), dtype=np.int64), counts)
        within = np.arange(len(asked), dtype=np.int64) - np.repeat(np.cumsum(counts) - counts, counts)
        return Members(self.group_rows[first[asked] + within], asked)

    def rows_of(self, ids: Iterable[int]) -> Found:
        """Return the rows of `ids` in the order given; an id given twice counts once."""
        wanted, too_large = _distinct_ids(ids)
        rows = self.lookup(wanted)
        return Found(rows[rows >= 0], int(np.count_nonzero(rows < 0)) + too_large)

    def rows_of_groups(self, groups: Iterable[int]) -> Found:
        """Return the rows of the members of `groups`; `unknown` counts the groups without any."""
        wanted, too_large = _distinct_ids(groups)
        if not len(wanted):
            return Found(wanted, too_large)
        members = self.members(wanted)
        return Found(members.rows, len(wanted) - len(np.unique(members.asked)) + too_large)


def _distinct_ids(ids: Iterable[int]) -> tuple[Ints, int]:
    """Return the different ids that fit int64, in the order given, and how many others there were."""
    wanted = list(dict.fromkeys(ids))
    try:
        return np.array(wanted, dtype=np.int64), 0
    except OverflowError:
        fitting = [one for one in wanted if -(2**63) <= one < 2**63]
        return np.array(fitting, dtype=np.int64), len(wanted) - len(fitting)
