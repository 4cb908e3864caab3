"""Texts kept in one array read, sort, and are searched as a list of them would be."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mcp_server.stores import columns
from mcp_server.stores.columns import Numbers, Texts

SHORT = st.text(alphabet="abé日\0𝄞 ", max_size=5)


@given(st.lists(st.one_of(SHORT, st.text(max_size=6)), max_size=30))
@example(["", "", "a"])
def test_texts_are_what_they_were_made_of(words: list[str]) -> None:
    texts = Texts.of(words)
    assert len(texts) == len(words)
    assert list(texts) == words
    assert [texts[at] for at in range(len(words))] == words
    assert texts[1:3] == words[1:3]
    assert words == [] or texts[-1] == words[-1]


@given(st.sets(SHORT), SHORT)
@example({"a", "b"}, "\ud800")
def test_an_ascending_text_is_found_where_it_is(words: set[str], asked: str) -> None:
    ordered = sorted(words)
    texts = Texts.of(ordered)
    expected = [*range(len(ordered)), ordered.index(asked) if asked in words else None]
    with patch.object(columns, "_LISTED", 0):  # each looked for among the bytes
        assert texts.find([*ordered, asked]) == expected
    assert texts.find([*ordered, asked]) == expected


@given(st.lists(SHORT, max_size=30), st.one_of(SHORT, st.text(max_size=2)))
@example(["ab", "ba"], "ba")
@example(["a", "b"], "ab")
@example(["", "aaa", ""], "aa")
@example(["é"], "\ud800")
def test_texts_that_contain_a_part_are_those_a_list_has(words: list[str], part: str) -> None:
    expected = [at for at, word in enumerate(words) if part in word]
    assert Texts.of(words).containing(part).tolist() == expected


def test_a_part_across_the_edge_of_what_is_searched_at_once_is_found() -> None:
    edge = columns._CHUNK
    words = ["x" * (edge - 3), "abcdef", "x" * (edge - 4) + "abcdef"]
    assert Texts.of(words).containing("abcdef").tolist() == [1, 2]
    assert Texts.of(["x" * (edge + 1)]).containing("x" * edge).tolist() == [0]


def test_a_part_that_is_nearly_everywhere_is_found_as_a_rare_one_is() -> None:
    rng = np.random.default_rng(3)
    words = ["".join(rng.choice(list("ab"), 7)) + ("é" if at % 50 == 0 else "") for at in range(3_000)]
    for part in ("a", "ab", "bab", "aaaaaaa", "é", "bé", "x"):
        assert Texts.of(words).containing(part).tolist() == [at for at, word in enumerate(words) if part in word], part


@pytest.mark.parametrize("count", [4_095, 4_096, 4_097, 20_000])
def test_each_of_very_many_texts_is_found_and_no_other(count: int) -> None:
    ordered = sorted(f"value {number * 37 % count}" for number in range(count))
    texts = Texts.of(ordered)
    asked = [ordered[1_234], *(text + "\x00" for text in ordered[::997]), "", "value", "zebra"]
    few, many = texts.find(asked), texts.find(ordered)
    assert few == [1_234] + [None] * (len(asked) - 1)
    assert many == list(range(count))
    assert texts.find(asked) == few


def test_listing_texts_waits_until_so_many_were_looked_for_that_it_pays() -> None:
    texts = Texts.of(sorted(str(number) for number in range(10_000)))
    for _ in range(10_000 // columns._SOUGHT_SHARE - 1):
        texts.find(["5000"])
    assert "_places_of_texts" not in vars(texts)
    texts.find(["5000", "5001"])
    assert "_places_of_texts" in vars(texts)


def test_numbers_are_pythons_own() -> None:
    numbers = Numbers(np.array([2**60 + 1, -1]))
    assert list(numbers) == [2**60 + 1, -1]
    assert numbers[0:1] == [2**60 + 1]
    assert type(numbers[0]) is int
    assert type(Numbers(np.array([0.5]))[0]) is float
