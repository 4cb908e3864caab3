"""What may stand at a field: `"food"`, `["food", "drink"]`, `{"gte": 2020, "lt": 2022}`, `{"not": ...}`, and so on."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from typing import cast

from mcp_server.domain.filter_limits import MAX_TEXT, Budget, check_depth, checked_bound, checked_scalar, quoted
from mcp_server.domain.filters import AllOf, And, AnyOf, Between, Contains, Exists, Filter, Not, Or, Scalar
from mcp_server.errors import FilterError

CONDITION_KEYS = ("any", "all", "not", "gte", "gt", "lte", "lt", "contains", "exists")
"""Every key a field's object may have, letter case ignored."""

_BOUNDS = ("gte", "gt", "lte", "lt")
_VALUE = "the plain value"
_INSTEAD = {
    **dict.fromkeys(("min", "minimum", "from", "since", "start", "ge", ">=", "$gte", "lower", "lower_bound", "at_least"), '"gte"'),
    **dict.fromkeys(("max", "maximum", "to", "until", "end", "le", "<=", "$lte", "upper", "upper_bound", "at_most"), '"lte"'),
    **dict.fromkeys(("after", ">", "$gt", "greater_than", "above", "over"), '"gt"'),
    **dict.fromkeys(("before", "<", "$lt", "less_than", "below", "under"), '"lt"'),
    **dict.fromkeys(("eq", "=", "==", "$eq", "equals", "equal", "is", "value"), _VALUE),
    **dict.fromkeys(("in", "$in", "or", "one_of", "any_of", "values", "value_ids"), '"any"'),
    **dict.fromkeys(("and", "$all", "all_of", "contains_all"), '"all"'),
    **dict.fromkeys(("ne", "!=", "<>", "neq", "$ne", "nin", "not_in", "$nin", "is_not", "exclude", "none", "not_"), '"not"'),
    **dict.fromkeys(
        ("like", "ilike", "regex", "match", "matches", "startswith", "starts_with", "substring", "text", "includes"), '"contains"'
    ),
    **dict.fromkeys(("exist", "$exists", "present", "missing", "is_null", "isnull"), '"exists"'),
    "between": '"gte" and "lte"',
    "range": '"gte" and "lte"',
}


def parse_condition(field: str, raw: object, budget: Budget, depth: int) -> Filter:
    """Return what `raw`, found at `field`, asks for. Several keys in one object all have to hold.

    Raises:
        FilterError: it cannot be read, or is over a limit.
    """
    check_depth(depth)
    budget.spend_condition()
    if isinstance(raw, dict):
        return _parse_object(field, cast("dict[object, object]", raw), budget, depth)
    if isinstance(raw, list | tuple):
        return _parse_list(field, cast("list[object]", raw), budget, depth, every=False)
    budget.spend_values(1, field)
    return AnyOf(field, (checked_scalar(raw, field),))


def values_in_text(field: str, values: Sequence[Scalar]) -> tuple[Scalar, ...] | None:
    """Return the values that the one text in `values` lists as JSON; None when it is no list.

    Raises:
        FilterError: something in the list is no value.
    """
    if len(values) != 1 or not isinstance(values[0], str) or not values[0].lstrip().startswith("["):
        return None
    try:
        listed = cast("list[object]", json.loads(values[0]))
    except (ValueError, RecursionError):
        return None
    return tuple(checked_scalar(one, field) for one in listed)


def _parse_list(field: str, raw: object, budget: Budget, depth: int, *, every: bool) -> Filter:
    if not isinstance(raw, list | tuple):
        if isinstance(raw, dict) or not every:
            return parse_condition(field, cast("object", raw), budget, depth)
        raw = [raw]
    elements = cast("list[object]", raw)
    budget.spend_values(len(elements), field)
    values = tuple(checked_scalar(element, field) for element in elements if not isinstance(element, dict))
    conditions = [parse_condition(field, element, budget, depth + 1) for element in elements if isinstance(element, dict)]
    if values or not conditions:
        conditions.insert(0, AllOf(field, values) if every else AnyOf(field, values))
    if len(conditions) == 1:
        return conditions[0]
    return And(tuple(conditions)) if every else Or(tuple(conditions))


def _parse_object(field: str, raw: dict[object, object], budget: Budget, depth: int) -> Filter:
    parts: list[Filter] = []
    bounds: dict[str, Scalar] = {}
    for key, value in raw.items():
        word = key.casefold() if isinstance(key, str) else ""
        if word in _BOUNDS:
            if value is not None:
                bounds[word] = checked_bound(value, f'"{word}" of {quoted(field)}', field)
        elif word == "not":
            parts.append(Not(parse_condition(field, value, budget, depth + 1)))
        elif word in {"any", "all"}:
            parts.append(_parse_list(field, value, budget, depth + 1, every=word == "all"))
        elif word == "contains":
            parts.append(_parse_contains(field, value))
        elif word == "exists":
            parts.append(_parse_exists(field, value))
        else:
            raise FilterError(_unknown_key(field, key))
    if bounds:
        parts.insert(0, Between(field, **bounds))
    if not parts:
        raise FilterError(f'{quoted(field)} has an empty condition. Leave the field out, or give a value, a list, or {{"exists": true}}.')
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _parse_contains(field: str, raw: object) -> Filter:
    if isinstance(raw, list | tuple | dict | None):
        raise FilterError(
            f'"contains" of {quoted(field)} takes one text. For several: {{"any": [{{"contains": "a"}}, {{"contains": "b"}}]}}.'
        )
    text = str(checked_scalar(raw, field))
    if not text:
        raise FilterError(f'"contains" of {quoted(field)} is empty. Give 1-{MAX_TEXT} characters, or {{"exists": true}} for any value.')
    return Contains(field, text)


def _parse_exists(field: str, raw: object) -> Filter:
    word = raw.casefold() if isinstance(raw, str) else raw
    if isinstance(word, bool):
        return Exists(field, word)
    if word in ("true", "false"):
        return Exists(field, word == "true")
    raise FilterError(f'"exists" of {quoted(field)} takes true or false, not {quoted(raw)}.')


def _unknown_key(field: str, key: object) -> str:
    if field.strip().casefold() in ("filters", "filter"):
        return f"Fields stand directly in filters: {{{quoted(key)}: ...}}, without {quoted(field)} around them."
    word = key.casefold() if isinstance(key, str) else str(key)
    close = difflib.get_close_matches(word, CONDITION_KEYS, n=1)
    instead = _INSTEAD.get(word, f'"{close[0]}"' if close else "")
    advice = f"Use {instead}. " if instead else ""
    accepted = ", ".join(CONDITION_KEYS)
    return f"{quoted(field)} has no condition {quoted(key)}. {advice}A field takes a value, a list, or an object of: {accepted}."
