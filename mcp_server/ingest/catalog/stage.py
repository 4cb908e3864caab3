"""Brings the metadata values of a collection from the order of its media into the order of values, on disk, in constant memory."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from mcp_server.ingest.catalog.fields import KIND_WORDS, KindGuess, Shape, TagKind, TagValue, field_key, is_reserved, staged, storable
from mcp_server.ingest.catalog.fitting import fitted

ROWS_COLUMN = 0
"""The column that says which row of the embeddings a medium has."""

_KNOWN_A_COLUMN, _KNOWN_IN_ALL, _LONGEST_KNOWN = 8_192, 200_000, 100
"""How many values are remembered, and of what length, so that a value that comes often is staged once."""

_PIECE = 1 << 17

_TABLES = """
CREATE TABLE stage.valued (code INTEGER PRIMARY KEY, c INTEGER, v);
CREATE TABLE stage.had (medias BLOB, codes BLOB);
CREATE TABLE stage.plan (c INTEGER PRIMARY KEY, way TEXT);
"""
_SORTED = """
SELECT s.c, CASE p.way WHEN 'as is' THEN s.v WHEN 'real' THEN s.v + 0.0 ELSE fitted(s.c, s.v) END, s.code
FROM stage.valued s JOIN stage.plan p ON p.c = s.c
ORDER BY 1, 2, 3
"""


@dataclass(frozen=True)
class Remark:
    """What happened to some values of a field.

    Attributes:
        field: its name.
        reason: in words, to be read after the number of values: "not a date".
        count: how many values.
        example: the first of them, in the order of the media.
    """

    field: str
    reason: str
    count: int
    example: str


class Column:
    """What is known of one field so far."""

    def __init__(self, number: int, name: str, asked: TagKind | None) -> None:
        self.number = number
        self.name = name
        self.guess = KindGuess()
        self.refused = 0
        self.example: TagValue | None = None
        # by class, for 1, 1.0 and True are one key of a dict but not one value
        self.known: dict[type, dict[Any, tuple[Shape, int]]] = {str: {}, int: {}, float: {}, bool: {}}
        self.room = _KNOWN_A_COLUMN
        self._asked: TagKind | None = asked

    @cached_property
    def kind(self) -> TagKind | None:
        """What its values are stored as, to be asked when all are there; None if it has none."""
        return None if self.guess.kind is None else self._asked or self.guess.kind

    @property
    def way(self) -> Literal["as is", "real", "fitted"]:
        """How staged values become stored ones; all three come to `fitted`, the first two without its cost."""
        guessed, shapes = self.guess.kind, self.guess.counts
        if self._asked not in (None, guessed):
            return "fitted"
        if guessed == "numerical_dec":
            return "real"
        changing: set[Shape] = {"integer", "decimal"} if guessed == "alphanumerical" else {"impossible"}
        return "fitted" if guessed == "timestamp" or shapes.keys() & changing else "as is"

    def fitted(self, value: TagValue) -> TagValue | None:
        """Return what is stored for `value`; None, and take note if it is the first, if it does not fit."""
        kind = self.kind
        stored = None if kind is None else fitted(value, kind)
        if stored is None and self.example is None:
            self.example = value
        return stored

    def refusals(self) -> Iterator[Remark]:
        """Yield what was left out of the catalog."""
        if "endless" in self.guess.counts:
            yield Remark(self.name, "not a finite number", self.guess.counts["endless"], str(self.guess.examples["endless"]))
        if self.refused and self.kind is not None:
            yield Remark(self.name, f"not {KIND_WORDS[self.kind]}", self.refused, str(self.example))

    def notes(self) -> Iterator[Remark]:
        """Yield why it is text, if a few values make it so."""
        spoiled = None if self._asked else self.guess.spoiled()
        if spoiled is not None:
            kind, count, example = spoiled
            yield Remark(self.name, f"not {KIND_WORDS[kind]}, so that the field is text", count, str(example))


MOST_FIELDS = 2_000
"""No collection is looked through by more; what comes after is left out."""


class Stage:
    """Takes the values of media in, in the order of the media, and gives them out, in the order of fields and values.

    Every value gets a code when it is staged; one that comes again may get a new one. The codes of a value find together when the values
    are sorted. Needs an empty database attached as `stage`. Memory grows with the number of fields, not of values; the tag of each code is
    in a file without a name, mapped into memory. For one thread.
    """

    def __init__(self, database: sqlite3.Connection, kinds: Mapping[str, TagKind], folder: Path) -> None:
        self.columns: list[Column] = []
        self.left_out: set[str] = set()
        self._database = database
        self._kinds: dict[str, TagKind] = {field_key(name): kind for name, kind in kinds.items()}
        self._by_key: dict[str, Column] = {}
        self._by_name: dict[str, Column | None] = {}
        self._codes = 0
        self._room = _KNOWN_IN_ALL
        self._valued: list[tuple[int, int, TagValue]] = []
        self._had_medias = array("q")
        self._had_codes = array("q")
        self._folder = folder
        self._tag_of: NDArray[np.int64] = np.zeros(0, np.int64)
        database.executescript(_TABLES)
        database.create_function("fitted", 2, self._fitted)

    def add(self, media: int, row: int | None, fields: Mapping[str, Any]) -> None:
        """Take in a medium: its id, its row if it has one, its fields. `flush` writes what was taken in."""
        if row is not None:
            self._had(media, self._code(ROWS_COLUMN, row))
        by_name = self._by_name
        for name, raw in fields.items():
            column = by_name[name] if name in by_name else self._column(name)
            if column is None:
                continue
            if isinstance(raw, list | tuple):
                for value in cast("list[Any]", raw):
                    self._take(column, value, media)
            else:
                self._take(column, raw, media)

    def flush(self) -> None:
        """Write what was taken in since the last time."""
        self._database.executemany("INSERT INTO stage.valued VALUES (?, ?, ?)", self._valued)
        self._database.execute("INSERT INTO stage.had VALUES (?, ?)", (self._had_medias.tobytes(), self._had_codes.tobytes()))
        self._valued.clear()
        del self._had_medias[:], self._had_codes[:]

    @contextmanager
    def sorted_values(self) -> Generator[sqlite3.Cursor]:
        """Give a cursor over all (column, stored value or None, code), sorted.

        Inside, every code is to get its tag with `tag`; after that `write_taggings` can be called, once.
        Columns have the numbers of their first appearance, from 1; `ROWS_COLUMN` comes first.
        """
        with TemporaryFile(dir=self._folder) as opened:
            # written, not only made as long: a full disk is then an error here, not a crash when the mapping is used
            for _ in range(0, self._codes + 1, _PIECE):
                opened.write(bytes(8 * _PIECE))
            opened.flush()
            self._tag_of = np.memmap(opened, np.int64, "r+")
            ways = [(ROWS_COLUMN, "as is"), *((column.number, column.way) for column in self.columns)]
            self._database.executemany("INSERT INTO stage.plan VALUES (?, ?)", ways)
            with closing(self._database.execute(_SORTED)) as values:
                yield values
            self._tag_of = np.zeros(0, np.int64)

    def tag(self, codes: Sequence[int], tags: Sequence[int]) -> None:
        """Take note of the tags of codes; minus the number of its column for a code that has none."""
        self._tag_of[codes] = tags

    def write_taggings(self) -> None:
        """Write who has which tag, in the order of media and tags, and count the values that have none."""
        refused = np.zeros(len(self.columns) + 1, np.int64)
        for medias, codes in self._database.execute("SELECT medias, codes FROM stage.had ORDER BY rowid"):
            had, tags = np.frombuffer(medias, np.int64), self._tag_of[np.frombuffer(codes, np.int64)]
            refused += np.bincount(-tags[tags < 0], minlength=len(refused))
            had, tags = had[tags > 0], tags[tags > 0]
            order = np.lexsort((tags, had))
            had, tags = had[order], tags[order]
            new = np.ones(len(had), np.bool_)
            new[1:] = (had[1:] != had[:-1]) | (tags[1:] != tags[:-1])
            pairs = zip(had[new].tolist(), tags[new].tolist(), strict=True)
            self._database.executemany("INSERT INTO main.taggings VALUES (?, ?)", pairs)
        for column in self.columns:
            column.refused = int(refused[column.number])

    def unused_kinds(self) -> tuple[str, ...]:
        """Return the keys of kinds that were asked for fields that no medium has, sorted."""
        return tuple(sorted(key for key in self._kinds if key not in self._by_key))

    def _fitted(self, column: int, value: TagValue) -> TagValue | None:
        return self.columns[column - 1].fitted(value)

    def _take(self, column: Column, value: Any, media: int) -> None:
        known = column.known.get(value.__class__)
        seen = known.get(value) if known is not None else None
        if seen is not None:
            column.guess.counts[seen[0]] += 1
            self._had(media, seen[1])
            return
        found = staged(value)
        if found is None:
            return
        column.guess.add(*found)
        if found[0] == "endless":
            return
        code = self._code(column.number, found[1])
        self._had(media, code)
        if known is not None and column.room and self._room and (known is not column.known[str] or len(value) <= _LONGEST_KNOWN):
            known[value] = (found[0], code)
            column.room -= 1
            self._room -= 1

    def _had(self, media: int, code: int) -> None:
        self._had_medias.append(media)
        self._had_codes.append(code)

    def _code(self, column: int, value: TagValue) -> int:
        self._codes += 1
        self._valued.append((self._codes, column, value))
        return self._codes

    def _column(self, name: str) -> Column | None:
        """Return the column of a spelling that was not seen before, or None if a field may not be called so."""
        column = None
        if is_reserved(name):
            self.left_out.add(storable(name))
        else:
            key = field_key(name)
            column = self._by_key.get(key)
            if column is None and len(self.columns) >= MOST_FIELDS:
                if len(self.left_out) < MOST_FIELDS:
                    self.left_out.add(storable(name))
                return None  # not remembered: whoever makes up this many may make up any number
            if column is None:
                column = Column(len(self.columns) + 1, name.strip(), self._kinds.get(key))
                self.columns.append(column)
                self._by_key[key] = column
        self._by_name[name] = column
        return column
