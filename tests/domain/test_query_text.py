"""Descriptions and weights: what a model writes is read as meant, and what cannot be meant is refused with the way out."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.domain.query_text import parse_texts
from mcp_server.domain.search import WeightedText
from mcp_server.errors import MESSAGE_LIMIT, BadArgumentError


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("a red car", [("a red car", 1)]),
        ("2: a red car", [("2: a red car", 1)]),
        ("- night", [("- night", 1)]),
        ("[a picture in brackets", [("[a picture in brackets", 1)]),
        (["2: red car", "- night"], [("red car", 2), ("night", -1)]),
        ('["2: red car", "- night"]', [("red car", 2), ("night", -1)]),
        (["-leash", "+ dog", "rain"], [("leash", -1), ("dog", 1), ("rain", 1)]),
        (["-0.5: night", "+1.5:day"], [("night", -0.5), ("day", 1.5)]),
        (["\N{MINUS SIGN}0.5: night", "\N{MINUS SIGN} rain"], [("night", -0.5), ("rain", -1)]),
        (["-.5: night", "+ .25 : day", "2.: rain"], [("night", -0.5), ("day", 0.25), ("rain", 2)]),
        ("['Hello' on a sign", [("['Hello' on a sign", 1)]),
        (["12:30 on a clock"], [("12:30 on a clock", 1)]),
        (["1: 12:30 on a clock"], [("12:30 on a clock", 1)]),
        (["a: b"], [("a: b", 1)]),
        (None, []),
    ],
)
def test_texts_are_read_as_they_are_meant(raw: Any, expected: list[tuple[str, float]]) -> None:
    assert parse_texts(raw) == tuple(WeightedText(text, weight) for text, weight in expected)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("  ", "blank"),
        ([], "empty list"),
        (["a", "  "], "blank"),
        (["2: "], "blank"),
        (["-"], "blank"),
        (["0: a"], "not 0"),
        (["11: a"], "-10 to 10"),
        (["-" + "9" * 400 + ": a"], "-10 to 10"),
        (["a"] * 17, "at most 16"),
        (["a", 3], "in quotes"),
        (["a", ["b"]], "got a list among them"),
        ({"a": 1}, "an object"),
        (True, "true"),
        ("x" * 1_001, "1,001 characters"),
        (["x" * 1_001], "1,001 characters"),
        ("['2: red car', '- night']", "double quotes"),
        ('["red",]', "no comma at the end"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_is_accepted(raw: Any, words: str) -> None:
    with pytest.raises(BadArgumentError, match=words) as caught:
        parse_texts(raw)
    assert len(caught.value.message) <= MESSAGE_LIMIT


@pytest.mark.parametrize("raw", [[" " * 500_000 + "x"], ["+" + " " * 500_000 + "x"], "['x'" + " " * 500_000 + "x", "['x'," * 100_000])
def test_a_text_of_any_length_is_read_once(raw: Any) -> None:
    with suppress(BadArgumentError):  # read at every length, half a million blanks take hours
        parse_texts(raw)


@given(
    st.lists(
        st.tuples(st.text("abc äß", min_size=1).filter(str.strip), st.sampled_from([-10, -1.5, -1, 0.25, 1, 2, 10])),
        min_size=1,
        max_size=16,
    )
)
def test_weights_written_out_come_back(parts: list[tuple[str, float]]) -> None:
    written = [f"{weight:g}: {text}" for text, weight in parts]
    expected = tuple(WeightedText(text.strip(), weight) for text, weight in parts)
    assert parse_texts(written) == parse_texts(json.dumps(written)) == expected
