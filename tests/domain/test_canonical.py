"""Filters that mean the same have the same canonical text, and only those."""

from __future__ import annotations

import pytest

from mcp_server.domain.filter_syntax import parse_filter
from mcp_server.domain.filters import And, AnyOf, Not, Or, TagIds


def text_of(raw: object) -> str:
    parsed = parse_filter(raw)
    assert parsed is not None
    return parsed.canonical


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"Category": ["food", "drink"]}, {"category": ["DRINK", "Food", "drink"]}),
        ({"A": 1, "B": 2}, {"B": 2, "A": 1}),
        ({"any": [{"A": 1}, {"B": 2}]}, {"any": [{"b": "2"}, {"a": 1.0}]}),
        ({"all": [{"A": 1}, {"B": 2}]}, {"A": 1, "B": 2}),
        ({"A": {"all": ["x"]}}, {"A": "X"}),
        ({"A": True}, {"A": "TRUE"}),
        ({"not": {"not": {"A": 1}}}, {"A": 1}),
        ({"A": "cafe\u0301"}, {"A": "CAFÉ"}),
        ({"A": {"contains": "Dog"}}, {"a": {"contains": "dOG"}}),
    ],
)
def test_filters_that_mean_the_same_share_their_text(left: object, right: object) -> None:
    assert text_of(left) == text_of(right)


def test_filters_that_differ_have_different_texts() -> None:
    raws: list[object] = [
        {"A": "x"},
        {"A": "y"},
        {"B": "x"},
        {"A": ["x", "y"]},
        {"A": {"all": ["x", "y"]}},
        {"A": []},
        {"A": {"all": []}},
        {"A": {"not": "x"}},
        {"A": {"contains": "x"}},
        {"A": {"exists": True}},
        {"A": {"exists": False}},
        {"A": {"gte": 1}},
        {"A": {"gt": 1}},
        {"A": {"lte": 1}},
        {"A": {"lt": 1}},
        {"A": "x", "B": "y"},
        {"any": [{"A": "x"}, {"B": "y"}]},
        {"A": "and", "B": "y"},
    ]
    texts = [text_of(raw) for raw in raws]
    assert len(set(texts)) == len(raws)


def test_empty_groups_and_tag_ids_are_told_apart() -> None:
    filters = [
        And(()),
        Or(()),
        Not(And(())),
        AnyOf("and", ()),
        TagIds(1, None, (1, 2)),
        TagIds(1, None, (1, 2), every=True),
        TagIds(1, 1, (1, 2)),
    ]
    assert len({one.canonical for one in filters}) == len(filters)
    assert TagIds(1, None, (2, 1, 2)).canonical == TagIds(1, None, (1, 2)).canonical
