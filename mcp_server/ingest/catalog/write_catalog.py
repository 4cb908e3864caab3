"""Writes a collection's catalog: SQLite in the Simplified-M3 layout of `stores/schema.sql`."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Any, cast

from mcp_server.domain.tagset_names import INDEX_TAGSET
from mcp_server.ingest.catalog.fields import Field, TagKind, TagValue, storable
from mcp_server.ingest.catalog.stage import ROWS_COLUMN, Remark, Stage

logger = logging.getLogger(__name__)

IMAGE, OTHER = 1, 5
"""Source types: a picture, a group."""

_TYPE_IDS: dict[TagKind, int] = {
    "alphanumerical": 1,
    "timestamp": 2,
    "time": 3,
    "date": 4,
    "numerical_int": 5,
    "numerical_dec": 6,
    "json": 7,
}
_MEDIAS_AT_ONCE = 2_000
_VALUES_AT_ONCE = 20_000

# both files are scratch until the catalog is whole: nothing is to be undone, nothing to survive a crash
_SET_UP = """
PRAGMA main.page_size = 4096;
PRAGMA main.journal_mode = OFF;
PRAGMA main.synchronous = OFF;
PRAGMA main.cache_size = -16384;
PRAGMA main.locking_mode = EXCLUSIVE;
PRAGMA stage.journal_mode = OFF;
PRAGMA stage.synchronous = OFF;
PRAGMA stage.cache_size = -16384;
PRAGMA stage.locking_mode = EXCLUSIVE;
"""


@dataclass(frozen=True)
class MediaRow:
    """One medium of the catalog.

    Attributes:
        id: at least 1; ids may have gaps.
        source: path below the picture folder; for a group, its name.
        source_type: 1 for a picture, 5 for a group.
        thumbnail: its name in the thumbnails, if it has one.
        group: media id of the group it belongs to, if it does.
        row: its row in the embeddings, if it has one.
        fields: field name to a JSON value or a list of them.
    """

    id: int
    source: str
    source_type: int = IMAGE
    thumbnail: str | None = None
    group: int | None = None
    row: int | None = None
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class CatalogReport:
    """What a catalog was made of.

    Attributes:
        fields: those that have a value, in order of first appearance.
        items: media with a row in the embeddings.
        left_out: names that fields may not have, sorted; their values are not in the catalog.
        refused: values that are not in the catalog, by field and reason.
        notes: values that are in, but make a field text that looks like another kind.
        unused_kinds: names in `kinds` that no medium has a field for, sorted, in lower case.
    """

    fields: tuple[Field, ...]
    items: int
    left_out: tuple[str, ...]
    refused: tuple[Remark, ...]
    notes: tuple[Remark, ...]
    unused_kinds: tuple[str, ...]


def write_catalog(
    file: Path, medias: Iterable[MediaRow], *, kinds: Mapping[str, TagKind] | None = None, progress: Callable[[int], None] | None = None
) -> CatalogReport:
    """Write a new catalog of `medias` to `file`, in the place of what is there; the same input gives the same bytes.

    Tagsets follow the order in which fields first appear, after the one of the rows; tags the order of their values. Spellings of a field's
    name that differ in letter case are one field, called by the first. A field has the narrowest kind that holds its values (`KindGuess`),
    or the one that `kinds` says; values that do not fit that one are left out and counted.

    One pass over `medias`, about 200 MB of memory however many there are. Values wait in a file beside `file`, which is gone afterwards;
    sorting many also needs room where SQLite keeps temporary files (SQLITE_TMPDIR, TMPDIR or /var/tmp). The catalog is not flushed to disk:
    that is for the caller, who moves it to its place. When this fails, `file` is gone.

    Args:
        file: in a folder that exists.
        medias: ids ascending.
        kinds: field name, in any letter case, to kind.
        progress: called with the number of media taken so far, after each 2,000.

    Raises:
        ValueError: ids that do not ascend, or are below 1.
        sqlite3.Error, OSError: the disk is full or cannot be written.
    """
    stage_file = file.with_name(file.name + ".stage")
    done = False
    _remove(file, stage_file)
    try:
        with closing(sqlite3.connect(file, isolation_level=None)) as database:
            database.execute("ATTACH ? AS stage", (os.fsencode(stage_file),))
            report = _write(database, file.parent, medias, kinds or {}, progress)
        done = True
    finally:
        _remove(stage_file, *(() if done else (file,)))
    logger.info("catalog.written items=%d fields=%d refused=%d", report.items, len(report.fields), sum(one.count for one in report.refused))
    return report


def _remove(*files: Path) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _write(
    database: sqlite3.Connection,
    folder: Path,
    medias: Iterable[MediaRow],
    kinds: Mapping[str, TagKind],
    progress: Callable[[int], None] | None,
) -> CatalogReport:
    tables, mark, indexes = (
        resources.files("mcp_server.stores").joinpath("schema.sql").read_text(encoding="utf-8").partition("CREATE INDEX")
    )
    database.executescript(_SET_UP)
    database.executescript(tables)
    stage = Stage(database, kinds, folder)
    database.execute("BEGIN")
    items = _write_medias(database, stage, medias, progress)
    fields = _write_tags(database, stage)
    database.execute("COMMIT")
    database.executescript(mark + indexes)
    database.execute("PRAGMA analysis_limit = 1000")
    database.execute("ANALYZE main")
    return CatalogReport(
        fields=fields,
        items=items,
        left_out=tuple(sorted(stage.left_out)),
        refused=tuple(remark for column in stage.columns for remark in column.refusals()),
        notes=tuple(remark for column in stage.columns for remark in column.notes()),
        unused_kinds=stage.unused_kinds(),
    )


def _write_medias(database: sqlite3.Connection, stage: Stage, medias: Iterable[MediaRow], progress: Callable[[int], None] | None) -> int:
    """Write the media themselves and stage their values; return how many have a row."""
    waiting = iter(medias)
    items = written = last = 0
    while batch := list(islice(waiting, _MEDIAS_AT_ONCE)):
        for media in batch:
            if media.id <= last:
                raise ValueError(f"media ids must ascend from 1: {media.id} after {last}")
            last = media.id
        database.executemany(
            "INSERT INTO medias VALUES (?, ?, ?, ?, ?)",
            ((media.id, storable(media.source), media.source_type, media.thumbnail, media.group) for media in batch),
        )
        for media in batch:
            stage.add(media.id, media.row, media.fields)
        stage.flush()
        items += sum(media.row is not None for media in batch)
        written += len(batch)
        if progress is not None:
            progress(written)
    return items


def _write_tags(database: sqlite3.Connection, stage: Stage) -> tuple[Field, ...]:
    """Write the tagsets, the tags and who has which; return the fields."""
    tagsets = {ROWS_COLUMN: (1, Field(INDEX_TAGSET, "numerical_int"))}
    names = {column.number: column for column in stage.columns}
    tag = 0
    last: tuple[int, TagValue | None] = (ROWS_COLUMN, None)
    with stage.sorted_values() as values:
        while batch := values.fetchmany(_VALUES_AT_ONCE):
            new: dict[int, list[tuple[int, TagValue, int]]] = {}
            tags: list[int] = []
            for number, value, _ in batch:
                if value is None:
                    tags.append(-number)
                    continue
                if (number, value) != last:
                    last = (number, value)
                    tag += 1
                    if number not in tagsets:
                        column = names[number]
                        tagsets[number] = (len(tagsets) + 1, Field(column.name, cast("TagKind", column.kind)))
                    tagset = tagsets[number][0]
                    new.setdefault(number, []).append((tag, value, tagset))
                tags.append(tag)
            stage.tag([code for _, _, code in batch], tags)
            for number, rows in new.items():
                _insert_tags(database, *tagsets[number], rows)
        stage.write_taggings()
    database.executemany(
        "INSERT INTO tagsets VALUES (?, ?, ?)", ((tagset, field.name, _TYPE_IDS[field.kind]) for tagset, field in tagsets.values())
    )
    return tuple(field for _, field in tagsets.values())[1:]


def _insert_tags(database: sqlite3.Connection, tagset: int, of: Field, rows: list[tuple[int, TagValue, int]]) -> None:
    """Write tags whose ids follow each other."""
    database.executemany(f"INSERT INTO {of.kind}_tags VALUES (?, ?, ?)", rows)
    copied = f"INSERT INTO tags SELECT id, ?, tagset_id FROM {of.kind}_tags WHERE id BETWEEN ? AND ?"
    database.execute(copied, (_TYPE_IDS[of.kind], rows[0][0], rows[-1][0]))
