"""A filter as a small closed tree of frozen values.

Fields and values are kept as the caller wrote them; `stores` resolves them against a collection.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

Scalar = str | int | float | bool

_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class _Node:
    """What every node has: its canonical form, made once, since a list may hold thousands of values."""

    @cached_property
    def form(self) -> list[object]:
        """What `canonical` writes down of the node."""
        return _form(cast("Filter", self))

    @cached_property
    def canonical(self) -> str:
        """Stable text: equal for filters that differ only in the order or repetition of values and children, in the letter case of
        fields and text values, in nesting that changes nothing, or in writing a value as a number or as text.

        Filters with equal text select the same items of a collection; the reverse is not promised.
        """
        return _compact.encode(self.form)


@dataclass(frozen=True)
class AnyOf(_Node):
    """An item passes if any of its tags of `field` equals any of `values`. No values: nothing passes."""

    field: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True)
class AllOf(_Node):
    """An item passes if, for each of `values`, one of its tags of `field` equals it. No values: everything passes."""

    field: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True)
class Between(_Node):
    """An item passes if any one of its values of `field` lies inside all the given bounds. At least one bound is set."""

    field: str
    gte: Scalar | None = None
    gt: Scalar | None = None
    lte: Scalar | None = None
    lt: Scalar | None = None


@dataclass(frozen=True)
class Contains(_Node):
    """An item passes if any of its text values of `field` contains `text`, letter case ignored."""

    field: str
    text: str


@dataclass(frozen=True)
class Exists(_Node):
    """An item passes if it has (or, with `expected` false, has not) any tag of `field`."""

    field: str
    expected: bool = True


@dataclass(frozen=True)
class TagIds(_Node):
    """Exquisitor's value constraint: tags by database id, all of tagset `tagset_id`; `tagtype_id` is checked when given."""

    tagset_id: int
    tagtype_id: int | None
    tag_ids: tuple[int, ...]
    every: bool = False
    """True: the item must have all of the tags; False: at least one."""


@dataclass(frozen=True)
class TagsetBetween(_Node):
    """Exquisitor's range constraint on a tagset by database id; both bounds inclusive, either may be None."""

    tagset_id: int
    tagtype_id: int | None
    lower: Scalar | None
    upper: Scalar | None


@dataclass(frozen=True)
class And(_Node):
    """Every child passes. No children: everything passes."""

    children: tuple[Filter, ...]


@dataclass(frozen=True)
class Or(_Node):
    """Some child passes. No children: nothing passes."""

    children: tuple[Filter, ...]


@dataclass(frozen=True)
class Not(_Node):
    """The complement of `child` within all indexed items."""

    child: Filter


Filter = AnyOf | AllOf | Between | Contains | Exists | TagIds | TagsetBetween | And | Or | Not


def folded(text: str) -> str:
    """Return `text` as names and text values are compared: letter case and the way accents are encoded do not matter."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFC", text.casefold())


def folded_values(values: Sequence[Scalar]) -> list[str]:
    """Return how each of `values` is compared with text values."""
    # plain text first, without a call for each: a list may hold thousands
    return [one.lower() if type(one) is str and one.isascii() else folded(scalar_text(one)) for one in values]


def scalar_text(value: Scalar) -> str:
    """Return a value as it reads in a text field: true and false for booleans, no trailing `.0` on whole numbers."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value)


def _form(node: Filter) -> list[object]:  # noqa: PLR0911 - one return for each kind of node
    match node:
        case AnyOf() | AllOf():
            return _values_form(node)
        case Between():
            bounds = (node.gte, node.gt, node.lte, node.lt)
            return ["between", _name(node.field), *(None if bound is None else folded(scalar_text(bound)) for bound in bounds)]
        case Contains():
            return ["contains", _name(node.field), folded(node.text)]
        case Exists():
            return ["exists", _name(node.field), node.expected]
        case TagIds():
            return ["tags", node.tagset_id, node.tagtype_id, node.every, *sorted(set(node.tag_ids))]
        case TagsetBetween():
            bounds = (node.lower, node.upper)
            return ["span", node.tagset_id, node.tagtype_id, *(None if bound is None else folded(scalar_text(bound)) for bound in bounds)]
        case And():
            return _group_form("and", node.children)
        case Or():
            return _group_form("or", node.children)
        case Not():
            inner = node.child.form
            return cast("list[object]", inner[1]) if inner[0] == "not" else ["not", inner]


def _name(field: str) -> str:
    return folded(field.strip())


def _values_form(node: AnyOf | AllOf) -> list[object]:
    values = sorted(set(folded_values(node.values)))
    word = "any" if isinstance(node, AnyOf) or len(values) == 1 else "all"
    return [word, _name(node.field), *values]


def _group_form(word: str, children: tuple[Filter, ...]) -> list[object]:
    forms: dict[str, list[object]] = {}
    for child in children:
        if child.form[0] == word:
            forms |= {_compact.encode(part): part for part in cast("list[list[object]]", child.form[1:])}
        else:
            forms[child.canonical] = child.form
    return next(iter(forms.values())) if len(forms) == 1 else [word, *(forms[key] for key in sorted(forms))]
