"""What each session has shown, in a small SQLite file that several server processes may share.

A handle is 128 random bits. Media ids are kept, not rows, so a re-index changes nothing. A session is gone 24 hours after its last use;
beyond the limits the oldest ids and the oldest sessions go first.
"""

from __future__ import annotations

import json
import logging
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_server.domain.ids import MediaId
from mcp_server.domain.search import Repeats
from mcp_server.errors import SessionStoreError, UnknownSessionError, clipped

logger = logging.getLogger(__name__)

SESSIONS_FILE = "sessions.db"
KEPT_SECONDS = 24 * 3600
MOST_IDS = 100_000
MOST_SESSIONS = 10_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (id TEXT PRIMARY KEY, used REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS sessions_by_use ON sessions (used);
CREATE TABLE IF NOT EXISTS shown (
    seq INTEGER PRIMARY KEY,
    session TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    collection TEXT NOT NULL,
    query TEXT NOT NULL,
    media INTEGER NOT NULL,
    UNIQUE (session, collection, query, media)
);
"""
_TAKEN = "SELECT 1 FROM shown WHERE session = ? AND collection = ? AND media IN (SELECT value FROM json_each(?))"


class Sessions:
    """The sessions of one server, or of several that share the file. Safe to call from several threads and processes."""

    def __init__(
        self,
        file: Path,
        *,
        now: Callable[[], float] = time.time,
        most_ids: int = MOST_IDS,
        most_sessions: int = MOST_SESSIONS,
    ) -> None:
        """Open or create `file`. A damaged file is set aside under another name, so that searching goes on.

        Raises:
            SessionStoreError: the file cannot be created or read.
        """
        self._file = file
        self._now = now
        self._most_ids = most_ids
        self._most_sessions = most_sessions
        self._lock = threading.RLock()  # one connection: each use takes milliseconds
        self._db: sqlite3.Connection | None = None
        with self._reported():
            try:
                self._db = self._opened()
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._set_aside()
                self._db = self._opened()

    def check(self, session: str) -> None:
        """Raise UnknownSessionError unless `session` is known and not expired."""
        with self._reported(), self._lock:
            row = self._connection.execute("SELECT used FROM sessions WHERE id = ?", (session,)).fetchone()
        if row is None or row[0] < self._now() - KEPT_SECONDS:
            raise UnknownSessionError(
                f'Session "{clipped(session)}" is unknown or expired (kept 24 hours after last use). '
                "Call again without session to start a new one; pass ids to skip in seen."
            )

    def shown(self, session: str, collection: str, query: str | None = None) -> NDArray[np.int64]:
        """Return the distinct media ids that `session` has shown of `collection`, only for `query` when given."""
        sql = "SELECT DISTINCT media FROM shown WHERE session = ? AND collection = ?"
        values = [session, collection]
        if query is not None:
            sql, values = sql + " AND query = ?", [*values, query]
        with self._reported(), self._lock:
            rows = self._connection.execute(sql, values).fetchall()
        return np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows))

    def remember(self, session: str | None, collection: str, query: str, ids: Sequence[MediaId], repeats: Repeats) -> str | None:
        """Mark `ids` as shown, in order, and return the handle: a new one if `session` is None.

        All or nothing: when another call of the session has shown one of them meanwhile (and `repeats` forbids that), nothing is
        written and None is returned; search again.

        Raises:
            UnknownSessionError: the handle is unknown or expired.
            SessionStoreError: the file cannot be written.
        """
        with self._reported(), self._writing() as db:
            if session is None:
                handle = "s_" + secrets.token_urlsafe(16)
                self._make_room(db)
                db.execute("INSERT INTO sessions VALUES (?, ?)", (handle, self._now()))
            else:
                handle = session
                self.check(handle)
                if repeats != "allow" and self._taken(db, handle, collection, query if repeats == "query" else None, ids):
                    return None
                db.execute("UPDATE sessions SET used = ? WHERE id = ?", (self._now(), handle))
            db.executemany(
                "INSERT OR IGNORE INTO shown (session, collection, query, media) VALUES (?, ?, ?, ?)",
                [(handle, collection, query, int(media)) for media in ids],
            )
            self._forget_oldest(db, handle)
        return handle

    def close(self) -> None:
        """Close the file. The store must not be used afterwards."""
        with self._lock:
            if self._db is not None:
                self._db.close()

    @staticmethod
    def _taken(db: sqlite3.Connection, session: str, collection: str, query: str | None, ids: Sequence[MediaId]) -> bool:
        values: list[Any] = [session, collection, json.dumps([int(media) for media in ids])]
        sql = _TAKEN
        if query is not None:
            sql, values = sql + " AND query = ?", [*values, query]
        return db.execute(sql + " LIMIT 1", values).fetchone() is not None

    def _make_room(self, db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM sessions WHERE used < ?", (self._now() - KEPT_SECONDS,))
        db.execute(
            "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions ORDER BY used DESC LIMIT -1 OFFSET ?)",
            (self._most_sessions - 1,),
        )

    def _forget_oldest(self, db: sqlite3.Connection, session: str) -> None:
        (count,) = db.execute("SELECT COUNT(*) FROM shown WHERE session = ?", (session,)).fetchone()
        if count > self._most_ids:
            db.execute(
                "DELETE FROM shown WHERE seq IN (SELECT seq FROM shown WHERE session = ? ORDER BY seq LIMIT ?)",
                (session, count - self._most_ids),
            )

    def _opened(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._file, timeout=20, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA foreign_keys = ON")
            db.executescript(_SCHEMA)
        except sqlite3.Error:
            db.close()
            raise
        return db

    @contextmanager
    def _writing(self) -> Generator[sqlite3.Connection]:
        """One write transaction: committed at the end, rolled back when anything is raised."""
        with self._lock:
            db = self._connection
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            self._db = self._opened()
        return self._db

    def _set_aside(self) -> None:
        """Put a damaged file and what belongs to it under another name; the next use begins a new one."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None
            for suffix in ("", "-wal", "-shm"):
                part = self._file.with_name(self._file.name + suffix)
                if part.exists():
                    part.rename(self._file.with_name(f"{self._file.name}.damaged-{int(self._now())}{suffix}"))
        logger.warning("sessions.damaged file=%s set_aside=true", self._file.name)

    @contextmanager
    def _reported(self) -> Generator[None]:
        """Turn SQLite's and the file system's refusals into one sentence for the model; the cause is chained for the log."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            logger.error("sessions.failed error=%r", error)
            if isinstance(error, sqlite3.Error) and _is_damage(error):
                self._set_aside()
                raise SessionStoreError(
                    "The server's sessions were damaged and had to be given up. Nothing of this call was marked as seen. "
                    "Call again without session; pass ids to skip in seen."
                ) from error
            raise SessionStoreError(
                "The server cannot keep this session (its disk may be full or not writable). Nothing was marked as seen. Tell the user."
            ) from error


def _is_damage(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
