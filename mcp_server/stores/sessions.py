"""What each session has shown, keeps and excludes, in a small SQLite file that several server processes may share.

A handle is 128 random bits. Media ids are kept, not rows, so a re-index changes nothing. A session is gone 24 hours after its last use, or
30 days after it if it keeps or excludes anything or has a note; beyond the limits the oldest ids and the oldest sessions go first.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_server.domain.search import Repeats
from mcp_server.domain.session import Kept, Page, PageEntry, Recorded, SessionChange, SessionHistory, SessionState
from mcp_server.errors import BadArgumentError, UnknownSessionError, clipped
from mcp_server.stores.session_file import SessionFile
from mcp_server.stores.shown_ids import ShownIds

SESSIONS_FILE = "sessions.db"
KEPT_SECONDS = 24 * 3600
KEPT_LONG_SECONDS = 30 * KEPT_SECONDS
"""How long a session with a shortlist, exclusions or notes is kept."""
MOST_IDS = 100_000
MOST_SESSIONS = 10_000
MOST_BYTES = 2 * 2**30
"""Of all sessions together. One that has shown `MOST_IDS` takes some 20 MB, and so does each of its forks."""
MOST_KEPT = 10_000
MOST_NOTES = 200
MOST_PAGES = 10_000
"""Answers of one session whose ids and scores are remembered."""
MOST_ANSWERS = 200
"""Answers of one session, the latest, that can be sent again word for word."""
PREFIX = "s_"
"""How every handle begins."""
OWN = "\0"
"""Stands for the session's own handle in the text of an answer that is kept, so that in a fork it names the fork; JSON never holds it."""

_HAS_MARKS = "(EXISTS (SELECT 1 FROM marks WHERE session = sessions.id) OR EXISTS (SELECT 1 FROM notes WHERE session = sessions.id))"
_TAKEN = "SELECT 1 FROM shown WHERE session = ? AND collection = ? AND media IN (SELECT value FROM json_each(?))"
_COPIED = {
    "shown": "collection, query, media",
    "pages": "page, collection, question, ids, scores, at, answer",
    "marks": "collection, media, kind",
    "notes": "text, at",
}


class Sessions:
    """The sessions of one server, or of several that share the file. Safe to call from several threads and processes."""

    def __init__(
        self,
        file: Path,
        *,
        now: Callable[[], float] = time.time,
        most_ids: int = MOST_IDS,
        most_sessions: int = MOST_SESSIONS,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """Open or create `file`. A damaged file is set aside under another name, so that searching goes on.

        Raises:
            SessionStoreError: the file cannot be created or read.
        """
        self._file = SessionFile(file, now)
        self._shown = ShownIds()
        self._now = now
        self._most_ids = most_ids
        self._most_sessions = most_sessions
        self._most_bytes = most_bytes

    def check(self, session: str) -> None:
        """Raise UnknownSessionError unless `session` is known and not expired."""
        with self._file.reading() as db:
            self._check(db, session)

    def shown(self, session: str, collection: str, query: str | None = None) -> NDArray[np.int64]:
        """Return the distinct media ids that `session` has shown of `collection`, only for `query` when given. Read-only."""
        sql = "SELECT DISTINCT media FROM shown WHERE session = ? AND collection = ?"
        values = [session, collection]
        if query is not None:
            sql, values = sql + " AND query = ?", [*values, query]
        with self._file.reading() as db:
            version = self._file.version(db)
            known = self._shown.get(version, session, collection, query)
            if known is None:
                known = _ids(db, sql, values)
                self._shown.keep(version, session, collection, query, known)
            return known

    def excluded(self, session: str, collection: str) -> NDArray[np.int64]:
        """Return the media ids that `session` excludes for good."""
        with self._file.reading() as db:
            return _ids(db, "SELECT media FROM marks WHERE session = ? AND collection = ? AND kind = 'exclude'", [session, collection])

    def record(
        self,
        session: str | None,
        entry: PageEntry,
        repeats: Repeats,
        answer: Callable[[str, int], str] | None = None,
        after: int | None = None,
    ) -> Recorded | None:
        """Mark what `entry` shows as shown and keep it as the next page; return the handle, a new one if `session` is None, and the page.

        All or nothing: when another call of the session has made a page since there were `after`, or, without `after`, has shown one of the
        ids (and `repeats` forbids that), nothing is written and None is returned; search again. `answer`, given handle and page, makes the
        text that `page` sends again; what it raises leaves nothing behind.

        Raises:
            UnknownSessionError: the handle is unknown or expired.
            SessionStoreError: the file cannot be written.
        """
        with self._writing(session) as db:
            if session is not None:
                self._check(db, session)
                if after is None and repeats != "allow" and self._taken(db, session, entry, entry.query if repeats == "query" else None):
                    return None
            handle = session if session is not None else self._begun(db)
            page = _last_page(db, handle) + 1
            if after is not None and page != after + 1:
                return None
            text = answer(handle, page) if answer is not None else None
            self._touch(db, handle)
            db.executemany(
                "INSERT OR IGNORE INTO shown (session, collection, query, media) VALUES (?, ?, ?, ?)",
                [(handle, entry.collection, entry.query, media) for media in entry.ids],
            )
            packed = zlib.compress(text.replace(handle, OWN).encode()) if text is not None else None
            scores = [round(score, 4) for score in entry.scores]  # as the answer shows them: to round twice gives other digits
            lists = (json.dumps(entry.question), json.dumps(entry.ids), json.dumps(scores))
            db.execute(
                "INSERT INTO pages (session, page, collection, question, ids, scores, at, answer) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (handle, page, entry.collection, *lists, self._now(), packed),
            )
            self._shown.add(handle, entry.collection, entry.query, entry.ids)
            self._forget_oldest(db, handle, page)
        return Recorded(handle, page)

    def pages(self, session: str) -> int:
        """Return how many answers `session` has given. Raises UnknownSessionError."""
        with self._file.reading() as db:
            self._check(db, session)
            return _last_page(db, session)

    def page(self, session: str, page: int) -> str:
        """Return the text of answer `page` of `session`, as it was given; in a fork, with the fork's handle. Counts as a use.

        Raises:
            UnknownSessionError: the handle is unknown or expired.
            BadArgumentError: there is no such page, or its text is no longer kept.
        """
        with self._file.writing() as db:
            self._check(db, session)
            self._touch(db, session)
            row = db.execute("SELECT answer FROM pages WHERE session = ? AND page = ?", (session, page)).fetchone()
            last = _last_page(db, session)
        if row is None or row[0] is None:
            first = max(1, last - MOST_ANSWERS + 1)
            kept = f"has pages {first:,} to {last:,}" if last else "has no pages yet"
            raise BadArgumentError(f"Page {page:,} of this session cannot be sent again: it {kept}. Leave page out to go on.")
        return zlib.decompress(row[0]).decode().replace(OWN, session)

    def asked(self, session: str, page: int) -> tuple[str, dict[str, Any]] | None:
        """Return the collection and the question of answer `page` of `session`; None where there is none. Read-only."""
        with self._file.reading() as db:
            row = db.execute("SELECT collection, question FROM pages WHERE session = ? AND page = ?", (session, page)).fetchone()
        return None if row is None else (row[0], json.loads(row[1]))

    def update(self, change: SessionChange) -> SessionState:
        """Make `change` and return what the session holds then; a new session is begun for None, and for a fork.

        Raises:
            UnknownSessionError: the handle is unknown or expired.
            BadArgumentError: the change contradicts itself or goes over a limit; nothing is changed.
            SessionStoreError: the file cannot be written.
        """
        if change.ids and change.collection is None:
            raise ValueError("ids need their collection")
        _refuse_contradictions(change)
        with self._writing(change.session) as db:
            if change.session is not None:
                self._check(db, change.session)
            handle = change.session
            if handle is None or change.fork:
                handle = self._begun(db, spared=change.session)
            if change.session is not None and change.fork:
                self._copy(db, change.session, handle)
            self._touch(db, handle)
            _mark(db, handle, change)
            if change.forget_seen:
                self._shown.forget(handle)
                where, values = ("", []) if change.collection is None else (" AND collection = ?", [change.collection])
                db.execute(f"DELETE FROM shown WHERE session = ?{where}", [handle, *values])
            if change.note:
                db.execute("INSERT INTO notes (session, text, at) VALUES (?, ?, ?)", (handle, change.note, self._now()))
            _refuse_too_much(db, handle)
            return self._state(db, handle)

    def history(self, session: str) -> SessionHistory:
        """Return everything `session` has shown, keeps, excludes and notes.

        Raises:
            UnknownSessionError: the handle is unknown or expired.
        """
        with self._file.reading() as db:
            self._check(db, session)
            pages = tuple(
                Page(page, collection, json.loads(question), tuple(json.loads(ids)), tuple(json.loads(scores)), at)
                for page, collection, question, ids, scores, at in db.execute(
                    "SELECT page, collection, question, ids, scores, at FROM pages WHERE session = ? ORDER BY page", (session,)
                )
            )
            marks = db.execute("SELECT collection, media, kind FROM marks WHERE session = ? ORDER BY seq", (session,)).fetchall()
            notes = tuple(text for (text,) in db.execute("SELECT text FROM notes WHERE session = ? ORDER BY seq", (session,)))
        excluded: defaultdict[str, list[int]] = defaultdict(list)
        for collection, media, kind in marks:
            if kind == "exclude":
                excluded[collection].append(media)
        kept = _kept(pages, [(collection, media) for collection, media, kind in marks if kind == "keep"])
        return SessionHistory(session, pages, kept, {name: tuple(ids) for name, ids in excluded.items()}, notes)

    def recent(self, prefix: str, most: int) -> list[str]:
        """Return up to `most` handles that begin with `prefix`, the most recently used first; expired ones are left out."""
        sql = f"SELECT id FROM sessions WHERE substr(id, 1, length(?)) = ? AND {_alive()} ORDER BY used DESC, id LIMIT ?"
        with self._file.reading() as db:
            return [handle for (handle,) in db.execute(sql, (prefix, prefix, *self._ages(), most))]

    def close(self) -> None:
        """Close the file. The store must not be used afterwards."""
        self._file.close()

    @contextmanager
    def _writing(self, session: str | None) -> Generator[sqlite3.Connection]:
        """Lend the connection for one write transaction; when it fails, what was remembered of `session` meanwhile is forgotten."""
        with self._file.alone():
            try:
                with self._file.writing() as db:
                    yield db
            except BaseException:
                self._shown.forget(session)
                raise

    def _ages(self) -> tuple[float, float]:
        now = self._now()
        return now - KEPT_SECONDS, now - KEPT_LONG_SECONDS

    def _taken(self, db: sqlite3.Connection, session: str, entry: PageEntry, query: str | None) -> bool:
        """Return whether the session has shown any of `entry` before, for `query` if given."""
        known = self._shown.get(self._file.version(db), session, entry.collection, query)
        if known is not None:
            return bool(np.isin(entry.ids, known).any())
        values: list[Any] = [session, entry.collection, json.dumps(entry.ids)]
        sql = _TAKEN
        if query is not None:
            sql, values = sql + " AND query = ?", [*values, query]
        return db.execute(sql + " LIMIT 1", values).fetchone() is not None

    def _check(self, db: sqlite3.Connection, session: str) -> None:
        if db.execute(f"SELECT 1 FROM sessions WHERE id = ? AND {_alive()}", (session, *self._ages())).fetchone() is None:
            raise UnknownSessionError(
                f'Session "{clipped(session)}" is unknown or expired (kept 24 hours after last use, 30 days with a shortlist). '
                "clip_search without session starts a new one; its seen takes ids to skip."
            )

    def _begun(self, db: sqlite3.Connection, spared: str | None = None) -> str:
        """Enter a new session, making room for it but not by giving up `spared`, and return its handle."""
        handle = PREFIX + secrets.token_urlsafe(16)
        before = db.total_changes
        db.execute(f"DELETE FROM sessions WHERE {_expired()}", self._ages())
        (count,) = db.execute("SELECT COUNT(*) FROM sessions").fetchone()
        if count >= self._most_sessions or self._file.used_bytes(db) >= self._most_bytes:
            most = min(count, self._most_sessions)
            room = max(1, most // 100)  # for some at once: to find the oldest, all are looked at
            db.execute(
                f"DELETE FROM sessions WHERE id IN (SELECT id FROM sessions ORDER BY id IS ? DESC, {_HAS_MARKS} DESC, used DESC "
                "LIMIT -1 OFFSET ?)",
                (spared, max(1, most - room)),
            )
        if db.total_changes != before:
            self._shown.forget()
        db.execute("INSERT INTO sessions VALUES (?, ?)", (handle, self._now()))
        return handle

    def _touch(self, db: sqlite3.Connection, session: str) -> None:
        db.execute("UPDATE sessions SET used = ? WHERE id = ?", (self._now(), session))

    @staticmethod
    def _copy(db: sqlite3.Connection, session: str, fork: str) -> None:
        for table, columns in _COPIED.items():
            db.execute(
                f"INSERT INTO {table} (session, {columns}) SELECT ?, {columns} FROM {table} WHERE session = ? ORDER BY seq", (fork, session)
            )

    def _forget_oldest(self, db: sqlite3.Connection, session: str, page: int) -> None:
        version = self._file.version(db)
        count = self._shown.most(version, session)
        if count is None or count > self._most_ids:
            (count,) = db.execute("SELECT COUNT(*) FROM shown WHERE session = ?", (session,)).fetchone()
            self._shown.keep_count(version, session, count)
        if count > self._most_ids:
            self._shown.forget(session)
            db.execute(
                "DELETE FROM shown WHERE seq IN (SELECT seq FROM shown WHERE session = ? ORDER BY seq LIMIT ?)",
                (session, count - self._most_ids + self._most_ids // 100),  # some at once: to find the oldest, all are looked at
            )
        if page > MOST_ANSWERS:
            db.execute("UPDATE pages SET answer = NULL WHERE session = ? AND page = ?", (session, page - MOST_ANSWERS))
        if page > MOST_PAGES:
            db.execute("DELETE FROM pages WHERE session = ? AND page <= ?", (session, page - MOST_PAGES))

    def _state(self, db: sqlite3.Connection, session: str) -> SessionState:
        kept: defaultdict[str, list[int]] = defaultdict(list)
        excluded: defaultdict[str, int] = defaultdict(int)
        for collection, media, kind in db.execute("SELECT collection, media, kind FROM marks WHERE session = ? ORDER BY seq", (session,)):
            if kind == "keep":
                kept[collection].append(media)
            else:
                excluded[collection] += 1
        seen = db.execute(
            "SELECT collection, COUNT(DISTINCT media) FROM shown WHERE session = ? GROUP BY collection", (session,)
        ).fetchall()
        notes = [text for (text,) in db.execute("SELECT text FROM notes WHERE session = ? ORDER BY seq", (session,))]
        seconds = KEPT_LONG_SECONDS if kept or excluded or notes else KEPT_SECONDS
        return SessionState(session, dict(kept), dict(excluded), dict(seen), _last_page(db, session), notes, seconds / 3600)


def _ids(db: sqlite3.Connection, sql: str, values: Sequence[str]) -> NDArray[np.int64]:
    rows = db.execute(sql, values).fetchall()
    return np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows))


def _alive() -> str:
    """Return the condition that a session has not expired; its values are `_ages`."""
    return f"(used >= ? OR (used >= ? AND {_HAS_MARKS}))"


def _expired() -> str:
    """Return the opposite of `_alive`, with the same values, in a form that SQLite answers from the index by use."""
    return f"used < ? AND NOT (used >= ? AND {_HAS_MARKS})"


def _last_page(db: sqlite3.Connection, session: str) -> int:
    return int(db.execute("SELECT COALESCE(MAX(page), 0) FROM pages WHERE session = ?", (session,)).fetchone()[0])


def _mark(db: sqlite3.Connection, session: str, change: SessionChange) -> None:
    """Change the marks; what is marked so already keeps its place."""
    for kind, ids in (("keep", change.keep), ("exclude", change.exclude)):
        old = "exclude" if kind == "keep" else "keep"
        rows = [(session, change.collection, media) for media in ids]
        db.executemany(f"DELETE FROM marks WHERE session = ? AND collection = ? AND media = ? AND kind = '{old}'", rows)
        db.executemany(f"INSERT OR IGNORE INTO marks (session, collection, media, kind) VALUES (?, ?, ?, '{kind}')", rows)
    db.executemany(
        "DELETE FROM marks WHERE session = ? AND collection = ? AND media = ?",
        [(session, change.collection, media) for media in change.drop],
    )


def _refuse_contradictions(change: SessionChange) -> None:
    if change.fork and change.session is None:
        raise BadArgumentError("fork copies a session: pass the session to copy, or leave fork out to start an empty one.")
    for first, second in (("keep", "drop"), ("keep", "exclude"), ("drop", "exclude")):
        both = set(getattr(change, first)) & set(getattr(change, second))
        if both:
            raise BadArgumentError(f"{first} and {second} both name {min(both)}. Name each id in one of them only.")


def _refuse_too_much(db: sqlite3.Connection, session: str) -> None:
    """Raise BadArgumentError when the session holds more than it may."""
    counts = dict(db.execute("SELECT kind, COUNT(*) FROM marks WHERE session = ? GROUP BY kind", (session,)).fetchall())
    (notes,) = db.execute("SELECT COUNT(*) FROM notes WHERE session = ?", (session,)).fetchone()
    if counts.get("keep", 0) > MOST_KEPT:
        raise BadArgumentError(f"A shortlist holds at most {MOST_KEPT:,} items. Drop some, or export it and go on in a new session.")
    if counts.get("exclude", 0) > MOST_IDS:
        raise BadArgumentError(f"A session excludes at most {MOST_IDS:,} items. Use filters to leave out more.")
    if notes > MOST_NOTES:
        raise BadArgumentError(f"A session holds at most {MOST_NOTES} notes. Start a new session, or keep longer lists yourself.")


def _kept(pages: Sequence[Page], kept: Sequence[tuple[str, int]]) -> tuple[Kept, ...]:
    """Return the shortlist, each item with the answer that showed it first."""
    wanted = set(kept)
    first: dict[tuple[str, int], Kept] = {}
    for page in pages:
        for media, score in zip(page.ids, page.scores, strict=True):
            key = (page.collection, media)
            if key in wanted and key not in first:
                first[key] = Kept(page.collection, media, page.page, page.question, score)
    return tuple(first.get(key) or Kept(*key) for key in kept)
