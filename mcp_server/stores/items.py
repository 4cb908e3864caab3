"""Reads what a caller may know about media: title, address, tags."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from mcp_server.domain.filters import folded, scalar_text
from mcp_server.domain.ids import MediaId
from mcp_server.domain.search import Detail, Item
from mcp_server.stores.database import Database
from mcp_server.stores.fields import Field
from mcp_server.stores.rows import RowMap
from mcp_server.stores.schema import Kind, Schema
from mcp_server.stores.taggings import listed, read_values
from mcp_server.stores.values import stored_key

TITLE_FIELDS = ("title", "caption", "name")
"""Where an item's title is looked for, in this order."""

Shown = str | int | float


class ItemReader:
    """Details of media by row. Safe to call from several threads."""

    def __init__(self, database: Database, schema: Schema, rows: RowMap, fields: Sequence[Field]) -> None:
        """Read nothing yet."""
        self._database = database
        self._schema = schema
        self._rows = rows
        self._fields = fields

    def items_at(self, rows: Sequence[int] | NDArray[np.int64], detail: Detail) -> list[Item]:
        """Return the items at `rows`, in that order.

        Raises:
            ValueError: a row has no medium or lies outside the embeddings.
            CatalogError: the file cannot be read.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        if np.any((wanted < 0) | (wanted >= len(self._rows.media_of_row))) or np.any(self._rows.media_of_row[wanted] < 0):
            raise ValueError("rows must lie inside the embeddings and have a medium")
        media = [int(one) for one in self._rows.media_of_row[wanted]]
        groups = [int(one) for one in self._rows.group_of_row[wanted]]
        if detail == "ids":
            return [Item(MediaId(one), "", "", _group(group)) for one, group in zip(media, groups, strict=True)]
        addresses = self._addresses(media)
        tags = self._tags({*media, *(group for group in groups if group >= 0)}, None if detail == "full" else TITLE_FIELDS)
        items: list[Item] = []
        for one, group in zip(media, groups, strict=True):
            uri, thumbnail = addresses.get(one, ("", ""))
            own, inherited = tags.get(one, {}), tags.get(group, {})
            title = _title(own) or _title(inherited) or _last_part(uri) or f"item {one}"
            shown = self._merged(own, inherited) if detail == "full" else {}
            items.append(Item(MediaId(one), title, uri, _group(group), thumbnail, shown))
        return items

    def _addresses(self, media: Iterable[int]) -> dict[int, tuple[str, str]]:
        sql = (
            f"SELECT id, {self._schema.media_source}, {self._schema.media_thumbnail} FROM medias "
            "WHERE id IN (SELECT value FROM json_each(?))"
        )
        found = self._database.rows(sql, listed(sorted(set(media))))
        return {int(one): (_text(source), _text(thumbnail)) for one, source, thumbnail in found}

    def _tags(self, media: Iterable[int], names: Sequence[str] | None) -> dict[int, dict[Field, list[Shown]]]:
        """Return each medium's own values by field, ascending by tag id; only of fields called one of `names`, if given."""
        fields = [field for field in self._fields if field.kind != "json" and (names is None or folded(field.bare_name) in names)]
        if not fields:
            return {}
        sql = (
            "SELECT DISTINCT CAST(media_id AS INTEGER), CAST(tag_id AS INTEGER) AS tag FROM taggings "
            "WHERE media_id IN (SELECT value FROM json_each(?)) ORDER BY tag"
        )
        taggings = self._database.rows(sql, listed(sorted(media)))
        tag_ids = sorted({tag for _, tag in taggings if tag is not None})
        field_of_tagset = {tagset: field for field in fields for tagset in field.tagset_ids}
        shown: dict[int, tuple[Field, Shown]] = {}
        kinds: list[Kind] = [field.kind for field in fields]
        for kind in dict.fromkeys(kinds):
            left = [tag for tag in tag_ids if tag not in shown]
            for tag, value, tagset in read_values(self._database, self._schema.tables[kind], left):
                if tagset in field_of_tagset and value is not None:
                    shown.setdefault(tag, (field_of_tagset[tagset], shown_value(kind, value)))
        found: defaultdict[int, dict[Field, list[Shown]]] = defaultdict(dict)
        for one, tag in taggings:
            if tag in shown:
                field, value = shown[tag]
                found[one].setdefault(field, []).append(value)
        return found

    def _merged(self, own: dict[Field, list[Shown]], inherited: dict[Field, list[Shown]]) -> dict[str, list[Shown]]:
        merged = ((field, [*own.get(field, []), *inherited.get(field, [])]) for field in self._fields)
        return {field.name: list(dict.fromkeys(values)) for field, values in merged if values}


def shown_value(kind: Kind, value: object) -> Shown:
    """Return a stored value as callers see it: numbers as numbers even where they are stored as text, the rest as text."""
    if kind in ("integer", "number"):
        key = stored_key(kind, value)
        if key is not None:
            return key
    return _text(value)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return scalar_text(value) if isinstance(value, int | float) else str(value)


def _group(group: int) -> MediaId | None:
    return MediaId(group) if group >= 0 else None


def _title(tags: dict[Field, list[Shown]]) -> str:
    for name in TITLE_FIELDS:
        for field, values in tags.items():
            if folded(field.bare_name) == name and str(values[0]).strip():
                return str(values[0]).strip()
    return ""


def _last_part(source: str) -> str:
    """Return the file name of a path or URL, with either kind of slash."""
    path = re.sub(r"[?#].*$", "", source) if "://" in source else source
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1]
