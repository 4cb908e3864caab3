"""Reads one SQLite file without ever changing it or standing in a writer's way."""

from __future__ import annotations

import logging
import os
import sqlite3
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from threading import Condition
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mcp_server.errors import CatalogBusyError, CatalogError, CatalogReplacedError
from mcp_server.stores.content import Content, content_of
from mcp_server.stores.sqlite_errors import code_of
from mcp_server.stores.sqlite_uri import uri_of

logger = logging.getLogger(__name__)

_BUSY_SECONDS = 3.0
"""How long a read waits for a writer that lets nobody read."""
_MODE_AT = 18
_WAL_MODE = b"\x02\x02"
"""Bytes 18 and 19 of a database in WAL mode. Source: https://www.sqlite.org/fileformat.html, section 1.3."""

Row = tuple[Any, ...]
Version = tuple[int, ...]
Taken = TypeVar("Taken")


@dataclass(frozen=True, eq=False)
class _Lent:
    """A connection and, for an immutable read, what the file must still look like afterwards."""

    connection: sqlite3.Connection
    snapshot: Version | None


class Database:
    """Read-only access. Safe to call from several threads: each call has a connection to itself, and idle ones are kept for the next call.

    Every read is its own statement in autocommit mode and is read to its end at once, so no transaction stays open between calls: a
    writer never waits longer than one statement, and later reads see what it committed. The file and its folder stay as they are.

    A WAL database that nobody has open is read as an immutable file, because opening it otherwise would leave `-wal` and `-shm` files
    behind and fail in a read-only folder. Should a writer appear meanwhile, the read is repeated the ordinary way.

    When another file takes this one's place, reads go on from the old one with the connections there are, in turns if need be.
    """

    def __init__(self, path: Path) -> None:
        """Hold the file, so that its identity stays its own; connect at the first read.

        Raises:
            CatalogError: there is no such file, or it cannot be read.
        """
        if not path.is_file():
            raise CatalogError(f"There is no catalog file {path}. Check DatabaseFile in the configuration.")
        self.path = path.resolve()
        self._wal = Path(f"{self.path}-wal")
        try:
            # never opened and closed again beside a read: closing any handle of a file drops all locks this process has on it
            self._file = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            raise CatalogError(f"The catalog {self.path} cannot be read: {error}.") from error
        self._let_go = weakref.finalize(self, os.close, self._file)
        self._identity = _identity(os.fstat(self._file))
        self._version = self._version_now()
        self._turn = Condition()
        self._idle: list[_Lent] = []
        self._lent = 0
        self._closed = False

    def __enter__(self) -> Database:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def is_replaced(self) -> bool:
        """Whether another file has taken this one's place since it was opened; what was read before does not fit the new one."""
        now = _stat(self.path)
        return now is not None and _identity(now) != self._identity

    @property
    def is_changed(self) -> bool:
        """Whether the file was replaced or written to since it was opened, as far as sizes and times tell."""
        return self.is_replaced or (not self._closed and self._version_now() != self._version)

    def version_there(self) -> Version | None:
        """Return what tells the file now at the path, and its content as far as size and time tell, from any other; None without one."""
        now = _stat(self.path)
        wal = _stat(self._wal)
        written = (wal.st_mtime_ns, wal.st_size) if wal is not None else ()
        return None if now is None else (*_identity(now), now.st_mtime_ns, now.st_size, *written)

    def content(self) -> Content | None:
        """Return facts that are equal only while the content is; None when nothing can be said now, or the file was replaced."""
        with self._turn:
            if self._closed or self.is_replaced:
                return None
            return content_of(self._file, self.path)

    def rows(self, sql: str, *parameters: object) -> list[Row]:
        """Return all rows of one SELECT.

        Raises:
            CatalogReplacedError: another file took this one's place, and no connection to this one is left.
            CatalogBusyError: another program is writing to it and lets nobody read.
            CatalogError: the file cannot be read, or this is closed.
        """
        return self._read(sql, parameters, sqlite3.Cursor.fetchall)

    def integers(self, sql: str, *parameters: object) -> NDArray[np.int64]:
        """Return all rows of one SELECT of two integer columns as an (n, 2) array, without a Python object for each row.

        Raises:
            CatalogReplacedError: another file took this one's place, and no connection to this one is left.
            CatalogBusyError: another program is writing to it and lets nobody read.
            CatalogError: the file cannot be read, a value is not an integer, or this is closed.
        """

        def flat(cursor: sqlite3.Cursor) -> NDArray[np.int64]:
            return np.fromiter(chain.from_iterable(cursor), dtype=np.int64).reshape(-1, 2)

        try:
            return self._read(sql, parameters, flat)
        except (TypeError, ValueError) as error:
            raise CatalogError(f"The catalog {self.path} has an id that is not a whole number: {error}.") from error

    def close(self) -> None:
        """Close every idle connection; one in use is closed when its call ends. Closing twice is fine."""
        with self._turn:
            self._closed = True
            idle, self._idle = self._idle, []
            self._turn.notify_all()
            if not self._lent:
                self._let_go()
        for lent in idle:
            lent.connection.close()

    def _read(self, sql: str, parameters: tuple[object, ...], take: Callable[[sqlite3.Cursor], Taken]) -> Taken:
        while True:
            lent = self._take()
            sound = False
            try:
                found = take(lent.connection.execute(sql, parameters))
                sound = self._is_sound(lent)
                if sound:
                    return found
            except sqlite3.Error as error:
                if self._is_sound(lent):
                    raise self._busy(error) or CatalogError(f"The catalog {self.path} cannot be read: {error}.") from error
            finally:
                self._give_back(lent, sound)

    def _take(self) -> _Lent:
        """Return a connection that nobody else has: an idle one, a new one, or, once the file was replaced, the next that is free."""
        while True:
            with self._turn:
                if self._closed:
                    raise CatalogError(f"The catalog {self.path} is closed.")
                idle = self._idle.pop() if self._idle else None
                if idle is None and self.is_replaced:
                    if not self._lent:
                        raise CatalogReplacedError(f"The catalog {self.path} was replaced by another file.")
                    self._turn.wait()
                    continue
                self._lent += 1
            lent = idle
            try:
                if idle is None:
                    lent = self._connected()
                elif not self._is_sound(idle):
                    lent = None
            finally:
                if lent is None:
                    self._returned()
            if lent is not None:
                return lent
            if idle is not None:
                idle.connection.close()

    def _connected(self) -> _Lent | None:
        """Return a new connection to the file that is held; None when another one is at its path by now."""
        try:
            snapshot = self._snapshot()
            connection = self._connect(immutable=snapshot is not None)
        except (OSError, sqlite3.Error) as error:
            if self.is_replaced:
                return None
            raise self._busy(error) or CatalogError(
                f"The catalog {self.path} cannot be opened: {error}. DatabaseFile takes a SQLite file in the M3 schema."
            ) from error
        if self.is_replaced:
            connection.close()
            return None
        return _Lent(connection, snapshot)

    def _busy(self, error: Exception) -> CatalogBusyError | None:
        """Return what to raise when `error` says that a writer holds the file; None when it says something else."""
        if code_of(error) != sqlite3.SQLITE_BUSY:
            return None
        return CatalogBusyError(f"The catalog {self.path} is being written to by another program. Let it finish, then try again.")

    def _give_back(self, lent: _Lent, sound: bool) -> None:
        """Keep the connection for the next read, or close it."""
        with self._turn:
            # while a writer has a WAL open, an idle connection would keep it from removing its -wal and -shm files when it closes
            kept = sound and not self._closed and (lent.snapshot is not None or _stat(self._wal) is None)
            if kept:
                self._idle.append(lent)
        if not kept:
            lent.connection.close()
        self._returned()

    def _returned(self) -> None:
        with self._turn:
            self._lent -= 1
            self._turn.notify_all()
            if self._closed and not self._lent:
                self._let_go()

    def _is_sound(self, lent: _Lent) -> bool:
        """Return False when the file changed under an immutable read: the answer may be torn."""
        return lent.snapshot is None or lent.snapshot == self._snapshot()

    def _snapshot(self) -> Version | None:
        """Return what must stay the same during an immutable read, or None when the file must be read the ordinary way."""
        with self._turn:
            os.lseek(self._file, _MODE_AT, os.SEEK_SET)
            mode = os.read(self._file, 2)
        version = self._version_now()
        return version if mode == _WAL_MODE and (self.is_replaced or _stat(self._wal) is None) else None

    def _version_now(self) -> Version:
        """Return what changes when the held file is written to: its time and size, and those of its WAL unless that is empty."""
        held = os.fstat(self._file)
        wal = None if self.is_replaced else _stat(self._wal)  # the one beside another file is that file's
        written = (wal.st_mtime_ns, wal.st_size) if wal is not None and wal.st_size else ()
        return held.st_mtime_ns, held.st_size, *written

    def _connect(self, *, immutable: bool) -> sqlite3.Connection:
        connection = self._opened("?mode=ro&immutable=1" if immutable else "?mode=ro")
        try:
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
        except sqlite3.OperationalError as error:
            connection.close()
            if immutable or code_of(error) != sqlite3.SQLITE_CANTOPEN:
                raise
            # a WAL left behind in a folder that cannot be written: without its index the last commits cannot be seen
            logger.warning("catalog.wal_unreadable file=%s", self.path.name)
            connection = self._opened("?mode=ro&immutable=1")
        except BaseException:
            connection.close()
            raise
        return connection

    def _opened(self, options: str) -> sqlite3.Connection:
        uri = uri_of(self.path) + options
        connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        connection.text_factory = _text
        return connection


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _identity(stat: os.stat_result) -> tuple[int, int]:
    """Return what tells a file from one that is put in its place, as long as it is held open."""
    return stat.st_dev, stat.st_ino


def _text(stored: bytes) -> str:
    """Decode text that another program may have stored in a wrong encoding, rather than lose the whole collection over it."""
    return stored.decode("utf-8", "replace")
