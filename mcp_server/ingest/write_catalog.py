"""Writes a collection's catalog: SQLite in the Simplified-M3 layout of `stores/schema.sql`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from mcp_server.ingest.fields import INDEX_TAGSET, Field, TagKind, TagValue, fields_of, tags_of

_IMAGE, _OTHER = 1, 5
_TAG_TYPE_IDS: dict[TagKind, int] = {
    "alphanumerical": 1,
    "timestamp": 2,
    "time": 3,
    "date": 4,
    "numerical_int": 5,
    "numerical_dec": 6,
    "json": 7,
}


@dataclass(frozen=True)
class CatalogRow:
    """One picture: its path, its thumbnail's name, its group if it has one, and its metadata as it was read."""

    source: str
    thumbnail: str
    group: str | None
    metadata: Mapping[str, Any]


def write_catalog(file: Path, pictures: Sequence[CatalogRow]) -> tuple[Field, ...]:
    """Write a new catalog of `pictures` and return its fields.

    Picture i gets media id i + 1 and row i of the embeddings. Groups follow as media of type Other, in the order of their names. Tagsets
    follow the order in which the fields appear, tags the order of their values: the same input gives the same bytes.
    """
    fields = fields_of(picture.metadata for picture in pictures)
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = DELETE")
        database.executescript(resources.files("mcp_server.stores").joinpath("schema.sql").read_text(encoding="utf-8"))
        database.execute("BEGIN")
        database.executemany("INSERT INTO medias VALUES (?, ?, ?, ?, ?)", _medias(pictures))
        first_free = _write_index_tagset(database, len(pictures))
        ids = _write_tagsets(database, fields, pictures, first_free)
        database.executemany("INSERT INTO taggings VALUES (?, ?)", _taggings(fields, pictures, ids))
        database.execute("COMMIT")
        database.execute("ANALYZE")
        database.execute("VACUUM")
    return fields


def _medias(pictures: Sequence[CatalogRow]) -> Iterator[tuple[int, str, int, str | None, int | None]]:
    names = sorted({picture.group for picture in pictures if picture.group is not None})
    groups = {name: number for number, name in enumerate(names, start=len(pictures) + 1)}
    for number, name in enumerate(names, start=len(pictures) + 1):
        yield number, name, _OTHER, None, None
    for number, picture in enumerate(pictures, start=1):
        yield number, picture.source, _IMAGE, picture.thumbnail, None if picture.group is None else groups[picture.group]


def _write_index_tagset(database: sqlite3.Connection, count: int) -> int:
    """Write the tagset that maps media to rows, tag i + 1 for row i; return the first tag id that is free."""
    type_id = _TAG_TYPE_IDS["numerical_int"]
    database.execute("INSERT INTO tagsets VALUES (1, ?, ?)", (INDEX_TAGSET, type_id))
    _write_tags(database, "numerical_int", 1, ((row + 1, row) for row in range(count)))
    return count + 1


def _write_tagsets(
    database: sqlite3.Connection, fields: Sequence[Field], pictures: Sequence[CatalogRow], first_free: int
) -> dict[str, dict[TagValue, int]]:
    """Write one tagset a field with its tags; return field name to value to tag id."""
    ids: dict[str, dict[TagValue, int]] = {}
    free = first_free
    for number, field in enumerate(fields, start=2):
        database.execute("INSERT INTO tagsets VALUES (?, ?, ?)", (number, field.name, _TAG_TYPE_IDS[field.kind]))
        # values of one field are all text or all numbers
        values: list[Any] = sorted({value for picture in pictures for value in tags_of(field, picture.metadata.get(field.name))})
        ids[field.name] = {value: tag for tag, value in enumerate(values, start=free)}
        _write_tags(database, field.kind, number, ((tag, value) for value, tag in ids[field.name].items()))
        free += len(values)
    return ids


def _write_tags(database: sqlite3.Connection, kind: TagKind, tagset: int, tags: Iterable[tuple[int, TagValue]]) -> None:
    for tag, value in tags:
        database.execute("INSERT INTO tags VALUES (?, ?, ?)", (tag, _TAG_TYPE_IDS[kind], tagset))
        database.execute(f"INSERT INTO {kind}_tags VALUES (?, ?, ?)", (tag, value, tagset))


def _taggings(fields: Sequence[Field], pictures: Sequence[CatalogRow], ids: dict[str, dict[TagValue, int]]) -> Iterator[tuple[int, int]]:
    """Yield (media id, tag id), sorted."""
    for number, picture in enumerate(pictures, start=1):
        yield number, number
        yield from (
            (number, tag)
            for tag in sorted(ids[field.name][value] for field in fields for value in tags_of(field, picture.metadata.get(field.name)))
        )
