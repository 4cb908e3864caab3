"""Turns the rows of metadata tables into media, row i for vector i."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mcp_server.errors import IngestError, clipped
from mcp_server.ingest.catalog.fields import storable
from mcp_server.ingest.catalog.write_catalog import OTHER, MediaRow
from mcp_server.ingest.imports.parquet import check_names, count_rows, write_rest
from mcp_server.ingest.imports.vectors import VectorSource, in_numeric_order, metadata_parts, number_of
from mcp_server.ingest.tables.metadata import GROUP_KEY, group_name
from mcp_server.ingest.tables.read import read_table
from mcp_server.ingest.tables.rows import BadLines

SOURCE_KEYS = ("image_path", "path", "file", "filename", "uri", "url", "source", "key")
"""Columns that may say where an item's picture is; the first one a row has counts and does not become a field. Letter case is ignored."""

THUMBNAIL_KEYS = ("thumbnail", "thumbnail_uri", "thumbnail_url")

_ORDER = "Row i of the metadata describes vector i, so neither may have a row the other lacks"


@dataclass(frozen=True)
class Table:
    """A metadata file, and the vectors its rows describe.

    Attributes:
        vectors: their name, for messages.
        count: how many they are.
        vector_column: column of `file` that holds the vectors; "" when they are elsewhere.
    """

    file: Path
    vectors: str
    count: int
    vector_column: str = ""


@dataclass(frozen=True)
class Links:
    """How items say where their pictures are.

    Attributes:
        column: the one that names the source; None: the first of `SOURCE_KEYS`.
        originals: folder that sources below it are written relative to; None without one.
        thumbnails: whether an item without a thumbnail of its own has one under its source.
    """

    column: str | None = None
    originals: Path | None = None
    thumbnails: bool = False


def tables_of(source: VectorSource, metadata: Path | None) -> tuple[Table, ...]:
    """Return the tables that describe `source`, in row order: those of `metadata`, a file or a folder, else those found beside the vectors.

    A folder's tables go with the parts of the vectors that have their numbers.

    Raises:
        IngestError: the folder has no table with a number, or its parts are not those of the vectors.
    """
    if metadata is None:
        return tuple(Table(part.metadata, part.name, part.count, part.vector_column) for part in source.parts if part.metadata is not None)
    if not metadata.is_dir():
        return (Table(metadata, "the file of vectors" if len(source.parts) == 1 else "all parts together", source.count),)
    folder = metadata / "metadata" if (metadata / "metadata").is_dir() else metadata
    numbered = metadata_parts(folder)
    if numbered.keys() == {part.number for part in source.parts} and len(numbered) == len(source.parts):
        return tuple(Table(numbered[part.number], part.name, part.count) for part in source.parts if part.number is not None)
    if not numbered:
        raise IngestError(
            f"{metadata} is a folder without numbered tables. Name a .parquet, .jsonl or .csv file, or a folder with metadata_0.parquet…"
        )
    have = ", ".join(str(number_of(file)) for file in in_numeric_order(numbered.values())[:6])
    raise IngestError(
        f"The metadata's parts are not the vectors': {len(numbered)} tables (numbers {have}{'…' if len(numbered) > 6 else ''}), "
        f"{len(source.parts)} files of vectors. Give each img_emb_N.npy its metadata_N, or one table for all."
    )


def check_counts(tables: Sequence[Table]) -> None:
    """Refuse metadata that has more or fewer rows than there are vectors, part by part, or a line or a file that cannot be read.

    Raises:
        IngestError: with both numbers, and the part; or with the line, or the name that two columns have.
    """
    for table in tables:
        if table.vector_column:  # one file has as many of the one as of the other
            check_names(table.file)
            continue
        rows = _count(table.file)
        if rows != table.count:
            part = f"Part {number_of(table.file)}: " if len(tables) > 1 else ""
            raise IngestError(f"{part}{table.vectors} has {table.count:,} vectors, {table.file.name} {rows:,} rows. {_ORDER}.")


class OrderedItems:
    """Media of tables that go along with the vectors. Read once."""

    def __init__(self, tables: Sequence[Table], count: int, width: int, links: Links, folder: Path) -> None:
        """Prepare for `count` vectors of `width` numbers; temporary files go into `folder`."""
        self._folder = folder
        self._width = width
        self._vectors: set[str] = set()
        self._bad = BadLines()
        self._tables = tables
        self._count = count
        self._links = links
        self._roles: dict[tuple[str, ...], _Roles] = {}
        self._groups: dict[str, int] = {}
        self._column_seen = links.column is None
        self._names: tuple[str, ...] = ()

    @property
    def groups(self) -> int:
        """How many groups were met so far."""
        return len(self._groups)

    def medias(self, unusable: NDArray[np.bool_]) -> Iterator[MediaRow]:
        """Yield the medium of each row that `unusable`, (N,), does not mark; ids are row + 1; then the groups.

        Raises:
            IngestError: no row has the column that names the source, or a table cannot be read.
        """
        row = 0
        for table in self._tables:
            for values in self._rows(table):
                medium = self._medium(row, values)
                if not unusable[row]:
                    yield medium
                row += 1
        if not self._tables:
            yield from (MediaRow(id=row + 1, source=f"item-{row}", row=row) for row in range(self._count) if not unusable[row])
        elif not self._column_seen:
            names = clipped(", ".join(self._names), 120)
            raise IngestError(f"No row of the metadata has a column {clipped(self._links.column)!r}. There are {names}: give --column one.")
        yield from (MediaRow(id=number, source=name, source_type=OTHER) for name, number in self._groups.items())

    def notes(self) -> Iterator[str]:
        """Yield what was odd in the tables, in sentences."""
        if self._vectors:
            yield f"vectors make no field: {clipped(', '.join(sorted(self._vectors)), 120)}"
        if self._bad.count:
            first = self._bad.first[0]
            yield f"{self._bad.count:,} rows of the metadata have a value that cannot be used; row {first.number}: {first.reason}"

    def _rows(self, table: Table) -> Iterator[Mapping[str, Any]]:
        if not table.vector_column:
            yield from (values for _, values in read_table(table.file, self._bad))
            return
        rest = self._folder / "rest.parquet"
        if write_rest(table.file, table.vector_column, rest):
            yield from (values for _, values in read_table(rest, self._bad))
            rest.unlink()
        else:
            yield from ({} for _ in range(table.count))

    def _medium(self, row: int, values: Mapping[str, Any]) -> MediaRow:
        names = tuple(values)
        roles = self._roles.get(names)
        if roles is None:
            roles = _roles(names, self._links.column)
            self._names = self._names or names
            if len(self._roles) < 1000:  # JSON Lines may have other keys in every row
                self._roles[names] = roles
        self._column_seen = self._column_seen or bool(roles.sources)
        origin = next((name for name in roles.sources if _text(values[name])), None)
        source = f"item-{row}" if origin is None else self._relative(_text(values[origin]))
        thumbnail = next((_text(values[name]) for name in roles.thumbnails if _text(values[name])), None)
        group = group_name(values[roles.group], row + 1, self._bad) if roles.group is not None else None
        taken = {origin, roles.group, *roles.thumbnails}
        return MediaRow(
            id=row + 1,
            source=source,
            thumbnail=thumbnail or (source if self._links.thumbnails and origin is not None else None),
            group=self._groups.setdefault(group, self._count + 1 + len(self._groups)) if group else None,
            row=row,
            fields={name: value for name, value in values.items() if name not in taken and not self._is_vector(name, value)},
        )

    def _is_vector(self, name: str, value: Any) -> bool:
        """Tell whether a column of the metadata holds vectors too: each would be as many values of a field as it is wide."""
        numbers = cast("list[Any]", value) if isinstance(value, list) else []
        found = len(numbers) == self._width and all(isinstance(one, float) for one in numbers)
        if found:
            self._vectors.add(name)
        return found

    def _relative(self, source: str) -> str:
        if self._links.originals is None or "://" in source or not PurePath(source).is_absolute():
            return source
        path = PurePath(source)
        return path.relative_to(self._links.originals).as_posix() if path.is_relative_to(self._links.originals) else source


@dataclass(frozen=True)
class _Roles:
    """What the columns of a row are for; those without a role become fields."""

    sources: tuple[str, ...]
    thumbnails: tuple[str, ...]
    group: str | None


def _roles(names: Sequence[str], column: str | None) -> _Roles:
    folded = {name.strip().casefold(): name for name in reversed(names)}
    wanted = SOURCE_KEYS if column is None else (column.strip().casefold(),)
    return _Roles(
        sources=tuple(folded[key] for key in wanted if key in folded),
        thumbnails=tuple(folded[key] for key in THUMBNAIL_KEYS if key in folded),
        group=folded.get(GROUP_KEY),
    )


def _text(value: Any) -> str:
    if isinstance(value, str):
        return storable(value.strip())
    if isinstance(value, float) and value.is_integer():  # a column of whole numbers with gaps holds floats
        value = int(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def _count(file: Path) -> int:
    if file.suffix.lower() == ".parquet":
        return count_rows(file)
    bad = BadLines()
    rows = 0
    for _ in read_table(file, bad):
        rows += 1
        if bad.count:
            break
    if bad.count:
        first = bad.first[0]
        raise IngestError(f"Line {first.number} of {file} cannot be used: {first.reason}. {_ORDER}: mend the line.")
    return rows
