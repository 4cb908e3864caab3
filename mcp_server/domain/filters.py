"""A filter as a small closed tree of frozen values.

Fields and values are kept as the caller wrote them; `stores` resolves them against a collection. Two filters with equal `canonical` text
select the same items of the same collection.
"""

from __future__ import annotations

from dataclasses import dataclass

Scalar = str | int | float | bool


@dataclass(frozen=True)
class AnyOf:
    """An item passes if any of its tags of `field` equals any of `values`. No values: nothing passes."""

    field: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True)
class AllOf:
    """An item passes if, for each of `values`, one of its tags of `field` equals it. No values: everything passes."""

    field: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True)
class Between:
    """An item passes if any one of its values of `field` lies inside all the given bounds. At least one bound is set."""

    field: str
    gte: Scalar | None = None
    gt: Scalar | None = None
    lte: Scalar | None = None
    lt: Scalar | None = None


@dataclass(frozen=True)
class Contains:
    """An item passes if any of its text values of `field` contains `text`, letter case ignored."""

    field: str
    text: str


@dataclass(frozen=True)
class Exists:
    """An item passes if it has (or, with `expected` false, has not) any tag of `field`."""

    field: str
    expected: bool = True


@dataclass(frozen=True)
class TagIds:
    """Exquisitor's value constraint: tags by database id, all of tagset `tagset_id`; `tagtype_id` is checked when given."""

    tagset_id: int
    tagtype_id: int | None
    tag_ids: tuple[int, ...]
    every: bool = False
    """True: the item must have all of the tags; False: at least one."""


@dataclass(frozen=True)
class TagsetBetween:
    """Exquisitor's range constraint on a tagset by database id; both bounds inclusive, either may be None."""

    tagset_id: int
    tagtype_id: int | None
    lower: Scalar | None
    upper: Scalar | None


@dataclass(frozen=True)
class And:
    """Every child passes. No children: everything passes."""

    children: tuple[Filter, ...]


@dataclass(frozen=True)
class Or:
    """Some child passes. No children: nothing passes."""

    children: tuple[Filter, ...]


@dataclass(frozen=True)
class Not:
    """The complement of `child` within all indexed items."""

    child: Filter


Filter = AnyOf | AllOf | Between | Contains | Exists | TagIds | TagsetBetween | And | Or | Not
