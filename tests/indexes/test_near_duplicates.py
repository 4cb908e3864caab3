"""Near-duplicates: each item joins the first earlier original like it, the same with cells and without."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mcp_server.indexes.near_duplicates import GATHER_ROWS, first_like

ALWAYS_CELLS = 0
WIDTH = 24
Reader = Callable[[NDArray[np.int64]], NDArray[np.float32]]


def unit(vectors: NDArray) -> NDArray[np.float32]:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def with_copies(seed: int, size: int, width: int = WIDTH, share: float = 0.4, noise: float = 0.25) -> NDArray[np.float32]:
    """Unit vectors of which `share` are noisy copies of others, at cosines on both sides of 0.95."""
    random = np.random.default_rng(seed)
    vectors = unit(random.standard_normal((size, width)))
    copies = random.permutation(size)[: int(share * size)]
    length = noise * random.random((len(copies), 1)) * 2
    return_to = random.integers(0, size, len(copies))
    vectors[copies] = unit(vectors[return_to] + length * random.standard_normal((len(copies), width)) / np.sqrt(width))
    return vectors


def gather_of(vectors: NDArray[np.float32]) -> Reader:
    def gather(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        assert 0 < len(rows) <= GATHER_ROWS
        return vectors[rows]

    return gather


def slow(vectors: NDArray[np.float32], threshold: float, known: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rule, word for word."""
    wide = vectors.astype(np.float64)
    result = np.full(len(wide), -1)
    result[known == np.arange(len(wide))] = np.flatnonzero(known == np.arange(len(wide)))
    for item in range(len(wide)):
        wished = known[item]
        if wished >= 0 and (result[wished] == wished):
            result[item] = wished
            continue
        originals = np.flatnonzero(result[:item] == np.arange(item))
        mine = np.broadcast_to(wide[item], (len(originals), wide.shape[1]))
        near = originals[np.einsum("ij,ij->i", wide[originals], mine) >= threshold]
        result[item] = near[0] if len(near) else item
    return result


def undecided(size: int) -> NDArray[np.int64]:
    return np.full(size, -1, np.int64)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    size=st.integers(1, 150),
    threshold=st.sampled_from([0.5, 0.9, 0.95, 1.0]),
    data=st.data(),
)
def test_every_item_joins_the_first_earlier_original_like_it(seed: int, size: int, threshold: float, data: st.DataObject) -> None:
    vectors = with_copies(seed, size, width=5)
    known = np.array(data.draw(st.lists(st.sampled_from([-1, -1, *range(size)]), min_size=size, max_size=size)), np.int64)
    rows = np.random.default_rng(seed).permutation(size).astype(np.int64)
    stored = np.empty_like(vectors)
    stored[rows] = vectors
    assert first_like(gather_of(stored), rows, threshold, known).tolist() == slow(vectors, threshold, known).tolist()


@pytest.mark.parametrize("size", [1023, 1024, 2600])
def test_blocks_do_not_show_in_the_result(size: int) -> None:
    vectors = with_copies(3, size)
    known = slow(vectors[: size // 2], 0.95, undecided(size // 2))
    for before in (undecided(size), np.concatenate([known, undecided(size - size // 2)])):
        assert first_like(gather_of(vectors), np.arange(size), 0.95, before).tolist() == slow(vectors, 0.95, before).tolist()


def test_a_run_that_goes_on_from_an_earlier_one_gives_what_one_run_gives() -> None:
    vectors = with_copies(8, 3000)
    rows = np.arange(3000)
    whole = first_like(gather_of(vectors), rows, 0.95, undecided(3000))
    known = undecided(3000)
    for end in (1, 700, 701, 2200, 3000):
        known[:end] = first_like(gather_of(vectors), rows[:end], 0.95, known[:end])
    assert known.tolist() == whole.tolist()


def test_nothing_is_read_when_everything_is_known() -> None:
    def gather(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        raise AssertionError(rows)

    known = np.array([0, 0, 2, 0])
    assert first_like(gather, np.arange(4), 0.9, known).tolist() == [0, 0, 2, 0]
    assert first_like(gather, np.arange(0), 0.9, undecided(0)).tolist() == []


def test_likeness_does_not_pass_from_item_to_item() -> None:
    angles = np.deg2rad([0, 20, 40, 60])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert first_like(gather_of(vectors), np.arange(4), np.cos(np.deg2rad(25)), undecided(4)).tolist() == [0, 0, 2, 2]


@pytest.mark.parametrize(
    ("known", "expected"), [([0, 0, -1, 2], [0, 0, 0, 0]), ([0, 1, -1, 1], [0, 1, 0, 1]), ([3, -1, 1, 3], [3, 1, 1, 3])]
)
def test_a_known_assignment_stands_as_long_as_its_original_does(known: list[int], expected: list[int]) -> None:
    vectors = np.ones((4, 1), np.float32)
    assert first_like(gather_of(vectors), np.arange(4), 0.9, np.array(known)).tolist() == expected


def test_wrong_positions_are_refused() -> None:
    for known in ([0], [0, 2], [0, -2]):
        with pytest.raises(ValueError, match=r"positions in -1\.\.1"):
            first_like(gather_of(np.ones((2, 1), np.float32)), np.arange(2), 0.9, np.array(known))


def test_with_cells_nearly_every_duplicate_is_found_and_none_made_up() -> None:
    vectors = with_copies(5, 6000, width=64)
    exact = first_like(gather_of(vectors), np.arange(6000), 0.95, undecided(6000))
    found = first_like(gather_of(vectors), np.arange(6000), 0.95, undecided(6000), ALWAYS_CELLS)
    duplicates = exact != np.arange(6000)
    assert np.mean(found[duplicates] == exact[duplicates]) > 0.97
    joined = np.flatnonzero(found != np.arange(6000))
    cosines = np.einsum("ij,ij->i", vectors[joined].astype(np.float64), vectors[found[joined]].astype(np.float64))
    assert cosines.min() >= 0.95
    assert np.array_equal(found[found], found)
    assert np.all(found[joined] < joined)


def test_with_cells_the_same_input_gives_the_same_result() -> None:
    vectors = with_copies(6, 3000)
    first, again = (first_like(gather_of(vectors), np.arange(3000), 0.95, undecided(3000), ALWAYS_CELLS) for _ in range(2))
    assert first.tolist() == again.tolist()


def test_thousands_of_copies_of_one_picture_all_join_the_first() -> None:
    vectors = with_copies(7, 7000, share=0)
    copies = np.sort(np.random.default_rng(7).permutation(7000)[:5000])
    vectors[copies] = vectors[0]
    expected = np.arange(7000)
    expected[copies] = min(copies[0], 0)
    for pairs in (ALWAYS_CELLS, 10**9):
        assert first_like(gather_of(vectors), np.arange(7000), 0.95, undecided(7000), pairs).tolist() == expected.tolist()


def test_of_thousands_alike_only_the_first_are_held_against_the_others() -> None:
    vectors = np.repeat(with_copies(8, 1), 5000, axis=0)
    reads: list[int] = []

    def gather(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        reads.append(len(rows))
        return vectors[rows]

    assert not first_like(gather, np.arange(5000), 0.95, undecided(5000), ALWAYS_CELLS).any()
    assert sum(reads) < 4 * 5000  # for the cells, into the cells, each to be decided; and hardly any to hold them against


def test_with_cells_an_original_behind_many_duplicates_is_found() -> None:
    """Forty items like the last one belong to another original; the one original like it comes after them."""
    angles = np.deg2rad([0.0] + [20.0] * 40 + [40.0, 25.0])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    exact = first_like(gather_of(vectors), np.arange(43), np.cos(np.deg2rad(22)), undecided(43))
    assert exact.tolist() == [0] * 41 + [41, 41]
    assert first_like(gather_of(vectors), np.arange(43), np.cos(np.deg2rad(22)), undecided(43), ALWAYS_CELLS).tolist() == exact.tolist()


def test_only_what_is_near_something_undecided_is_read_again() -> None:
    vectors = with_copies(9, 6000, width=64)
    known = first_like(gather_of(vectors), np.arange(6000), 0.95, undecided(6000))
    known[-5:] = -1
    reads = np.zeros(6000, int)

    def gather(rows: NDArray[np.int64]) -> NDArray[np.float32]:
        reads[rows] += 1
        return vectors[rows]

    found = first_like(gather, np.arange(6000), 0.95, known, ALWAYS_CELLS)
    assert np.array_equal(found[:-5], known[:-5])
    settled_duplicates = np.flatnonzero(known[:-5] != np.arange(5995))
    assert reads[settled_duplicates].sum() == 0
    assert np.mean(reads > 2) < 0.2
