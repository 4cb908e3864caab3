"""Reads the tags of tagsets, and who has them, as arrays."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcp_server.stores.database import Database
from mcp_server.stores.schema import ValueTable

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Tags:
    """The tags of some tagsets, ascending by id.

    Attributes:
        ids: (T,) int64, distinct.
        tagsets: (T,) int64, the tagset of each.
    """

    ids: Ints
    tagsets: Ints

    def position(self, tag_ids: Ints) -> Ints:
        """Return where each of `tag_ids` is in `ids`, -1 for those not there."""
        if not len(self.ids):
            return np.full(len(tag_ids), -1, dtype=np.int64)
        at = np.minimum(np.searchsorted(self.ids, tag_ids), len(self.ids) - 1)
        return np.where(self.ids[at] == tag_ids, at, -1)


def read_tags(database: Database, table: ValueTable, tagset_ids: Sequence[int]) -> tuple[Tags, list[object]]:
    """Return the tags of tagsets, and their values as stored. A tag that has two values keeps the lower one."""
    sql = f"SELECT t, v, s FROM ({table.source}) WHERE s IN (SELECT value FROM json_each(?)) AND t = CAST(t AS INTEGER) ORDER BY t, v"
    kept: dict[int, tuple[object, int]] = {}
    for tag, value, tagset in database.rows(sql, listed(tagset_ids)):
        kept.setdefault(int(tag), (value, int(tagset)))
    ordered = sorted(kept)  # ids stored as text come as text is sorted: 10 before 9
    ids = np.fromiter(ordered, dtype=np.int64, count=len(kept))
    tagsets = np.fromiter((kept[tag][1] for tag in ordered), dtype=np.int64, count=len(kept))
    return Tags(ids, tagsets), [kept[tag][0] for tag in ordered]


def read_taggings(database: Database, table: ValueTable, tagset_ids: Sequence[int]) -> Ints:
    """Return (n, 2) media ids and tag ids: who has the tags of those tagsets, in no order."""
    tags = f"SELECT t FROM ({table.source}) WHERE s IN (SELECT value FROM json_each(?))"
    sql = f"SELECT CAST(media_id AS INTEGER), CAST(tag_id AS INTEGER) FROM taggings WHERE tag_id IN ({tags}) AND media_id IS NOT NULL"
    return database.integers(sql, listed(tagset_ids))


def read_values(database: Database, table: ValueTable, tag_ids: Sequence[int]) -> list[tuple[int, object, int | None]]:
    """Return (tag, value, tagset) of those of `tag_ids` whose value is in `table`, ascending by tag; a tag may be of no tagset."""
    sql = (
        f"SELECT CAST(t AS INTEGER), v, CAST(s AS INTEGER) FROM ({table.source}) WHERE t IN (SELECT value FROM json_each(?)) ORDER BY t, v"
    )
    return database.rows(sql, listed(tag_ids))


def listed(ids: Sequence[int]) -> str:
    """Return `ids` for `json_each`, each as a number and as text: a column of either finds its own, with its index."""
    return json.dumps([*ids, *map(str, ids)])
