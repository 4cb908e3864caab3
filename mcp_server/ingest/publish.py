"""Turns the ledger into the three files of a collection and puts them in place. What is in the ledger decides every byte of them."""

from __future__ import annotations

import heapq
import logging
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mcp_server.errors import CollectionError, IngestError
from mcp_server.indexes.fingerprints import fingerprint_of
from mcp_server.indexes.zarr_files import find_array, read_blocks
from mcp_server.ingest.catalog.fields import TagKind, field_key
from mcp_server.ingest.catalog.write_catalog import IMAGE, OTHER, CatalogReport, MediaRow, write_catalog
from mcp_server.ingest.duplicates import find_duplicates, kinship, undecided
from mcp_server.ingest.ledger import Entry, Ledger
from mcp_server.ingest.row_file import RowFile
from mcp_server.ingest.wishes import Wishes
from mcp_server.ingest.write import CATALOG_FILE, EMBEDDINGS_FILE, THUMBNAILS_FILE, move_into, writing
from mcp_server.ingest.write_archives import ThumbnailsWriter, is_thumbnail_of, stored_dtype, thumbnail_name, write_embeddings

logger = logging.getLogger(__name__)

_BLOCK_ROWS = 4096
_TEXTS: Mapping[str, TagKind] = {
    "folder": "alphanumerical",
    "title": "alphanumerical",
    "caption": "alphanumerical",
    "keywords": "alphanumerical",
}
"""Fields that ingest finds which are text even if all of their values look like dates."""
_SOURCES = 'SELECT source FROM files WHERE "row" IS NOT NULL'
_MOVED = f"{_SOURCES} AND published_as IS NOT source LIMIT 1"


def publish(ledger: Ledger, destination: Path, wishes: Wishes, *, final: bool = True) -> CatalogReport:
    """Write the collection of `ledger` to `destination`; return what the catalog says of its fields.

    The files are written aside and renamed, embeddings first and catalog last: a row that the old catalog speaks of means the same picture
    in the new embeddings, so that whoever reads in between has the old collection. Memory does not grow with the collection, but for the
    thumbnails' directory, about 1 kB a picture.

    Args:
        final: the run ends with this. Before, duplicates and groups are not decided: what they are must not depend on when that was.

    Raises:
        IngestError: no picture has a vector, a field to group by does not exist, the old files are damaged, or the disk refuses.
    """
    if not ledger.pictures():
        raise IngestError("None of the files can be read, so there is no collection to write.")
    staging = ledger.folder / "staging"
    with writing(destination), ExitStack() as stack:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        stack.callback(shutil.rmtree, staging, ignore_errors=True)
        has_news = _has_news(ledger, destination)
        to_decide = final and undecided(ledger, wishes.near)
        if to_decide or has_news:
            with _vectors(ledger, destination, staging) as vectors:
                if to_decide:
                    find_duplicates(ledger, vectors, wishes.near)
                if has_news:
                    blocks = vectors.blocks(_BLOCK_ROWS)
                    write_embeddings(staging / EMBEDDINGS_FILE, blocks, vectors.count, vectors.width, vectors.dtype.type)
                    ledger.set("next_embeddings", fingerprint_of(staging / EMBEDDINGS_FILE))
        (staging / "vectors").unlink(missing_ok=True)
        _thumbnails(ledger, destination, staging, has_news=has_news)
        if final:
            group(ledger, wishes)
        report = _catalog(ledger, staging / CATALOG_FILE, wishes)
        ledger.to_disk()  # before the files: they must never know more than it does
        move_into(staging, destination)
        ledger.published()
    return report


def _has_news(ledger: Ledger, destination: Path) -> bool:
    return (
        not zipfile.is_zipfile(destination / EMBEDDINGS_FILE)
        or ledger.database.execute("SELECT 1 FROM pending LIMIT 1").fetchone() is not None
    )


def _vectors(ledger: Ledger, destination: Path, staging: Path) -> RowFile:
    """Return all rows, those published before and those pending, in one file."""
    count, width = int(ledger.setting("rows", 0)), int(ledger.setting("width"))
    file = destination / EMBEDDINGS_FILE
    try:
        old = find_array(file) if zipfile.is_zipfile(file) else None
        if old is not None:
            fingerprint = fingerprint_of(file)
            if fingerprint not in (ledger.setting("embeddings"), ledger.setting("next_embeddings")):
                raise IngestError(f"{file} is not what the last ingest wrote. Use --replace to build the collection anew.")
            ledger.set("embeddings", fingerprint)
        halved = old is not None and old.dtype == np.float16
        rows = RowFile(staging / "vectors", count, width, np.float16 if halved else stored_dtype(count))
        for start, block in read_blocks(old) if old is not None else ():
            rows.put(start, block[: count - start])
    except CollectionError as error:
        raise IngestError(f"{error} Or use --replace to build the collection anew.") from error
    for row, vector in ledger.database.execute('SELECT "row", vector FROM pending ORDER BY "row"'):
        rows.put(row, np.frombuffer(vector, "<f4")[None])
    return rows


def _thumbnails(ledger: Ledger, destination: Path, staging: Path, *, has_news: bool) -> None:
    """Write the thumbnails of the pictures in the ledger, in the order of their ids; nothing if they are the same as before."""
    current = destination / THUMBNAILS_FILE
    pictures = 'FROM files f LEFT JOIN pending p ON p.id = f.id WHERE f."row" IS NOT NULL ORDER BY f.id'
    with ExitStack() as stack:
        old = stack.enter_context(zipfile.ZipFile(current)) if zipfile.is_zipfile(current) else None
        known = old.NameToInfo if old is not None else {}
        wanted = {thumbnail_name(source) for (source,) in ledger.database.execute(_SOURCES)}
        if old is not None and not has_news and known.keys() == wanted and not ledger.database.execute(_MOVED).fetchone():
            return
        writer = ThumbnailsWriter(staging / THUMBNAILS_FILE)
        stack.callback(writer.close)
        columns = "f.source, f.published_as, f.sha256, p.thumbnail"
        for source, published_as, sha256, pending in ledger.database.execute(f"SELECT {columns} {pictures}"):
            names = (thumbnail_name(source), thumbnail_name(published_as or source))
            before = next((name for name in names if name in known and is_thumbnail_of(known[name], sha256)), None)
            if pending is not None:
                writer.add(names[0], pending, sha256)
            elif old is not None and before is not None:
                writer.add(names[0], old.read(before), sha256)
            else:
                logger.warning("ingest.thumbnail_lost source=%s", source)  # a kill at a bad moment, or somebody else wrote the file


def group(ledger: Ledger, wishes: Wishes) -> None:
    """Decide which group each picture is in. New groups get ids in the order of their names; they keep them for good.

    Raises:
        IngestError: no picture has the field to group by.
    """
    names: dict[str, int] = dict(ledger.database.execute("SELECT name, id FROM groups"))
    found = 0
    with ledger.transaction():
        ledger.database.execute("CREATE TEMP TABLE IF NOT EXISTS membership (id INTEGER PRIMARY KEY, name TEXT)")
        ledger.database.execute("DELETE FROM membership")
        for entry in ledger.entries():
            made = wishes.grouping.group_of(entry.source, fields_of_entry(entry, wishes)) if wishes.grouping else None
            found += made is not None
            name = entry.own_group or made
            if name is not None:
                ledger.database.execute("INSERT INTO membership VALUES (?, ?)", (entry.id, name))
        if wishes.grouping is not None and wishes.grouping.field is not None and not found:
            raise IngestError(
                f"--group-by: no picture has a field {wishes.grouping.field!r}. Give folder, stem, a field or a regular expression."
            )
        if wishes.grouping is not None and not found:
            logger.warning("ingest.no_group grouping=%s: no picture's path has what the expression looks for", wishes.grouping.by)
        if wishes.grouping is not None and wishes.grouping.drops_singles:
            ledger.database.execute(
                "DELETE FROM membership WHERE name IN (SELECT name FROM membership GROUP BY name HAVING count(*) = 1) "
                "AND id NOT IN (SELECT id FROM files WHERE own_group IS NOT NULL)"
            )
        for (name,) in ledger.database.execute("SELECT name FROM membership GROUP BY name ORDER BY name").fetchall():
            if name not in names:
                names[name] = ledger.next_id(1)
                ledger.database.execute("INSERT INTO groups VALUES (?, ?)", (name, names[name]))
        ledger.database.execute(
            "UPDATE files SET member_of = (SELECT g.id FROM membership m JOIN groups g ON g.name = m.name WHERE m.id = files.id) "
            "WHERE member_of IS NOT "
            "(SELECT g.id FROM membership m JOIN groups g ON g.name = m.name WHERE m.id = files.id)"
        )


def fields_of_entry(entry: Entry, wishes: Wishes) -> dict[str, Any]:
    """Return the fields of a picture: its owner's first, then those ingest found out that do not carry the name of one of these."""
    own = entry.own
    if wishes.only_own:
        return own
    taken = {name.casefold() for name in own}
    if any(name.casefold() == "date_taken" and value is not None for name, value in own.items()):
        taken |= {"year", "month", "hour"}  # those of another day
    return own | {name: value for name, value in entry.facts.items() if name.casefold() not in taken}


def _catalog(ledger: Ledger, file: Path, wishes: Wishes) -> CatalogReport:
    asked: dict[str, TagKind] = {field_key(name): kind for name, kind in wishes.kinds.items()}
    report = write_catalog(file, _medias(ledger, wishes), kinds=asked if wishes.only_own else {**_TEXTS, **asked})
    return replace(report, unused_kinds=tuple(name for name in report.unused_kinds if name in asked))


def _medias(ledger: Ledger, wishes: Wishes) -> Iterator[MediaRow]:
    """Yield pictures and groups, ids ascending."""
    return heapq.merge(_pictures(ledger, wishes), _groups(ledger), key=lambda media: media.id)


def _pictures(ledger: Ledger, wishes: Wishes) -> Iterator[MediaRow]:
    relatives = kinship(ledger)
    for entry in ledger.entries():
        fields = fields_of_entry(entry, wishes)
        if not wishes.only_own:
            fields = fields | relatives(entry)
        yield MediaRow(entry.id, entry.source, IMAGE, thumbnail_name(entry.source), entry.member_of, entry.row, fields)


def _groups(ledger: Ledger) -> Iterator[MediaRow]:
    rows = ledger.database.execute(
        "SELECT id, name FROM groups WHERE id IN (SELECT member_of FROM files WHERE member_of IS NOT NULL) ORDER BY id"
    )
    for media_id, name in rows:
        yield MediaRow(media_id, name, OTHER)
