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
    """Enter what `scanned` found below `folder` into `ledger`, as one transaction.

    A file is unchanged when its size and its times of modification and change are; else it is read again, and embedded again if its bytes
    differ. A file that failed is tried again when anything about it changed. A new or changed file with the bytes of one that is no longer
    at its path is that one, moved: it keeps its id and its vector, also where names were swapped. What is gone leaves the collection; its
    id stays its own: the same bytes at the same path have it again, other bytes there have a new one.

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
        ledger.database.execute("DELETE FROM files WHERE source >= '/' AND source < '0'")  # at their paths are others now
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
    """Let pictures follow their bytes where only their paths changed, also where names were swapped; return how many.

    Read for it are new and changed files that are as large as a picture which is no longer at its path, or may not be.
    """
    moves = _moves(ledger, folder)
    there = [(place,) for _, old, new, _ in moves for place in (old, new)]
    ledger.database.executemany("UPDATE files SET source = '/' || id WHERE source = ?", there)  # whoever stays so is gone
    ledger.database.executemany(
        "UPDATE files SET source = ?3, moved_from = coalesce(moved_from, ?2), status = ?4, todo = 2, own = NULL, own_group = NULL, "
        "(size, mtime_ns, ctime_ns, sidecars, sidecar_stamp) = "
        "(SELECT size, mtime_ns, ctime_ns, sidecars, sidecar_stamp FROM scanned WHERE source = ?3) WHERE id = ?1",
        moves,
    )
    return len(moves)


def _moves(ledger: Ledger, folder: Path) -> list[tuple[int, str, str, str]]:
    """Return id, old path, new path and new status of each picture that is elsewhere now."""
    ledger.database.execute("DROP TABLE IF EXISTS temp.loose")
    ledger.database.execute("CREATE TEMP TABLE loose (id INTEGER PRIMARY KEY, source, size, sha256, is_changed, may_stay)")
    ledger.database.execute(
        "INSERT INTO loose "
        "SELECT f.id, f.source, f.size, f.sha256, s.source IS NOT NULL, s.size IS f.size "
        'FROM files f LEFT JOIN scanned s ON s.source = f.source WHERE f."row" IS NOT NULL AND f.todo <> 1 '
        "AND f.status NOT IN ('removed', 'gone') AND (s.source IS NULL OR f.todo = 2 OR "
        "(s.size, s.mtime_ns, s.ctime_ns) IS NOT (f.size, f.mtime_ns, f.ctime_ns))"
    )
    ledger.database.execute("CREATE INDEX temp.loose_by_content ON loose (size, sha256, is_changed, source)")
    candidates = ledger.database.execute(
        "SELECT s.source, s.size, l.id, l.sha256 FROM scanned s LEFT JOIN loose l ON l.source = s.source "
        "WHERE s.size > 0 AND EXISTS (SELECT 1 FROM loose o WHERE o.size = s.size AND o.source <> s.source) "
        'AND (l.source IS NOT NULL OR NOT EXISTS (SELECT 1 FROM files f WHERE f.source = s.source AND f."row" IS NOT NULL)) '
        "ORDER BY s.source"
    ).fetchall()
    read = [(source, size, media_id, before, _hash(folder / source)) for source, size, media_id, before in candidates]
    stay = [(media_id,) for _, _, media_id, before, content in read if before is not None and content == before]
    ledger.database.executemany("DELETE FROM loose WHERE id = ?", stay)
    moves: list[tuple[int, str, str, str]] = []
    for source, size, _, before, content in read:
        like = ledger.database.execute(
            "SELECT id, source, may_stay FROM loose WHERE (size, sha256) = (?, ?) ORDER BY is_changed, source",
            (size, None if content == before else content),
        )
        lost = next(((one, old) for one, old, may_stay in like if not (may_stay and _hash(folder / old) in (content, None))), None)
        like.close()
        if lost is not None:
            moves.append((*lost, source, "added" if before is None else "changed"))
            ledger.database.execute("DELETE FROM loose WHERE id = ?", lost[:1])
    ledger.database.execute("DROP TABLE temp.loose")
    return moves


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
    differs = "(s.size, s.mtime_ns, s.ctime_ns) IS NOT (files.size, files.mtime_ns, files.ctime_ns)"
    todo = (
        "CASE WHEN files.todo = 1 THEN 1 "
        "WHEN files.status IN ('removed', 'gone') THEN 1 "
        f"WHEN files.reason IS NOT NULL THEN CASE WHEN {differs} THEN 1 WHEN files.again THEN 2 ELSE 0 END "
        'WHEN files."row" IS NULL OR s.size <> files.size THEN 1 '
        f"WHEN {differs} OR s.sidecar_stamp <> files.sidecar_stamp THEN 2 ELSE files.todo END"
    )
    ledger.database.execute(
        f"UPDATE files SET todo = (SELECT {todo} {known}), "
        "status = CASE WHEN status IN ('removed', 'gone') THEN 'added' ELSE status END, "
        "(size, mtime_ns, ctime_ns, sidecars, sidecar_stamp) = "
        f"(SELECT s.size, s.mtime_ns, s.ctime_ns, s.sidecars, s.sidecar_stamp {known}) "
        f"WHERE EXISTS (SELECT 1 {known} AND ({differs} OR s.sidecar_stamp <> files.sidecar_stamp "
        "OR files.status IN ('removed', 'gone') OR files.again))"
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
            # where one was whose id went elsewhere, a change is what the owner sees
            "1, CASE WHEN s.source IN (SELECT moved_from FROM files WHERE moved_from IS NOT NULL) THEN 'changed' ELSE 'added' END "
            f"{new} ORDER BY s.source",
            (first,),
        )
    return count


def _one(ledger: Ledger, sql: str) -> int:
    return int(ledger.database.execute(sql).fetchone()[0])
