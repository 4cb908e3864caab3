"""Reads a CSV file twice: once to see what its columns hold, once for its rows."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Literal, cast

from mcp_server.errors import IngestError, clipped
from mcp_server.ingest.catalog.fields import INT64
from mcp_server.ingest.tables.rows import BadLines, Row

_DELIMITERS = ",;\t|"
_SAMPLE_ROWS = 50
_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_NO_NUMBER = frozenset({"nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"})
_TRUTH = {"true": True, "false": False}
_DIGITS = 400

_Holds = Literal["whole", "decimal", "truth", "text"]


def read_csv(file: Path, bad: BadLines) -> Iterator[tuple[int, Row]]:
    r"""Yield the rows of a CSV file with the numbers of the lines they start at; the first line gives the names of the columns.

    The delimiter is the one of , ; tab | that cuts the first rows best, for .tsv the tab. A column whose cells are all whole numbers of 64
    bits, all numbers, or all true and false, holds those; "007", "+49" and longer whole numbers make it text. NaN and infinities in such a
    column are null, empty cells are null anywhere, a cell that is a JSON list of plain values is that list. Cells missing at the end of a
    row are null. Columns without a name are left out.

    Raises:
        IngestError: not UTF-8, no names, two columns of one name, a cell of more than 131,072 characters.
        OSError: the file cannot be read.
    """
    try:
        delimiter = "\t" if file.suffix.lower() == ".tsv" else _delimiter(file)
        names = _names(file, delimiter)
        holds = [_Column() for _ in names]
        for _, cells in _records(file, delimiter):
            for column, cell in zip(holds, cells, strict=False):
                column.see(cell)
        readers = [_READERS[column.holds] for column in holds]
        for number, cells in _records(file, delimiter):
            if any(cells[len(names) :]):
                bad.add(number, f"has {len(cells)} cells; the first line names {len(names)}")
            else:
                yield number, _row(names, readers, cells)
    except UnicodeDecodeError as error:
        raise IngestError(
            f"The metadata file {file} is not UTF-8 text. Save it as UTF-8 (in Excel: 'CSV UTF-8') and start again."
        ) from error
    except csv.Error as error:
        raise IngestError(f"The metadata file {file} cannot be read as CSV: {clipped(error, 80)}. Is a quote left open?") from error


class _Column:
    """Learns what a column holds, cell by cell."""

    def __init__(self) -> None:
        self._could_be: tuple[_Holds, ...] = ("whole", "decimal", "truth")
        self._seen = False

    @property
    def holds(self) -> _Holds:
        return self._could_be[0] if self._seen and self._could_be else "text"

    def see(self, cell: str) -> None:
        text = cell.strip()
        if not self._could_be or not text or text.lower() in _NO_NUMBER or _list(text) is not None:
            return
        self._seen = True
        self._could_be = tuple(holds for holds in self._could_be if _FITS[holds](text))


def _delimiter(file: Path) -> str:
    """Return the delimiter that cuts the first rows into the most cells that agree with the first row; "," if none cuts."""
    best, most = ",", 1
    for delimiter in _DELIMITERS:
        widths: list[int] = []
        # a line that is one long cell with this delimiter may be fine with another
        with suppress(csv.Error), closing(_records(file, delimiter, header=True)) as records:
            widths.extend(len(cells) for _, cells in islice(records, _SAMPLE_ROWS))
        agreeing = sum(width == widths[0] for width in widths)
        if widths and widths[0] > most and 2 * agreeing > len(widths):
            best, most = delimiter, widths[0]
    return best


def _names(file: Path, delimiter: str) -> list[str]:
    with closing(_records(file, delimiter, header=True)) as records:
        names = [name.strip() for _, cells in islice(records, 1) for name in cells]
    if not any(names):
        raise IngestError(f"The metadata file {file} has no names of columns in its first line.")
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise IngestError(f"The metadata file {file} has two columns called {clipped(twice)!r}. Give each its own name.")
    return names


def _records(file: Path, delimiter: str, *, header: bool = False) -> Generator[tuple[int, list[str]]]:
    """Yield the records with the lines they start at, with or without the first. Blank lines are none; the first is not empty."""
    with file.open(encoding="utf-8-sig", newline="") as opened:
        reader = csv.reader(opened, delimiter=delimiter)
        number = 1
        begun = False
        for cells in reader:
            if any(cells) or (begun and cells):
                if header or begun:
                    yield number, cells
                begun = True
            number = reader.line_num + 1


def _row(names: Sequence[str], readers: Sequence[Callable[[str], Any]], cells: Sequence[str]) -> Row:
    row: Row = {}
    for place, name in enumerate(names):
        if name:
            text = cells[place].strip() if place < len(cells) else ""
            listed = _list(text)
            row[name] = None if not text else readers[place](text) if listed is None else listed
    return row


def _list(text: str) -> list[Any] | None:
    """Return the list of plain values that a cell is, or None."""
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return None
    plain = all(value is None or isinstance(value, str | int | float) for value in read)
    return cast("list[Any]", read) if plain else None


def _is_whole(text: str) -> bool:
    return _WHOLE.fullmatch(text) is not None and len(text) <= 20 and int(text) in INT64


def _is_decimal(text: str) -> bool:
    if _WHOLE.fullmatch(text):
        return _is_whole(text)
    return len(text) <= _DIGITS and _DECIMAL.fullmatch(text) is not None and abs(float(text)) != float("inf")


def _is_truth(text: str) -> bool:
    return text.lower() in _TRUTH


def _whole(text: str) -> int | None:
    return None if text.lower() in _NO_NUMBER else int(text)


def _decimal(text: str) -> int | float | None:
    return None if text.lower() in _NO_NUMBER else int(text) if _WHOLE.fullmatch(text) else float(text)


def _truth(text: str) -> bool | None:
    return _TRUTH.get(text.lower())


def _text(text: str) -> str:
    return text


_FITS: dict[_Holds, Callable[[str], bool]] = {"whole": _is_whole, "decimal": _is_decimal, "truth": _is_truth}
_READERS: dict[_Holds, Callable[[str], Any]] = {"whole": _whole, "decimal": _decimal, "truth": _truth, "text": _text}
