"""Which kind a metadata field gets, and which tags its values become."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.ingest.fields import Field, fields_of, impossible_moments, is_reserved, tags_of


@pytest.mark.parametrize(
    ("values", "kind", "tags"),
    [
        ([3, -1, 2**63 - 1], "numerical_int", [(3,), (-1,), (2**63 - 1,)]),
        ([3, 2.5, -0.0], "numerical_dec", [(3.0,), (2.5,), (0.0,)]),
        ([2.0, 3.0], "numerical_dec", [(2.0,), (3.0,)]),
        ([2**63, 1], "alphanumerical", [("9223372036854775808",), ("1",)]),
        (["2021-03-01", "0999-12-31"], "date", [("2021-03-01",), ("0999-12-31",)]),
        (["2021-03-01T10:00:00Z", "2021-03-01T10:00+02:00"], "timestamp", [("2021-03-01T10:00:00+00:00",), ("2021-03-01T08:00:00+00:00",)]),
        (["2021-03-01 10:00:30.5", "2021-03-02"], "timestamp", [("2021-03-01T10:00:30.500000",), ("2021-03-02T00:00:00",)]),
        (["10:30", "23:59:59"], "time", [("10:30",), ("23:59:59",)]),
        (["10:30", "2021-03-01"], "alphanumerical", [("10:30",), ("2021-03-01",)]),
        ([True, False], "alphanumerical", [("true",), ("false",)]),
        ([True, 1], "alphanumerical", [("true",), ("1",)]),
        ([{"de": "Hund"}, {"de": "Katze"}], "json", [('{"de":"Hund"}',), ('{"de":"Katze"}',)]),
        ([{"a": 1}, "x"], "alphanumerical", [('{"a":1}',), ("x",)]),
        (["red", 3, 2.5], "alphanumerical", [("red",), ("3",), ("2.5",)]),
        (["  red ", "red"], "alphanumerical", [("red",), ("red",)]),
        ([["b", "a", "b"], "c", []], "alphanumerical", [("b", "a"), ("c",), ()]),
        ([[1, 2], 3], "numerical_int", [(1, 2), (3,)]),
        ([1, None, "", " ", math.nan, math.inf, {}, [None]], "numerical_int", [(1,), (), (), (), (), (), (), ()]),
        (["20210301", "2021-W01-1"], "alphanumerical", [("20210301",), ("2021-W01-1",)]),
    ],
)
def test_a_field_gets_the_narrowest_kind_that_holds_all_its_values(values: list[Any], kind: str, tags: list[Any]) -> None:
    (field,) = fields_of({"f": value} for value in values)
    assert field == Field("f", kind)  # pyright: ignore[reportArgumentType] - the parameter is one of the kinds
    found = [tags_of(field, value) for value in values]
    assert found == tags
    assert [[type(tag) for tag in each] for each in found] == [[type(tag) for tag in each] for each in tags]


def test_a_day_that_does_not_exist_does_not_turn_the_dates_into_text() -> None:
    (field,) = fields_of([{"f": "2005-04-22"}, {"f": "2004-08-39"}])
    assert field.kind == "date"
    assert tags_of(field, "2004-08-39") == ()
    assert impossible_moments(field, "2004-08-39") == ("2004-08-39",)


def test_a_field_of_nothing_but_impossible_days_is_text() -> None:
    (field,) = fields_of([{"f": "2004-08-39"}])
    assert field.kind == "alphanumerical"
    assert tags_of(field, "2004-08-39") == ("2004-08-39",)


def test_fields_keep_their_order_and_empty_ones_are_left_out() -> None:
    rows: list[dict[str, Any]] = [{"b": 1, "empty": None}, {"a": "x", "b": 2, "empty": []}]
    assert [field.name for field in fields_of(rows)] == ["b", "a"]


@pytest.mark.parametrize("name", ["CLIP Index ID", "clip index id", "Other Index ID ", "", "  ", "\ud800"])
def test_names_kept_for_the_index_are_no_fields(name: str) -> None:
    assert is_reserved(name)
    assert fields_of([{name: 1}]) == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates().map(str) | st.datetimes().map(str),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
TYPES = {"numerical_int": int, "numerical_dec": float}


@given(st.lists(JSON, max_size=6))
def test_whatever_json_can_hold_becomes_tags_that_sqlite_can_store_and_sort(values: list[Any]) -> None:
    values = json.loads(json.dumps(values))
    for field in fields_of({"f": value} for value in values):
        tags = [tag for value in values for tag in tags_of(field, value)]
        for tag in sorted(tags):
            assert type(tag) is TYPES.get(field.kind, str)
            if isinstance(tag, int):
                assert -(2**63) <= tag < 2**63
            elif isinstance(tag, float):
                assert math.isfinite(tag)
            else:
                assert tag.encode("utf-8")
