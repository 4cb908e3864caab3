"""Tagsets that share a name, and values that compare in ways worth pinning down."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import astuple
from pathlib import Path

import pytest

from mcp_server.domain.filter_syntax import parse_filter
from mcp_server.domain.tagset_names import is_internal
from mcp_server.errors import UnknownFieldError
from mcp_server.stores.catalog import Catalog
from mcp_server.stores.fields import fields_of
from mcp_server.stores.filter_index import FilterIndex
from mcp_server.stores.schema import Tagset
from mcp_server.stores.values import asked_period, stored_key
from tests import m3


def test_tagsets_of_one_name_and_kind_are_one_field(tmp_path: Path) -> None:
    medias = [m3.Media(1, 0, tags={"Tag": ["x"], "tag": ["y"]}), m3.Media(2, 1, tags={"tag": ["X"]})]
    with closing(Catalog.open(m3.build(tmp_path / "c.db", medias), 2)) as catalog:
        index = FilterIndex(catalog)
        (field,) = index.fields
        assert astuple(field) == ("Tag", "text", 1, (1, 2), "Tag")
        assert index.evaluate(parse_filter({"TAG": "x"})).count == 2
        tree = {"kind": "leaf", "filter": {"id": 2, "constraint": {"value_ids": [103]}}}
        assert index.evaluate(parse_filter(tree)).count == 1


def test_a_range_by_id_keeps_to_its_own_tagset_of_a_merged_field(tmp_path: Path) -> None:
    medias = [m3.Media(1, 0, tags={"Year": [5]}), m3.Media(2, 1, tags={"year": [6]})]
    types = {"Year": "numerical_int", "year": "numerical_int"}
    with closing(Catalog.open(m3.build(tmp_path / "c.db", medias, types), 2)) as catalog:
        index = FilterIndex(catalog)
        assert index.evaluate(parse_filter({"year": {"gte": 0}})).count == 2
        for tagset, row in ((1, 0), (2, 1)):
            tree = {"kind": "leaf", "filter": {"id": tagset, "constraint": {"lower_bound": 0}}}
            assert index.evaluate(parse_filter(tree)).mask.tolist() == [row == 0, row == 1]


def test_tagsets_of_one_name_and_two_kinds_are_told_apart(tmp_path: Path) -> None:
    medias = [m3.Media(1, 0, tags={"Year": [5], "year": ["five"]})]
    with closing(Catalog.open(m3.build(tmp_path / "c.db", medias, {"Year": "numerical_int"}), 1)) as catalog:
        index = FilterIndex(catalog)
        assert [field.name for field in index.fields] == ["Year (integer)", "year (text)"]
        assert index.evaluate(parse_filter({"year (INTEGER)": 5, "Year (text)": "FIVE"})).count == 1
        with pytest.raises(UnknownFieldError, match=r'"Year \(integer\)", "year \(text\)"'):
            index.evaluate(parse_filter({"Year": 5}))
        assert catalog.items_at([0], "full")[0].tags == {"Year (integer)": [5], "year (text)": ["five"]}


def test_a_name_made_longer_never_hides_a_real_field() -> None:
    tagsets = [Tagset(1, "a", 1, "text"), Tagset(2, "A", 2, "date"), Tagset(3, "a (text)", 1, "text"), Tagset(4, "", 1, "text")]
    assert [field.name for field in fields_of(tagsets)] == ["a (text) #1", "A (date)", "a (text)", "tagset 4"]


@pytest.mark.parametrize(
    ("name", "internal"),
    [("CLIP Index ID", True), ("x index id ", True), ("INDEX ID", True), ("SigLIP_Index_ID", True), ("Index ID of x", False)],
)
def test_only_names_that_end_in_index_id_are_internal(name: str, internal: bool) -> None:
    assert is_internal(name) is internal


def test_tags_without_a_value_count_as_tagged_only(tmp_path: Path) -> None:
    medias = [m3.Media(1, 0, tags={"a": [None]}), m3.Media(2, 1, tags={"a": ["x"]})]
    with closing(Catalog.open(m3.build(tmp_path / "c.db", medias), 2)) as catalog:
        index = FilterIndex(catalog)
        assert index.evaluate(parse_filter({"a": {"exists": True}})).count == 2
        assert index.evaluate(parse_filter({"a": "x"})).count == 1
        tree = {"kind": "leaf", "filter": {"id": 1, "constraint": {"value_ids": [100]}}}
        assert index.evaluate(parse_filter(tree)).mask.tolist() == [True, False]
        assert catalog.items_at([0], "full")[0].tags == {}


def test_a_tag_with_two_values_has_the_lower_one_everywhere(tmp_path: Path) -> None:
    path = m3.build(tmp_path / "c.db", [m3.Media(1, 0, tags={"a": ["x"]})], layout="published")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO categorical_tags VALUES (1, 100, 'z'), (2, 100, 'b')")
    with closing(Catalog.open(path, 1)) as catalog:
        index = FilterIndex(catalog)
        assert index.evaluate(parse_filter({"a": "b"})).count == 1
        assert [list(index.data(field).shown) for field in index.fields] == [["b"]]
        assert catalog.items_at([0], "full")[0].tags == {"a": ["b"]}


def test_a_tagging_to_a_tag_that_is_gone_is_passed_over(tmp_path: Path) -> None:
    path = m3.build(tmp_path / "c.db", [m3.Media(1, 0, tags={"a": ["x"]})])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO taggings VALUES (1, 9999), (8888, 100), (NULL, 100)")
    with closing(Catalog.open(path, 1)) as catalog:
        index = FilterIndex(catalog)
        assert index.evaluate(parse_filter({"a": "x"})).count == 1
        assert catalog.items_at([0], "full")[0].tags == {"a": ["x"]}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("integer", "2.5"),
        ("integer", 2**70),
        ("integer", "1e400"),
        ("integer", "１２"),
        ("number", "inf"),
        ("number", "1_000"),
        ("number", "1,5"),
        ("number", float("inf")),
        ("date", "2021-02-29"),
        ("date", "0000-01-01"),
        ("date", "21-01-01"),
        ("date", ""),
        ("time", "24:00"),
        ("time", "10:60"),
        ("timestamp", "2021-01-01T25:00"),
        ("timestamp", "2021T10"),
    ],
)
def test_stored_values_that_are_not_of_their_kind_have_no_key(kind: str, value: object) -> None:
    assert stored_key(kind, value) is None  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("kind", "smaller", "larger"),
    [
        ("integer", "9", "10"),
        ("integer", 2**62, 2**62 + 1),
        ("number", "9.5", "10.25"),
        ("number", "-1e3", "1E-3"),
        ("date", "0001-01-01", "9999-12-31"),
        ("date", "2021-9-30", "2021-10-01"),
        ("time", "9:59", "10:00"),
        ("timestamp", "2021-01-01T10:00+02:00", "2021-01-01T09:00Z"),
        ("timestamp", "2021-01-01 10:00:00.1", "2021-01-01T10:00:00,2"),
    ],
)
def test_stored_values_sort_as_what_they_mean(kind: str, smaller: object, larger: object) -> None:
    low, high = stored_key(kind, smaller), stored_key(kind, larger)  # pyright: ignore[reportArgumentType]
    assert low is not None
    assert high is not None
    assert low < high


def test_a_leap_february_ends_on_its_last_day() -> None:
    period = asked_period("date", "2024-02")
    last = stored_key("date", "2024-02-29")
    after = stored_key("date", "2024-03-01")
    assert period is not None
    assert last is not None
    assert after is not None
    assert last <= period.last < after
