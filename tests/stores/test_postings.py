"""The union of any owners is what plain sets say, whichever of them are kept as bits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.stores.bits import bits_of_mask, bits_of_rows, count_bits, mask_of_bits, words
from mcp_server.stores.postings import Postings, build_postings, spans_of, spans_of_owners

SIZES = (1, 7, 8, 63, 64, 65, 200, 1_003)


@st.composite
def lists(draw: st.DrawFn) -> tuple[int, list[set[int]]]:
    """How many rows there are, and the rows of each owner: of none, of a few, or of most."""
    size = draw(st.sampled_from(SIZES))
    few = st.sets(st.integers(0, size - 1), max_size=4)
    most = few.map(lambda some: set(range(size)) - some)
    return size, draw(st.lists(st.one_of(st.just(set[int]()), few, few, most), min_size=1, max_size=20))


def posted(size: int, owners: list[set[int]]) -> Postings:
    pairs = [(owner, row) for owner, rows in enumerate(owners) for row in rows for _ in range(2)]
    array = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return build_postings(array[::-1, 0].copy(), array[::-1, 1].copy(), len(owners), size)


def rows_in(postings: Postings, spans: np.ndarray) -> set[int]:
    bits = postings.union(spans)
    assert len(bits) == words(postings.row_count)
    assert count_bits(bits) == np.count_nonzero(mask_of_bits(bits, postings.row_count)), "the bits after the last row are 0"
    return set(np.flatnonzero(mask_of_bits(bits, postings.row_count)).tolist())


@given(lists(), st.data())
def test_unions_are_those_of_plain_sets(case: tuple[int, list[set[int]]], data: st.DataObject) -> None:
    size, owners = case
    postings = posted(size, owners)
    edges = st.integers(0, len(owners))
    slices = data.draw(st.lists(st.tuples(edges, edges), max_size=5))
    expected = set[int]().union(*(rows for start, stop in slices for rows in owners[start:stop]))
    assert rows_in(postings, spans_of(np.array(slices, np.int64).reshape(-1, 2))) == expected
    chosen = sorted(data.draw(st.sets(st.integers(0, len(owners) - 1))))
    assert rows_in(postings, spans_of_owners(np.array(chosen, np.int64))) == set[int]().union(*(owners[one] for one in chosen))


@given(st.integers(0, 40), st.integers(0, 40))
def test_a_range_of_many_common_values_is_what_each_of_them_has(start: int, stop: int) -> None:
    owners = [{owner, owner + 1, 60} for owner in range(40)]
    assert rows_in(posted(61, owners), spans_of(np.array([(start, stop)]))) == set[int]().union(*owners[start:stop])


def test_unions_in_several_threads_at_once_are_those_of_one() -> None:
    owners = [set(range(owner, 5_000, 7 + owner % 5)) for owner in range(60)]
    postings = posted(5_000, owners)
    slices = [(start, start + 17) for start in range(40)] * 5
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda span: rows_in(postings, spans_of(np.array([span]))), slices))
    assert found == [set[int]().union(*owners[start:stop]) for start, stop in slices]


@given(lists())
def test_blocks_take_no_more_memory_than_the_lists_and_hold_what_they_say(case: tuple[int, list[set[int]]]) -> None:
    size, owners = case
    postings = posted(size, owners)
    blocks = postings.blocks
    assert len(blocks.starts) <= postings.rows.size / max(1, size // 32)
    assert np.all(blocks.starts < blocks.stops)
    assert np.all(blocks.stops[:-1] <= blocks.starts[1:])
    for start, stop, bits in zip(blocks.starts.tolist(), blocks.stops.tolist(), blocks.bits, strict=True):
        assert set(np.flatnonzero(mask_of_bits(bits, size)).tolist()) == set[int]().union(*owners[start:stop])
    for owner, rows in enumerate(owners):
        if len(rows) >= max(1, size // 32):
            inside = (blocks.starts <= owner) & (owner < blocks.stops)
            assert blocks.stops[inside] - blocks.starts[inside] == 1, "an owner of many rows can be asked for alone"


@pytest.mark.parametrize("stretches", [3, 64, 65, 4_000])
def test_many_short_stretches_are_put_together_as_a_few_are(stretches: int) -> None:
    size = 20_000
    owners = [{row} for row in range(size)]
    postings = posted(size, owners)
    wanted = np.arange(0, 2 * stretches, 2)
    assert rows_in(postings, spans_of_owners(wanted)) == set(wanted.tolist())


@pytest.mark.parametrize("size", [0, *SIZES, 50_001])
def test_bits_come_back_as_they_went_in(size: int) -> None:
    rng = np.random.default_rng(size)
    mask = rng.random(size) < 0.5
    assert np.array_equal(mask_of_bits(bits_of_mask(mask), size), mask)
    rows = np.flatnonzero(mask)
    assert np.array_equal(bits_of_rows([rows, rows[::-1]], size), bits_of_mask(mask))
    assert np.array_equal(bits_of_rows([rows.astype(np.int32)], size), bits_of_mask(mask))
    assert count_bits(bits_of_mask(mask)) == len(rows)
