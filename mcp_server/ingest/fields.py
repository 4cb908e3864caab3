"""Decides what kind each metadata field has, and what its tags are."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any, Literal, cast

TagKind = Literal["alphanumerical", "timestamp", "time", "date", "numerical_int", "numerical_dec", "json"]
TagValue = str | int | float

INDEX_TAGSET = "CLIP Index ID"
"""The tagset that says at which row of the embeddings a medium is."""

_INT64 = range(-(2**63), 2**63)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_TIME = re.compile(r"\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?")
_TIMESTAMP = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:?\d{2})?")

_Shape = Literal["text", "boolean", "integer", "huge", "decimal", "date", "time", "timestamp", "impossible", "object"]

_NARROWEST_FIRST: tuple[tuple[TagKind, frozenset[_Shape]], ...] = (
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


def fields_of(rows: Iterable[Mapping[str, Any]]) -> tuple[Field, ...]:
    """Return the fields of `rows` in order of first appearance, each with the narrowest kind that holds all its values.

    Whole numbers are numerical_int (alphanumerical if one leaves 64 bits: as a number it would change), whole and decimal ones
    numerical_dec, ISO dates date, ISO timestamps (with dates or without) timestamp, ISO times time, objects json. Booleans, text and every
    other mixture are alphanumerical. Lists count as their elements. Fields without any value and reserved names are left out. A moment that
    does not exist, such as 2004-08-39, does not make text of a field of dates: there it is no tag, see `impossible_moments`.
    """
    shapes: dict[str, set[_Shape]] = {}
    for row in rows:
        for name, raw in row.items():
            shapes.setdefault(name, set()).update(_shape(value) for value in _values(raw))
    return tuple(Field(name, _kind_of(found)) for name, found in shapes.items() if found and not is_reserved(name))


def is_reserved(name: str) -> bool:
    """Tell whether a field may not be called so: blank, no text that can be stored, or kept for the index."""
    return not name.strip() or storable(name) != name or name.strip().casefold().endswith("index id")


def storable(text: str) -> str:
    """Return `text` with "?" for every half of a surrogate pair: JSON and file names can hold one, UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


def tags_of(field: Field, raw: Any) -> tuple[TagValue, ...]:
    """Return the tags that `raw`, as read from a row, stands for in `field`, none twice. Null, blank, NaN and empty stand for none."""
    lost = impossible_moments(field, raw)
    return tuple(dict.fromkeys(_stored(value, field.kind) for value in _values(raw) if value not in lost))


def impossible_moments(field: Field, raw: Any) -> tuple[str, ...]:
    """Return the values of `raw` that look like the dates or times of `field` but do not exist, and so are no tags."""
    if field.kind not in ("date", "time", "timestamp"):
        return ()
    return tuple(value for value in _values(raw) if _shape(value) == "impossible")


def _values(raw: Any) -> Iterator[Any]:
    for value in cast("list[Any]", raw) if isinstance(raw, list) else [raw]:
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            continue
        if isinstance(value, str) and not value.strip():
            continue
        if isinstance(value, dict | list) and not value:
            continue
        yield value


def _shape(value: Any) -> _Shape:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if value in _INT64 else "huge"
    if isinstance(value, float):
        return "decimal"
    if isinstance(value, dict | list):
        return "object"
    return _text_shape(cast("str", value).strip())


def _text_shape(text: str) -> _Shape:
    try:
        if _DATE.fullmatch(text):
            date.fromisoformat(text)
            return "date"
        if _TIME.fullmatch(text):
            time.fromisoformat(text)
            return "time"
        if _TIMESTAMP.fullmatch(text):
            _moment(text)
            return "timestamp"
    except (ValueError, OverflowError):
        return "impossible"
    return "text"


def _kind_of(shapes: set[_Shape]) -> TagKind:
    for kind, holds in _NARROWEST_FIRST:
        if shapes <= holds and shapes != {"impossible"}:
            return kind
    return "alphanumerical"


def _stored(value: Any, tag_kind: TagKind) -> TagValue:
    match tag_kind:
        case "numerical_int":
            return int(value)
        case "numerical_dec":
            return float(value) + 0.0  # -0.0 and 0.0 are one value
        case "timestamp":
            return _moment(value.strip()).isoformat()
        case "date" | "time":
            return str(value).strip()
        case _:
            return _text(value)


def _moment(text: str) -> datetime:
    """Read a timestamp; one with an offset is turned into UTC, so that text order is time order."""
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC) if moment.tzinfo else moment


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return storable(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    return storable(str(value).strip())
