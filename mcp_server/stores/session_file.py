"""The SQLite file of the sessions: opening, one transaction at a time, and what happens when it is damaged."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from mcp_server.errors import SessionStoreError
from mcp_server.stores.sqlite_errors import is_damage

logger = logging.getLogger(__name__)

SCHEMA = """
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
CREATE TABLE IF NOT EXISTS pages (
    seq INTEGER PRIMARY KEY,
    session TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    page INTEGER NOT NULL,
    collection TEXT NOT NULL,
    question TEXT NOT NULL,
    ids TEXT NOT NULL,
    scores TEXT NOT NULL,
    at REAL NOT NULL,
    answer BLOB,
    UNIQUE (session, page)
);
CREATE TABLE IF NOT EXISTS marks (
    seq INTEGER PRIMARY KEY,
    session TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    collection TEXT NOT NULL,
    media INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('keep', 'exclude')),
    UNIQUE (session, collection, media)
);
CREATE TABLE IF NOT EXISTS notes (
    seq INTEGER PRIMARY KEY,
    session TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    text TEXT NOT NULL,
    at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS notes_by_session ON notes (session);
"""
"""`shown` is what may not come again; `pages` what was answered, with the text of the answer (zlib) while it can be asked for again."""


class SessionFile:
    """One file with one connection. Safe to call from several threads; several processes may share the file (WAL)."""

    def __init__(self, file: Path, now: Callable[[], float] = time.time) -> None:
        """Open or create `file`; one of an older version gets the tables it lacks. A damaged file is set aside under another name.

        A new file is its owner's alone to read, since a handle in it is all that is needed to read a session; ":memory:" makes none.

        Raises:
            SessionStoreError: the file cannot be created or read.
        """
        self._file = file
        self._now = now
        self._lock = threading.RLock()  # one connection: each use takes milliseconds
        self._db: sqlite3.Connection | None = None
        self._openings = 0
        self._opened_file: tuple[int, int] | None = None
        with self._reported():
            try:
                self._db = self._opened()
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                self._set_aside()
                self._db = self._opened()

    @contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        """Lend the connection, to read one consistent state.

        Raises:
            SessionStoreError: the file cannot be read.
        """
        with self._transaction("BEGIN") as db:
            yield db

    @contextmanager
    def writing(self) -> Generator[sqlite3.Connection]:
        """Lend the connection for one write transaction: committed at the end, rolled back when anything is raised.

        Raises:
            SessionStoreError: the file cannot be written.
        """
        with self._transaction("BEGIN IMMEDIATE") as db:
            yield db

    @contextmanager
    def alone(self) -> Generator[None]:
        """Keep other threads from the file, for several uses of it or something beside it."""
        with self._lock:
            yield

    def version(self, db: sqlite3.Connection) -> tuple[int, int]:
        """Return what changes when anyone else writes to the file, or another file takes its place. Only while `db` is lent."""
        return self._openings, int(db.execute("PRAGMA data_version").fetchone()[0])

    def used_bytes(self, db: sqlite3.Connection) -> int:
        """Return how many bytes of the file hold anything: what is removed leaves room in it for what comes. Only while `db` is lent."""
        pages, free, size = (int(db.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "freelist_count", "page_size"))
        return (pages - free) * size

    def close(self) -> None:
        """Close the file. It must not be used afterwards."""
        with self._lock:
            if self._db is not None:
                self._db.close()

    @contextmanager
    def _transaction(self, begin: str) -> Generator[sqlite3.Connection]:
        with self._reported(), self._lock:
            db = self._db = self._db or self._opened()
            db.execute(begin)
            try:
                yield db
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def _opened(self) -> sqlite3.Connection:
        self._openings += 1
        if str(self._file) != ":memory:":
            with suppress(FileExistsError):  # SQLite makes its files beside this one with the same rights
                os.close(os.open(self._file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        self._opened_file = self._file_there()
        db = sqlite3.connect(self._file, timeout=20, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA foreign_keys = ON")
            db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} COMMIT;")
        except sqlite3.Error:
            db.close()
            raise
        return db

    def _file_there(self) -> tuple[int, int] | None:
        """Return what tells the file now at the path from any other; None without one, as for ":memory:"."""
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _set_aside(self) -> None:
        """Put a damaged file and what belongs to it under another name; the next use begins a new one.

        Where another process has done so already, the file that took its place is sound and stays.
        """
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None
            if self._file_there() != self._opened_file:
                return
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
            logger.error("sessions.failed file=%s error=%r", self._file, error)
            if isinstance(error, sqlite3.Error) and is_damage(error):
                with self._reported():  # on Windows a file that another process has open cannot be renamed
                    self._set_aside()
                raise SessionStoreError(
                    "The server's sessions were damaged and had to be given up. Nothing of this call was marked as seen. "
                    "Call again without session; pass ids to skip in seen."
                ) from error
            raise SessionStoreError(
                "The server cannot keep this session (its disk may be full or not writable). Nothing was marked as seen. Tell the user.",
                f"Sessions cannot be kept in {self._file}: {error}. Make room on that disk, or make the file and its folder writable.",
            ) from error
