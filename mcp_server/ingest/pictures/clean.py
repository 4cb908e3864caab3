"""Makes clean values of what files say: text without control characters, finite numbers, real dates; None for anything else."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

TEXT_LIMIT = 2000
"""Longest text value, in characters."""
KEYWORD_LIMIT = 200
"""Most keywords of one picture."""

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_MOMENT = re.compile(
    r"(\d{4})[:\-/.](\d{1,2})[:\-/.](\d{1,2})(?:[T ]+(\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:\.\d*)?)?\s*(?:Z|[+-]\d{2}:?\d{2})?)?", re.ASCII
)
_PART_OF_DATE = re.compile(r"(\d{4})(?:-(\d\d))?", re.ASCII)
_FIRST_YEAR = 1800
_LAST_YEAR = 2199


def text(raw: str | bytes) -> str | None:
    """Return `raw` without control characters (line ends stay) and outer blanks, at most `TEXT_LIMIT` characters; None if nothing is left.

    Bytes are UTF-8 where they are valid UTF-8, else Latin-1.
    """
    decoded = decoded_bytes(raw) if isinstance(raw, bytes) else raw
    lines = decoded[: 4 * TEXT_LIMIT].replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROL.sub("", lines).strip()[:TEXT_LIMIT].strip() or None


def line(raw: str | bytes) -> str | None:
    """Return `raw` as `text` does, on one line."""
    cleaned = text(raw)
    return " ".join(cleaned.split()) if cleaned else None


def decoded_bytes(raw: bytes) -> str:
    """Return `raw` as UTF-8 if it is valid UTF-8, else as Latin-1."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def keywords(raw: Iterable[str | bytes]) -> list[str]:
    """Return the words of `raw` on one line each, in order, none blank, none twice (letter case ignored), at most `KEYWORD_LIMIT`."""
    found: dict[str, str] = {}
    for one in raw:
        word = line(one)
        if word:
            found.setdefault(word.casefold(), word)
        if len(found) >= KEYWORD_LIMIT:
            break
    return list(found.values())


def number(raw: Any, low: float, high: float) -> float | None:
    """Return `raw` as a float if it is a number, or text of one, in [low, high]."""
    if isinstance(raw, bool) or not isinstance(raw, int | float | str) or (isinstance(raw, str) and len(raw) > 40):
        return None
    try:
        value = float(raw)
    except (ValueError, OverflowError):
        return None
    return value if math.isfinite(value) and low <= value <= high else None


def moment(raw: str | bytes) -> dict[str, Any]:
    """Return the facts date_taken, year, month and, if a time of day is there, hour of a written moment; nothing if it does not exist.

    Read are EXIF's "2004:08:03 17:05:00" and ISO text, with any of : - / . in the date. An offset from UTC is left out: what counts is what
    the clock showed where the picture was taken.
    """
    written = line(raw) or ""
    found = _MOMENT.match(written[:40])
    if found is None or (found.end() < len(written) and written[found.end()].isdigit()):
        return {}
    year, month, day = (int(part) for part in found.groups()[:3])
    try:
        there = datetime(year, month, day, tzinfo=UTC)
    except ValueError:
        return {}
    if not _FIRST_YEAR <= year <= _LAST_YEAR:
        return {}
    facts: dict[str, Any] = {"date_taken": there.date().isoformat(), "year": year, "month": month}
    hour = found[4]
    if hour is not None and int(hour) < 24 and int(found[5]) < 60:
        facts["hour"] = int(hour)
    return facts


def part_of_date(raw: str) -> dict[str, Any]:
    """Return the facts year and, if it is there, month of "1954" or "1954-08"; nothing for anything else."""
    found = _PART_OF_DATE.fullmatch(raw.strip())
    day = moment(f"{found[1]}-{found[2] or '01'}-01") if found else {}
    return {name: day[name] for name in ("year", "month") if name in day and (name == "year" or (found and found[2]))}


def moment_of_timestamp(raw: Any) -> dict[str, Any]:
    """Return the same facts of seconds since 1970, in UTC; nothing if there is no such moment."""
    seconds = number(raw, -6e9, 7.2e9)
    if seconds is None:
        return {}
    there = datetime.fromtimestamp(seconds, UTC)
    return moment(there.strftime("%Y-%m-%d %H:%M:%S") if there.year >= 1000 else "")


def place(latitude: float | None, longitude: float | None) -> dict[str, float]:
    """Return the facts latitude and longitude in degrees, six decimals; nothing if one is missing, out of range, or both are 0."""
    if latitude is None or longitude is None or not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        return {}
    latitude, longitude = round(latitude, 6) + 0.0, round(longitude, 6) + 0.0
    return {"latitude": latitude, "longitude": longitude} if latitude or longitude else {}


def stars(raw: Any) -> int | None:
    """Return a rating of 1 to 5; what stands for "rejected" or "none" is None."""
    value = number(raw, 1, 5)
    return round(value) if value is not None else None
