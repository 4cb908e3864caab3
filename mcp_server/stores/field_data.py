"""One field in memory: its values in order, and the rows that have each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from mcp_server.domain.filters import folded
from mcp_server.stores.bits import Bits, bits_of_rows
from mcp_server.stores.catalog import Catalog
from mcp_server.stores.columns import Numbers, Texts
from mcp_server.stores.fields import Field
from mcp_server.stores.items import shown_value
from mcp_server.stores.postings import Ints, Postings, build_postings, spans_of_owners
from mcp_server.stores.taggings import Tags, read_taggings, read_tags
from mcp_server.stores.values import Key, apart, stored_key

NumberKeys = NDArray[np.int64 | np.float64]

MORE = "…"
"""Stands at the end of a text value for all that follows."""


@dataclass(frozen=True)
class FieldData:
    """The tags of a field and the rows that have them, of their own or from their group.

    Equal values are one value: texts that differ in letter case only, and numbers or times that are equal. A stored value that is not
    of the field's kind is no value; its tag still counts for `exists`.

    Attributes:
        field: whose data this is.
        keys: the keys of the V values, ascending; for text, the folded texts.
        shown: V values as callers see them, the first spelling stored; of a year, month or day with others inside, its first moment.
        values: posting lists of the V values.
        tags: the T tags.
        value_of_tag: (T,) int32, the value of each tag, -1 for none.
        tag_postings: posting lists of the T tags; None when each tag has a value to itself, so that `values` serves both.
        present: the rows that have any tag of the field.
    """

    field: Field
    keys: Texts | NumberKeys
    shown: Sequence[str | int | float]
    values: Postings
    tags: Tags
    value_of_tag: NDArray[np.int32]
    tag_postings: Postings | None
    present: Bits

    def abbreviated(self, at: int, limit: int) -> str:
        """Return value `at` as callers see it; a text longer than `limit` is cut where it still differs from all others, with "…" after it.

        `value_slices` takes such a text for the value.
        """
        text = str(self.shown[at])
        if len(text) <= limit or not isinstance(self.keys, Texts):
            return text
        key = self.keys[at]
        if len(key) != len(text):
            return text  # folding moved its characters
        others = [self.keys[other] for other in (at - 1, at + 1) if 0 <= other < len(self.keys)]
        cut = max([limit - 1, *(1 + _common(key, other) for other in others)])
        return text if cut >= len(text) - 1 else text[:cut] + MORE

    def with_tags(self, positions: Ints) -> Bits:
        """Return the rows that have any of the tags at `positions` of `tags`."""
        if self.tag_postings is not None:
            return self.tag_postings.union(spans_of_owners(np.unique(positions)))
        return self.values.union(spans_of_owners(np.unique(self.value_of_tag[positions].astype(np.int64))))


def _common(one: str, other: str) -> int:
    """Return how many characters both begin with."""
    return next((at for at, (here, there) in enumerate(zip(one, other, strict=False)) if here != there), min(len(one), len(other)))


def load_field(catalog: Catalog, field: Field) -> FieldData:
    """Read a field's tags and taggings from the catalog.

    Raises:
        CatalogError: the file cannot be read.
    """
    table = catalog.layout.tables[field.kind]
    tags, stored = read_tags(catalog.database, table, field.tagset_ids)
    taggings = read_taggings(catalog.database, table, field.tagset_ids)
    owners, rows = _spread(catalog, tags, taggings)
    keys, shown, value_of_tag = _values(field, stored)
    size = len(catalog.media_of_row)
    valued = value_of_tag[owners] >= 0
    values = build_postings(value_of_tag[owners[valued]], rows[valued], len(shown), size)
    shared = len(shown) == len(stored) and not np.any(value_of_tag < 0)
    return FieldData(
        field,
        keys,
        shown,
        values,
        tags,
        value_of_tag.astype(np.int32),
        tag_postings=None if shared else build_postings(owners, rows, len(stored), size),
        present=bits_of_rows([rows], size),
    )


def _spread(catalog: Catalog, tags: Tags, taggings: Ints) -> tuple[Ints, Ints]:
    """Return (tag position, row) pairs: each tagging at its own medium's row, and at the rows of that medium's members."""
    positions = tags.position(taggings[:, 1])
    media, positions = taggings[positions >= 0, 0], positions[positions >= 0]
    own = catalog.rows.lookup(media)
    members = catalog.rows.members(media)
    owners = np.concatenate((positions[own >= 0], positions[members.asked]))
    return owners, np.concatenate((own[own >= 0], members.rows))


def _values(field: Field, stored: Sequence[object]) -> tuple[Texts | NumberKeys, Sequence[str | int | float], Ints]:
    """Return the keys ascending, what is shown for each, and the value of each tag."""
    keys: list[str | Key | None] = [_key(field, value) for value in stored]
    first: dict[str | Key, object] = {}
    for key, value in zip(keys, stored, strict=True):
        if key is not None:
            first.setdefault(key, value)
    ordered = sorted(first)  # pyright: ignore[reportArgumentType] - keys of one field are all text or all numbers
    position = {key: at for at, key in enumerate(ordered)}
    value_of_tag = np.array([-1 if key is None else position[key] for key in keys], dtype=np.int64)
    if field.kind == "text":
        return Texts.of(str(key) for key in ordered), _shown(field, ordered, first), value_of_tag
    numbers = np.array(ordered, dtype=np.float64 if field.kind == "number" else np.int64)
    return numbers, Numbers(numbers) if field.kind in ("integer", "number") else _shown(field, ordered, first), value_of_tag


def _shown(field: Field, ordered: Sequence[str | Key], first: dict[str | Key, object]) -> Texts:
    texts = (str(shown_value(field.kind, first[key])) for key in ordered)
    if field.kind == "text":
        return Texts.of(texts)
    keys = cast("Sequence[Key]", ordered)
    return Texts.of(apart(field.kind, *one) for one in zip(texts, keys, [*keys, math.inf][1:], strict=True))


def _key(field: Field, value: object) -> str | Key | None:
    if field.kind == "json" or value is None:
        return None
    return folded(str(shown_value("text", value))) if field.kind == "text" else stored_key(field.kind, value)
