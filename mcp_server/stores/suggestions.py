"""The errors for names and values that a collection does not have, with the nearest ones it has."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np

from mcp_server.domain.filters import folded
from mcp_server.errors import MESSAGE_LIMIT, UnknownFieldError, UnknownValueError, clipped
from mcp_server.stores.columns import Texts
from mcp_server.stores.field_data import FieldData
from mcp_server.stores.fields import Field

_CANDIDATES = 2_000
"""How many values are compared letter by letter; comparing every title of a large collection would take seconds."""
_MOST_SHOWN = 90
"""Characters of a field's name or a value that is suggested."""


def unknown_field(name: str, fields: Sequence[Field], values_of: Callable[[Field], int]) -> UnknownFieldError:
    """Return the error for a field that is not there: the nearest names and how many values each has, and all names if they fit."""
    if not fields:
        return UnknownFieldError(f'There is no field "{clipped(name)}": this collection has nothing to filter by. Leave filters out.')
    start = f'There is no field "{clipped(name)}".'
    named = {field.name: field for field in fields}
    close = [f'"{clipped(near, _MOST_SHOWN)}" ({_counted(values_of(named[near]), "value")})' for near in _nearest(name, list(named))]
    nearest = f" Nearest: {', '.join(close)}." if close else ""
    every = f" Fields: {', '.join(f'{clipped(field.name)} ({field.kind})' for field in fields)}."
    if len(fields) <= 20 and len(start + nearest + every) <= MESSAGE_LIMIT:
        return UnknownFieldError(start + nearest + every)
    return UnknownFieldError(_suggesting(start, "Nearest", close, f" Call describe_filters for all {len(fields)} fields."))


def ambiguous_field(name: str, fields: Sequence[Field]) -> UnknownFieldError:
    """Return the error for a name that several fields of different kinds share."""
    listed = [f'"{clipped(field.name, _MOST_SHOWN)}"' for field in fields]
    return UnknownFieldError(_suggesting(f'"{clipped(name)}" names {len(fields)} fields.', "Write one of", listed, ""))


def unknown_value(data: FieldData, value: str) -> UnknownValueError:
    """Return the error for a text value that no tag of the field has: the nearest values, else the most frequent, with counts."""
    name = clipped(data.field.name)
    start = f'"{clipped(value)}" is not a value of "{name}".'
    if not data.shown:
        return UnknownValueError(f"{start} The field has no values at all. Leave it out.")
    counts = data.values.counts()
    close = _nearest_values(data, folded(value))
    word = "Nearest" if close else "Most frequent"
    chosen = close or [int(at) for at in np.argsort(-counts, kind="stable")[:3]]
    listed = [f'"{_pasteable(data.abbreviated(at, _MOST_SHOWN))}" ({_counted(int(counts[at]), "item")})' for at in chosen]
    return UnknownValueError(_suggesting(start, word, listed, f' Call describe_filters with field "{name}" for all {len(data.shown)}.'))


def _suggesting(start: str, word: str, listed: Sequence[str], end: str) -> str:
    """Return the message that names as many of `listed` as fit."""
    for count in range(len(listed), 0, -1):
        message = f"{start} {word}: {', '.join(listed[:count])}.{end}"
        if len(message) <= MESSAGE_LIMIT:
            return message
    return start + end


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _nearest(word: str, names: Sequence[str]) -> list[str]:
    """Return up to three of `names` that look like `word`, best first: alike in letters, or one containing the other."""
    wanted = folded(word.strip())[:100]
    by_fold = {folded(name): name for name in names}
    close = difflib.get_close_matches(wanted, by_fold, n=3, cutoff=0.6)
    inside = [name for name in by_fold if name not in close and len(wanted) > 2 and (wanted in name or (len(name) > 2 and name in wanted))]
    return [by_fold[name] for name in (*close, *inside)][:3]


def _nearest_values(data: FieldData, wanted: str) -> list[int]:
    """Return up to three values, best first. Bounded: of many values, only those that share a start, an end or a part are compared."""
    texts = cast("Texts", data.keys)
    keys = list(texts)
    if len(keys) > _CANDIDATES:
        start, end = wanted[:2], wanted[-3:]
        inside = [key for key in keys if wanted in key or (len(key) > 3 and key in wanted)]
        alike = [key for key in keys if abs(len(key) - len(wanted)) <= 4 and (key.startswith(start) or key.endswith(end))]
        keys = list(dict.fromkeys((*inside[: _CANDIDATES // 2], *alike[: _CANDIDATES // 2])))
    return [at for at in texts.find(_nearest(wanted, keys)) if at is not None]


def _pasteable(value: str) -> str:
    """Return a value as it must be written to be understood, unless it has characters that cannot be quoted."""
    return value if value.isprintable() else clipped(value, len(value))
