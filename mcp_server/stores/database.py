"""Reads one SQLite file without ever changing it or standing in a writer's way."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mcp_server.errors import CatalogError

logger = logging.getLogger(__name__)

_BUSY_SECONDS = 10.0
_WAL_HEADER = b"\x02\x02"
"""Bytes 18 and 19 of a database in WAL mode. Source: https://www.sqlite.org/fileformat.html, section 1.3."""

Row = tuple[Any, ...]
Taken = TypeVar("Taken")


class Database:
    """Read-only access. Safe to call from several threads: each call has a connection to itself, and idle ones are kept for the next call.

    Every read is its own statement in autocommit mode and is read to its end at once, so no transaction stays open between calls: a
    writer never waits longer than one statement, and later reads see what it committed. The file and its folder stay as they are.

    A WAL database that nobody has open is read as an immutable file, because opening it otherwise would leave `-wal` and `-shm` files
    behind and fail in a read-only folder. Should a writer appear meanwhile, the read is repeated the ordinary way.
    """

    def __init__(self, path: Path) -> None:
        """Open nothing yet.

        Raises:
            CatalogError: there is no such file.
        """
        if not path.is_file():
            raise CatalogError(f"There is no catalog file {path}. Check DatabaseFile in the configuration.")
        self.path = path.resolve()
        self._identity = _identity(self.path)
        self._lock = Lock()
        self._idle: list[tuple[sqlite3.Connection, tuple[int, ...] | None]] = []
        self._closed = False

    def __enter__(self) -> Database:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def is_replaced(self) -> bool:
        """Whether another file has taken this one's place since it was opened; what was read before does not fit the new one."""
        return _identity(self.path) not in (self._identity, None)

    def rows(self, sql: str, *parameters: object) -> list[Row]:
        """Return all rows of one SELECT.

        Raises:
            CatalogError: the file cannot be read, or this is closed.
        """
        return self._read(sql, parameters, sqlite3.Cursor.fetchall)

    def integers(self, sql: str, *parameters: object) -> NDArray[np.int64]:
        """Return all rows of one SELECT of two integer columns as an (n, 2) array, without a Python object for each row.

        Raises:
            CatalogError: the file cannot be read, a value is not an integer, or this is closed.
        """

        def flat(cursor: sqlite3.Cursor) -> NDArray[np.int64]:
            return np.fromiter(chain.from_iterable(cursor), dtype=np.int64).reshape(-1, 2)

        try:
            return self._read(sql, parameters, flat)
        except (TypeError, ValueError) as error:
            raise CatalogError(f"The catalog {self.path} has an id that is not a whole number: {error}.") from error

    def _read(self, sql: str, parameters: tuple[object, ...], take: Callable[[sqlite3.Cursor], Taken]) -> Taken:
        while True:
            connection, snapshot = self._take()
            try:
                found = take(connection.execute(sql, parameters))
            except sqlite3.Error as error:
                connection.close()
                if snapshot is not None and snapshot != self._snapshot():
                    continue
                raise CatalogError(f"The catalog {self.path} cannot be read: {error}.") from error
            except BaseException:
                connection.close()
                raise
            if self._give_back(connection, snapshot):
                return found

    def close(self) -> None:
        """Close every idle connection; one in use is closed when its call ends. Closing twice is fine."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection, _ in idle:
            connection.close()

    def _take(self) -> tuple[sqlite3.Connection, tuple[int, ...] | None]:
        while True:
            with self._lock:
                if self._closed:
                    raise CatalogError(f"The catalog {self.path} is closed.")
                if not self._idle:
                    break
                connection, snapshot = self._idle.pop()
            if snapshot is None or snapshot == self._snapshot():
                return connection, snapshot
            connection.close()
        if self.is_replaced:
            raise CatalogError(f"The catalog {self.path} was replaced by another file.")
        try:
            snapshot = self._snapshot()
            return self._connect(immutable=snapshot is not None), snapshot
        except (OSError, sqlite3.Error) as error:
            raise CatalogError(
                f"The catalog {self.path} cannot be opened: {error}. DatabaseFile takes a SQLite file in the M3 schema."
            ) from error

    def _give_back(self, connection: sqlite3.Connection, snapshot: tuple[int, ...] | None) -> bool:
        """Return False, and close the connection, when the file changed under an immutable read: the answer may be torn."""
        if snapshot is not None and snapshot != self._snapshot():
            connection.close()
            return False
        with self._lock:
            # while a writer has a WAL open, an idle connection would keep it from removing its -wal and -shm files when it closes
            if not self._closed and (snapshot is not None or not Path(f"{self.path}-wal").exists()):
                self._idle.append((connection, snapshot))
                return True
        connection.close()
        return True

    def _snapshot(self) -> tuple[int, ...] | None:
        """Return what must stay the same during an immutable read, or None when the file must be read the ordinary way."""
        try:
            with self.path.open("rb") as file:
                header = file.read(20)
            if header[18:20] != _WAL_HEADER or Path(f"{self.path}-wal").exists():
                return None
            stat = self.path.stat()
        except OSError as error:
            raise CatalogError(f"The catalog {self.path} cannot be read: {error}.") from error
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _connect(self, *, immutable: bool) -> sqlite3.Connection:
        connection = self._opened("?mode=ro&immutable=1" if immutable else "?mode=ro")
        try:
            connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
        except sqlite3.OperationalError as error:
            connection.close()
            if immutable or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_CANTOPEN:
                raise
            # a WAL left behind in a folder that cannot be written: without its index the last commits cannot be seen
            logger.warning("catalog.wal_unreadable file=%s", self.path.name)
            connection = self._opened("?mode=ro&immutable=1")
        except BaseException:
            connection.close()
            raise
        return connection

    def _opened(self, options: str) -> sqlite3.Connection:
        # as_uri percent-encodes the characters that mean something in a URI: ? # %
        uri = self.path.as_uri() + options
        connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        connection.text_factory = _text
        return connection


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from one that is put in its place, or None where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


def _text(stored: bytes) -> str:
    """Decode text that another program may have stored in a wrong encoding, rather than lose the whole collection over it."""
    return stored.decode("utf-8", "replace")
