"""Reads the `filters` argument: what a model writes naturally, JSON text of it, or Exquisitor's tree.

    {"Category": ["food", "drink"], "Year": {"gte": 2020}}      AND across fields, OR inside a list
    {"any": [{"Category": "food"}, {"color": "red"}], "not": {"Tags": "logo"}}
    {"any": {"Category": "food", "color": "red"}}               the same any
    {"field": "any", "is": "food"}                              a field really called any, all or not

Fields and values stay as written: only a collection knows whether they exist.
"""

from __future__ import annotations

import json
from typing import cast

from mcp_server.domain.exquisitor_syntax import is_tree, parse_tree
from mcp_server.domain.filter_conditions import CONDITION_KEYS, parse_condition
from mcp_server.domain.filter_limits import MAX_TEXT, Budget, check_depth, quoted, refuse_deep_text, refuse_deep_value
from mcp_server.domain.filters import And, Filter, Not, Or
from mcp_server.errors import FilterError, whole

_ABSENT = ("", "null", "none", "undefined")
_EXAMPLE = '{"Category": ["food", "drink"], "Year": {"gte": 2020}}'
_INSTEAD = {
    **dict.fromkeys(("or", "$or", "should", "anyof", "any_of"), "any"),
    **dict.fromkeys(("and", "$and", "must", "allof", "all_of"), "all"),
    **dict.fromkeys(("$not", "nor", "$nor", "must_not", "exclude", "not_"), "not"),
}
_TRIPLE_KEYS = frozenset(("field", "op", "operator", "value", "values", "condition"))


def parse_filter(raw: object) -> Filter | None:
    """Return the filter `raw` stands for, or None when it asks for nothing: None, "", "null", {} or "{}".

    Raises:
        FilterError: it cannot be read, nests deeper than 32, or has too many conditions or values.
    """
    value = _decoded(raw)
    if isinstance(value, list | tuple):
        if not value:
            return None
        raise FilterError(
            'filters is one object, not a list. Write {"any": [...]} if one of them is enough, {"all": [...]} if every one must hold.'
        )
    if value is None:
        return None
    if not isinstance(value, dict):
        raise FilterError(f"filters is a JSON object such as {_EXAMPLE}, not {quoted(value)}.")
    refuse_deep_value(cast("object", value))
    found = _parse_object(cast("dict[object, object]", value), Budget(), 0)
    return None if found == And(()) and not _says_something(cast("dict[object, object]", value)) else found


def _decoded(raw: object) -> object:
    """Undo JSON text, at most twice: some clients encode objects as text, and some of those encode them again."""
    value = raw
    for _ in range(2):
        if not isinstance(value, str):
            return value
        text = value.strip()
        if text.casefold() in _ABSENT:
            return None
        refuse_deep_text(text)
        try:
            value = cast("object", json.loads(text, object_pairs_hook=_object_once, parse_constant=_refuse_constant))
        except (ValueError, RecursionError) as error:
            raise FilterError(f"filters is not valid JSON: {quoted(text)}. Write an object such as {_EXAMPLE}.") from error
    return value


def _object_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise FilterError(f'The filter has {quoted(twice)} twice in one object. Use a list for either value, {{"all": [...]}} for both.')
    return found


def _refuse_constant(word: str) -> float:
    raise FilterError(f"The filter has the number {word}. Numbers must be finite; leave a bound out for an open end.")


def _parse_object(raw: dict[object, object], budget: Budget, depth: int, *, every: bool = True) -> Filter:
    """Return the filter that `raw` stands for: all of its parts, or with `every` false any; without parts, everything."""
    check_depth(depth)
    if is_tree(raw):
        return parse_tree(raw, budget, depth)
    budget.spend_condition()
    _refuse_triple(raw)
    escaped = "field" in raw and "is" in raw
    parts: list[Filter] = [parse_condition(_field(raw["field"]), raw["is"], budget, depth)] if escaped else []
    for key, value in raw.items():
        if escaped and key in ("field", "is"):
            continue
        name = _field(key)
        word = name.strip().casefold()
        if word in ("any", "all", "not"):
            parts.extend(_parse_group(word, value, budget, depth + 1))
        else:
            _refuse_foreign(word, value)
            parts.append(parse_condition(name, value, budget, depth))
    if len(parts) == 1:
        return parts[0]
    return And(tuple(parts)) if every or not parts else Or(tuple(parts))


def _parse_group(word: str, raw: object, budget: Budget, depth: int) -> list[Filter]:
    """Return no filter for null and for `"not": {}`, else the one filter the group stands for."""
    check_depth(depth)
    value = _decoded(raw) if isinstance(raw, str) and raw.strip()[:1] in ("{", "[", "") else raw
    if value is None:
        return []
    refuse_deep_value(value)
    children: list[Filter] = []
    every = word != "any" or isinstance(value, list | tuple)
    for child in cast("list[object]", value if isinstance(value, list | tuple) else [value]):
        if not isinstance(child, dict):
            hint = f'For a field called {word}: {{"field": "{word}", "is": ...}}.'
            raise FilterError(f'"{word}" takes filters, such as {{"{word}": [{{"Category": "food"}}]}}, not {quoted(child)}. {hint}')
        if child or word != "not":
            children.append(_parse_object(cast("dict[object, object]", child), budget, depth, every=every))
    if word == "not":
        if not children:
            return []
        return [Not(children[0] if len(children) == 1 else Or(tuple(children)))]
    if len(children) == 1:
        return children
    return [Or(tuple(children)) if word == "any" else And(tuple(children))]


def _says_something(raw: dict[object, object]) -> bool:
    """False when an object that passes everything only holds absent parts: nulls, empty texts and `"not": {}`."""
    return any(value not in (None, "", {}, []) for value in raw.values())


def _field(name: object) -> str:
    if not isinstance(name, str):
        raise FilterError(f"Field names are text, not {quoted(name)}. Write an object such as {_EXAMPLE}.")
    if not name.strip() or len(name) > MAX_TEXT:
        raise FilterError(f"A field name is empty or longer than {MAX_TEXT} characters. describe_filters lists the fields.")
    return whole(name)


def _refuse_foreign(word: str, value: object) -> None:
    """Refuse the words of other query languages where their value shows that no field is meant."""
    instead = _INSTEAD.get(word)
    children = cast("list[object]", value) if isinstance(value, list) else [value]
    if instead and children and all(isinstance(child, dict) for child in children):
        raise FilterError(
            f'Write "{instead}" instead of {quoted(word)}: {{"{instead}": [{{"Category": "food"}}, {{"Year": {{"gte": 2020}}}}]}}.'
        )


def _refuse_triple(raw: dict[object, object]) -> None:
    """Refuse `{"field": ..., "op": ..., "value": ...}` and the like, which would otherwise be read as several fields."""
    extra = next((key for key in raw if isinstance(key, str) and key.casefold() in CONDITION_KEYS), None)
    named = raw.get("field")
    if isinstance(named, str) and "is" not in raw and (extra is not None or named.strip().casefold() in ("any", "all", "not")):
        name = quoted(str(raw["field"])[:40])
        inner = f'{{"{extra}": ...}}' if extra is not None else "..."
        raise FilterError(f'With "field", what it must be goes under "is": {{"field": {name}, "is": {inner}}}.')
    if "field" in raw and ("value" in raw or "values" in raw) and _TRIPLE_KEYS.issuperset(cast("dict[str, object]", raw)):
        name = str(raw["field"])[:40]
        raise FilterError(
            f'Write the field as the key: {{{quoted(name)}: "value"}}, {{{quoted(name)}: ["a", "b"]}} or {{{quoted(name)}: {{"gte": 1}}}}.'
        )
