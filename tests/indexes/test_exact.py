"""What the exact index does at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_server.errors import IndexMismatchError
from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.exact import ExactIndex
from mcp_server.indexes.scoring import cosines, unit_query
from tests.contracts.index_contract import assert_exact, clustered, oracle, unit

NONE = np.zeros(0, bool)


def test_an_empty_collection_answers_with_nothing() -> None:
    index = ExactIndex(Embeddings.from_rows(np.zeros((0, 8), np.float16)))
    found = index.search(np.ones(8, np.float32), 5, NONE)
    assert (index.size, index.width) == (0, 8)
    assert found.rows.tolist() == []
    assert found.scores.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_single_row_is_found(dtype: type) -> None:
    index = ExactIndex(Embeddings.from_rows(np.array([[0.6, 0.8]], dtype)))
    found = index.search(np.array([1, 0], np.float32), 5, np.zeros(1, bool))
    assert found.rows.tolist() == [0]
    assert found.scores[0] == pytest.approx(0.6, abs=1e-3)


def test_more_rows_than_there_are_gives_all_of_them() -> None:
    index = ExactIndex(Embeddings.from_rows(np.eye(4, dtype=np.float32)))
    assert index.search(np.array([0, 0, 1, 0], np.float32), 10**9, np.zeros(4, bool)).rows.tolist() == [2, 0, 1, 3]


def test_equal_scores_without_keys_come_by_ascending_row() -> None:
    rows = np.repeat(clustered(3, 1), 2000, axis=0)
    index = ExactIndex(Embeddings.from_rows(rows))
    skip = np.zeros(2000, bool)
    skip[[0, 5]] = True
    assert index.search(rows[0], 6, skip).rows.tolist() == [1, 2, 3, 4, 6, 7]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_tie_at_the_last_place_goes_to_the_lowest_key_wherever_it_lies(dtype: type) -> None:
    """3,000 copies of one row: the scan alone would return any of them."""
    rows = clustered(4, 6000, 64).astype(dtype)
    rows[3000:] = rows[17]
    ties = np.arange(6000, dtype=np.int64)[::-1].copy()
    index = ExactIndex(Embeddings.from_rows(rows), ties)
    query = unit(rows[17].astype(np.float32))
    assert index.search(query, 5, np.zeros(6000, bool)).rows.tolist() == [5999, 5998, 5997, 5996, 5995]
    assert_exact(index, rows, ties, query, k=4000, skip=np.zeros(6000, bool))


def test_rows_that_differ_by_less_than_the_scan_can_see_are_still_in_the_right_order() -> None:
    random = np.random.default_rng(8)
    base = clustered(5, 1, 256)[0]
    rows = unit(base + 1e-6 * random.standard_normal((5000, 256)))
    index = ExactIndex(Embeddings.from_rows(rows))
    for query in clustered(6, 5, 256):
        for k in (1, 10, 100):
            assert_exact(index, rows, np.arange(5000), query, k=k, skip=random.random(5000) < 0.3)


def test_a_rows_score_does_not_depend_on_where_it_stands() -> None:
    random = np.random.default_rng(9)
    for width in (1, 2, 3, 7, 8, 17, 64, 511, 1152):
        row = random.standard_normal(width).astype(np.float16)
        query = unit_query(random.standard_normal(width), width)
        rows = random.standard_normal((1200, width)).astype(np.float16)
        rows[rows.any(axis=1) == 0] = 1
        places = np.array([0, 1, 2, 3, 5, 510, 511, 512, 513, 1023, 1199])
        rows[places] = row
        stored = Embeddings.from_rows(rows)
        alone = set(cosines(stored, np.array([3]), query).tolist())
        assert set(cosines(stored, np.arange(1200), query)[places].tolist()) == set(cosines(stored, places, query).tolist()) == alone


@given(data=st.data(), size=st.integers(0, 40), width=st.integers(1, 5))
@settings(max_examples=150, deadline=None)
def test_small_coarse_collections_full_of_ties_equal_the_oracle(data: st.DataObject, size: int, width: int) -> None:
    """Coordinates from a handful of values: zero rows, opposite rows, scaled copies, NaN and infinity all turn up."""
    numbers = st.sampled_from([0.0, 0.0, 1.0, -1.0, 2.0, 0.5, float("nan"), float("inf")])
    drawn = data.draw(st.lists(numbers, min_size=size * width, max_size=size * width))
    rows = np.array(drawn, np.float32).reshape(size, width).astype(data.draw(st.sampled_from([np.float16, np.float32])))
    ties = np.array(data.draw(st.permutations(range(size))), np.int64)
    skip = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)), bool)
    query = np.array(data.draw(st.lists(st.sampled_from([1.0, -1.0, 0.25]), min_size=width, max_size=width)), np.float32)
    found = ExactIndex(Embeddings.from_rows(rows), ties).search(query, data.draw(st.integers(1, size + 5)), skip)
    with np.errstate(invalid="ignore"):
        everything = oracle(rows, query, size, skip, ties)
    expected = dict(zip(everything[0].tolist(), everything[1].tolist(), strict=True))
    assert len(set(found.rows.tolist())) == len(found.rows)
    assert set(found.rows.tolist()) <= set(expected)
    np.testing.assert_allclose(found.scores, everything[1][: len(found.scores)], atol=1e-7)
    np.testing.assert_allclose(found.scores, [expected[row] for row in found.rows.tolist()], atol=1e-7)
    same = np.diff(found.scores) == 0
    assert np.all(np.diff(ties[found.rows])[same] > 0)


def test_one_tie_key_per_row_is_needed() -> None:
    with pytest.raises(IndexMismatchError, match="3 tie keys for 4 rows"):
        ExactIndex(Embeddings.from_rows(np.eye(4, dtype=np.float32)), np.arange(3))


def test_best_score_is_that_of_the_nearest_usable_row_among_those_given() -> None:
    rows = np.array([[1, 0], [0.6, 0.8], [0, 1], [np.nan, 0]], np.float32)
    index = ExactIndex(Embeddings.from_rows(rows))
    query = np.array([1, 0], np.float32)
    assert index.best_score(query, np.array([3, 2, 1])) == pytest.approx(0.6)
    assert index.best_score(query, np.array([3])) is None
    assert index.best_score(query, np.array([], np.int64)) is None


@pytest.mark.parametrize("rows", [[-1], [0, 2]])
def test_best_score_of_a_row_outside_is_refused(rows: list[int]) -> None:
    index = ExactIndex(Embeddings.from_rows(np.eye(2, dtype=np.float32)))
    with pytest.raises(IndexMismatchError, match=r"Rows must lie in 0\.\.1"):
        index.best_score(np.array([1, 0], np.float32), np.array(rows))
