"""One field in memory: its values in order, and the rows that have each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcp_server.domain.filters import folded
from mcp_server.stores.catalog import Catalog
from mcp_server.stores.fields import Field
from mcp_server.stores.items import shown_value
from mcp_server.stores.postings import Ints, Mask, Postings, build_postings
from mcp_server.stores.taggings import Tags, read_taggings, read_tags
from mcp_server.stores.values import Key, stored_key

Keys = NDArray[np.int64 | np.float64] | Sequence[str]


@dataclass(frozen=True)
class FieldData:
    """The tags of a field and the rows that have them, of their own or from their group.

    Equal values are one value: texts that differ in letter case only, and numbers or times that are equal. A stored value that is not
    of the field's kind is no value; its tag still counts for `exists`.

    Attributes:
        field: whose data this is.
        keys: (V,) the keys of the values, ascending; for text, the folded texts.
        shown: V values as callers see them, the first spelling stored.
        values: posting lists of the V values.
        tags: the T tags.
        value_of_tag: (T,) int64, the value of each tag, -1 for none.
    """

    field: Field
    keys: Keys
    shown: Sequence[str | int | float]
    values: Postings
    tags: Tags
    value_of_tag: Ints
    text_index: dict[str, int]
    """Folded text to value, for text fields."""
    tag_postings: Postings | None
    """Posting lists of the T tags; None when each tag has a value to itself, so that `values` serves both."""

    def mark_values(self, mask: Mask, start: int, stop: int) -> None:
        """Set `mask` at the rows that have a value from `start` up to, not including, `stop`."""
        if start < stop:
            self.values.mark(mask, start, stop)

    def mark_tag(self, mask: Mask, position: int) -> None:
        """Set `mask` at the rows that have the tag at `position` of `tags`."""
        if self.tag_postings is not None:
            self.tag_postings.mark(mask, position, position + 1)
        else:
            value = int(self.value_of_tag[position])
            self.values.mark(mask, value, value + 1)

    def mark_all(self, mask: Mask) -> None:
        """Set `mask` at the rows that have any tag of the field."""
        mask[self.tag_rows] = True

    @property
    def tag_rows(self) -> NDArray[np.signedinteger]:
        """(P,) the rows that have any tag of the field; a row with several tags is there several times."""
        return self.values.rows if self.tag_postings is None else self.tag_postings.rows


def load_field(catalog: Catalog, field: Field) -> FieldData:
    """Read a field's tags and taggings from the catalog.

    Raises:
        CatalogError: the file cannot be read.
    """
    tags = read_tags(catalog.database, catalog.layout, field.tagset_ids, field.kind)
    taggings = read_taggings(catalog.database, catalog.layout, field.tagset_ids, field.kind)
    owners, rows = _spread(catalog, tags, taggings)
    keys, shown, value_of_tag = _values(field, tags)
    size = len(catalog.media_of_row)
    valued = value_of_tag[owners] >= 0 if len(owners) else np.zeros(0, dtype=np.bool_)
    values = build_postings(value_of_tag[owners[valued]], rows[valued], len(shown), size)
    shared = len(shown) == len(tags.values) and not np.any(value_of_tag < 0)
    tag_postings = None if shared else build_postings(owners, rows, len(tags.values), size)
    text_index = {str(key): position for position, key in enumerate(keys)} if field.kind == "text" else {}
    return FieldData(field, keys, shown, values, tags, value_of_tag, text_index, tag_postings)


def _spread(catalog: Catalog, tags: Tags, taggings: Ints) -> tuple[Ints, Ints]:
    """Return (tag position, row) pairs: each tagging at its own medium's row, and at the rows of that medium's members."""
    positions = tags.position(taggings[:, 1])
    media, positions = taggings[positions >= 0, 0], positions[positions >= 0]
    own = catalog.rows.lookup(media)
    members = catalog.rows.members(media)
    owners = np.concatenate((positions[own >= 0], positions[members.asked]))
    return owners, np.concatenate((own[own >= 0], members.rows))


def _values(field: Field, tags: Tags) -> tuple[Keys, Sequence[str | int | float], Ints]:
    """Return the keys ascending, what is shown for each, and the value of each tag."""
    keys: list[str | Key | None] = [_key(field, value) for value in tags.values]
    first: dict[str | Key, object] = {}
    for key, value in zip(keys, tags.values, strict=True):
        if key is not None:
            first.setdefault(key, value)
    ordered = sorted(first)  # pyright: ignore[reportArgumentType] - keys of one field are all text or all numbers
    position = {key: at for at, key in enumerate(ordered)}
    shown = [shown_value(field.kind, first[key]) for key in ordered]
    value_of_tag = np.array([-1 if key is None else position[key] for key in keys], dtype=np.int64)
    if field.kind == "text":
        return [str(key) for key in ordered], shown, value_of_tag
    return np.array(ordered, dtype=np.float64 if field.kind == "number" else np.int64), shown, value_of_tag


def _key(field: Field, value: object) -> str | Key | None:
    if field.kind == "json" or value is None:
        return None
    return folded(str(shown_value("text", value))) if field.kind == "text" else stored_key(field.kind, value)
