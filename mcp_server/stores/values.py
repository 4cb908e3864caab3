"""How stored values compare, and what a caller's value stands for among them.

A key is what values of one kind are sorted by: exact int64 for whole numbers, float64 for decimals, microseconds for dates and times
(since year 1, or since midnight; timestamps with an offset are turned into UTC, those without count as UTC).
A caller's date or time stands for its whole period: "2021" for the year, "2021-03" for the month, "10:05" for the minute.
"""

from __future__ import annotations

import math
import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal

from mcp_server.domain.filters import Scalar, scalar_text
from mcp_server.stores.schema import Kind

Key = int | float

RANGE_KINDS: frozenset[Kind] = frozenset(("integer", "number", "date", "time", "timestamp"))
"""Kinds with an order; text has none here, and json has no values to compare."""

TAKES: dict[Kind, str] = {
    "text": 'texts or {"contains": ".."}',
    "integer": 'whole numbers or {"gte":..,"lte":..}',
    "number": 'numbers or {"gte":..,"lte":..}',
    "date": 'dates such as "2021-03-01", "2021-03" or "2021", or {"gte":..,"lt":..}',
    "time": 'times such as "10:05", or {"gte":..,"lt":..}',
    "timestamp": 'times such as "2021-03-01T10:05" or dates, or {"gte":..,"lt":..}',
    "json": '{"exists": true} only',
}
"""What a condition on each kind may hold, for messages."""

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_DATE = r"(?P<year>[0-9]{4})(?:-(?P<month>[0-9]{1,2})(?:-(?P<day>[0-9]{1,2})%s)?)?"
_CLOCK = r"(?P<hour>[0-9]{1,2})(?::(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:[.,](?P<fraction>[0-9]{1,9}))?)?)?"
_ZONE = r"\s?(?P<zone>[zZ]|[+-][0-9]{2}(?::?[0-9]{2})?)?"
_STAMP = re.compile(_DATE % rf"(?:[tT\s]\s*{_CLOCK}{_ZONE})?")
_TIME = re.compile(rf"[tT]?{_CLOCK}(?P<zone>[zZ])?")
_SECOND = 1_000_000
_DAY = 86_400 * _SECOND


@dataclass(frozen=True)
class Period:
    """What a caller's value stands for: the keys from `first` to `last`, both inside."""

    first: Key
    last: Key


def stored_key(kind: Kind, value: object) -> Key | None:
    """Return the key of a stored value, or None if it is not of its kind: it then answers `exists` only."""
    if not isinstance(value, str | int | float):
        return None
    period = asked_period(kind, value)
    if period is None or (kind == "integer" and not (isinstance(period.first, int) and -(2**63) <= period.first < 2**63)):
        return None
    return period.first


def asked_period(kind: Kind, value: Scalar) -> Period | None:
    """Return what `value` stands for in a field of `kind`, one of `RANGE_KINDS`, or None if it is not of that kind."""
    if isinstance(value, bool):
        return None
    if kind in ("integer", "number"):
        number = _number(value)
        if number is not None and kind == "number":
            number = float(number)
        return None if number is None else Period(number, number)
    text = scalar_text(value).strip()
    return _time_of_day(text) if kind == "time" else _timestamp(text)


def apart(kind: Kind, text: str, key: Key, following: Key) -> str:
    """Return `text`, a stored date with `key`; or, where it also stands for `following`, the next key, the moment that filters take it for.

    So "2021" is shown as 2021-01-01 where there are other days of that year.
    """
    if kind not in ("date", "timestamp") or len(text.strip()) > len("2021-03-01"):
        return text
    period = asked_period(kind, text)
    if period is None or period.last < following:
        return text
    moment = datetime.min + timedelta(microseconds=key)
    return moment.isoformat() if following < key + _DAY else moment.date().isoformat()


def _number(value: str | float) -> Key | None:
    """Return whole numbers exactly, others as the nearest float; None for what is not a finite number."""
    if isinstance(value, str):
        text = value.strip()
        if not _NUMBER.fullmatch(text):
            return None
        exact = Decimal(text)
        if exact.adjusted() > 300:
            return None
        value = int(exact) if exact == exact.to_integral_value() else float(exact)
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value.is_integer() else value
    return value


def _timestamp(text: str) -> Period | None:
    found = _STAMP.fullmatch(text)
    if not found:
        return None
    year, month, day = int(found["year"]), int(found["month"] or 1), int(found["day"] or 1)
    if not (year >= 1 and 1 <= month <= 12 and 1 <= day <= monthrange(year, month)[1]):
        return None
    start = _day(year, month, day)
    if found["month"] is None:
        return Period(start, _day(year, 12, 31) + _DAY - 1)
    if found["day"] is None:
        return Period(start, _day(year, month, monthrange(year, month)[1]) + _DAY - 1)
    if found["hour"] is None:
        return Period(start, start + _DAY - 1)
    clock = _clock(found)
    return None if clock is None else Period(start + clock.first, start + clock.last)


def _time_of_day(text: str) -> Period | None:
    found = _TIME.fullmatch(text)
    return _clock(found) if found else None


def _day(year: int, month: int, day: int) -> int:
    return (date(year, month, day).toordinal() - 1) * _DAY


def _clock(found: re.Match[str]) -> Period | None:
    hour, minute, second = int(found["hour"]), int(found["minute"] or 0), int(found["second"] or 0)
    if hour > 23 or minute > 59 or second > 59:
        return None
    fraction = int((found["fraction"] or "").ljust(6, "0")[:6])
    first = (hour * 3600 + minute * 60 + second) * _SECOND + fraction - _offset(found["zone"])
    if found["fraction"] is not None:
        return Period(first, first)
    length = 3600 if found["minute"] is None else 60 if found["second"] is None else 1
    return Period(first, first + length * _SECOND - 1)


def _offset(zone: str | None) -> int:
    if zone is None or zone in "zZ":
        return 0
    digits = zone[1:].replace(":", "").ljust(4, "0")
    size = (int(digits[:2]) * 3600 + int(digits[2:]) * 60) * _SECOND
    return -size if zone[0] == "-" else size
