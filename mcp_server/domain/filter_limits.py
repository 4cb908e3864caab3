"""How large a filter from outside may be, and how its parts are quoted back in errors."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import cast

from mcp_server.domain.filters import Scalar
from mcp_server.errors import FilterError, clipped, whole

MAX_DEPTH = 32
"""How deep any, all and not may nest."""
MAX_CONDITIONS = 1_000
"""Conditions in one filter."""
MAX_VALUES = 10_000
"""Values in one list."""
MAX_ALL_VALUES = 100_000
"""Values in one filter, over all its lists."""
MAX_TEXT = 1_000
"""Characters in one text value or field name."""

_MAX_CONTAINERS = 4 * MAX_DEPTH
_MAX_NUMBER_BITS = 1_000
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)  # without an end it runs to the end, so nothing is read twice
_BRACKET = re.compile(r"[\[\]{}]")


class Budget:
    """What one filter has used of its limits so far. Not thread-safe: one per parse."""

    def __init__(self) -> None:
        self._conditions = 0
        self._values = 0

    def spend_condition(self) -> None:
        """Count one condition or group.

        Raises:
            FilterError: there are more than `MAX_CONDITIONS`.
        """
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise FilterError(
                f'This filter has more than {MAX_CONDITIONS} conditions. Put many values of one field in one list: {{"Field": ["a", "b"]}}.'
            )

    def spend_values(self, count: int, field: str) -> None:
        """Count the values of one list.

        Raises:
            FilterError: the list has more than `MAX_VALUES`, or all lists together more than `MAX_ALL_VALUES`.
        """
        self._values += count
        if count > MAX_VALUES:
            raise FilterError(
                f"{quoted(field)} lists {count} values; at most {MAX_VALUES} fit in one list. Use a range, or a broader value."
            )
        if self._values > MAX_ALL_VALUES:
            raise FilterError(f"This filter lists more than {MAX_ALL_VALUES} values in all. Use ranges, or broader values.")


def quoted(text: object) -> str:
    """Return a caller's word in double quotes, cut to 40 characters; JSON's null, true and false as JSON writes them."""
    if text is None or isinstance(text, bool):
        return "null" if text is None else str(text).lower()
    return f'"{clipped(text)}"'


def check_depth(depth: int) -> None:
    """Raise `FilterError` when any, all and not nest deeper than `MAX_DEPTH`; the outermost filter has depth 0."""
    if depth > MAX_DEPTH:
        raise FilterError(f"This filter nests deeper than {MAX_DEPTH} levels. Flatten it: several fields in one object already mean AND.")


def refuse_deep_text(text: str) -> None:
    """Raise `FilterError` for JSON text nested too deep to parse safely. Reads the text once, without recursion."""
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > _MAX_CONTAINERS:
            check_depth(MAX_DEPTH + 1)


def refuse_deep_value(value: object) -> None:
    """Raise `FilterError` for lists and objects nested too deep to walk safely, or that contain themselves. Does not recurse."""
    waiting: list[tuple[object, int]] = [(value, 1)]
    while waiting:
        node, depth = waiting.pop()
        if depth > _MAX_CONTAINERS:
            check_depth(MAX_DEPTH + 1)
        children: Iterable[object] = ()
        if isinstance(node, dict):
            children = cast("dict[object, object]", node).values()
        elif isinstance(node, list | tuple):
            children = cast("list[object]", node)
        waiting.extend((child, depth + 1) for child in children if isinstance(child, dict | list | tuple))


def checked_scalar(value: object, field: str) -> Scalar:
    """Return `value` if it is text, a finite number or a boolean of a sane size.

    Raises:
        FilterError: it is something else, not finite, or too long.
    """
    if isinstance(value, str):
        value = whole(value)
        if len(value) > MAX_TEXT:
            raise FilterError(
                f'{quoted(field)} has a value of {len(value)} characters; at most {MAX_TEXT}. Use {{"contains": "part of it"}}.'
            )
        return value
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and value.bit_length() <= _MAX_NUMBER_BITS:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, int | float):
        raise FilterError(f"{quoted(field)} has a number that is not finite or far too large. Give a finite number.")
    if value is None:
        raise FilterError(f'{quoted(field)} is null. Leave the field out, or write {{"exists": false}} for items without it.')
    if isinstance(value, list | tuple):
        raise FilterError(f'{quoted(field)} has a list inside a list. Write one flat list of values: ["a", "b"].')
    raise FilterError(f"{quoted(field)} takes text, numbers and booleans, not {quoted(type(value).__name__)}.")


def checked_bound(value: object, bound: str, field: str) -> Scalar:
    """Return `value` if it can be the end of a range of `field`; `bound` says which end.

    Raises:
        FilterError: it is a list, an object, a boolean or empty, or what `checked_scalar` refuses.
    """
    if isinstance(value, bool | list | tuple | dict) or value == "":
        raise FilterError(f"{bound} takes one number, date or time, not {quoted(value)}. Leave it out for an open end.")
    return checked_scalar(value, field)
