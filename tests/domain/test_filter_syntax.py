"""Every way a model writes a filter, and every way it goes wrong."""

from __future__ import annotations

import json

import pytest

from mcp_server.domain.filter_syntax import parse_filter
from mcp_server.domain.filters import AllOf, And, AnyOf, Between, Contains, Exists, Not, Or, TagIds, TagsetBetween
from mcp_server.errors import MESSAGE_LIMIT, FilterError


@pytest.mark.parametrize("raw", [None, "", "  ", "{}", "null", "None", {}, [], "[]", '"{}"', {"not": {}}, {"any": None}, {"all": []}])
def test_absent_filters_are_no_filter(raw: object) -> None:
    assert parse_filter(raw) is None


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"Category": "food"}, AnyOf("Category", ("food",))),
        ('{"Category": "food"}', AnyOf("Category", ("food",))),
        (json.dumps('{"Category": "food"}'), AnyOf("Category", ("food",))),
        ({"Category": ["food", 3, True]}, AnyOf("Category", ("food", 3, True))),
        ({"Category": []}, AnyOf("Category", ())),
        ({"Category": {"any": ["food", "drink"]}}, AnyOf("Category", ("food", "drink"))),
        ({"Tags": {"all": ["dog", "beach"]}}, AllOf("Tags", ("dog", "beach"))),
        ({"Tags": {"ALL": "dog"}}, AllOf("Tags", ("dog",))),
        ({"Source": {"not": "News"}}, Not(AnyOf("Source", ("News",)))),
        ({"Source": {"not": ["News", "Ads"]}}, Not(AnyOf("Source", ("News", "Ads")))),
        ({"Year": {"not": {"lt": 2000}}}, Not(Between("Year", lt=2000))),
        ({"Year": {"gte": 2020, "lt": 2022}}, Between("Year", gte=2020, lt=2022)),
        ({"Year": {"gte": 2020, "lt": None}}, Between("Year", gte=2020)),
        ({"Date": {"gte": "2021-03", "lte": "2021"}}, Between("Date", gte="2021-03", lte="2021")),
        ({"Caption": {"contains": "harbour"}}, Contains("Caption", "harbour")),
        ({"Location": {"exists": True}}, Exists("Location")),
        ({"Location": {"exists": "false"}}, Exists("Location", False)),
        ({"Year": {"gt": 1, "not": [5]}}, And((Between("Year", gt=1), Not(AnyOf("Year", (5,)))))),
        ({"Year": [{"lt": 1900}, 2000]}, Or((AnyOf("Year", (2000,)), Between("Year", lt=1900)))),
        ({"A": 1, "B": 2}, And((AnyOf("A", (1,)), AnyOf("B", (2,))))),
        ({"any": [{"A": 1}, {"B": 2}]}, Or((AnyOf("A", (1,)), AnyOf("B", (2,))))),
        ({"any": {"A": 1}}, AnyOf("A", (1,))),
        ({"any": {"A": 1, "B": 2}}, Or((AnyOf("A", (1,)), AnyOf("B", (2,))))),
        ({"any": '{"A": 1, "not": {"B": 2, "C": 3}}'}, Or((AnyOf("A", (1,)), Not(And((AnyOf("B", (2,)), AnyOf("C", (3,)))))))),
        ({"any": [{"A": 1, "B": 2}]}, And((AnyOf("A", (1,)), AnyOf("B", (2,))))),
        ({"any": {"field": "any", "is": "x", "A": 1}}, Or((AnyOf("any", ("x",)), AnyOf("A", (1,))))),
        ({"any": '[{"A": 1}]'}, AnyOf("A", (1,))),
        ({"any": []}, Or(())),
        ({"all": [{"A": 1}, {"B": 2}]}, And((AnyOf("A", (1,)), AnyOf("B", (2,))))),
        ({"not": [{"A": 1}, {"B": 2}]}, Not(Or((AnyOf("A", (1,)), AnyOf("B", (2,)))))),
        ({"NOT": {"A": 1}, "C": 3}, And((Not(AnyOf("A", (1,))), AnyOf("C", (3,))))),
        ({"field": "any", "is": {"gte": 3}}, Between("any", gte=3)),
        ({"field": "not", "is": "x", "A": 1}, And((AnyOf("not", ("x",)), AnyOf("A", (1,))))),
        ({"field": "x"}, AnyOf("field", ("x",))),
        ({"kind": "food"}, AnyOf("kind", ("food",))),
        ({"root": "cellar"}, AnyOf("root", ("cellar",))),
    ],
)
def test_what_models_write_is_read_as_meant(raw: object, expected: object) -> None:
    assert parse_filter(raw) == expected


LEAF = {"kind": "leaf", "filter": {"id": 3, "tagtype_id": 1, "constraint": {"value_ids": [10, 11], "operator": "OR"}}}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"root": LEAF}, TagIds(3, 1, (10, 11))),
        (LEAF, TagIds(3, 1, (10, 11))),
        ({"root": LEAF | {"not_": True}}, Not(TagIds(3, 1, (10, 11)))),
        ({"root": LEAF | {"not": True}}, Not(TagIds(3, 1, (10, 11)))),
        ({"root": LEAF | {"not": True, "not_": True}}, Not(TagIds(3, 1, (10, 11)))),
        ({"root": LEAF | {"not_": False}}, TagIds(3, 1, (10, 11))),
        ({"kind": "leaf", "filter": {"id": 3, "constraint": {"value_ids": [1], "operator": "and"}}}, TagIds(3, None, (1,), every=True)),
        ({"kind": "leaf", "filter": {"id": 3, "constraint": {"lower_bound": 5}}}, TagsetBetween(3, None, 5, None)),
        (
            {"kind": "leaf", "filter": {"id": 3, "constraint": {"lower_bound": None, "upper_bound": "2021"}}},
            TagsetBetween(3, None, None, "2021"),
        ),
        ({"root": {"kind": "group", "operator": "and", "children": []}}, And(())),
        ({"root": {"kind": "group", "operator": "Or", "children": []}}, Or(())),
        (
            {"kind": "group", "operator": "OR", "not": True, "children": [LEAF, LEAF]},
            Not(Or((TagIds(3, 1, (10, 11)), TagIds(3, 1, (10, 11))))),
        ),
        ({"any": [LEAF, {"A": 1}]}, Or((TagIds(3, 1, (10, 11)), AnyOf("A", (1,))))),
    ],
)
def test_exquisitors_tree_is_understood(raw: object, expected: object) -> None:
    assert parse_filter(raw) == expected


def nested(depth: int, key: str = "not") -> dict[str, object]:
    inner: dict[str, object] = {"A": 1}
    for _ in range(depth):
        inner = {key: inner}
    return inner


@pytest.mark.parametrize("text", ['\\"' * 400_000, '"' * 400_001, '{"a":"' + "\\" * 400_001, '{"\\"' * 200_000])
def test_text_of_any_length_is_read_once(text: str) -> None:
    with pytest.raises(FilterError):  # read again from every quote, it takes hours
        parse_filter(text)


def test_nesting_to_the_stated_depth_is_accepted_and_deeper_is_refused() -> None:
    assert parse_filter(nested(32)) is not None
    with pytest.raises(FilterError, match="deeper than 32"):
        parse_filter(nested(33))


@pytest.mark.parametrize("depth", [500, 100_000])
def test_absurd_nesting_is_refused_without_recursion_trouble(depth: int) -> None:
    tree: object = LEAF
    for _ in range(depth):
        tree = {"kind": "group", "operator": "AND", "children": [tree]}
    listed: object = "x"
    for _ in range(depth):
        listed = [listed]
    values = (nested(depth), nested(depth, "any"), {"root": tree}, {"A": listed}, {"A": {"not": listed}}, {"any": listed})
    texts = ('{"not":' * depth + "{}" + "}" * depth, '{"A":' + "[" * depth, "[" * depth, '{"any":"' + "[" * depth + '"}')
    for raw in (*values, *texts):
        with pytest.raises(FilterError) as caught:
            parse_filter(raw)
        assert len(caught.value.message) <= MESSAGE_LIMIT


def test_a_filter_that_contains_itself_is_refused() -> None:
    loop: dict[str, object] = {}
    loop["not"] = loop
    with pytest.raises(FilterError, match="deeper"):
        parse_filter(loop)


def test_brackets_inside_texts_do_not_count_as_nesting() -> None:
    assert parse_filter(json.dumps({"A": "[" * 900 + '"\\'})) == AnyOf("A", ("[" * 900 + '"\\',))


LONG = "x" * 5_000
REFUSED: list[tuple[object, str]] = [
    ([{"A": 1}], '"any"'),
    (True, "JSON object"),
    (7, "JSON object"),
    ("category is food", "not valid JSON"),
    ("{'A': 1}", "not valid JSON"),
    ('{"A": NaN}', "finite"),
    ('{"A": 1e999}', "finite"),
    ('{"A": 1, "A": 2}', "twice"),
    ({"A": float("nan")}, "finite"),
    ({"A": {"gte": float("-inf")}}, "finite"),
    ({"A": 10**400}, "finite"),
    ({"A": None}, "exists"),
    ({"A": {}}, "empty condition"),
    ({"A": {"gte": None}}, "empty condition"),
    ({"A": [["x"]]}, "flat list"),
    ({"A": object()}, "takes text"),
    ({"A": LONG}, "1000"),
    ({LONG: "x"}, "1000"),
    ({"": "x"}, "empty"),
    ({3: "x"}, "Field names are text"),
    ({"A": list(range(10_001))}, "10000"),
    ({"any": [{"A": 1}] * 1_000}, "1000 conditions"),
    ({"any": [{"A": list(range(9_999))}] * 11}, "100000"),
    ({"any": ["food"]}, '{"field": "any"'),
    ({"not": "food"}, '{"field": "not", "is": ...}'),
    ({"or": [{"A": 1}]}, '"any"'),
    ({"$and": [{"A": 1}]}, '"all"'),
    ({"must_not": {"A": 1}}, '"not"'),
    ({"field": "A", "op": "eq", "value": "x"}, '{"A": "value"}'),
    ({"filters": {"color": "red"}}, 'directly in filters: {"color": ...}'),
    ({"Filter": {"any": [{LONG: "red"}]}}, 'without "Filter" around'),
    ({"A": {"min": 3}}, 'Use "gte"'),
    ({"A": {"max": 3}}, 'Use "lte"'),
    ({"A": {"from": 3}}, 'Use "gte"'),
    ({"A": {"to": 3}}, 'Use "lte"'),
    ({"A": {">=": 3}}, 'Use "gte"'),
    ({"A": {"$lt": 3}}, 'Use "lt"'),
    ({"A": {"between": [1, 2]}}, '"gte" and "lte"'),
    ({"A": {"eq": 3}}, "the plain value"),
    ({"A": {"in": [3]}}, 'Use "any"'),
    ({"A": {"neq": 3}}, 'Use "not"'),
    ({"A": {"like": "x"}}, 'Use "contains"'),
    ({"A": {"contain": "x"}}, 'Use "contains"'),
    ({"A": {LONG: "x"}}, "contains"),
    ({"A": {4: "x"}}, "contains"),
    ({"A": {"contains": ""}}, "empty"),
    ({"A": {"contains": ["a", "b"]}}, '"any"'),
    ({"A": {"exists": "maybe"}}, "true or false"),
    ({"A": {"gte": [1]}}, "one number"),
    ({"A": {"gte": True}}, "one number"),
    ({"A": {"gte": ""}}, "open end"),
    ({"A": {"gte": LONG[:900], "lte": 3, "gt": {}}}, "one number"),
    ({"root": {"kind": "tree"}}, '"group" or "leaf"'),
    ({"root": {"kind": "leaf", "filter": {}}}, '"id"'),
    ({"root": LEAF | {"negate": True}}, '"negate" is not a key'),
    ({"root": LEAF | {"Not": True}}, '"Not" is not a key'),
    ({"root": LEAF | {LONG: True}}, "Accepted"),
    ({"root": LEAF | {"not": "yes"}}, "true or false"),
    ({"root": LEAF | {"not": True, "not_": False}}, "differ"),
    ({"root": {"kind": "group", "operator": "XOR", "children": []}}, '"AND" or "OR"'),
    ({"root": {"kind": "group", "operator": "AND"}}, "children"),
    ({"root": {"kind": "group", "operator": "AND", "children": ["x"]}}, "object"),
    ({"root": {"kind": "leaf", "filter": {"id": 1, "constraint": {}}}}, "value_ids"),
    ({"root": {"kind": "leaf", "filter": {"id": 1, "constraint": {"value_ids": 3}}}}, "list"),
    ({"root": {"kind": "leaf", "filter": {"id": 1, "constraint": {"value_ids": ["a"]}}}}, "whole numbers"),
    ({"root": {"kind": "leaf", "filter": {"id": 1, "constraint": {"value_ids": [True]}}}}, "whole numbers"),
    ({"root": {"kind": "leaf", "filter": {"id": 1, "constraint": {"value_ids": [1], "lower_bound": 2}}}}, "lower_bound"),
    ({"root": {"kind": "leaf", "filter": {"id": 1, "constraint": {"lower_bound": [3]}}}}, "A bound of tagset 1 takes one number"),
    ({"root": {"kind": "leaf", "filter": {"id": 10**30, "constraint": {"lower_bound": 3}}}}, "whole numbers"),
    ({"root": {"kind": "leaf", "filter": {"id": 1, "constrain": {}}}}, 'Did you mean "constraint"'),
]


@pytest.mark.parametrize(("raw", "hint"), REFUSED)
def test_what_cannot_be_read_is_refused_with_what_to_write_instead(raw: object, hint: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse_filter(raw)
    assert hint in caught.value.message
    assert len(caught.value.message) <= MESSAGE_LIMIT
    assert "\n" not in caught.value.message


def test_a_thousand_conditions_and_ten_thousand_values_are_accepted() -> None:
    assert parse_filter({"any": [{"A": 1}] * 499}) is not None
    assert parse_filter({"A": [str(one) for one in range(10_000)]}) is not None
