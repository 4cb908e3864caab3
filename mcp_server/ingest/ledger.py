"""What ingest remembers of a folder between runs, in SQLite. Every step is one transaction: a kill loses one batch at most."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcp_server.errors import IngestError
from mcp_server.ingest.catalog.fields import storable
from mcp_server.ingest.claim import LEDGER_FOLDER, alone
from mcp_server.ingest.pictures.results import Facts, Picture, Unreadable
from mcp_server.ingest.write import CATALOG_FILE
from mcp_server.stores.sqlite_errors import is_damage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FORMAT = 1
_FILE = "ledger.db"


@dataclass(frozen=True)
class Task:
    """A file to be read: its path below the folder, and its sidecars' paths."""

    source: str
    sidecars: tuple[str, ...]


@dataclass(frozen=True)
class Counts:
    """How many files are in which state since the last run that ended."""

    added: int = 0
    unchanged: int = 0
    changed: int = 0
    removed: int = 0
    failed: int = 0
    moved: int = 0


@dataclass(frozen=True)
class Line:
    """One file in the report."""

    source: str
    status: str
    id: int
    reason: str | None
    notes: tuple[str, ...]
    moved_from: str | None


@dataclass(frozen=True)
class Entry:
    """A picture of the collection as the catalog needs it, ids ascending.

    Attributes:
        id: media id.
        row: position of its vector.
        facts, own: what the file and what the metadata file says of it.
    """

    id: int
    source: str
    row: int
    sha256: str
    facts: dict[str, Any]
    own: dict[str, Any]
    own_group: str | None
    member_of: int | None
    original: int | None


def adopt(work: Path, destination: Path) -> None:
    """Move the ledger in `work` to `destination`, which has none. To be called inside `alone(destination)`."""
    with Ledger.open(work) as ledger:
        ledger.to_disk()  # into the one file
    (work / LEDGER_FOLDER / _FILE).replace(destination / LEDGER_FOLDER / _FILE)


class Ledger:
    """The ledger of one collection. One process at a time; one thread at a time.

    Attributes:
        folder: where it lies; other working files may be put there.
        database: the connection, for `plan` and `publish`.
    """

    def __init__(self, folder: Path, database: sqlite3.Connection) -> None:
        """Take what `open` opened."""
        self.folder = folder
        self.database = database

    @classmethod
    @contextmanager
    def open(cls, destination: Path) -> Generator[Ledger]:
        """Open the ledger of the collection in `destination`, made if it is not there; nobody else may have it open.

        Raises:
            IngestError: another ingest is at work on it, it is damaged, or it is of another version.
            OSError, sqlite3.Error: the disk refuses.
        """
        with alone(destination):
            folder = destination / LEDGER_FOLDER
            with closing(sqlite3.connect(folder / _FILE, isolation_level=None, check_same_thread=False)) as database:
                ledger = cls(folder, database)
                try:
                    ledger._prepare()
                    yield ledger
                except sqlite3.DatabaseError as error:
                    if not is_damage(error):
                        raise
                    raise ledger._damaged(str(error)) from error

    @staticmethod
    def has_begun(destination: Path) -> bool:
        """Tell whether anything was embedded for `destination` yet; True also where a ledger that is not empty cannot be opened."""
        try:
            with Ledger.open(destination) as ledger:
                return ledger.setting("rows") is not None
        except (OSError, sqlite3.Error, IngestError):
            return (destination / LEDGER_FOLDER / _FILE).stat().st_size > 0

    @staticmethod
    def exists(destination: Path) -> bool:
        """Tell whether `destination` has a ledger, possibly of a run that was cut short."""
        return (destination / LEDGER_FOLDER / _FILE).is_file()

    def _damaged(self, reason: str) -> IngestError:
        return IngestError(
            f"{self.folder / _FILE}, where ingest remembers the pictures and their ids, is damaged: {reason}. Nothing was deleted. "
            f"Put a copy of it back, or delete {self.folder} and use --replace to build the collection anew."
        )

    def _prepare(self) -> None:
        self.database.execute("PRAGMA busy_timeout = 10000")
        if not self.database.execute("SELECT 1 FROM sqlite_master WHERE name = 'groups'").fetchone():
            if (self.folder.parent / CATALOG_FILE).exists():
                raise self._damaged("it is empty")
            script = resources.files("mcp_server.ingest").joinpath("ledger_schema.sql").read_text(encoding="utf-8")
            self.database.executescript(script.replace("CREATE TABLE settings", "BEGIN;\nCREATE TABLE settings", 1) + "\nCOMMIT;")
        self.database.execute("PRAGMA journal_mode = WAL")
        self.database.execute("PRAGMA synchronous = NORMAL")
        self.database.execute("PRAGMA cache_size = -8192")
        found = self.setting("format", _FORMAT)
        if found != _FORMAT:
            raise IngestError(f"The ledger in {self.folder} is of version {found}, this program writes {_FORMAT}. Use --replace.")
        self.set("format", _FORMAT)

    @contextmanager
    def transaction(self) -> Generator[None]:
        """Run the block as one transaction; whatever it raises undoes it."""
        self.database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self.database.in_transaction:
                self.database.execute("ROLLBACK")
            raise
        self.database.execute("COMMIT")

    def setting(self, name: str, default: Any = None) -> Any:
        """Return what was set under `name`, or `default`."""
        row = self.database.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return default if row is None else row[0]

    def set(self, name: str, value: str | int | float | None) -> None:
        """Remember `value` under `name`; None forgets it."""
        if value is None:
            self.database.execute("DELETE FROM settings WHERE name = ?", (name,))
        elif self.setting(name) != value:
            self.database.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    def next_id(self, count: int) -> int:
        """Reserve `count` media ids and return the first."""
        first = int(self.setting("next_id", 1))
        self.set("next_id", first + count)
        return first

    def tasks(self, kind: int) -> Iterator[Task]:
        """Yield the files to embed (1) or to read again (2), by path. What is committed meanwhile does not disturb it."""
        last = ""
        while found := self.database.execute(
            "SELECT source, sidecars FROM files WHERE todo = ? AND source > ? ORDER BY source LIMIT 1000", (kind, last)
        ).fetchall():
            yield from (Task(source, tuple(json.loads(sidecars))) for source, sidecars in found)
            last = found[-1][0]

    def embed_all_again(self) -> None:
        """Enter every picture as to be embedded: the published files are gone, and with them the vectors."""
        with self.transaction():
            self.database.execute('UPDATE files SET todo = 1 WHERE "row" IS NOT NULL AND id NOT IN (SELECT id FROM pending)')

    def count(self, kind: int) -> int:
        """Return how many files are to be embedded (1) or read again (2)."""
        return int(self.database.execute("SELECT count(*) FROM files WHERE todo = ?", (kind,)).fetchone()[0])

    def commit(self, pictures: Iterable[Picture], vectors: NDArray[np.float32], failed: Iterable[Unreadable]) -> None:
        """Enter a batch: `pictures` with their `vectors`, (B, D), row for row, and what could not be read."""
        with self.transaction():
            for picture, vector in zip(pictures, vectors, strict=True):
                self._enter(picture, vector)
                self.set("dirty", 1)
            for one in failed:
                self._fail(one)

    def commit_facts(self, facts: Iterable[Facts | Unreadable]) -> None:
        """Enter facts that were read again. A file whose bytes are others now is to be embedded."""
        with self.transaction():
            for one in facts:
                if isinstance(one, Unreadable):
                    if not one.again or not self._has_vector(one.source):  # else what is known of it stays until the next try
                        self._fail(one)
                    continue
                known, before = self.database.execute("SELECT sha256, facts FROM files WHERE source = ?", (one.source,)).fetchone()
                if known != one.sha256:
                    self.database.execute("UPDATE files SET todo = 1 WHERE source = ?", (one.source,))
                    continue
                facts_now = compact(one.facts)
                self.database.execute(
                    "UPDATE files SET todo = 0, facts = ?, notes = ? WHERE source = ?", (facts_now, compact(one.notes), one.source)
                )
                if facts_now != before:
                    self.set("dirty", 1)

    def _enter(self, picture: Picture, vector: NDArray[np.float32]) -> None:
        media_id, old_row, status = self.database.execute(
            'SELECT id, "row", status FROM files WHERE source = ?', (picture.source,)
        ).fetchone()
        self._free(old_row)
        row = self._new_row()
        data = vector.astype("<f4").tobytes()
        self.database.execute(
            "INSERT OR REPLACE INTO pending VALUES (?, ?, ?, ?, ?)", (media_id, row, data, picture.thumbnail, picture.sha256)
        )
        self.database.execute("UPDATE files SET original = NULL WHERE original = ?", (media_id,))
        self.database.execute(
            'UPDATE files SET todo = 0, status = ?, reason = NULL, again = 0, notes = ?, sha256 = ?, "row" = ?, facts = ?, original = NULL '
            "WHERE id = ?",
            (
                status if status in ("added", "changed") else "changed" if old_row is not None else "added",
                compact(picture.notes),
                picture.sha256,
                row,
                compact(picture.facts),
                media_id,
            ),
        )

    def _fail(self, one: Unreadable) -> None:
        """Enter that `one` cannot be read; the collection changes only if it had a vector."""
        if self._has_vector(one.source):
            self.set("dirty", 1)
        media_id, old_row = self.database.execute('SELECT id, "row" FROM files WHERE source = ?', (one.source,)).fetchone()
        self._free(old_row)
        self.database.execute("DELETE FROM pending WHERE id = ?", (media_id,))
        self.database.execute("UPDATE files SET original = NULL WHERE original = ?", (media_id,))
        self.database.execute(
            "UPDATE files SET todo = 0, status = 'failed', reason = ?, again = ?, notes = NULL, sha256 = NULL, \"row\" = NULL, "
            "facts = NULL, original = NULL WHERE id = ?",
            (storable(one.reason), one.again, media_id),
        )

    def _has_vector(self, source: str) -> bool:
        return self.database.execute('SELECT "row" FROM files WHERE source = ?', (source,)).fetchone()[0] is not None

    def _free(self, row: int | None) -> None:
        if row is not None:
            self.database.execute("INSERT OR IGNORE INTO free_rows VALUES (?, 0)", (row,))

    def _new_row(self) -> int:
        """Return a row that no published catalog speaks of."""
        free = self.database.execute('SELECT min("row") FROM free_rows WHERE usable').fetchone()[0]
        if free is not None:
            self.database.execute('DELETE FROM free_rows WHERE "row" = ?', (free,))
            return int(free)
        row = int(self.setting("rows", 0))
        self.set("rows", row + 1)
        return row

    def entries(self) -> Iterator[Entry]:
        """Yield the pictures that have a vector, ids ascending. The ledger may be written to meanwhile."""
        last = 0
        while found := self.database.execute(
            'SELECT id, source, "row", sha256, facts, own, own_group, member_of, original FROM files '
            'WHERE id > ? AND "row" IS NOT NULL ORDER BY id LIMIT 1000',
            (last,),
        ).fetchall():
            for media_id, source, row, sha256, facts, own, own_group, member_of, original in found:
                yield Entry(
                    media_id, source, row, sha256, json.loads(facts), json.loads(own) if own else {}, own_group, member_of, original
                )
            last = found[-1][0]

    def pictures(self) -> int:
        """Return how many pictures have a vector."""
        return int(self.database.execute('SELECT count("row") FROM files').fetchone()[0])

    def to_disk(self) -> None:
        """Return when what was entered so far would survive a loss of power."""
        self.database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def published(self) -> None:
        """Note that everything entered so far is in the published files."""
        with self.transaction():
            self.database.execute("DELETE FROM pending")
            self.database.execute('UPDATE files SET published_as = source WHERE "row" IS NOT NULL AND published_as IS NOT source')
            self.set("dirty", None)
            self.set("embeddings", self.setting("next_embeddings"))
        self.database.executescript("PRAGMA incremental_vacuum")  # `execute` would free a single page
        self.to_disk()

    def ended(self, options: str) -> None:
        """Note that a run came to its end: its `options` are remembered, what it freed may be used again, and the next one counts anew."""
        with self.transaction():
            self.set("options", options)
            self.database.execute("UPDATE free_rows SET usable = 1 WHERE NOT usable")
            self.database.execute("UPDATE files SET status = 'unchanged', moved_from = NULL WHERE status IN ('added', 'changed')")
            self.database.execute("UPDATE files SET status = 'gone' WHERE status = 'removed'")

    def counts(self) -> Counts:
        """Count the files by what became of them since the last run that ended before this one."""
        found: Mapping[str, int] = dict(self.database.execute("SELECT status, count(*) FROM files GROUP BY status"))
        moved, left = self.database.execute(
            "SELECT count(*), count(CASE WHEN moved_from NOT IN (SELECT source FROM files WHERE status <> 'gone') THEN 1 END) "
            "FROM files WHERE moved_from IS NOT NULL AND status IN ('added', 'changed')"
        ).fetchone()
        named = {name: found.get(name, 0) for name in ("added", "unchanged", "changed", "removed", "failed")}
        named["removed"] += left
        return Counts(**named, moved=moved)

    def report(self, only: Callable[[str], bool] = lambda status: status != "gone") -> Iterator[Line]:
        """Yield the files whose status `only` wants, by path."""
        rows = self.database.execute("SELECT source, status, id, reason, notes, moved_from FROM files ORDER BY source")
        for source, status, media_id, reason, notes, moved_from in rows:
            if only(status):
                yield Line(source, status, media_id, reason, tuple(json.loads(notes)) if notes else (), moved_from)


def compact(value: Any) -> str:
    """Return `value` as JSON. Pure ASCII, for texts from files may hold what is no Unicode."""
    return json.dumps(value, separators=(",", ":"))
