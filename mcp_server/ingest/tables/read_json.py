"""Reads a .json file: JSON Lines, one list of objects, or one object that holds one list of objects."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from mcp_server.errors import IngestError, clipped
from mcp_server.ingest.tables.rows import BadLines, Row, read_lines

_CHUNK = 1 << 16
_LONGEST_VALUE = 1 << 26
_BLANK = " \t\r\n"


def read_json(file: Path, bad: BadLines) -> Iterator[tuple[int, Row]]:
    """Yield the rows of a .json file, whichever of the three ways it holds them; one object without a list of objects is one row.

    Raises:
        IngestError: a list that breaks off or is no JSON, or an object with several lists of objects.
        OSError: the file cannot be read.
    """
    try:
        opens = _opens(file)
        lists = _lists_of_objects(file) if opens == b"{" else None
        if opens == b"[":
            with closing(_Walker(file)) as walker:
                yield from _rows(walker.items(), bad)
        elif lists is None:
            yield from read_lines(file, bad)
        elif not lists:
            with closing(_Walker(file)) as walker:
                yield 1, cast("Row", walker.value())
        elif len(lists) == 1:
            with closing(_Walker(file)) as walker:
                for key in walker.members():
                    if key == lists[0] and walker.peek() == "[":
                        yield from _rows(walker.items(), bad)
                    else:
                        walker.skip()
        else:
            names = ", ".join(clipped(name) for name in lists[:6])
            raise IngestError(f"The metadata file {file} holds several lists of objects: {names}. Give a file with one of them.")
    except _NotJsonError as error:
        raise IngestError(
            f"The metadata file {file} is not JSON: {error}. What comes after cannot be read; mend it and start again."
        ) from error


class _NotJsonError(Exception):
    """The text goes on with something else than JSON has there."""


def _opens(file: Path) -> bytes:
    """Return the first byte of the text that is not blank; b"" if the first 64 kB are."""
    with file.open("rb") as opened:
        return opened.read(_CHUNK).removeprefix(codecs.BOM_UTF8).lstrip()[:1]


def _rows(items: Iterator[Any], bad: BadLines) -> Iterator[tuple[int, Row]]:
    for number, item in enumerate(items, start=1):
        if isinstance(item, dict):
            yield number, cast("Row", item)
        else:
            bad.add(number, "not a JSON object")


def _lists_of_objects(file: Path) -> list[str] | None:
    """Return the keys of the lists of objects in the one object that `file` is; None if it is something else, such as JSON Lines."""
    found: list[str] = []
    with closing(_Walker(file)) as walker:
        try:
            for key in walker.members():
                if walker.peek() != "[":
                    walker.skip()
                    continue
                holds = [isinstance(item, dict) for item in _first_and_skip(walker.items())]
                if any(holds):
                    found.append(key)
            return None if walker.peek() else found
        except _NotJsonError:
            return None


def _first_and_skip(items: Iterator[Any]) -> Iterator[Any]:
    """Yield the first of `items` and read on to their end."""
    for number, item in enumerate(items):
        if number == 0:
            yield item


class _Walker:
    """Walks through the JSON text of a file, value by value; holds one value and a piece of text at a time."""

    def __init__(self, file: Path) -> None:
        self._opened = file.open("rb")
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._json = json.JSONDecoder()
        self._text = ""
        self._at = 0
        self._ended = False

    def close(self) -> None:
        """Close the file."""
        self._opened.close()

    def peek(self) -> str:
        """Return the next character that is not blank, "" at the end of the file."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _BLANK:
                self._at += 1
            if self._at < len(self._text) or not self._more(_CHUNK):
                return self._text[self._at : self._at + 1]

    def value(self) -> Any:
        """Read one value."""
        self.peek()
        size = _CHUNK
        while True:
            try:
                value, end = self._json.raw_decode(self._text, self._at)
                # a number at the end of the piece may go on in the next
                if end < len(self._text) or not self._more(size):
                    self._at = end
                    return value
            except (ValueError, RecursionError) as error:
                if len(self._text) - self._at > _LONGEST_VALUE or not self._more(size):
                    raise _NotJsonError(f"{clipped(error, 60)}, near {clipped(self._text[self._at :], 30)!r}") from error
            size *= 2

    def items(self) -> Iterator[Any]:
        """Yield the values of the list that begins here."""
        self._take("[")
        if self.peek() != "]":
            yield self.value()
            while self.peek() == ",":
                self._at += 1
                yield self.value()
        self._take("]")

    def members(self) -> Iterator[str]:
        """Yield the keys of the object that begins here; before the next one is asked for, the value is to be read."""
        self._take("{")
        if self.peek() != "}":
            yield self._key()
            while self.peek() == ",":
                self._at += 1
                yield self._key()
        self._take("}")

    def skip(self) -> None:
        """Read one value and forget it, a list one by one."""
        if self.peek() != "[":
            self.value()
            return
        for _ in self.items():
            pass

    def _key(self) -> str:
        if self.peek() != '"':
            raise _NotJsonError(f"no name near {clipped(self._text[self._at :], 30)!r}")
        key = str(self.value())
        self._take(":")
        return key

    def _take(self, mark: str) -> None:
        if self.peek() != mark:
            raise _NotJsonError(f"no {mark} near {clipped(self._text[self._at :], 30)!r}")
        self._at += 1

    def _more(self, size: int) -> bool:
        """Read on by `size` bytes, forgetting what was walked through; tell whether there was more."""
        if self._ended:
            return False
        piece = self._opened.read(size)
        self._ended = not piece
        try:
            self._text = self._text[self._at :] + self._decoder.decode(piece, final=self._ended)
        except UnicodeDecodeError as error:
            raise _NotJsonError("it is not UTF-8 text") from error
        self._at = 0
        return True
