"""Reads the elements of a JSON file one at a time: an array, JSON Lines, or an array inside one object."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from mcp_server.errors import IngestError, clipped

ELEMENT_LIMIT = 32 * 2**20
"""Longest single element, in characters. An array and JSON Lines may be of any length; an object around the array counts as one element."""

_PIECE = 2**18


def elements(file: Path, key: str) -> Iterator[Any]:
    """Yield the elements of `file` in order: those of its array, of its lines, or of the array under `key` of its one object.

    An object without `key` that is not followed by another is itself the only element. Arrays and lines are read piece by piece.

    Raises:
        IngestError: it is not UTF-8, not JSON, or one element is longer than `ELEMENT_LIMIT`.
    """
    try:
        with file.open(encoding="utf-8-sig") as stream:
            yield from _elements(_Reader(stream), key)
    except UnicodeDecodeError as error:
        raise IngestError(f"{file} is not UTF-8 text. Save it as UTF-8.") from error
    except OSError as error:
        raise IngestError(f"{file} cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        hint = "Give an array of objects, or one object a line."
        raise IngestError(f"{file} is not JSON that can be read: {clipped(error, 120)}. {hint}") from error


def whole_object(file: Path) -> dict[str, Any] | None:
    """Return the one object that `file` holds; None when it holds something else, or more than `ELEMENT_LIMIT` characters."""
    try:
        if file.stat().st_size > 4 * ELEMENT_LIMIT:
            return None
        with file.open(encoding="utf-8-sig") as stream:
            reader = _Reader(stream)
            found = reader.value() if reader.peek() == "{" else None
            return cast("dict[str, Any]", found) if isinstance(found, dict) and not reader.peek() else None
    except (OSError, ValueError, RecursionError):
        return None


class _Reader:
    """A text file as a row of JSON values, with no more of it in memory than the value at hand."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._decoder = json.JSONDecoder()
        self._text = ""
        self._at = 0
        self._ended = False

    def peek(self) -> str:
        """Return the next character that is no space; "" at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._more(_PIECE)

    def skip(self) -> None:
        """Step over the character that `peek` returned."""
        self._at += 1

    def value(self) -> Any:
        """Read the value that starts at the next character that is no space. Raises ValueError when there is none."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except ValueError:
                if self._ended:
                    raise
            else:
                if end < len(self._text) or self._ended:  # at the end of the text a number may go on
                    self._at = end
                    return value
            held = len(self._text) - self._at
            if held > ELEMENT_LIMIT:
                raise ValueError(f"one element is longer than {ELEMENT_LIMIT:,} characters, or broken; arrays of objects have no limit")
            self._more(max(_PIECE, held))

    def _more(self, size: int) -> None:
        piece = self._stream.read(size)
        self._ended = not piece
        self._text = self._text[self._at :] + piece
        self._at = 0


def _elements(reader: _Reader, key: str) -> Iterator[Any]:
    if reader.peek() == "[":
        yield from _array(reader)
        if reader.peek():
            raise ValueError("something follows the array")
        return
    first = reader.value() if reader.peek() else None
    inner: Any = cast("dict[str, Any]", first).get(key) if isinstance(first, dict) else None
    if isinstance(inner, list) and all(isinstance(one, dict) for one in cast("list[Any]", inner)) and not reader.peek():
        yield from cast("list[Any]", inner)
        return
    if first is not None:
        yield first
    while reader.peek():
        yield reader.value()


def _array(reader: _Reader) -> Iterator[Any]:
    reader.skip()
    if reader.peek() == "]":
        reader.skip()
        return
    while True:
        yield reader.value()
        separator = reader.peek()
        reader.skip()
        if separator == "]":
            return
        if separator != ",":
            raise ValueError("an array is not closed" if not separator else "a comma is missing in an array")
