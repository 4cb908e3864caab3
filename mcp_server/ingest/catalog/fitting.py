"""Turns a value into what a field of a given kind stores for it, or says that it does not fit."""

from __future__ import annotations

import json
import math
import re
from datetime import date, time
from decimal import Decimal

from mcp_server.ingest.catalog.fields import INT64, TagKind, TagValue, moment

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_MOMENT = re.compile(
    r"(?P<year>\d{4})(?P<mark>[-:/.])(?P<month>\d{1,2})(?P=mark)(?P<day>\d{1,2})"
    r"(?:[Tt\s]\s*(?P<clock>\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?)\s?(?P<zone>[Zz]|[+-]\d{2}:?\d{2})?)?",
    re.ASCII,
)
_COMPACT = re.compile(r"(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})", re.ASCII)
_CLOCK = re.compile(r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?", re.ASCII)
_DIGITS = 400
"""No number that a double can hold needs a longer text."""


def fitted(value: TagValue, kind: TagKind) -> TagValue | None:
    """Return what a field of `kind` stores for `value`, as `fields.staged` gives it; None if it does not fit.

    alphanumerical: the text of anything. numerical_int: whole numbers of 64 bits, also as text. numerical_dec: finite numbers, also as
    text. date: ISO dates and timestamps, year first also with ":", "/", "." or nothing between; a day that exists. time: times of day, also
    the one of a timestamp. timestamp: the same moments; those with an offset in UTC, a bare date at midnight. json: objects, numbers, and
    text that is JSON. Fitting what came out gives it again.
    """
    match kind:
        case "alphanumerical":
            return value if isinstance(value, str) else str(value)
        case "numerical_int":
            return _whole(value)
        case "numerical_dec":
            return _decimal(value)
        case "json":
            return _json(value)
        case "date" | "time" | "timestamp":
            text = str(value)
            try:
                return _date(text) if kind == "date" else _time(text) if kind == "time" else _timestamp(text)
            except (ValueError, OverflowError):
                return None


def _whole(value: TagValue) -> int | None:
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        if len(value) > _DIGITS or not _NUMBER.fullmatch(value):
            return None
        exact = Decimal(value)
        if exact.adjusted() > 18 or exact != exact.to_integral_value():
            return None
        number = int(exact)
    else:
        if not value.is_integer():
            return None
        number = int(value)
    return number if number in INT64 else None


def _decimal(value: TagValue) -> float | None:
    if isinstance(value, str) and (len(value) > _DIGITS or not _NUMBER.fullmatch(value)):
        return None
    number = float(value) + 0.0  # "-0.0" and "0.0" are one value
    return number if math.isfinite(number) else None


def _date(text: str) -> str | None:
    found = _MOMENT.fullmatch(text) or _COMPACT.fullmatch(text)
    return _day(found) if found else None


def _day(found: re.Match[str]) -> str:
    return date(int(found["year"]), int(found["month"]), int(found["day"])).isoformat()


def _time(text: str) -> str | None:
    if not _CLOCK.fullmatch(text):
        found = _MOMENT.fullmatch(text)
        if not found or found["clock"] is None:
            return None
        _day(found)
        text = found["clock"]
    text = text.rjust(len(text) + (text.index(":") == 1), "0")
    head, point, fraction = text.partition(".")
    text = head + point + fraction[:6]
    time.fromisoformat(text)
    return text


def _timestamp(text: str) -> str | None:
    found = _MOMENT.fullmatch(text)
    if not found:
        day = _date(text)
        return None if day is None else moment(day).isoformat()
    clock = _time(found["clock"] or "00:00")
    return moment(f"{_day(found)}T{clock}{(found['zone'] or '').upper()}").isoformat()


def _json(value: TagValue) -> str | None:
    if not isinstance(value, str):
        return json.dumps(value)
    try:
        read = json.loads(value, parse_constant=_refuse)
        return json.dumps(read, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace").decode("utf-8")
    except (ValueError, RecursionError):
        return None


def _refuse(constant: str) -> None:
    raise ValueError(constant)
