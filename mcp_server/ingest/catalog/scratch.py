"""Brings media and taggings that come in any order together, in a temporary database: memory stays the same however many there are."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mcp_server.ingest.write import writing

_SCHEMA = """
CREATE TABLE medias (
    id       INTEGER PRIMARY KEY,
    place    INTEGER NOT NULL,
    image    INTEGER,
    key      TEXT,
    source   TEXT NOT NULL,
    type     INTEGER NOT NULL,
    thumbnail TEXT,
    owner    TEXT
);
CREATE TABLE taggings (subject TEXT NOT NULL, facts TEXT NOT NULL);
"""
_CACHE_KB = 64 * 1024


KEY_MARK = "\x1f"
"""What the keys of media start with, so that no source is mistaken for one."""


@dataclass(frozen=True)
class Medium:
    """One medium as a file has it.

    Attributes:
        id: its number; None when one is to be found for it.
        place: how many media of the file come before it.
        image: how many images of the file come before it; None when it is no image.
        key: what others may call it beside its source, after `KEY_MARK`; None without one.
        owner: the key or the source of the medium it belongs to; None without one.
    """

    id: int | None
    place: int
    image: int | None
    key: str | None
    source: str
    type: int
    thumbnail: str | None
    owner: str | None


@dataclass(frozen=True)
class Joined:
    """A medium with its number, its group's, and its facts, oldest first."""

    medium: Medium
    id: int
    group: int | None
    facts: tuple[str, ...]


class Scratch:
    """Media and taggings on their way into a catalog. For one thread. Fill with `add_*`, call `settle`, then read."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def add_medias(self, medias: Iterable[Medium]) -> None:
        """Take media in; of two with one number, the later gets another."""
        taken = "INSERT OR IGNORE INTO medias VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        for one in medias:
            rest = (one.place, one.image, one.key, one.source, one.type, one.thumbnail, one.owner)
            done = 0 if one.id is None else self._database.execute(taken, (one.id, *rest)).rowcount
            if not done:
                self._database.execute(taken, (-1 - one.place, *rest))

    def add_taggings(self, taggings: Iterable[tuple[str, str]]) -> None:
        """Take in (key or source of a medium, a fact about it)."""
        self._database.executemany("INSERT INTO taggings VALUES (?, ?)", taggings)

    def settle(self) -> int:
        """Number the media that have no number yet, after the others and in the order of the file; return how many those are."""
        (highest,) = self._database.execute("SELECT max(0, coalesce(max(id), 0)) FROM medias").fetchone()
        fresh = self._database.execute("SELECT id FROM medias WHERE id < 0 ORDER BY id DESC").fetchall()
        self._database.executemany("UPDATE medias SET id = ? WHERE id = ?", ((highest + 1 + at, old) for at, (old,) in enumerate(fresh)))
        for index in ("medias_key ON medias (key)", "medias_source ON medias (source)", "taggings_subject ON taggings (subject)"):
            self._database.execute(f"CREATE INDEX {index}")
        return len(fresh)

    def lost_taggings(self) -> int:
        """Return how many taggings are about no medium."""
        sql = (
            "SELECT count(*) FROM taggings t WHERE NOT EXISTS (SELECT 1 FROM medias WHERE key = t.subject) "
            "AND NOT EXISTS (SELECT 1 FROM medias WHERE source = t.subject)"
        )
        return int(self._database.execute(sql).fetchone()[0])

    def joined(self) -> Iterator[Joined]:
        """Yield every medium by number."""
        sql = "SELECT id, place, image, key, source, type, thumbnail, owner FROM medias ORDER BY id"
        about = "SELECT facts FROM taggings WHERE subject IN (?, ?) ORDER BY rowid"
        for number, *rest in self._database.execute(sql):
            medium = Medium(number, *rest)
            facts = self._database.execute(about, (medium.source, medium.key)).fetchall()
            group = None if medium.owner is None else self._number_of(medium.owner)
            yield Joined(medium, number, group, tuple(text for (text,) in facts))

    def _number_of(self, name: str) -> int | None:
        column = "key" if name.startswith(KEY_MARK) else "source"
        found = self._database.execute(f"SELECT id FROM medias WHERE {column} = ? ORDER BY id LIMIT 1", (name,)).fetchone()
        return None if found is None else int(found[0])


@contextmanager
def scratch(folder: Path) -> Generator[Scratch]:
    """Yield an empty scratch in `folder`; it is gone afterwards.

    Raises:
        IngestError: the folder cannot be written, or the disk is full.
    """
    file = folder / ".scratch.db"
    with writing(folder):
        try:
            with closing(sqlite3.connect(file, isolation_level=None)) as database:
                for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KB}", "temp_store = FILE"):
                    database.execute(f"PRAGMA {setting}")
                database.executescript(_SCHEMA)
                database.execute("BEGIN")
                yield Scratch(database)
        finally:
            file.unlink(missing_ok=True)
