"""Turns a filter into the rows that pass it and a sentence that says it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from mcp_server.domain.filter_conditions import reversed_range
from mcp_server.domain.filters import (
    AllOf,
    And,
    AnyOf,
    Between,
    Contains,
    Exists,
    Filter,
    Not,
    Or,
    Scalar,
    TagIds,
    TagsetBetween,
    folded,
    scalar_text,
)
from mcp_server.errors import FilterError, clipped
from mcp_server.stores.field_data import FieldData
from mcp_server.stores.field_store import FieldStore
from mcp_server.stores.postings import Mask
from mcp_server.stores.sentences import Sentence, joined, negated, values_sentence
from mcp_server.stores.suggestions import unknown_value
from mcp_server.stores.values import RANGE_KINDS, TAKES, Period, asked_period

_SYMBOLS = (("gte", ">="), ("gt", ">"), ("lte", "<="), ("lt", "<"))


@dataclass(frozen=True)
class Passed:
    """The rows that pass, (N,) bool, only ever mapped ones, and the filter in words."""

    mask: Mask
    sentence: Sentence


class Evaluator:
    """Evaluates filters on the posting lists of a collection. Safe to call from several threads.

    Raises, from every method: UnknownFieldError, UnknownValueError or FilterError when the filter does not fit the collection, also in
    parts whose outcome could not matter any more; CatalogError when a field cannot be loaded.
    """

    def __init__(self, store: FieldStore) -> None:
        """Load nothing yet."""
        self._store = store
        self._mapped = store.catalog.mapped

    def passed(self, node: Filter) -> Passed:
        """Return what passes `node`. The mask is the caller's to change."""
        match node:
            case And() | Or():
                return self._group(node)
            case Not():
                child = self.passed(node.child)
                np.logical_not(child.mask, out=child.mask)
                np.logical_and(child.mask, self._mapped, out=child.mask)
                return Passed(child.mask, negated(child.sentence))
            case AnyOf() | AllOf():
                return self._values(node)
            case Exists():
                return self._exists(node)
            case _:
                return self._condition(node)

    def _condition(self, node: Between | Contains | TagIds | TagsetBetween) -> Passed:
        match node:
            case Between():
                return self._between(node)
            case Contains():
                return self._contains(node)
            case TagIds():
                return self._tag_ids(node)
            case TagsetBetween():
                return self._tagset_between(node)

    def _group(self, node: And | Or) -> Passed:
        every = isinstance(node, And)
        mask = self._mapped.copy() if every else np.zeros_like(self._mapped)
        sentences: list[Sentence] = []
        for child in node.children:
            passed = self.passed(child)
            sentences.append(passed.sentence)
            (np.logical_and if every else np.logical_or)(mask, passed.mask, out=mask)
        return Passed(mask, joined(sentences, "and" if every else "or"))

    def _values(self, node: AnyOf | AllOf) -> Passed:
        data = self._data(node.field)
        every = isinstance(node, AllOf)
        slices = [_value_slice(data, value) for value in node.values]
        mask = self._mapped.copy() if every else np.zeros_like(self._mapped)
        for start, stop in dict.fromkeys(slices):
            if every:
                one = np.zeros_like(mask)
                data.mark_values(one, start, stop)
                np.logical_and(mask, one, out=mask)
            else:
                data.mark_values(mask, start, stop)
        shown = [_shown(data, value, span) for value, span in zip(node.values, slices, strict=True)]
        return Passed(mask, values_sentence(data.field.name, list(dict.fromkeys(shown)), "and" if every else "or"))

    def _between(self, node: Between) -> Passed:
        data = self._data(node.field)
        bounds = {word: value for word, _ in _SYMBOLS if (value := getattr(node, word)) is not None}
        start, stop = _range_slice(data, bounds)
        mask = np.zeros_like(self._mapped)
        data.mark_values(mask, start, stop)
        return Passed(mask, _range_sentence(data.field.name, bounds))

    def _contains(self, node: Contains) -> Passed:
        data = self._data(node.field)
        if data.field.kind != "text":
            raise _wrong_kind(data, {"contains": node.text})
        wanted = folded(node.text)
        mask = np.zeros_like(self._mapped)
        for position, key in enumerate(cast("list[str]", data.keys)):
            if wanted in key:
                data.mark_values(mask, position, position + 1)
        return Passed(mask, Sentence(f'{data.field.name} contains "{clipped(node.text, 60)}"'))

    def _exists(self, node: Exists) -> Passed:
        data = self._data(node.field)
        mask = np.zeros_like(self._mapped)
        data.mark_all(mask)
        has = Sentence(f"has {data.field.name}", opposite=f"has no {data.field.name}")
        return Passed(mask, has) if node.expected else Passed(self._mapped & ~mask, negated(has))

    def _tag_ids(self, node: TagIds) -> Passed:
        field = self._store.tagset(node.tagset_id, node.tagtype_id)
        data = self._store.data(field)
        if field.kind == "json":
            raise _wrong_kind(data, "tag ids")
        wanted = np.array(list(dict.fromkeys(node.tag_ids)), dtype=np.int64)
        positions = data.tags.position(wanted)
        strangers = (positions < 0) | (data.tags.tagsets[positions] != node.tagset_id) if len(data.tags.ids) else positions < 0
        if np.any(strangers):
            raise FilterError(
                f"{int(np.count_nonzero(strangers))} of the value_ids are not tags of tagset {node.tagset_id} "
                f'("{clipped(field.name)}"), first {wanted[strangers][0]}. '
                f'Use values instead: {{"{clipped(field.name)}": ["value"]}}; describe_filters lists them.'
            )
        mask = self._mapped.copy() if node.every else np.zeros_like(self._mapped)
        for position in positions.tolist():
            if node.every:
                one = np.zeros_like(mask)
                data.mark_tag(one, position)
                np.logical_and(mask, one, out=mask)
            else:
                data.mark_tag(mask, position)
        values = data.value_of_tag[positions].tolist() if len(positions) else []
        shown = [scalar_text(data.shown[value]) if value >= 0 else f"tag {tag}" for value, tag in zip(values, wanted.tolist(), strict=True)]
        return Passed(mask, values_sentence(field.name, list(dict.fromkeys(shown)), "and" if node.every else "or"))

    def _tagset_between(self, node: TagsetBetween) -> Passed:
        field = self._store.tagset(node.tagset_id, node.tagtype_id)
        data = self._store.data(field)
        given = (("gte", node.lower), ("lte", node.upper))
        bounds = {word: value for word, value in given if value is not None}
        start, stop = _range_slice(data, bounds)
        mask = np.zeros_like(self._mapped)
        if len(field.tagset_ids) == 1:
            data.mark_values(mask, start, stop)
        else:
            inside = (data.value_of_tag >= start) & (data.value_of_tag < stop) & (data.tags.tagsets == node.tagset_id)
            for position in np.flatnonzero(inside).tolist():
                data.mark_tag(mask, position)
        return Passed(mask, _range_sentence(field.name, bounds))

    def _data(self, name: str) -> FieldData:
        return self._store.data(self._store.field(name))


def _value_slice(data: FieldData, value: Scalar) -> tuple[int, int]:
    """Return the values equal to `value`, from and up to; empty when a number or time is not there."""
    if data.field.kind == "text":
        position = data.text_index.get(folded(scalar_text(value)))
        if position is None:
            raise unknown_value(data, scalar_text(value))
        return position, position + 1
    period = _period(data, value)
    return _left(data, period.first), _right(data, period.last)


def _range_slice(data: FieldData, bounds: dict[str, Scalar]) -> tuple[int, int]:
    """Return the values inside all bounds, from and up to.

    A period counts whole: from its start for gte, after its end for gt, to its end for lte, before its start for lt.
    """
    if data.field.kind not in RANGE_KINDS:
        raise _wrong_kind(data, bounds)
    periods = {word: _period(data, value) for word, value in bounds.items()}
    for lower in ("gte", "gt"):
        for upper in ("lte", "lt"):
            if lower in periods and upper in periods:
                top = periods[upper].last if upper == "lte" else periods[upper].first
                if periods[lower].first > top:
                    raise reversed_range(data.field.name, bounds[lower], bounds[upper])
    start, stop = 0, len(data.keys)
    for word, period in periods.items():
        match word:
            case "gte":
                start = max(start, _left(data, period.first))
            case "gt":
                start = max(start, _right(data, period.last))
            case "lte":
                stop = min(stop, _right(data, period.last))
            case _:
                stop = min(stop, _left(data, period.first))
    return start, max(start, stop)


def _period(data: FieldData, value: Scalar) -> Period:
    period = asked_period(data.field.kind, value) if data.field.kind in RANGE_KINDS else None
    if period is None:
        raise _wrong_kind(data, value)
    return period


def _left(data: FieldData, key: float) -> int:
    # item() gives Python numbers, whose comparison of large whole numbers with decimals is exact
    return bisect_left(cast("Any", data.keys), key, key=np.generic.item)


def _right(data: FieldData, key: float) -> int:
    return bisect_right(cast("Any", data.keys), key, key=np.generic.item)


def _shown(data: FieldData, value: Scalar, span: tuple[int, int]) -> str:
    """Return the stored spelling where there is one value, else the caller's."""
    return scalar_text(data.shown[span[0]]) if span[1] - span[0] == 1 and data.field.kind == "text" else clipped(scalar_text(value))


def _range_sentence(field: str, bounds: dict[str, Scalar]) -> Sentence:
    parts = [Sentence(f"{field} {symbol} {clipped(scalar_text(bounds[word]))}") for word, symbol in _SYMBOLS if word in bounds]
    return joined(parts, "and")


def _wrong_kind(data: FieldData, given: object) -> FilterError:
    """Return the error for a condition that does not suit the field's kind: what it takes, and its span."""
    name = clipped(data.field.name)
    got = given if isinstance(given, str | int | float) else next(iter(cast("dict[str, object]", given)))
    span = ""
    there = np.flatnonzero(data.values.counts())
    if data.field.kind in RANGE_KINDS and len(there):
        span = f" It spans {clipped(scalar_text(data.shown[int(there[0])]))} to {clipped(scalar_text(data.shown[int(there[-1])]))}."
    return FilterError(f'"{name}" takes {TAKES[data.field.kind]}; got "{clipped(got)}".{span}')
