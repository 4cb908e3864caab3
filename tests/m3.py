"""Builds small catalogs by hand, in either of the two layouts in use, and says what should pass a filter in plain Python sets.

Written from the description of the format, apart from the program's own writer, so that the two check each other.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Layout = Literal["engine", "published"]
LAYOUTS: tuple[Layout, ...] = ("engine", "published")

TYPE_IDS = {"alphanumerical": 1, "timestamp": 2, "time": 3, "date": 4, "numerical_int": 5, "numerical_dec": 6, "json": 7}
_SQL_TYPES = {"numerical_int": "INTEGER"}
Value = str | int | float | None


@dataclass(frozen=True)
class Media:
    """One medium. `row` None: not in the index. Tags: tagset name to values."""

    id: int
    row: int | None = None
    group: int | None = None
    tags: dict[str, list[Value]] = field(default_factory=dict)
    source: str | None = None


def build(
    path: Path,
    medias: Sequence[Media],
    types: dict[str, str] | None = None,
    *,
    layout: Layout = "engine",
    index_name: str = "CLIP Index ID",
    claims: Sequence[tuple[int, object]] = (),
    indexes: bool = True,
) -> Path:
    """Write a catalog. `types`: tagset name to type name, alphanumerical if missing; `claims`: further (media, row) pairs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection, connection:
        _create(connection, layout, indexes)
        names = list(dict.fromkeys(name for one in medias for name in one.tags))
        writer = _Writer(connection, layout)
        for name in [*(types or {}), *(name for name in names if name not in (types or {}))]:
            writer.tagset(name, (types or {}).get(name, "alphanumerical"))
        if index_name:
            writer.tagset(index_name, "numerical_int")
        for one in medias:
            _insert_media(connection, layout, one)
            for name, values in one.tags.items():
                for value in values:
                    writer.tagging(one.id, name, value)
            if one.row is not None and index_name:
                writer.tagging(one.id, index_name, one.row)
        for media, row in claims:
            writer.tagging(media, index_name, row)
    return path


class _Writer:
    def __init__(self, connection: sqlite3.Connection, layout: Layout) -> None:
        self.connection = connection
        self.layout = layout
        self.tagsets: dict[str, tuple[int, str]] = {}
        self.tags: dict[tuple[str, object], int] = {}

    def tagset(self, name: str, type_name: str) -> int:
        id_ = len(self.tagsets) + 1
        self.tagsets[name] = (id_, type_name)
        self.connection.execute("INSERT INTO tagsets VALUES (?, ?, ?)", (id_, name, TYPE_IDS[type_name]))
        return id_

    def tag(self, name: str, value: object) -> int:
        key = (name, repr(value))
        if key in self.tags:
            return self.tags[key]
        tagset, type_name = self.tagsets[name]
        tag = self.tags[key] = 100 + len(self.tags)
        table = value_table(type_name, self.layout)
        if self.layout == "engine":
            self.connection.execute("INSERT INTO tags VALUES (?, ?, ?)", (tag, TYPE_IDS[type_name], tagset))
            self.connection.execute(f"INSERT INTO {table} VALUES (?, ?, ?)", (tag, value, tagset))
        else:
            self.connection.execute("INSERT INTO tags VALUES (?, ?)", (tag, tagset))
            # ids of their own, so that id and tag_id cannot be mistaken for each other
            self.connection.execute(f"INSERT INTO {table} VALUES (?, ?, ?)", (100_000 - tag, tag, value))
        return tag

    def tagging(self, media: int, name: str, value: object) -> None:
        self.connection.execute("INSERT OR IGNORE INTO taggings VALUES (?, ?)", (media, self.tag(name, value)))


def value_table(type_name: str, layout: Layout) -> str:
    """Return the table that has the values of a type."""
    return "categorical_tags" if layout == "published" and type_name == "alphanumerical" else f"{type_name}_tags"


def _create(connection: sqlite3.Connection, layout: Layout, indexes: bool) -> None:
    engine = layout == "engine"
    label = "description" if engine else "name"
    connection.execute(f"CREATE TABLE tag_types (id INTEGER PRIMARY KEY, {label} TEXT)")
    connection.execute("CREATE TABLE tagsets (id INTEGER PRIMARY KEY, name TEXT, tagtype_id INTEGER)")
    if engine:
        connection.execute("CREATE TABLE source_types (id INTEGER PRIMARY KEY, name TEXT)")
        connection.execute("INSERT INTO source_types VALUES (1, 'Image'), (2, 'Video'), (3, 'Audio'), (4, 'Text'), (5, 'Other')")
        connection.execute("CREATE TABLE tags (id INTEGER PRIMARY KEY, tagtype_id INTEGER, tagset_id INTEGER)")
        connection.execute(
            "CREATE TABLE medias (id INTEGER PRIMARY KEY, source TEXT, source_type INTEGER, thumbnail_uri TEXT, group_id INTEGER)"
        )
    else:
        connection.execute("CREATE TABLE tags (id INTEGER PRIMARY KEY, tagset_id INTEGER)")
        connection.execute("CREATE TABLE medias (id INTEGER PRIMARY KEY, uri TEXT, thumbnail_uri TEXT, group_id INTEGER, source_type TEXT)")
    for type_name, id_ in TYPE_IDS.items():
        shown = "categorical" if type_name == "alphanumerical" and not engine else type_name
        connection.execute("INSERT INTO tag_types VALUES (?, ?)", (id_, shown))
        columns = f"value {_SQL_TYPES.get(type_name, 'TEXT')}"
        columns = (
            f"id INTEGER PRIMARY KEY, {columns}, tagset_id INTEGER" if engine else f"id INTEGER PRIMARY KEY, tag_id INTEGER, {columns}"
        )
        connection.execute(f"CREATE TABLE {value_table(type_name, layout)} ({columns})")
    key = ", PRIMARY KEY (media_id, tag_id)" if indexes else ""
    connection.execute(f"CREATE TABLE taggings (media_id INTEGER, tag_id INTEGER{key})")


def _insert_media(connection: sqlite3.Connection, layout: Layout, one: Media) -> None:
    source = f"pictures/{one.id}.jpg" if one.source is None else one.source
    if layout == "engine":
        connection.execute("INSERT INTO medias VALUES (?, ?, 1, ?, ?)", (one.id, source, f"{one.id}.webp", one.group))
    else:
        connection.execute("INSERT INTO medias VALUES (?, ?, ?, ?, 'image')", (one.id, source, f"{one.id}.webp", one.group))


def own_and_inherited(medias: Sequence[Media]) -> dict[int, dict[str, list[Value]]]:
    """Return, for each indexed medium, its tagsets and their values, with those of its group."""
    by_id = {one.id: one for one in medias}
    seen: dict[int, dict[str, list[Value]]] = {}
    for one in medias:
        if one.row is not None:
            both: dict[str, list[Value]] = {}
            for owner in (one, by_id.get(one.group) if one.group is not None else None):
                for name, values in (owner.tags if owner else {}).items():
                    both.setdefault(name, []).extend(values)
            seen[one.id] = {name: values for name, values in both.items() if values}
    return seen
