"""Any filter over any taggings passes exactly what a slow evaluator over plain Python sets passes."""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcp_server.domain.filter_syntax import parse_filter
from mcp_server.errors import UnknownValueError
from mcp_server.side_files import SideFiles
from mcp_server.stores.catalog import Catalog
from mcp_server.stores.filter_index import FilterIndex
from tests import m3

SIZE = 9
TYPES = {"Color": "alphanumerical", "Year": "numerical_int", "Weight": "numerical_dec", "Day": "date"}
VALUES: dict[str, list[Any]] = {
    "Color": ["red", "green", "blue", "RED"],
    "Year": [1999, 2000, 2001, 2**60 + 1],
    "Weight": ["0.5", "1.50", "-2", "10"],
    "Day": ["2020-12-31", "2021-01-01", "2021-03-15", "2022-01-01"],
}
KEYS: dict[str, Callable[[Any], Any]] = {"Color": lambda one: str(one).lower(), "Year": int, "Weight": float, "Day": str}
ASKED = {name: sorted({KEYS[name](one) for one in values}) for name, values in VALUES.items()}
NAMES = sorted(TYPES)
Seen = dict[int, dict[str, set[Any]]]


@st.composite
def collections(draw: st.DrawFn) -> list[m3.Media]:
    """Some videos, their frames, photographs of no group; any of them may lack tags or a row."""
    rows = draw(st.permutations(range(SIZE)))
    count = draw(st.integers(1, SIZE))
    tags = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 15), max_size=3)
    medias: list[m3.Media] = []
    for number in range(count):
        chosen = draw(tags)
        values = {name: [one for bit, one in enumerate(VALUES[name]) if picked >> bit & 1] for name, picked in chosen.items()}
        group = draw(st.one_of(st.none(), st.integers(1, count + 1)))
        medias.append(m3.Media(number + 1, draw(st.sampled_from([rows[number], rows[number], None])), group, values))
    return medias


def conditions(name: str) -> st.SearchStrategy[Any]:
    values = st.sampled_from(ASKED[name])
    lists = st.lists(values, max_size=3)
    simple: list[st.SearchStrategy[Any]] = [
        values,
        lists,
        st.builds(lambda one: {"any": one}, lists),
        st.builds(lambda one: {"all": one}, lists),
        st.builds(lambda one: {"exists": one}, st.booleans()),
    ]
    if name == "Color":
        simple.append(st.builds(lambda one: {"contains": one}, st.sampled_from(["e", "RE", "x"])))
    else:
        pairs = st.tuples(values, values, st.sampled_from(["gte", "gt"]), st.sampled_from(["lte", "lt"]))
        simple.append(pairs.map(lambda one: {one[2]: min(one[:2]), one[3]: max(one[:2])}))
        simple.append(st.builds(lambda key, one: {key: one}, st.sampled_from(["gte", "gt", "lte", "lt"]), values))
    plain = st.one_of(simple)
    return st.one_of(plain, st.builds(lambda one: {"not": one}, plain))


def natural() -> st.SearchStrategy[dict[str, Any]]:
    fields = st.fixed_dictionaries({}, optional={name: conditions(name) for name in NAMES})
    return st.recursive(
        fields,
        lambda inner: st.one_of(
            st.builds(lambda one: {"any": one}, st.lists(inner, max_size=3)),
            st.builds(lambda one: {"all": one}, st.lists(inner, max_size=3)),
            st.builds(lambda one, name, value: {"not": one, name: [value]}, inner, st.just("Year"), st.sampled_from(ASKED["Year"])),
            st.builds(lambda one: {"not": one}, st.lists(inner.filter(bool), max_size=3)),
        ),
        max_leaves=6,
    )


def slow_condition(values: set[Any], raw: Any) -> bool:
    if isinstance(raw, list):
        return any(one in values for one in raw)
    if not isinstance(raw, dict):
        return raw in values
    tests = {
        "any": lambda want: slow_condition(values, want),
        "all": lambda want: all(one in values for one in want),
        "not": lambda want: not slow_condition(values, want),
        "exists": lambda want: bool(values) == want,
        "contains": lambda want: any(want.lower() in one for one in values),
    }
    if not all(tests[key](want) for key, want in raw.items() if key in tests):
        return False
    bounds = {key: want for key, want in raw.items() if key not in tests}
    compare: dict[str, Callable[[Any, Any], bool]] = {
        "gte": lambda one, want: one >= want,
        "gt": lambda one, want: one > want,
        "lte": lambda one, want: one <= want,
        "lt": lambda one, want: one < want,
    }
    return not bounds or any(all(compare[key](one, want) for key, want in bounds.items()) for one in values)


def slow(tags: dict[str, set[Any]], raw: dict[str, Any]) -> bool:
    for key, want in raw.items():
        children = want if isinstance(want, list) else [want]
        if key == "any":
            passes = any(slow(tags, child) for child in children)
        elif key == "all":
            passes = all(slow(tags, child) for child in children)
        elif key == "not":
            passes = not any(slow(tags, child) for child in children if child)
        else:
            passes = slow_condition(tags.get(key, set()), want)
        if not passes:
            return False
    return True


def facts(medias: list[m3.Media]) -> Seen:
    return {
        media: {name: {KEYS[name](one) for one in values} for name, values in tags.items()}
        for media, tags in m3.own_and_inherited(medias).items()
    }


def passing(index: FilterIndex, raw: object) -> set[int]:
    selection = index.evaluate(parse_filter(raw))
    assert selection.count == np.count_nonzero(selection.mask)
    return {int(one) for one in index.catalog.media_of_row[selection.mask]}


def with_every_tag(medias: list[m3.Media]) -> list[m3.Media]:
    """A further medium outside the index has every tag, so that every value is known."""
    return [*medias, m3.Media(500, None, None, dict(VALUES))]


many = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@many
@given(collections(), st.lists(natural(), min_size=1, max_size=6), st.sampled_from(m3.LAYOUTS), st.booleans())
def test_natural_filters_pass_what_plain_sets_say(
    medias: list[m3.Media], raws: list[dict[str, Any]], layout: m3.Layout, keyed: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = m3.build(Path(folder) / "c.db", with_every_tag(medias), TYPES, layout=layout, indexes=keyed)
        with closing(Catalog.open(path, SIZE)) as catalog:
            index = FilterIndex(catalog)
            seen = facts(medias)
            assert {int(one) for one in catalog.media_of_row if one >= 0} == set(seen)
            for raw in raws:
                expected = {media for media, tags in seen.items() if slow(tags, raw)}
                assert passing(index, raw) == expected, raw
                assert passing(index, json.dumps(raw)) == expected, raw
                assert passing(FilterIndex(catalog), raw) == expected, raw


@settings(many, max_examples=20)  # each example writes a dozen files and waits for the disk
@given(collections(), st.lists(natural(), min_size=1, max_size=6), st.sampled_from(m3.LAYOUTS))
def test_fields_taken_from_side_files_pass_the_same(medias: list[m3.Media], raws: list[dict[str, Any]], layout: m3.Layout) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = m3.build(Path(folder) / "c.db", with_every_tag(medias), TYPES, layout=layout)
        old = path.stat().st_mtime_ns - 10**10  # what was written to this moment is not kept
        os.utime(path, ns=(old, old))
        side = SideFiles(Path(folder) / "side")
        seen = facts(medias)
        for _ in ("made", "taken from there"):
            with closing(Catalog.open(path, SIZE, None, side)) as catalog:
                index = FilterIndex(catalog)
                for raw in raws:
                    assert passing(index, raw) == {media for media, tags in seen.items() if slow(tags, raw)}, raw


@st.composite
def trees(draw: st.DrawFn, depth: int = 3) -> tuple[Any, Callable[[dict[str, set[Any]]], bool]]:
    """An Exquisitor node over tag numbers (name, position), and the same as a function of an item's tags."""
    negated = draw(st.sampled_from([{}, {"not_": False}, {"not_": True}, {"not": True}]))
    flip = any(negated.values())
    if depth and draw(st.booleans()):
        children = draw(st.lists(trees(depth=depth - 1), max_size=3))
        operator = draw(st.sampled_from(["AND", "or", "OR"]))
        combine = all if operator == "AND" else any
        node = {"kind": "group", "operator": operator, "children": [one for one, _ in children]} | negated
        return node, lambda tags: combine(test(tags) for _, test in children) != flip
    name = draw(st.sampled_from(NAMES))
    if name == "Color" or draw(st.booleans()):
        picked = draw(st.lists(st.sampled_from(VALUES[name]), max_size=3))
        every = draw(st.booleans())
        wanted = {(name, repr(one)) for one in picked}
        combine = all if every else any
        constraint = {"value_ids": [(name, repr(one)) for one in picked], "operator": "AND" if every else "OR"}
        leaf = {"kind": "leaf", "filter": {"id": name, "constraint": constraint}}
        return leaf | negated, lambda tags: combine(one in tags["raw"] for one in wanted) != flip
    low, high = sorted(draw(st.tuples(st.sampled_from(ASKED[name]), st.sampled_from(ASKED[name]))))
    constraint = draw(st.sampled_from([{"lower_bound": low}, {"upper_bound": high}, {"lower_bound": low, "upper_bound": high}]))
    low, high = constraint.get("lower_bound"), constraint.get("upper_bound")
    leaf = {"kind": "leaf", "filter": {"id": name, "tagtype_id": name, "constraint": constraint}}
    return (
        leaf | negated,
        lambda tags: any((low is None or one >= low) and (high is None or one <= high) for one in tags.get(name, set())) != flip,
    )


def with_ids(node: Any, tagsets: dict[str, tuple[int, int]], tags: dict[tuple[str, str], int]) -> Any:
    if isinstance(node, list):
        return [tags[one] if isinstance(one, tuple) else with_ids(one, tagsets, tags) for one in node]
    if not isinstance(node, dict):
        return node
    found = {key: with_ids(value, tagsets, tags) for key, value in node.items()}
    if "id" in found:
        name = found["id"]
        found |= {"id": tagsets[name][0]} | ({"tagtype_id": tagsets[name][1]} if "tagtype_id" in found else {})
    return found


@many
@given(collections(), st.lists(trees(), min_size=1, max_size=6), st.sampled_from(m3.LAYOUTS))
def test_exquisitor_trees_pass_what_plain_sets_say(
    medias: list[m3.Media], pairs: list[tuple[Any, Callable[[dict[str, set[Any]]], bool]]], layout: m3.Layout
) -> None:
    tagsets = {name: (number, m3.TYPE_IDS[type_name]) for number, (name, type_name) in enumerate(TYPES.items(), start=1)}
    everything = [m3.Media(500, None, None, dict(VALUES)), *medias]
    tags = {(name, repr(one)): 100 + at for at, (name, one) in enumerate((name, one) for name in VALUES for one in VALUES[name])}
    seen = facts(medias)
    for media, both in m3.own_and_inherited(medias).items():
        seen[media]["raw"] = {(name, repr(one)) for name, values in both.items() for one in values}
    with tempfile.TemporaryDirectory() as folder:
        path = m3.build(Path(folder) / "c.db", everything, TYPES, layout=layout)
        with closing(Catalog.open(path, SIZE)) as catalog:
            index = FilterIndex(catalog)
            for node, test in pairs:
                raw = {"root": with_ids(node, tagsets, tags)}
                assert passing(index, raw) == {media for media, owned in seen.items() if test(owned)}, raw


@many
@given(collections(), st.lists(natural(), min_size=2, max_size=4))
def test_equal_canonical_text_means_equal_selection(medias: list[m3.Media], raws: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = m3.build(Path(folder) / "c.db", with_every_tag(medias), TYPES)
        with closing(Catalog.open(path, SIZE)) as catalog:
            for left, right in itertools.combinations([parsed for raw in raws if (parsed := parse_filter(raw)) is not None], 2):
                if left.canonical == right.canonical:
                    one, other = FilterIndex(catalog).evaluate(left), FilterIndex(catalog).evaluate(right)
                    assert np.array_equal(one.mask, other.mask)


@many
@given(collections(), natural())
def test_an_explanation_is_short_and_its_counts_are_true(medias: list[m3.Media], raw: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = m3.build(Path(folder) / "c.db", medias, TYPES)
        with closing(Catalog.open(path, SIZE)) as catalog:
            index = FilterIndex(catalog)
            parsed = parse_filter(raw)
            try:
                if parsed is None or index.evaluate(parsed).count:
                    return
                reason = index.explain_empty(parsed)
            except UnknownValueError:
                return
            assert 0 < len(reason) <= 200
            if "; adding" in reason and len(raw) == 2 and not {"any", "all", "not"} & set(raw):
                left = int(reason.split(" leaves ")[1].split(";")[0])
                assert left == max(index.evaluate(parse_filter({key: want})).count for key, want in raw.items())
