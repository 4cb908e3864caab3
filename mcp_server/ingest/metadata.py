"""Reads a metadata file, one JSON object a line, and finds the picture each row is about."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

from mcp_server.errors import IngestError, clipped
from mcp_server.ingest.fields import storable

FILE_KEYS = ("file", "path", "filename", "image")
"""The keys that may name a row's picture; the first one a row has counts, and does not become a field."""

GROUP_KEY = "group_id"


@dataclass(frozen=True)
class BadLine:
    """What was wrong with one line of the metadata file; the first line has number 1."""

    number: int
    reason: str


@dataclass(frozen=True)
class Metadata:
    """What a metadata file says about the pictures of a folder.

    Attributes:
        rows: picture to its fields as they were read, in the order of the file, without the naming key and the group.
        lines: picture to the number of its row's line.
        groups: picture to the name of its group, for the pictures that have one.
        unmatched: rows that name no picture of the folder, or more than one.
        bad_lines: lines that could not be used, wholly or in part.
    """

    rows: Mapping[str, Mapping[str, Any]]
    lines: Mapping[str, int]
    groups: Mapping[str, str]
    unmatched: int
    bad_lines: tuple[BadLine, ...]


NO_METADATA = Metadata(rows={}, lines={}, groups={}, unmatched=0, bad_lines=())


def read_metadata(file: Path, folder: Path, pictures: Sequence[str]) -> Metadata:
    """Read `file` and match its rows to `pictures`, paths relative to `folder` with "/".

    A row names its picture by that path or by its absolute path; failing that, by an end of the path such as the bare file name, or by a
    path that ends in it, as long as only one picture answers to it. The first row of a picture counts.

    Raises:
        IngestError: the file cannot be read, no line of it is a JSON object, or no row names a picture: better said before the long part.
    """
    finder = _PictureFinder(folder, pictures)
    rows: dict[str, Mapping[str, Any]] = {}
    lines: dict[str, int] = {}
    groups: dict[str, str] = {}
    bad: list[BadLine] = []
    unmatched = 0
    example = ""
    for number, line in _lines(file):
        try:
            row = _row(line)
            name = _picture_name(row)
            picture = finder.find(name)
            if picture is None:
                unmatched += 1
                example = example or name
            elif picture in rows:
                bad.append(BadLine(number, f'a second row for "{clipped(name)}"; the first one counts'))
            else:
                rows[picture] = row
                lines[picture] = number
                group = _group(row)
                if group is not None:
                    groups[picture] = group
        except _UnusableError as error:
            bad.append(BadLine(number, str(error)))
    if unmatched and not rows:
        raise IngestError(
            f"None of the {unmatched} rows of {file} names a picture below {folder}; the first names {clipped(example, 80)!r}, "
            f"the first picture is {clipped(pictures[0], 80)!r}. Give each row a {FILE_KEYS[0]!r} with the path below the folder."
        )
    if bad and not rows:
        raise IngestError(f"No line of {file} can be used; line {bad[0].number}: {bad[0].reason}. Give one JSON object a line.")
    return Metadata(rows, lines, groups, unmatched, tuple(bad))


class _UnusableError(Exception):
    """This line, or a part of it, cannot be used."""


class _PictureFinder:
    """Finds the one picture that a name means."""

    def __init__(self, folder: Path, pictures: Sequence[str]) -> None:
        self._folder = folder.absolute()
        self._by_path = {_plain(picture): picture for picture in pictures}
        self._by_name: dict[str, list[str]] = {}
        for path in self._by_path:
            self._by_name.setdefault(PurePosixPath(path).name, []).append(path)

    def find(self, name: str) -> str | None:
        wanted = _plain(name)
        if wanted not in self._by_path:
            wanted = self._only_one_like(self._below_folder(wanted))
        return self._by_path.get(wanted)

    def _below_folder(self, wanted: str) -> str:
        path = PurePosixPath(wanted.replace("\\", "/"))
        folder = PurePosixPath(_plain(self._folder.as_posix()))
        return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()

    def _only_one_like(self, wanted: str) -> str:
        """Return the one picture whose path is `wanted`, ends in it or is an end of it; "" when there is none or more than one."""
        if wanted in self._by_path:
            return wanted
        like = [
            path
            for path in self._by_name.get(PurePosixPath(wanted).name, [])
            if f"/{path}".endswith(f"/{wanted}") or f"/{wanted}".endswith(f"/{path}")
        ]
        return like[0] if len(like) == 1 else ""


def _plain(path: str) -> str:
    # file systems and editors differ in how they compose accents
    return unicodedata.normalize("NFC", path).removeprefix("./")


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, with their numbers."""
    try:
        with file.open("rb") as opened:
            for number, line in enumerate(opened, start=1):
                bare = (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).strip()
                if bare:
                    yield number, bare
    except OSError as error:
        raise IngestError(f"Cannot read the metadata file {file}: {error.strerror}.") from error


def _row(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _UnusableError("not UTF-8 text") from error
    except (ValueError, RecursionError) as error:
        raise _UnusableError(f"not JSON: {clipped(error, 60)}") from error
    if not isinstance(row, dict):
        raise _UnusableError("not a JSON object")
    return cast("dict[str, Any]", row)


def _picture_name(row: dict[str, Any]) -> str:
    """Take the picture's name out of `row`."""
    key = next((key for key in FILE_KEYS if key in row), None)
    if key is None:
        raise _UnusableError(f"names no picture; give it one of {', '.join(FILE_KEYS)}")
    name = row.pop(key)
    if not isinstance(name, str) or not name:
        raise _UnusableError(f"its {key} is not a file name")
    return name


def _group(row: dict[str, Any]) -> str | None:
    """Take the group's name out of `row`; None when it has none."""
    group = row.pop(GROUP_KEY, None)
    if group is None:
        return None
    if isinstance(group, bool) or not isinstance(group, str | int):
        raise _UnusableError(f"its {GROUP_KEY} is neither text nor a whole number; the picture has no group")
    return storable(str(group).strip()) or None
