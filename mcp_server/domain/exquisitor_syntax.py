"""Exquisitor's filter tree: groups and leaves that name tagsets and tags by database id."""

from __future__ import annotations

import difflib
from typing import cast

from mcp_server.domain.filter_limits import Budget, check_depth, checked_bound, quoted
from mcp_server.domain.filters import And, Filter, Not, Or, Scalar, TagIds, TagsetBetween
from mcp_server.errors import FilterError

_GROUP_KEYS = ("kind", "operator", "children", "not", "not_")
_LEAF_KEYS = ("kind", "filter", "not", "not_")
_LARGEST_ID = 2**63 - 1

Fields = dict[object, object]


def is_tree(raw: Fields) -> bool:
    """True for `{"root": {"kind": ...}}` and for a bare node; fields that merely are called root or kind are not trees."""
    if set(raw) == {"root"}:
        root = raw["root"]
        return isinstance(root, dict) and "kind" in root
    kind = raw.get("kind")
    word = kind.casefold() if isinstance(kind, str) else ""
    return (word == "group" and ("children" in raw or "operator" in raw)) or (word == "leaf" and "filter" in raw)


def parse_tree(raw: Fields, budget: Budget, depth: int) -> Filter:
    """Return the filter a tree or a bare node stands for. An empty AND group passes everything, an empty OR group nothing.

    Raises:
        FilterError: it cannot be read, has a key that is not known, or is over a limit.
    """
    node = raw["root"] if set(raw) == {"root"} else raw
    return _node(node, budget, depth)


def _node(raw: object, budget: Budget, depth: int) -> Filter:
    check_depth(depth)
    budget.spend_condition()
    node = _object(raw, "A tree node")
    kind = node.get("kind")
    word = kind.casefold() if isinstance(kind, str) else ""
    if word == "group":
        _refuse_others(node, _GROUP_KEYS, "a group")
        children = node.get("children")
        if not isinstance(children, list | tuple):
            raise FilterError('A group needs "children", a list of nodes; it may be empty.')
        parsed = tuple(_node(child, budget, depth + 1) for child in cast("list[object]", children))
        found: Filter = Or(parsed) if _operator(node, "AND") == "OR" else And(parsed)
    elif word == "leaf":
        _refuse_others(node, _LEAF_KEYS, "a leaf")
        found = _condition(_object(node.get("filter"), 'A leaf\'s "filter"'), budget)
    else:
        raise FilterError(f'A tree node\'s "kind" is "group" or "leaf", not {quoted(kind)}.')
    return Not(found) if _negated(node) else found


def _condition(raw: Fields, budget: Budget) -> Filter:
    _refuse_others(raw, ("id", "tagtype_id", "constraint"), 'a leaf\'s "filter"')
    tagset = _id(raw.get("id"), "id")
    tagtype = None if raw.get("tagtype_id") is None else _id(raw["tagtype_id"], "tagtype_id")
    constraint = _object(raw.get("constraint"), 'A "constraint"')
    if "value_ids" in constraint:
        _refuse_others(constraint, ("value_ids", "operator"), "a value constraint")
        ids = constraint["value_ids"]
        if not isinstance(ids, list | tuple):
            raise FilterError('"value_ids" takes a list of tag ids, such as [10, 11].')
        ids = cast("list[object]", ids)
        budget.spend_values(len(ids), f"tagset {tagset}")
        return TagIds(tagset, tagtype, tuple(_id(one, "value_ids") for one in ids), every=_operator(constraint, "OR") == "AND")
    _refuse_others(constraint, ("lower_bound", "upper_bound"), "a range constraint")
    lower, upper = (_bound(constraint.get(key), tagset) for key in ("lower_bound", "upper_bound"))
    if lower is None and upper is None:
        raise FilterError('A "constraint" needs "value_ids" (with "operator"), or "lower_bound" or "upper_bound" or both.')
    return TagsetBetween(tagset, tagtype, lower, upper)


def _bound(raw: object, tagset: int) -> Scalar | None:
    return None if raw is None else checked_bound(raw, f"A bound of tagset {tagset}", f"tagset {tagset}")


def _id(raw: object, key: str) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool) and 0 <= raw <= _LARGEST_ID:
        return raw
    raise FilterError(
        f'"{key}" takes whole numbers, database ids; got {quoted(raw)}. Without ids, write field names: {{"Category": "food"}}.'
    )


def _operator(node: Fields, default: str) -> str:
    raw = node.get("operator")
    word = default if raw is None else raw.upper() if isinstance(raw, str) else ""
    if word not in ("AND", "OR"):
        raise FilterError(f'"operator" is "AND" or "OR", not {quoted(raw)}.')
    return word


def _negated(node: Fields) -> bool:
    given = {key: node[key] for key in ("not", "not_") if node.get(key) is not None}
    for key, value in given.items():
        if not isinstance(value, bool):
            raise FilterError(f'"{key}" of a tree node is true or false, not {quoted(value)}.')
    if len(set(given.values())) > 1:
        raise FilterError('A tree node says both "not" and "not_", and they differ. Give one of them.')
    return True in given.values()


def _object(raw: object, what: str) -> Fields:
    if not isinstance(raw, dict):
        raise FilterError(f'{what} is an object, not {quoted(type(raw).__name__)}. Simpler: field names, such as {{"Category": "food"}}.')
    return cast("Fields", raw)


def _refuse_others(node: Fields, known: tuple[str, ...], what: str) -> None:
    for key in node:
        if key not in known:
            close = difflib.get_close_matches(str(key)[:40], known, n=1)
            hint = f' Did you mean "{close[0]}"?' if close else ""
            raise FilterError(f"{quoted(key)} is not a key of {what}.{hint} Accepted: {', '.join(known)}.")
