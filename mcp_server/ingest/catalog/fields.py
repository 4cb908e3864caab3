"""Decides what kind each metadata field has, value by value, and what is stored for a value."""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any, Literal, cast

from mcp_server.domain.tagset_names import is_internal
from mcp_server.errors import IngestError, clipped

TagKind = Literal["alphanumerical", "timestamp", "time", "date", "numerical_int", "numerical_dec", "json"]
TagValue = str | int | float
Shape = Literal["text", "boolean", "integer", "huge", "decimal", "endless", "date", "time", "timestamp", "impossible", "object"]

INT64 = range(-(2**63), 2**63)

KIND_WORDS: dict[TagKind, str] = {
    "alphanumerical": "text",
    "numerical_int": "a whole number of 64 bits",
    "numerical_dec": "a number",
    "date": "a date",
    "time": "a time of day",
    "timestamp": "a date with a time",
    "json": "JSON",
}
"""What a value of each kind is, in words: "not a date"."""

_KIND_NAMES: dict[str, TagKind] = {
    "text": "alphanumerical",
    "bool": "alphanumerical",
    "integer": "numerical_int",
    "int": "numerical_int",
    "decimal": "numerical_dec",
    "float": "numerical_dec",
    "number": "numerical_dec",
    "date": "date",
    "time": "time",
    "timestamp": "timestamp",
    "datetime": "timestamp",
    "json": "json",
}
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_TIME = re.compile(r"\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?", re.ASCII)
_TIMESTAMP = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?", re.ASCII)

_NARROWEST_FIRST: tuple[tuple[TagKind, frozenset[Shape]], ...] = (
    ("numerical_int", frozenset({"integer"})),
    ("numerical_dec", frozenset({"integer", "decimal"})),
    ("date", frozenset({"date", "impossible"})),
    ("timestamp", frozenset({"date", "timestamp", "impossible"})),
    ("time", frozenset({"time", "impossible"})),
    ("json", frozenset({"object"})),
)


@dataclass(frozen=True)
class Field:
    """A metadata field and the kind of tag its values are stored as."""

    name: str
    kind: TagKind


class KindGuess:
    """Learns the kind of one field from its values, one by one; keeps a count and the first example of each shape, no more.

    Whole numbers are numerical_int (alphanumerical if one leaves 64 bits: as a number it would change), whole and decimal ones
    numerical_dec, ISO dates date, ISO timestamps (with dates or without) timestamp, ISO times time, objects json. Booleans, text and every
    other mixture are alphanumerical. Moments that do not exist, such as 2004-08-39, do not make text of a field of dates, unless they are
    more than half of it: it then holds codes that look like dates.
    """

    def __init__(self) -> None:
        self.counts: dict[Shape, int] = {}
        self.examples: dict[Shape, TagValue] = {}

    def add(self, shape: Shape, value: TagValue) -> None:
        """Take note of one value, as `staged` gives it."""
        if shape in self.counts:
            self.counts[shape] += 1
        else:
            self.counts[shape] = 1
            self.examples[shape] = value

    @property
    def kind(self) -> TagKind | None:
        """The narrowest kind that holds all values seen; None before the first that can be stored."""
        shapes = self.counts.keys() - {"endless"}
        if not shapes:
            return None
        if 2 * self.counts.get("impossible", 0) <= sum(self.counts[shape] for shape in shapes):
            for kind, holds in _NARROWEST_FIRST:
                if shapes <= holds:
                    return kind
        return "alphanumerical"

    def spoiled(self) -> tuple[TagKind, int, TagValue] | None:
        """Tell why a field is text though it looks like another kind: that kind, how many values are not of it, the first of them.

        None unless all values but a tenth at most are of one narrower kind, or only whole numbers beyond 64 bits stand against it.
        """
        if self.kind != "alphanumerical":
            return None
        counts: dict[Shape, int] = {shape: count for shape, count in self.counts.items() if shape != "endless"}
        for kind, holds in _NARROWEST_FIRST:
            odd: list[Shape] = [shape for shape in counts if shape not in holds]
            count = sum(counts[shape] for shape in odd)
            if odd == ["huge"] or count * 10 <= sum(counts.values()):
                return (kind, count, self.examples[odd[0]]) if odd else None
        return None


def is_reserved(name: str) -> bool:
    """Tell whether a field may not be called so: blank, no text that can be stored, or kept for the index."""
    return not name.strip() or storable(name) != name or is_internal(name)


def field_key(name: str) -> str:
    """Return what two spellings of one field's name have in common: letter case, blanks around it and composed accents do not count."""
    return unicodedata.normalize("NFC", name.strip().casefold())


def storable(text: str) -> str:
    """Return `text` with "?" for every half of a surrogate pair: JSON and file names can hold one, UTF-8 cannot."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def values_of(raw: Any) -> Iterator[tuple[Shape, TagValue]]:
    """Yield the shape and the `staged` form of each value in `raw`; a list counts as its elements; null, blank and empty as nothing."""
    for value in cast("list[Any]", raw) if isinstance(raw, list | tuple) else (raw,):
        found = staged(value)
        if found is not None:
            yield found


def staged(value: Any) -> tuple[Shape, TagValue] | None:
    """Return the shape of one value, and the value as SQLite can hold it without loss whatever kind its field will have.

    Text is stripped, -0.0 is 0.0, booleans are "true" and "false", objects compact JSON, whole numbers beyond 64 bits text. None for null,
    blank text and empty objects. The shape of NaN and the infinities is "endless": they cannot be stored.
    """
    if isinstance(value, str):
        text = storable(value.strip())
        return (_text_shape(text), text) if text else None
    if isinstance(value, bool):
        return "boolean", "true" if value else "false"
    if isinstance(value, int):
        return ("integer", value) if value in INT64 else ("huge", _digits(value))
    if isinstance(value, float):
        return ("decimal", value + 0.0) if math.isfinite(value) else ("endless", str(value))
    if value is None or not value:
        return None
    return "object", storable(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def moment(text: str) -> datetime:
    """Read an ISO timestamp; one with an offset is turned into UTC, so that text order is time order.

    Raises:
        ValueError, OverflowError: there is no such moment.
    """
    read = datetime.fromisoformat(text)
    return read.astimezone(UTC) if read.tzinfo else read


def parse_types(text: str) -> dict[str, TagKind]:
    """Read what `--types` says, `field=kind` with commas between, into field name to kind.

    Raises:
        IngestError: a part is no `field=kind`, the kind is unknown, the field is named twice or may not be called so.
    """
    kinds: dict[str, TagKind] = {}
    seen: set[str] = set()
    for part in text.split(","):
        name, sign, word = (piece.strip() for piece in part.rpartition("="))
        if not sign or not name:
            raise IngestError(f"--types {clipped(part)!r} is not FIELD=KIND. Write, for example, year=integer,taken=date.")
        kind = _KIND_NAMES.get(word.casefold())
        if kind is None:
            raise IngestError(f"--types {clipped(name)}: no kind {clipped(word)!r}. Kinds are {', '.join(_KIND_NAMES)}.")
        if is_reserved(name):
            raise IngestError(f"--types {clipped(name)!r}: a field may not be called so. Give it another name in the metadata.")
        if field_key(name) in seen:
            raise IngestError(f"--types names {clipped(name)!r} twice (letter case does not count). Give each field one kind.")
        seen.add(field_key(name))
        kinds[name] = kind
    return kinds


def _digits(value: int) -> str:
    # str() refuses numbers of more than 4,300 digits
    return str(value) if abs(value) < 10**4000 else hex(value)


def _text_shape(text: str) -> Shape:
    if len(text) < 5 or not (text[4] == "-" or text[2] == ":"):
        return "text"
    try:
        if _DATE.fullmatch(text):
            date.fromisoformat(text)
            return "date"
        if _TIME.fullmatch(text):
            time.fromisoformat(text)
            return "time"
        if _TIMESTAMP.fullmatch(text):
            moment(text)
            return "timestamp"
    except (ValueError, OverflowError):
        return "impossible"
    return "text"
