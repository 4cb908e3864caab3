"""What `describe_filters` tells: the fields of a collection, their values and how many items have them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcp_server.domain.filter_limits import MAX_TEXT
from mcp_server.domain.filters import folded, scalar_text
from mcp_server.stores.bits import bits_of_mask, count_bits, mask_of_bits
from mcp_server.stores.columns import Texts
from mcp_server.stores.field_data import FieldData
from mcp_server.stores.fields import Field
from mcp_server.stores.filter_index import FilterIndex
from mcp_server.stores.postings import spans_of_owners
from mcp_server.stores.schema import Kind
from mcp_server.stores.values import RANGE_KINDS

Mask = NDArray[np.bool_]
Ints = NDArray[np.int64]
Shown = str | int | float

TOP_VALUES = 5
"""How many values of a text field an overview names."""
MOST_SHOWN = 120
"""Characters of a value, where so many tell it apart."""


@dataclass(frozen=True)
class ValueCount:
    """A value as stored, and how many items have it. `short` is what to write for it: cut where it is long and still the only one."""

    value: Shown
    count: int
    short: str


@dataclass(frozen=True)
class Span:
    """The smallest, middle and largest value; each item counts in the middle once for each of its values."""

    minimum: Shown
    median: Shown
    maximum: Shown


@dataclass(frozen=True)
class FieldSummary:
    """One line of the overview.

    Attributes:
        name: the field, as filters name it.
        kind: its kind.
        items: how many items have any tag of it.
        distinct: how many different values these items have.
        top: for text, the five most frequent values, equal counts alphabetically.
        span: for numbers, dates and times with any value; else None.
    """

    name: str
    kind: Kind
    items: int
    distinct: int
    top: tuple[ValueCount, ...] = ()
    span: Span | None = None


@dataclass(frozen=True)
class Overview:
    """All fields in the order of the catalog, and how many items were counted."""

    fields: list[FieldSummary]
    total: int


@dataclass(frozen=True)
class FieldPage:
    """Some values of one field.

    Attributes:
        name: the field, as filters name it.
        kind: its kind.
        values: most frequent first, equal counts by value: alphabetically, or the smaller number or earlier time first.
        total: how many values there are in all.
        more: how many come after these.
        items: how many items have any tag of the field.
        span: as in `FieldSummary`, over the whole field whatever `match` is.
    """

    name: str
    kind: Kind
    values: tuple[ValueCount, ...]
    total: int
    more: int
    items: int
    span: Span | None = None


def overview(filter_index: FilterIndex, mask: Mask | None = None) -> Overview:
    """Return a summary of every field, counting only rows that `mask` holds, if given.

    Loads every field the first time; then takes time in proportion to the taggings.
    """
    total = filter_index.catalog.indexed if mask is None else int(np.count_nonzero(mask & filter_index.catalog.mapped))
    return Overview([_summary(filter_index.data(field), mask) for field in filter_index.fields], total)


def field_page(
    filter_index: FilterIndex, field: str, match: str | None = None, n: int = 20, offset: int = 0, mask: Mask | None = None
) -> FieldPage:
    """Return up to `n` values of `field`, after skipping `offset`; values no counted item has are left out.

    Args:
        filter_index: the collection's fields.
        field: name of the field, letter case ignored.
        match: only values that contain this text, letter case ignored; None or "" for all.
        n: how many values, at least 1.
        offset: how many values to skip, at least 0; past the end, nothing is left.
        mask: (N,) bool, count only these rows; None for all.

    Raises:
        UnknownFieldError: there is no such field; the message has the nearest ones.
        ValueError: `n` or `offset` is too small.
    """
    if n < 1 or offset < 0:
        raise ValueError("n must be at least 1 and offset at least 0")
    data = filter_index.data(filter_index.field(field))
    counts = data.values.counts(mask)
    order = _by_count(counts)
    if match:
        order = order[_matching(data, folded(match))[order]]
    values = tuple(_value_count(data, counts, at) for at in order[offset : offset + n].tolist())
    more = max(0, len(order) - offset - len(values))
    return FieldPage(data.field.name, data.field.kind, values, len(order), more, _covered(data, mask), _span(data, counts))


def example_filter(filter_index: FilterIndex, among: Mask | None = None) -> dict[str, object]:
    """Return a filter made of real values that at least one item passes, ready to be pasted; {} when no field has any value.

    With `among`, (N,) bool, at least one of those items passes it.

    It shows a value or a list of a text field and, where an item has both, a range of another field.
    """
    usable = [data for field in filter_index.fields if _is_plain(field) and (data := filter_index.data(field)).values.counts(among).any()]
    texts = sorted((data for data in usable if data.field.kind == "text"), key=lambda data: _example_rank(data, among))
    ranges = [data for data in usable if data.field.kind in RANGE_KINDS]
    if not texts:
        return {} if not ranges else _range_example(ranges[0], among)
    first = texts[0]
    counts = first.values.counts(among)
    best = _by_count(counts)[:2]
    mask = mask_of_bits(first.values.union(spans_of_owners(np.sort(best))), len(filter_index.catalog.mapped))
    if among is not None:
        mask &= among
    example = _text_example(first, best)
    for data in ranges:
        if data.values.counts(mask).any():
            return example | _range_example(data, mask)
    for data in texts[1:]:
        under = data.values.counts(mask)
        if under.any():
            return example | _text_example(data, _by_count(under)[:1])
    return example


def _summary(data: FieldData, mask: Mask | None) -> FieldSummary:
    counts = data.values.counts(mask)
    distinct = int(np.count_nonzero(counts))
    top = tuple(_value_count(data, counts, at) for at in _top(counts)) if data.field.kind == "text" else ()
    return FieldSummary(data.field.name, data.field.kind, _covered(data, mask), distinct, top, _span(data, counts))


def _covered(data: FieldData, mask: Mask | None) -> int:
    return count_bits(data.present if mask is None else data.present & bits_of_mask(mask))


def _by_count(counts: Ints) -> Ints:
    """Return the values with any item, most frequent first, then in the order of values."""
    order = np.argsort(-counts, kind="stable")
    return order[: int(np.count_nonzero(counts))]


def _top(counts: Ints) -> list[int]:
    """Return the first of `_by_count` without sorting all."""
    if len(counts) > 1_000:
        limit = np.partition(counts, len(counts) - TOP_VALUES)[len(counts) - TOP_VALUES]
        above = np.flatnonzero(counts > limit)
        level = np.flatnonzero(counts == limit)[:TOP_VALUES]
        candidates = np.concatenate((above, level))
        candidates.sort()
        return candidates[_by_count(counts[candidates])][:TOP_VALUES].tolist()
    return _by_count(counts)[:TOP_VALUES].tolist()


def _span(data: FieldData, counts: Ints) -> Span | None:
    there = np.flatnonzero(counts)
    if data.field.kind not in RANGE_KINDS or not len(there):
        return None
    running = np.cumsum(counts)
    middle = int(np.searchsorted(running, (running[-1] + 1) // 2))
    return Span(data.shown[int(there[0])], data.shown[middle], data.shown[int(there[-1])])


def _value_count(data: FieldData, counts: Ints, at: int) -> ValueCount:
    return ValueCount(data.shown[at], int(counts[at]), data.abbreviated(at, MOST_SHOWN))


def _matching(data: FieldData, wanted: str) -> Mask:
    """Return (V,) bool, True for the values that contain `wanted`, a folded text."""
    if not isinstance(data.keys, Texts):
        return np.array([wanted in folded(scalar_text(value)) for value in data.shown], dtype=np.bool_)
    matching = np.zeros(len(data.keys), dtype=np.bool_)
    matching[data.keys.containing(wanted)] = True
    return matching


def _is_plain(field: Field) -> bool:
    """True for fields whose name needs no escape in a filter."""
    return folded(field.name.strip()) not in ("any", "all", "not", "field", "is", "root", "kind")


def _example_rank(data: FieldData, among: Mask | None) -> tuple[bool, bool, bool, int]:
    """Sort fields with a handful of values, none of them nearly everywhere, before yes-or-no fields, titles and ids."""
    counts = data.values.counts(among)
    distinct, total = int(np.count_nonzero(counts)), int(counts.sum())
    return distinct > min(200, total // 2), distinct < 4, 2 * int(counts.max(initial=0)) > total, -total


def _text_example(data: FieldData, values: Ints) -> dict[str, object]:
    """Return a condition that items with any of `values` pass; it names them unless one must be written longer than a filter may be."""
    texts = [data.abbreviated(at, MOST_SHOWN) for at in values.tolist()]
    if any(len(text) > MAX_TEXT for text in texts):
        return {data.field.name: {"exists": True}}
    return {data.field.name: texts if len(texts) > 1 else texts[0]}


def _range_example(data: FieldData, mask: Mask | None) -> dict[str, object]:
    span = _span(data, data.values.counts(mask))
    return {data.field.name: {"gte": span.median}} if span is not None else {}
