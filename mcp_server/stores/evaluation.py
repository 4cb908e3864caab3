"""Turns a filter into the rows that pass it and a sentence that says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mcp_server.domain.filter_conditions import values_in_text
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
from mcp_server.stores.bits import Bits, bits_of_mask, no_bits
from mcp_server.stores.columns import Texts
from mcp_server.stores.field_data import FieldData
from mcp_server.stores.field_store import FieldStore
from mcp_server.stores.latest import Latest
from mcp_server.stores.postings import Ints, spans_of, spans_of_owners
from mcp_server.stores.sentences import SPELLED_OUT, Sentence, joined, negated, values_sentence
from mcp_server.stores.slices import range_slice, value_slices, wrong_kind

_SYMBOLS = (("gte", ">="), ("gt", ">"), ("lte", "<="), ("lt", "<"))

Condition = AnyOf | AllOf | Between | Contains | Exists | TagIds | TagsetBetween

_KEPT_BYTES = 32 * 2**20
_MOST_KEPT = 1_024


@dataclass(frozen=True)
class Passed:
    """The rows that pass, only ever mapped ones, and the filter in words."""

    bits: Bits
    sentence: Sentence


def kept_results(size: int) -> int:
    """Return how many results over `size` rows are kept: as many as fit in 32 MiB, at most 1,024."""
    return max(1, min(_MOST_KEPT, _KEPT_BYTES // (size // 8 + 1)))


class Evaluator:
    """Evaluates filters on the posting lists of a collection. Safe to call from several threads.

    Raises, from every method: UnknownFieldError, UnknownValueError or FilterError when the filter does not fit the collection, also in
    parts whose outcome could not matter any more; CatalogError when a field cannot be loaded.
    """

    def __init__(self, store: FieldStore) -> None:
        """Load nothing yet."""
        self._store = store
        self._size = len(store.catalog.mapped)
        self.mapped: Bits = bits_of_mask(store.catalog.mapped)
        self.mapped.setflags(write=False)
        self._latest: Latest[Passed] = Latest(kept_results(self._size))

    def passed(self, node: Filter) -> Passed:
        """Return what passes `node`. The bits are read-only."""
        match node:
            case And() | Or():
                found = self._group(node)
            case Not():
                child = self.passed(node.child)
                found = Passed(self.mapped & ~child.bits, negated(child.sentence))
            case _:
                found = self._latest.get(node.canonical)
                if found is None:
                    found = self._condition(node)
                    self._latest.keep(node.canonical, found)
        found.bits.setflags(write=False)
        return found

    def _condition(self, node: Condition) -> Passed:
        match node:
            case AnyOf() | AllOf():
                return self._values(node)
            case Exists():
                return self._exists(node)
            case Between():
                return self._between(node)
            case Contains():
                return self._contains(node)
            case TagIds():
                return self._tag_ids(node)
            case TagsetBetween():
                return self._tagset_between(node)

    def _group(self, node: And | Or) -> Passed:
        children = [self.passed(child) for child in node.children]
        sentence = joined([child.sentence for child in children], "and" if isinstance(node, And) else "or")
        return Passed(self._joined([child.bits for child in children], every=isinstance(node, And)), sentence)

    def _joined(self, parts: Sequence[Bits], *, every: bool) -> Bits:
        """Return the rows in every part, or in any."""
        if not parts:
            return self.mapped if every else no_bits(self._size)
        join = np.bitwise_and if every else np.bitwise_or
        first, *others = parts
        if not others:
            return first
        bits = join(first, others[0])
        for other in others[1:]:
            join(bits, other, out=bits)
        return bits

    def _values(self, node: AnyOf | AllOf) -> Passed:
        data = self._data(node.field)
        try:
            slices = value_slices(data, node.values)
        except FilterError:
            listed = values_in_text(node.field, node.values)
            if listed is None:
                raise
            return self._values(replace(node, values=listed))
        every = isinstance(node, AllOf)
        if every:
            distinct = dict.fromkeys(map(tuple, slices.tolist()))
            bits = self._joined([data.values.union(spans_of(np.array([one]))) for one in distinct], every=True)
        else:
            bits = data.values.union(spans_of(slices))
        return Passed(bits, _values_sentence(data, node, slices))

    def _between(self, node: Between) -> Passed:
        data = self._data(node.field)
        bounds = {word: value for word, _ in _SYMBOLS if (value := getattr(node, word)) is not None}
        return Passed(data.values.union(spans_of(np.array([range_slice(data, bounds)]))), _range_sentence(data.field.name, bounds))

    def _contains(self, node: Contains) -> Passed:
        data = self._data(node.field)
        if not isinstance(data.keys, Texts):
            raise wrong_kind(data, {"contains": node.text})
        bits = data.values.union(spans_of_owners(data.keys.containing(folded(node.text))))
        return Passed(bits, Sentence(f'{data.field.name} contains "{clipped(node.text, 60)}"'))

    def _exists(self, node: Exists) -> Passed:
        data = self._data(node.field)
        has = Sentence(f"has {data.field.name}", opposite=Sentence(f"has no {data.field.name}"))
        return Passed(data.present, has) if node.expected else Passed(self.mapped & ~data.present, negated(has))

    def _tag_ids(self, node: TagIds) -> Passed:
        field = self._store.tagset(node.tagset_id, node.tagtype_id)
        data = self._store.data(field)
        if field.kind == "json":
            raise wrong_kind(data, "tag ids")
        wanted = np.array(list(dict.fromkeys(node.tag_ids)), dtype=np.int64)
        positions = data.tags.position(wanted)
        strangers = (positions < 0) | (data.tags.tagsets[positions] != node.tagset_id) if len(data.tags.ids) else positions < 0
        if np.any(strangers):
            count = int(np.count_nonzero(strangers))
            raise FilterError(
                f"{count:,} of the value_ids {'is not a tag' if count == 1 else 'are not tags'} of tagset {node.tagset_id} "
                f'("{clipped(field.name)}"), first {wanted[strangers][0]}. '
                f'Use values instead: {{"{clipped(field.name)}": ["value"]}}; describe_filters lists them.'
            )
        if node.every:
            bits = self._joined([data.with_tags(positions[at : at + 1]) for at in range(len(positions))], every=True)
        else:
            bits = data.with_tags(positions)
        values = data.value_of_tag[positions].tolist() if len(positions) else []
        shown = [scalar_text(data.shown[value]) if value >= 0 else f"tag {tag}" for value, tag in zip(values, wanted.tolist(), strict=True)]
        distinct = list(dict.fromkeys(shown))
        return Passed(bits, values_sentence(field.name, distinct, "and" if node.every else "or", len(distinct)))

    def _tagset_between(self, node: TagsetBetween) -> Passed:
        field = self._store.tagset(node.tagset_id, node.tagtype_id)
        data = self._store.data(field)
        given = (("gte", node.lower), ("lte", node.upper))
        bounds = {word: value for word, value in given if value is not None}
        start, stop = range_slice(data, bounds)
        if len(field.tagset_ids) == 1:
            bits = data.values.union(spans_of(np.array([(start, stop)])))
        else:
            inside = (data.value_of_tag >= start) & (data.value_of_tag < stop) & (data.tags.tagsets == node.tagset_id)
            bits = data.with_tags(np.flatnonzero(inside))
        return Passed(bits, _range_sentence(field.name, bounds))

    def _data(self, name: str) -> FieldData:
        return self._store.data(self._store.field(name))


def _values_sentence(data: FieldData, node: AnyOf | AllOf, slices: Ints) -> Sentence:
    """Return the sentence for values that stand at `slices`: texts as they are stored, all else as the caller wrote it."""
    if isinstance(data.keys, Texts):
        distinct = list(dict.fromkeys(slices[:, 0].tolist()))
        named = [data.shown[at] for at in distinct[:SPELLED_OUT]]
    else:
        distinct = list(dict.fromkeys(clipped(scalar_text(value)) for value in node.values))
        named = distinct[:SPELLED_OUT]
    return values_sentence(data.field.name, [scalar_text(one) for one in named], "and" if isinstance(node, AllOf) else "or", len(distinct))


def _range_sentence(field: str, bounds: dict[str, Scalar]) -> Sentence:
    parts = [Sentence(f"{field} {symbol} {clipped(scalar_text(bounds[word]))}") for word, symbol in _SYMBOLS if word in bounds]
    return joined(parts, "and")
