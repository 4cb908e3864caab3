"""What every index promises, held against a five-line oracle: `IndexContract` for exact indexes, `FullAnswers` for approximate ones."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mcp_server.domain.search import Neighbors
from mcp_server.errors import IndexMismatchError
from mcp_server.indexes.base import Index
from mcp_server.indexes.embeddings import Embeddings

WIDTH = 16
QUERIES = 8


def oracle(rows: NDArray, query: NDArray, k: int, skip: NDArray, ties: NDArray) -> tuple[NDArray, NDArray]:
    wide = rows.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1)
    allowed = np.flatnonzero(~skip & np.isfinite(lengths) & (lengths > 0))
    scores = (wide[allowed] / lengths[allowed, None] * (query / np.linalg.norm(query.astype(np.float64)))).sum(axis=1).astype(np.float32)
    order = np.lexsort((ties[allowed], -scores))[:k]
    return allowed[order], scores[order]


def unit(vectors: NDArray) -> NDArray[np.float32]:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def clustered(seed: int, size: int, width: int = WIDTH) -> NDArray[np.float32]:
    """Unit vectors around a few centres, as pictures are."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((12, width))
    return unit(centres[random.integers(0, 12, size)] + 0.4 * random.standard_normal((size, width)))


def with_flaws(rows: NDArray[np.float32], seed: int = 5) -> NDArray[np.float32]:
    """The same with exact copies far apart, and rows that are zero, NaN or infinite."""
    flawed = rows.copy()
    size = len(rows)
    flawed[np.random.default_rng(seed).permutation(size)[: size // 4]] = rows[3]
    flawed[1], flawed[size // 2], flawed[size - 1] = 0, np.nan, np.inf
    return flawed


def shuffled_ties(size: int) -> NDArray[np.int64]:
    return np.random.default_rng(9).permutation(size).astype(np.int64) * 3 + 100


class FullAnswers(ABC):
    """What holds for every index: full, honest, repeatable answers and clear refusals."""

    recall = 0.9
    """Share of the true best ten that must be found, on average, without a filter and with half of the rows skipped."""

    @classmethod
    @abstractmethod
    def opened(cls, rows: NDArray, ties: NDArray[np.int64], folder: Path) -> Index:
        """The index under test, built from `rows`."""

    @pytest.fixture(scope="class")
    @classmethod
    def rows(cls) -> NDArray:
        return Embeddings.from_rows(with_flaws(clustered(1, 1500))).rows

    @pytest.fixture(scope="class")
    @classmethod
    def ties(cls, rows: NDArray) -> NDArray[np.int64]:
        return shuffled_ties(len(rows))

    @pytest.fixture(scope="class")
    @classmethod
    def index(cls, rows: NDArray, ties: NDArray[np.int64], tmp_path_factory: pytest.TempPathFactory) -> Index:
        return cls.opened(rows, ties, tmp_path_factory.mktemp("index"))

    @pytest.fixture(scope="class")
    @classmethod
    def queries(cls) -> NDArray[np.float32]:
        return clustered(2, QUERIES)

    def test_it_knows_its_size_width_and_unusable_rows(self, index: Index, rows: NDArray) -> None:
        assert (index.size, index.width) == rows.shape
        assert np.flatnonzero(index.unusable).tolist() == [1, 750, 1499]

    @pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.99, 1.0])
    @pytest.mark.parametrize("k", [1, 10, 100])
    def test_it_never_returns_a_skipped_row_a_repeat_or_too_few(self, index: Index, queries: NDArray, share: float, k: int) -> None:
        random = np.random.default_rng(int(1000 * share) + k)
        for query in queries:
            skip = random.random(index.size) < share
            found = index.search(query, k, skip)
            assert_sound(found, index, k, skip)

    def test_scores_are_the_true_cosines_of_the_rows_returned(self, index: Index, rows: NDArray, queries: NDArray) -> None:
        for query in queries:
            found = index.search(query, 30, np.zeros(index.size, bool))
            wide = rows[found.rows].astype(np.float64)
            expected = wide @ unit(query).astype(np.float64) / np.linalg.norm(wide, axis=1)
            np.testing.assert_allclose(found.scores, expected, atol=1e-6)

    def test_equal_scores_come_by_ascending_tie_key(self, index: Index, rows: NDArray, ties: NDArray) -> None:
        found = index.search(unit(rows[3].astype(np.float32)), 300, np.zeros(index.size, bool))
        equal = np.diff(found.scores) == 0
        assert np.count_nonzero(equal) > 200
        assert np.all(np.diff(ties[found.rows])[equal] > 0)

    def test_a_row_that_is_not_finite_or_has_no_length_is_never_returned(self, index: Index, queries: NDArray) -> None:
        found = index.search(queries[0], index.size + 5, np.zeros(index.size, bool))
        assert len(found.rows) == index.size - 3
        assert not index.unusable[found.rows].any()
        assert np.isfinite(found.scores).all()

    def test_paging_through_everything_never_repeats_and_ends_with_every_usable_row(self, index: Index, queries: NDArray) -> None:
        skip = np.zeros(index.size, bool)
        pages = []
        while len(page := index.search(queries[1], 170, skip).rows):
            skip[page] = True
            pages.append(page)
        shown = np.concatenate(pages)
        assert len(np.unique(shown)) == len(shown) == index.size - 3

    def test_rejecting_what_the_query_likes_best_still_gives_full_answers(self, index: Index, rows: NDArray, queries: NDArray) -> None:
        skip = anti_correlated(rows, queries[2])
        assert_sound(index.search(queries[2], 25, skip), index, 25, skip)

    def test_a_narrow_filter_leaves_the_next_answers_untouched(self, index: Index, queries: NDArray) -> None:
        everything = np.zeros(index.size, bool)
        before = [index.search(query, 10, everything) for query in queries]
        for row in (0, 2, 700):
            narrow = np.ones(index.size, bool)
            narrow[row] = False
            assert index.search(queries[0], 10, narrow).rows.tolist() == [row]
        for query, earlier in zip(queries, before, strict=True):
            assert_same(index.search(query, 10, everything), earlier)

    def test_the_mask_and_the_query_are_not_changed(self, index: Index, queries: NDArray) -> None:
        skip = np.random.default_rng(3).random(index.size) < 0.5
        query, mask = queries[0].copy(), skip.copy()
        index.search(query, 10, mask)
        assert np.array_equal(query, queries[0])
        assert np.array_equal(mask, skip)

    def test_threads_searching_at_once_get_what_one_alone_gets(self, index: Index, queries: NDArray) -> None:
        random = np.random.default_rng(4)
        masks = [random.random(index.size) < share for share in np.linspace(0, 0.999, QUERIES)]
        alone = [index.search(query, 20, mask) for query, mask in zip(queries, masks, strict=True)]
        together = threading.Barrier(QUERIES)

        def search(number: int) -> list[Neighbors]:
            together.wait(timeout=60)
            return [index.search(queries[number], 20, masks[number]) for _ in range(5)]

        with ThreadPoolExecutor(QUERIES) as pool:
            for expected, answers in zip(alone, pool.map(search, range(QUERIES)), strict=True):
                for answer in answers:
                    assert_same(answer, expected)

    def test_most_of_the_true_best_are_found(self, index: Index, rows: NDArray, ties: NDArray, queries: NDArray) -> None:
        half = np.arange(index.size) % 2 == 0
        for skip in (np.zeros(index.size, bool), half):
            hits = 0
            for query in queries:
                true = oracle(rows, query, 10, skip, ties)[1]
                hits += int(np.sum(index.search(query, 10, skip).scores >= true[-1] - 1e-6))
            assert hits >= self.recall * 10 * QUERIES

    @pytest.mark.parametrize("k", [0, -1])
    def test_asking_for_less_than_one_is_refused(self, index: Index, queries: NDArray, k: int) -> None:
        with pytest.raises(ValueError, match=f"k must be at least 1; got {k}"):
            index.search(queries[0], k, np.zeros(index.size, bool))

    @pytest.mark.parametrize("width", [WIDTH - 1, 2 * WIDTH, 0])
    def test_a_query_of_another_width_is_refused_with_both_numbers(self, index: Index, width: int) -> None:
        with pytest.raises(IndexMismatchError, match=rf"\b{width} wide.*\b{WIDTH} wide"):
            index.search(np.ones(width, np.float32), 5, np.zeros(index.size, bool))

    def test_a_batch_of_queries_is_refused(self, index: Index, queries: NDArray) -> None:
        with pytest.raises(IndexMismatchError, match="8x16 wide"):
            index.search(queries, 5, np.zeros(index.size, bool))

    @pytest.mark.parametrize("length", [0, 1499, 1501])
    def test_a_mask_of_another_length_is_refused_with_both_numbers(self, index: Index, queries: NDArray, length: int) -> None:
        with pytest.raises(IndexMismatchError, match=rf"\b{length} long.*\b1500 rows"):
            index.search(queries[0], 5, np.zeros(length, bool))

    @pytest.mark.parametrize("dtype", [np.int64, np.float32])
    def test_a_mask_of_numbers_is_refused(self, index: Index, queries: NDArray, dtype: type) -> None:
        with pytest.raises(ValueError, match=f"must hold bools; got {np.dtype(dtype)}"):
            index.search(queries[0], 5, np.zeros(index.size, dtype))

    @pytest.mark.parametrize("query", [np.zeros(WIDTH, np.float32), np.full(WIDTH, np.nan, np.float32)])
    def test_a_query_without_direction_is_refused(self, index: Index, query: NDArray) -> None:
        with pytest.raises(ValueError, match="must be finite and have a length"):
            index.search(query, 5, np.zeros(index.size, bool))

    @pytest.mark.parametrize("dtype", [np.float16, np.float64])
    def test_a_query_of_other_precision_finds_the_same_as_its_float32_form(self, index: Index, queries: NDArray, dtype: type) -> None:
        everything = np.zeros(index.size, bool)
        query = queries[3].astype(dtype)
        assert_same(index.search(query, 10, everything), index.search(query.astype(np.float32), 10, everything))


class IndexContract(FullAnswers):
    """What holds, on top, for an index that says its answers are exact."""

    recall = 1.0

    def test_every_answer_equals_the_oracle_in_rows_order_and_scores(
        self, index: Index, rows: NDArray, ties: NDArray, queries: NDArray
    ) -> None:
        random = np.random.default_rng(6)
        for query in queries:
            for share in (0.0, 0.2, 0.6, 0.95, 0.999):
                for k in (1, 7, 100, 600):
                    assert_exact(index, rows, ties, query, k=k, skip=random.random(index.size) < share)

    def test_an_anti_correlated_filter_gets_the_oracles_answer(self, index: Index, rows: NDArray, ties: NDArray, queries: NDArray) -> None:
        for query in queries:
            assert_exact(index, rows, ties, query, k=25, skip=anti_correlated(rows, query))

    @given(case=st.tuples(st.binary(min_size=1500, max_size=1500), st.integers(1, 1505), st.integers(0, QUERIES - 1)))
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    def test_any_mask_and_any_k_get_the_oracles_answer(
        self, index: Index, rows: NDArray, ties: NDArray, queries: NDArray, case: tuple[bytes, int, int]
    ) -> None:
        mask, k, number = case
        assert_exact(index, rows, ties, queries[number], k=k, skip=np.frombuffer(mask, np.uint8) % 2 == 1)


def anti_correlated(rows: NDArray, query: NDArray) -> NDArray[np.bool_]:
    """Skip the 60 % of rows the query likes best."""
    scores = np.nan_to_num(rows.astype(np.float64), posinf=0, neginf=0) @ query
    return scores > np.quantile(scores, 0.4)


def assert_sound(found: Neighbors, index: Index, k: int, skip: NDArray) -> None:
    assert found.rows.dtype == np.int64
    assert found.scores.dtype == np.float32
    assert len(found.rows) == len(found.scores) == min(k, int(np.count_nonzero(~skip & ~index.unusable)))
    assert len(np.unique(found.rows)) == len(found.rows)
    assert not skip[found.rows].any()
    assert np.all(np.diff(found.scores) <= 0)
    assert np.all(np.abs(found.scores) <= 1)


def assert_same(found: Neighbors, expected: Neighbors) -> None:
    assert found.rows.tolist() == expected.rows.tolist()
    assert found.scores.tobytes() == expected.scores.tobytes()


def assert_exact(index: Index, rows: NDArray, ties: NDArray, query: NDArray, *, k: int, skip: NDArray) -> None:
    found = index.search(query, k, skip)
    expected_rows, expected_scores = oracle(rows, query, k, skip, ties)
    assert found.approximation is None
    assert found.rows.tolist() == expected_rows.tolist()
    np.testing.assert_allclose(found.scores, expected_scores, rtol=0, atol=6e-8)
