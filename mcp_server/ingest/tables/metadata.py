"""Finds the picture that each row of a metadata file is about."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, cast

from mcp_server.errors import IngestError, clipped
from mcp_server.ingest.catalog.fields import storable
from mcp_server.ingest.tables.read import read_table
from mcp_server.ingest.tables.rows import BadLines, Row

FILE_KEYS = ("file", "path", "filename", "image", "file_name", "filepath", "file_path", "image_path", "image_file", "source")
"""The keys that may name a row's picture, letter case ignored; the first one a row has counts, and does not become a field."""

GROUP_KEY = "group_id"


@dataclass(frozen=True)
class MatchedRow:
    """What a metadata file says about one picture.

    Attributes:
        source: the picture, as `pictures` spells it.
        line: number of its row, see `tables.read_table`.
        group: name of its group, if the row gives one.
        fields: the row without the naming key and the group.
    """

    source: str
    line: int
    group: str | None
    fields: dict[str, Any]


@dataclass
class MetadataReport:
    """What became of the rows of a metadata file, so far.

    Attributes:
        matched: rows that found their picture.
        unmatched: rows that name no picture of the folder, or more than one.
        bad: lines that could not be used, wholly or in part.
    """

    matched: int = 0
    unmatched: int = 0
    bad: BadLines = field(default_factory=BadLines)


def matched_rows(
    file: Path, folder: Path, pictures: Iterable[str], report: MetadataReport, column: str | None = None
) -> Iterator[MatchedRow]:
    """Yield the rows of `file` that name one of `pictures`, paths relative to `folder` with "/", in the order of the file.

    A row names its picture by that path or by its absolute path; failing that, by an end of the path such as the bare file name, or by a
    path that ends in it, as long as only one picture answers to it. The first row of a picture counts. `report` is kept up to date. Memory
    holds the paths of the pictures, not the rows.

    Args:
        column: the key that names the picture, letter case ignored; default: the first of `FILE_KEYS` that a row has a value for.

    Raises:
        IngestError: the file cannot be read, or, once it is read, no row of it could be used or none names a picture.
    """
    finder = _PictureFinder(folder, pictures)
    naming = _Naming(column)
    taken: set[str] = set()
    first_lost = ""
    for number, row in read_table(file, report.bad):
        if all(value is None for value in row.values()):  # how spreadsheets save lines that were emptied
            continue
        try:
            name = naming.take_name(row)
        except _UnusableError as error:
            report.bad.add(number, str(error))
            continue
        picture = finder.find(name)
        if picture is None:
            report.unmatched += 1
            first_lost = first_lost or name
        elif picture in taken:
            report.bad.add(number, f'a second row for "{clipped(name)}"; the first one counts')
        else:
            taken.add(picture)
            report.matched += 1
            yield MatchedRow(picture, number, _group(row, number, report.bad), row)
    if report.matched:
        return
    if report.unmatched:
        raise IngestError(
            f"None of the {report.unmatched} rows of {file} names a picture below {folder}; "
            f"the first names {clipped(first_lost, 80)!r}, "
            f"the first picture is {clipped(finder.first, 80)!r}. "
            f'Give each row a {column or FILE_KEYS[0]!r} with the path below the folder, or --metadata "" to do without.'
        )
    if report.bad.first:
        first = report.bad.first[0]
        raise IngestError(f"No row of {file} can be used; line {first.number}: {first.reason}.")


def group_name(group: Any, number: int, bad: BadLines) -> str | None:
    """Return the name of the group that row `number` gives as `group`; None, and what cannot be one is noted in `bad`, when it has none."""
    if isinstance(group, float):  # a column of whole numbers with gaps holds floats, and NaN for the gaps
        group = None if math.isnan(group) else int(group) if group.is_integer() else group
    if group is None:
        return None
    if isinstance(group, bool) or not isinstance(group, str | int):
        bad.add(number, f"its {GROUP_KEY} is neither text nor a whole number; the picture has no group")
        return None
    return storable(str(group).strip()) or None


class _UnusableError(Exception):
    """This row cannot be used."""


class _Naming:
    """Takes the picture's name out of rows."""

    def __init__(self, column: str | None) -> None:
        self._column = column
        self._wanted = FILE_KEYS if column is None else (column.strip().casefold(),)
        self._keys: dict[tuple[str, ...], list[str]] = {}

    def take_name(self, row: Row) -> str:
        """Return the name of the picture and take it out of `row`.

        Raises:
            _UnusableError: it names none.
        """
        key = next((key for key in self._candidates(row) if row[key] is not None), None)
        if key is None:
            raise _UnusableError(
                f"names no picture; give it one of {', '.join(FILE_KEYS)}" if self._column is None else f"has no {clipped(self._column)}"
            )
        name = row.pop(key)
        if isinstance(name, dict):  # how data sets of pictures keep them in Parquet
            name = cast("Row", name).get("path")
        elif isinstance(name, int) and not isinstance(name, bool):
            name = str(name)
        if not isinstance(name, str) or not name.strip():
            raise _UnusableError(f"its {clipped(key)} is not a file name")
        return name

    def _candidates(self, row: Row) -> list[str]:
        """Return the keys of `row` that may name its picture, the one that counts most first."""
        shape = tuple(row)
        if shape not in self._keys:
            if len(self._keys) >= 256:
                self._keys.clear()
            folded = [(key.strip().casefold(), key) for key in shape]
            self._keys[shape] = [key for wanted in self._wanted for plain, key in folded if plain == wanted]
        return self._keys[shape]


class _PictureFinder:
    """Finds the one picture that a name means."""

    def __init__(self, folder: Path, pictures: Iterable[str]) -> None:
        self._folder = PurePosixPath(_plain(folder.absolute().as_posix()))
        self._by_path = {_plain(picture): picture for picture in pictures}
        self._by_name: dict[str, str | list[str]] = {}

    @property
    def first(self) -> str:
        """The first picture, for messages."""
        return next(iter(self._by_path.values()), "")

    def find(self, name: str) -> str | None:
        wanted = _plain(name)
        if wanted not in self._by_path:
            wanted = self._only_one_like(self._below_folder(wanted))
        return self._by_path.get(wanted)

    def _below_folder(self, wanted: str) -> str:
        path = PurePosixPath(wanted.replace("\\", "/"))
        return (path.relative_to(self._folder) if path.is_relative_to(self._folder) else path).as_posix()

    def _only_one_like(self, wanted: str) -> str:
        """Return the one picture whose path is `wanted`, ends in it or is an end of it; "" when there is none or more than one."""
        if wanted in self._by_path:
            return wanted
        found = self._named(PurePosixPath(wanted).name)
        like = [path for path in found if f"/{path}".endswith(f"/{wanted}") or f"/{wanted}".endswith(f"/{path}")]
        return like[0] if len(like) == 1 else ""

    def _named(self, name: str) -> list[str]:
        """Return the paths that end in `name`. Known from the first time it is asked on: most files give whole paths."""
        if not self._by_name:
            for path in self._by_path:
                last = path.rpartition("/")[2]
                twin = self._by_name.setdefault(last, path)
                if twin is not path:
                    self._by_name[last] = [*twin, path] if isinstance(twin, list) else [twin, path]
        found = self._by_name.get(name, [])
        return found if isinstance(found, list) else [found]


def _plain(path: str) -> str:
    # file systems and editors differ in how they compose accents
    return (path if path.isascii() else unicodedata.normalize("NFC", path)).removeprefix("./")


def _group(row: Row, number: int, bad: BadLines) -> str | None:
    """Take the group's name out of `row`; None when it has none."""
    key = next((key for key in row if len(key) == len(GROUP_KEY) and key.casefold() == GROUP_KEY), None)
    return None if key is None else group_name(row.pop(key), number, bad)
