"""What one argument may be: models send numbers as text, null for nothing, JSON in strings. Every refusal says what is accepted.

All raise BadArgumentError for what cannot be used; `argument` is its name, for that message.
"""

from __future__ import annotations

import json
import re
from typing import Any

from mcp_server.domain.ids import MediaId
from mcp_server.errors import BadArgumentError, clipped, whole

MOST_TEXT = 1_000
"""Characters of a name."""
MOST_IDS = 100_000
MOST_NOTE = 2_000
LARGEST_ID = 2**63 - 1

_WHOLE = re.compile(r"[+-]?[0-9]+")


def absent(value: object) -> bool:
    """Tell whether a model means to leave an argument out: null, "", and the words some models write for it."""
    return value is None or (isinstance(value, str) and value.strip().lower() in ("", "null", "none", "undefined"))


def name_or_none(argument: str, value: object) -> str | None:
    """Return a short text, None if absent."""
    if absent(value):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadArgumentError(f"{argument} takes a name in quotes, or leave it out; got {_kind(value)}.")
    text = whole(str(value)).strip()
    if len(text) > MOST_TEXT:
        raise BadArgumentError(f"{argument} has {len(text):,} characters; it takes at most {MOST_TEXT:,}.")
    return text


def whole_number(argument: str, value: object, *, default: int, least: int, most: int, hint: str = "") -> int:
    """Return a whole number from `least` to `most`; digits in quotes and 7.0 count as one."""
    if absent(value):
        return default
    number = value
    if isinstance(value, str):
        number = int(value.strip()[:1_000]) if _WHOLE.fullmatch(value.strip()) else value
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= most:
        shown = f'"{clipped(value, 24)}"' if isinstance(value, str) else _kind(value)
        raise BadArgumentError(f"{argument} takes a whole number from {least} to {most:,}; got {shown}.{hint}")
    return number


def whole_or_none(argument: str, value: object, most: int) -> int | None:
    """Return a whole number from 1 to `most`, None if absent."""
    return None if absent(value) else whole_number(argument, value, default=1, least=1, most=most)


def cosine_or_none(argument: str, value: object) -> float | None:
    """Return a number from -1 to 1, None if absent."""
    if absent(value):
        return None
    number = value
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            number = value
    if isinstance(number, bool) or not isinstance(number, int | float) or not -1 <= number <= 1:
        shown = f'"{clipped(value, 24)}"' if isinstance(value, str) else _kind(value)
        raise BadArgumentError(f"{argument} takes a cosine from -1 to 1, such as the score of a hit that just fits; got {shown}.")
    return float(number)


def flag(argument: str, value: object) -> bool:
    """Return true or false; absent is false."""
    if absent(value):
        return False
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in ("true", "yes", "1", "1.0", "false", "no", "0", "0.0"):
        return word in ("true", "yes", "1", "1.0")
    shown = f'"{clipped(value, 24)}"' if isinstance(value, str) else _kind(value)
    raise BadArgumentError(f"{argument} takes true or false; got {shown}.")


def note_or_none(value: object) -> str | None:
    """Return a text of up to `MOST_NOTE` characters, None if absent."""
    if absent(value):
        return None
    if not isinstance(value, str):
        raise BadArgumentError(f"note takes text, 1 to {MOST_NOTE:,} characters; got {_kind(value)}.")
    text = whole(value).strip()
    if len(text) > MOST_NOTE:
        raise BadArgumentError(f"note has {len(text):,} characters; it takes 1 to {MOST_NOTE:,}. Split it or shorten it.")
    return text


def choice(argument: str, value: object, choices: tuple[Any, ...], default: str | None = None) -> Any:
    """Return one of `choices`, letter case ignored; absent is `default`, or else the first."""
    if absent(value):
        return default or choices[0]
    if isinstance(value, str) and value.strip().lower() in choices:
        return value.strip().lower()
    listed = ", ".join(f'"{choice}"' for choice in choices)
    shown = f'"{clipped(value)}"' if isinstance(value, str) else _kind(value)
    raise BadArgumentError(f"{argument} takes one of {listed}; got {shown}.")


def ids(argument: str, value: object, most: int = MOST_IDS, advice: str = "Use a session to skip what was shown.") -> tuple[MediaId, ...]:
    """Return a list of ids, also from one id and from JSON text; at most `most`, else `advice` is given. Absent is ()."""
    if absent(value):
        return ()
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = str(value).replace(",", " ").split()
    values: list[object] = list(value) if isinstance(value, list) else [value]
    if len(values) > most:
        raise BadArgumentError(f"{argument} takes at most {most:,} ids; got {len(values):,}. {advice}")
    return tuple(MediaId(_id(argument, each)) for each in values)


def _id(argument: str, value: object) -> int:
    number = int(value) if isinstance(value, str) and value.strip().isdecimal() and len(value) < 20 else value
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int):
        shown = f'"{clipped(value)}"' if isinstance(value, str) else _kind(value)
        where = "group" if argument == "excluded_groups" else "id"
        raise BadArgumentError(f'{argument} takes a list of ids, such as [104, 2077], from "{where}" of the hits; got {shown}.')
    return max(-LARGEST_ID, min(LARGEST_ID, number))


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value != value:  # noqa: PLR0124 - the one number that is not equal to itself
        return "NaN"
    if isinstance(value, int | float):
        return f"{value}" if abs(value) < 10**20 else "a huge number"
    if isinstance(value, str):
        return "text"
    return "null" if value is None else "a list" if isinstance(value, list) else "an object"
