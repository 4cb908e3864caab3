"""Which group a picture is in, by the four ways of `--group-by`."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mcp_server.errors import IngestError
from mcp_server.ingest.grouping import parse_grouping


@pytest.mark.parametrize(
    ("text", "source", "group"),
    [
        ("folder", "a/b/c.png", "a/b"),
        ("folder", "c.png", None),
        ("Stem", "a/b/c.tar.png", "a/b/c.tar"),
        ("stem", "c.png", "c"),
        (r"^([^_]+)_\d+", "video7_0001.png", "video7"),
        (r"^([^_]+)_\d+", "other.png", None),
        (r"v\d+", "a/v12/v13.png", "v12"),
        (r"(x)?\.png", "a.png", None),
        (r"(\s*)\.png", "a.png", None),
        (r"v\d+", "v1/" + "a" * 2000, None),
    ],
)
def test_paths_are_grouped_by_folder_stem_or_expression(text: str, source: str, group: str | None) -> None:
    assert parse_grouping(text).group_of(source, {}) == group


@pytest.mark.parametrize(
    ("fields", "group"),
    [
        ({"video id": "v1"}, "v1"),
        ({"Video ID ": ["v2", "v1"]}, "v2"),
        ({"VIDEO ID": 7}, "7"),
        ({"video id": True}, "true"),
        ({"video id": None, "Video ID": "v3"}, "v3"),
        ({"video id": [None, " ", math.nan, {"a": 1}, "v4"]}, "v4"),
        ({"video id": []}, None),
        ({"video": "v1"}, None),
    ],
)
def test_a_field_groups_by_its_first_value_whatever_the_letter_case_of_its_name(fields: dict[str, Any], group: str | None) -> None:
    grouping = parse_grouping(" Video ID ")
    assert grouping.field == "Video ID"
    assert grouping.group_of("a/b.png", fields) == group


def test_only_stems_drop_groups_of_one() -> None:
    assert parse_grouping("stem").drops_singles
    assert not any(parse_grouping(text).drops_singles for text in ("folder", "video", r"\d+"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (" ", r"blank. Give folder, stem, the name of a field, or a regular expression"),
        ("(a", r"'\(a' is no regular expression: missing \).*first group, or else the whole match"),
        ("a*", r"matches the empty text"),
    ],
)
def test_what_cannot_be_a_grouping_is_refused_with_a_way_on(text: str, says: str) -> None:
    with pytest.raises(IngestError, match=says):
        parse_grouping(text)
