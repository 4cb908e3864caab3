"""Which kind a metadata field gets, which values become which tags, and what `--types` understands."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.errors import IngestError
from mcp_server.ingest.catalog.fields import KindGuess, TagKind, field_key, is_reserved, parse_types, staged, values_of
from mcp_server.ingest.catalog.fitting import fitted


def learned(values: list[Any]) -> KindGuess:
    guess = KindGuess()
    for raw in values:
        for shape, value in values_of(raw):
            guess.add(shape, value)
    return guess


def tags_of(raw: Any, kind: TagKind) -> tuple[Any, ...]:
    found = (fitted(value, kind) for shape, value in values_of(raw) if shape != "endless")
    return tuple(dict.fromkeys(tag for tag in found if tag is not None))


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
        (["2021-03-01T10:00:30.123456789Z"], "timestamp", [("2021-03-01T10:00:30.123456+00:00",)]),
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
        (["٢٠٢١-٠٣-٠١"], "alphanumerical", [("٢٠٢١-٠٣-٠١",)]),
        (["2005-04-22", "2004-08-39"], "date", [("2005-04-22",), ()]),
        (["2004-08-39", "x"], "alphanumerical", [("2004-08-39",), ("x",)]),
        (["2004-08-39"], "alphanumerical", [("2004-08-39",)]),
        (["4711-12-24", "4711-33-02", "0815-99-07"], "alphanumerical", [("4711-12-24",), ("4711-33-02",), ("0815-99-07",)]),
        (["16:09", "80:20", "99:50"], "alphanumerical", [("16:09",), ("80:20",), ("99:50",)]),
        (["0001-01-01T00:00+02:00", "2021-03-01T00:00"], "timestamp", [(), ("2021-03-01T00:00:00",)]),
    ],
)
def test_a_field_gets_the_narrowest_kind_that_holds_all_its_values(values: list[Any], kind: TagKind, tags: list[Any]) -> None:
    assert learned(values).kind == kind
    found = [tags_of(value, kind) for value in values]
    assert found == tags
    assert [[type(tag) for tag in each] for each in found] == [[type(tag) for tag in each] for each in tags]


def test_without_a_value_that_can_be_stored_there_is_no_kind() -> None:
    assert learned([None, "", [], math.nan]).kind is None


@pytest.mark.parametrize(
    ("values", "spoiled"),
    [
        ([2000] * 9 + ["unknown"], ("numerical_int", 1, "unknown")),
        (["2000-01-01"] * 20 + ["ca. 1900", "never"], ("date", 2, "ca. 1900")),
        ([1, 2**70], ("numerical_int", 1, str(2**70))),
        ([1.5] * 20 + [True], ("numerical_dec", 1, "true")),
        ([2000, "unknown"], None),
        (["red", "blue"], None),
        ([1, 2], None),
    ],
)
def test_a_few_odd_values_that_make_a_field_text_are_named(values: list[Any], spoiled: object) -> None:
    assert learned(values).spoiled() == spoiled


@pytest.mark.parametrize("name", ["CLIP Index ID", "clip index id", "Other Index ID ", "", "  ", "\ud800"])
def test_names_kept_for_the_index_are_no_fields(name: str) -> None:
    assert is_reserved(name)


def test_spellings_that_differ_in_case_blanks_or_accents_alone_are_one_name() -> None:
    assert field_key(" Café ") == field_key("CAFE\u0301")
    assert field_key("a b") != field_key("ab")


@pytest.mark.parametrize(
    ("kind", "value", "stored"),
    [
        ("numerical_int", "007", 7),
        ("numerical_int", "+12", 12),
        ("numerical_int", "12.0", 12),
        ("numerical_int", 12.0, 12),
        ("numerical_int", 12.5, None),
        ("numerical_int", 1e300, None),
        ("numerical_int", "9223372036854775807", 2**63 - 1),
        ("numerical_int", "9223372036854775808", None),
        ("numerical_int", "1e9999", None),
        ("numerical_int", "9" * 5000, None),
        ("numerical_int", "twelve", None),
        ("numerical_int", "true", None),
        ("numerical_dec", "2.50", 2.5),
        ("numerical_dec", "-0.0", 0.0),
        ("numerical_dec", 3, 3.0),
        ("numerical_dec", "1e999", None),
        ("numerical_dec", "nan", None),
        ("numerical_dec", "1,5", None),
        ("date", "2021-03-01", "2021-03-01"),
        ("date", "2021:03:01", "2021-03-01"),
        ("date", "2021:03:01 10:20:30", "2021-03-01"),
        ("date", "2021/3/1", "2021-03-01"),
        ("date", "2021-03-01T23:00:00+02:00", "2021-03-01"),
        ("date", 20210301, "2021-03-01"),
        ("date", "03/04/2021", None),
        ("date", "2021/03-01", None),
        ("date", "2021:02:30", None),
        ("date", "", None),
        ("time", "9:05", "09:05"),
        ("time", "2021:03:01 10:20:30", "10:20:30"),
        ("time", "10:20:30.1234567", "10:20:30.123456"),
        ("time", "2021-03-01", None),
        ("time", "25:00", None),
        ("timestamp", "2021:03:01 10:20:30", "2021-03-01T10:20:30"),
        ("timestamp", "2021/3/1 9:05", "2021-03-01T09:05:00"),
        ("timestamp", "2021-03-01 10:00 +0200", "2021-03-01T08:00:00+00:00"),
        ("timestamp", "20210301", "2021-03-01T00:00:00"),
        ("timestamp", 1614556800, None),
        ("timestamp", "0001-01-01T00:00+02:00", None),
        ("json", '{ "a": [1, "é"] }', '{"a":[1,"é"]}'),
        ("json", 5, "5"),
        ("json", "plain", None),
        ("json", '{"a": NaN}', None),
        ("json", '{"a": 1e999}', None),
        ("json", "[" * 100_000, None),
        ("alphanumerical", 2.5, "2.5"),
        ("alphanumerical", 7, "7"),
        ("alphanumerical", "2021-03-01", "2021-03-01"),
    ],
)
def test_a_field_stores_what_fits_the_kind_it_was_given(kind: TagKind, value: Any, stored: Any) -> None:
    found = fitted(value, kind)
    assert found == stored
    assert type(found) is type(stored)


def test_types_are_read_by_their_everyday_words() -> None:
    assert parse_types("year=int, Taken = DATE,seen=datetime,code=bool,a=b=text") == {
        "year": "numerical_int",
        "Taken": "date",
        "seen": "timestamp",
        "code": "alphanumerical",
        "a=b": "alphanumerical",
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("year", r"'year' is not FIELD=KIND. Write, for example, year=integer,taken=date"),
        ("year=int,", r"'' is not FIELD=KIND"),
        ("year=number5", r"no kind 'number5'. Kinds are text, bool, integer, int, decimal"),
        ("Year=int,year=text", r"names 'year' twice"),
        ("CLIP Index ID=text", r"a field may not be called so"),
    ],
)
def test_types_that_cannot_be_read_say_what_is_accepted(text: str, says: str) -> None:
    with pytest.raises(IngestError, match=says):
        parse_types(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates().map(str) | st.datetimes().map(str),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
TYPES: dict[str, type] = {"numerical_int": int, "numerical_dec": float}
KINDS: list[TagKind] = ["alphanumerical", "timestamp", "time", "date", "numerical_int", "numerical_dec", "json"]


@given(JSON, st.sampled_from(KINDS))
def test_whatever_json_can_hold_becomes_tags_that_sqlite_can_store_and_fitting_them_again_changes_nothing(raw: Any, kind: TagKind) -> None:
    for tag in tags_of(json.loads(json.dumps(raw)), kind):
        assert type(tag) is TYPES.get(kind, str)
        if isinstance(tag, int):
            assert -(2**63) <= tag < 2**63
        elif isinstance(tag, float):
            assert math.isfinite(tag)
        else:
            assert tag.encode("utf-8")
        again = staged(tag)
        assert again is None or fitted(again[1], kind) == tag


@given(st.lists(JSON, max_size=6))
def test_every_value_but_impossible_moments_fits_the_kind_its_field_gets(values: list[Any]) -> None:
    guess = learned(json.loads(json.dumps(values)))
    for raw in json.loads(json.dumps(values)):
        for shape, value in values_of(raw):
            if shape not in ("impossible", "endless"):
                assert guess.kind is not None
                assert fitted(value, guess.kind) is not None or guess.kind == "json"
