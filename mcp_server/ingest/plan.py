"""Holds what lies in the folder now against the ledger: what is new, changed, moved, gone, and what therefore has to be read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from mcp_server.errors import IngestError
from mcp_server.ingest.catalog.fields import storable
from mcp_server.ingest.ledger import Ledger
from mcp_server.ingest.pictures.results import Unreadable
from mcp_server.ingest.pictures.suffixes import readable_suffixes
from mcp_server.ingest.scan import Closed, Found

_MANY = 10_000

_SCANNED = """
CREATE TEMP TABLE scanned (
    source TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, ctime_ns INTEGER, sidecars TEXT, sidecar_stamp TEXT
) WITHOUT ROWID
"""


@dataclass(frozen=True)
class Plan:
    """What is to be done, beyond what the ledger says.

    Attributes:
        files: how many files the scan found.
        unnamed: files that cannot even be entered, since their names are no text.
        closed: folders that could not be read; what was known below them stays as it was.
    """

    files: int
    unnamed: tuple[Unreadable, ...]
    closed: tuple[Closed, ...]


def make_plan(ledger: Ledger, folder: Path, scanned: Iterable[Found | Closed]) -> Plan:
    """Enter what `scanned` found below `folder` into `ledger`, as one transaction. Media ids follow the paths.

    A file is unchanged when size and modification time are; else it is read again, and embedded again if its bytes differ. A file that
    failed is tried again when anything about it changed. A new file with the bytes of one that is gone is that one, moved: it keeps its id
    and its vector. What is gone leaves the collection; its id stays its own: the same bytes at the same path have it again, other bytes
    there have a new one.

    Raises:
        IngestError: no picture is there.
    """
    unnamed: list[Unreadable] = []
    closed: list[Closed] = []
    ledger.database.execute("DROP TABLE IF EXISTS temp.scanned")
    ledger.database.execute(_SCANNED)
    with ledger.transaction():
        named = _named(scanned, unnamed, closed)
        while many := list(islice(named, _MANY)):
            ledger.database.executemany(
                "INSERT INTO scanned VALUES (?, ?, ?, ?, ?, ?)",
                [(one.source, one.size, one.mtime_ns, one.ctime_ns, json.dumps(one.sidecars), one.sidecar_stamp) for one in many],
            )
        files = _one(ledger, "SELECT count(*) FROM scanned")
        if not files + len(unnamed) and not closed:
            kinds = ", ".join(sorted(suffix[1:] for suffix in readable_suffixes()))
            raise IngestError(f"No picture is below {folder}. Files ending in {kinds} are read; hidden ones are not.")
        closed = _protect(ledger, closed)
        moved = _move(ledger, folder)
        gone = _remove(ledger)
        _forget_others(ledger, folder)
        _notice_changes(ledger)
        added = _add(ledger)
        if gone or moved:
            ledger.set("dirty", 1)
        if gone or moved or added:
            ledger.set("metadata_stamp", None)  # the user's metadata has to be matched again
    ledger.database.execute("DROP TABLE temp.scanned")
    return Plan(files + len(unnamed), tuple(unnamed), tuple(closed))


def _named(scanned: Iterable[Found | Closed], unnamed: list[Unreadable], closed: list[Closed]) -> Iterator[Found]:
    for one in scanned:
        if isinstance(one, Closed):
            closed.append(Closed(storable(one.prefix), one.reason, one.is_link))
        elif storable(one.source) != one.source:
            unnamed.append(Unreadable(storable(one.source), "its name is not Unicode text"))
        elif any(storable(sidecar) != sidecar for sidecar in one.sidecars):
            yield Found(one.source, one.size, one.mtime_ns, one.ctime_ns, (), "")
        else:
            yield one


def _protect(ledger: Ledger, closed: Iterable[Closed]) -> list[Closed]:
    """Take what is known below folders that cannot be read now as found: it is not gone, it cannot be seen. Return those that matter."""
    matter: list[Closed] = []
    for one in closed:
        known = ledger.database.execute(
            "INSERT OR IGNORE INTO scanned SELECT source, size, mtime_ns, ctime_ns, sidecars, sidecar_stamp FROM files "
            "WHERE substr(source, 1, ?) = ? AND status NOT IN ('removed', 'gone')",
            (len(one.prefix), one.prefix),
        ).rowcount
        if known or not one.is_link:
            matter.append(one)
    return matter


def _move(ledger: Ledger, folder: Path) -> int:
    """Recognise files that changed their path only; return how many. Only new files as large as one that is gone are read for it."""
    ledger.database.execute("DROP TABLE IF EXISTS temp.lost")
    ledger.database.execute(
        'CREATE TEMP TABLE lost AS SELECT source, size, sha256 FROM files f WHERE "row" IS NOT NULL AND todo <> 1 '
        "AND status NOT IN ('removed', 'gone') AND NOT EXISTS (SELECT 1 FROM scanned t WHERE t.source = f.source)"
    )
    candidates = ledger.database.execute(
        "SELECT source, size FROM scanned s WHERE size > 0 AND size IN (SELECT size FROM lost) "
        'AND NOT EXISTS (SELECT 1 FROM files f WHERE f.source = s.source AND "row" IS NOT NULL) ORDER BY source'
    ).fetchall()
    moved = 0
    for source, size in candidates:
        content = _hash(folder / source)
        old = ledger.database.execute(
            "SELECT source FROM lost WHERE sha256 = ? AND size = ? ORDER BY source LIMIT 1", (content, size)
        ).fetchone()
        if old is not None:
            ledger.database.execute("DELETE FROM files WHERE source = ?", (source,))  # what was there once, or could not be read
            ledger.database.execute(
                "UPDATE files SET moved_from = coalesce(moved_from, source), source = ?, status = 'added', todo = 2, own = NULL, "
                "own_group = NULL, (size, mtime_ns, ctime_ns, sidecars, sidecar_stamp) = "
                "(SELECT size, mtime_ns, ctime_ns, sidecars, sidecar_stamp FROM scanned WHERE source = ?) WHERE source = ?",
                (source, source, old[0]),
            )
            ledger.database.execute("DELETE FROM lost WHERE source = ?", old)
            moved += 1
    ledger.database.execute("DROP TABLE temp.lost")
    return moved


def _hash(file: Path) -> str | None:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError:
        return None


def _remove(ledger: Ledger) -> int:
    """Mark what is gone; return how many."""
    where = "status NOT IN ('removed', 'gone') AND NOT EXISTS (SELECT 1 FROM scanned t WHERE t.source = files.source)"
    ledger.database.execute(f'INSERT OR IGNORE INTO free_rows SELECT "row", 0 FROM files WHERE "row" IS NOT NULL AND {where}')
    ledger.database.execute(f"DELETE FROM pending WHERE id IN (SELECT id FROM files WHERE {where})")
    ledger.database.execute(f"UPDATE files SET original = NULL WHERE original IN (SELECT id FROM files WHERE {where})")
    return ledger.database.execute(
        # what was new since the last run that ended, or could not be read, was not in the collection
        "UPDATE files SET status = CASE WHEN status IN ('added', 'failed') THEN 'gone' ELSE 'removed' END, todo = 0, reason = NULL, "
        # the hash stays, to know it by when it comes back
        'notes = NULL, "row" = NULL, facts = NULL, own = NULL, own_group = NULL, member_of = NULL, original = NULL '
        f"WHERE {where}"
    ).rowcount


def _forget_others(ledger: Ledger, folder: Path) -> None:
    """Forget pictures that are gone where another lies at their path now: that one is new, and their ids are nobody's."""
    back = ledger.database.execute(
        "SELECT f.source, f.sha256, f.sha256 IS NULL OR f.size <> s.size FROM files f JOIN scanned s ON s.source = f.source "
        "WHERE f.status IN ('removed', 'gone') ORDER BY f.source"
    ).fetchall()
    for source, content, is_other in back:
        if is_other or _hash(folder / source) != content:
            ledger.database.execute("DELETE FROM files WHERE source = ?", (source,))


def _notice_changes(ledger: Ledger) -> None:
    known = "FROM scanned s WHERE s.source = files.source"
    differs = "(s.size, s.mtime_ns) IS NOT (files.size, files.mtime_ns)"
    todo = (
        "CASE WHEN files.todo = 1 THEN 1 "
        "WHEN files.status IN ('removed', 'gone') THEN 1 "
        f"WHEN files.reason IS NOT NULL THEN CASE WHEN {differs} OR s.ctime_ns <> files.ctime_ns THEN 1 "
        "WHEN files.again THEN 2 ELSE 0 END "
        'WHEN files."row" IS NULL OR s.size <> files.size THEN 1 '
        f"WHEN {differs} OR s.sidecar_stamp <> files.sidecar_stamp THEN 2 ELSE files.todo END"
    )
    ledger.database.execute(
        f"UPDATE files SET todo = (SELECT {todo} {known}), "
        "status = CASE WHEN status IN ('removed', 'gone') THEN 'added' ELSE status END, "
        "(size, mtime_ns, ctime_ns, sidecars, sidecar_stamp) = "
        f"(SELECT s.size, s.mtime_ns, s.ctime_ns, s.sidecars, s.sidecar_stamp {known}) "
        f"WHERE EXISTS (SELECT 1 {known} AND ((s.size, s.mtime_ns, s.sidecar_stamp) IS NOT (files.size, files.mtime_ns, "
        "files.sidecar_stamp) OR s.ctime_ns <> files.ctime_ns OR files.status IN ('removed', 'gone') OR files.again))"
    )


def _add(ledger: Ledger) -> int:
    """Enter what is new, in the order of the paths; return how many."""
    new = "FROM scanned s WHERE NOT EXISTS (SELECT 1 FROM files f WHERE f.source = s.source)"
    count = _one(ledger, f"SELECT count(*) {new}")
    if count:
        first = ledger.next_id(count)
        ledger.database.execute(
            "INSERT INTO files (source, id, size, mtime_ns, ctime_ns, sidecars, sidecar_stamp, todo, status) "
            f"SELECT s.source, ? - 1 + row_number() OVER (ORDER BY s.source), s.size, s.mtime_ns, s.ctime_ns, s.sidecars, s.sidecar_stamp, "
            f"1, 'added' {new} ORDER BY s.source",
            (first,),
        )
    return count


def _one(ledger: Ledger, sql: str) -> int:
    return int(ledger.database.execute(sql).fetchone()[0])
