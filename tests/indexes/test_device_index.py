"""The search on a device: exact like the plain index, whatever the device rounds. Runs on the CPU; on CUDA where there is one."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mcp_server.domain.search import Neighbors
from mcp_server.errors import ConfigError, IndexMismatchError
from mcp_server.indexes.base import Index
from mcp_server.indexes.device_index import DeviceIndex, device_index
from mcp_server.indexes.device_rows import Candidates, DeviceRows
from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.exact import ExactIndex
from tests.contracts.index_contract import IndexContract, assert_exact, assert_same, clustered, shuffled_ties, unit, with_flaws

DEVICES = [
    "cpu",
    pytest.param("cuda:0", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")),
]


class Unproven(DeviceRows):
    """On a device whose half-precision sums cannot be trusted."""

    def _is_within_bound(self) -> bool:
        return False


class Deaf(ExactIndex):
    """A plain index that nobody should have to ask."""

    def search(self, query: NDArray[np.float32], k: int, skip: NDArray[np.bool_]) -> Neighbors:
        raise AssertionError("the device should have answered")


def on_device(
    plain: Index, embeddings: Embeddings, ties: NDArray[np.int64] | None, device: str = "cpu", rows: type = DeviceRows
) -> DeviceIndex:
    index = DeviceIndex(plain, embeddings, device, ties, plain_up_to=0, upload=rows)
    index.wait(120)
    assert index.is_on_device
    return index


class OnDevice(IndexContract):
    dtype: type = np.float16
    device = "cpu"
    device_rows: type = DeviceRows

    @pytest.fixture(scope="class")
    @classmethod
    def rows(cls) -> NDArray:
        return Embeddings.from_rows(with_flaws(clustered(1, 1500)).astype(cls.dtype)).rows

    @classmethod
    def opened(cls, rows: NDArray, ties: NDArray[np.int64], folder: Path) -> Index:
        embeddings = Embeddings.from_rows(rows)
        return on_device(ExactIndex(embeddings, ties), embeddings, ties, cls.device, cls.device_rows)


class TestFloat16(OnDevice):
    pass


class TestFloat32(OnDevice):
    dtype = np.float32


class TestRowsOfManyLengths(OnDevice):
    dtype = np.float32

    @pytest.fixture(scope="class")
    @classmethod
    def rows(cls) -> NDArray:
        lengths = np.random.default_rng(7).uniform(0.05, 30, 1500)[:, None]
        return Embeddings.from_rows(with_flaws(clustered(1, 1500) * lengths).astype(cls.dtype)).rows


class TestFloat16RowsOfManyLengths(TestRowsOfManyLengths):
    dtype = np.float16


class TestWhereHalfPrecisionSumsCannotBeTrusted(OnDevice):
    device_rows = Unproven


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestOnCuda(OnDevice):
    device = "cuda:0"


SIZE, WIDTH = 6000, 96


@pytest.fixture(scope="module")
def rows() -> NDArray[np.float16]:
    """A third of the rows are near-duplicates of others, nearer than half precision tells apart."""
    random = np.random.default_rng(17)
    found = clustered(15, SIZE, WIDTH)
    copies = random.permutation(SIZE)[: SIZE // 3]
    found[copies] = unit(found[random.integers(0, 40, len(copies))] + 3e-4 * random.standard_normal((len(copies), WIDTH)))
    return found.astype(np.float16)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("device_rows", [DeviceRows, Unproven])
def test_filters_of_all_kinds_get_the_oracles_answer_without_the_plain_index(rows: NDArray, device: str, device_rows: type) -> None:
    ties = shuffled_ties(SIZE)
    embeddings = Embeddings.from_rows(rows)
    index = on_device(Deaf(embeddings, ties), embeddings, ties, device, device_rows)
    random = np.random.default_rng(3)
    for number, query in enumerate(clustered(16, 12, WIDTH)):
        scores = rows.astype(np.float32) @ query
        for skip in (
            np.zeros(SIZE, bool),
            random.random(SIZE) < 0.5,
            random.random(SIZE) < 0.9,
            scores > np.quantile(scores, 0.4),
            scores > np.quantile(scores, 0.1),
            scores < np.quantile(scores, 0.8),
            np.arange(SIZE) // 700 != number % 8,
        ):
            for k in (1, 10, 100):
                assert_exact(index, rows, ties, query, k=k, skip=skip)


@pytest.mark.parametrize("device", DEVICES)
def test_a_query_among_its_near_duplicates_gets_them_in_the_right_order(rows: NDArray, device: str) -> None:
    ties = shuffled_ties(SIZE)
    embeddings = Embeddings.from_rows(rows)
    index = on_device(Deaf(embeddings, ties), embeddings, ties, device)
    for row in range(12):
        for k in (1, 20, 100):
            assert_exact(index, rows, ties, unit(rows[row].astype(np.float32)), k=k, skip=np.arange(SIZE) % 3 == 0)


def test_more_equal_rows_than_are_scored_one_by_one_are_left_to_the_plain_index() -> None:
    rows = np.repeat(unit(np.ones((1, 8))), 25_000, axis=0).astype(np.float16)
    ties = np.arange(25_000)[::-1].copy()
    embeddings = Embeddings.from_rows(rows)
    index = on_device(ExactIndex(embeddings, ties), embeddings, ties)
    found = index.search(unit(np.ones(8)), 5, np.zeros(25_000, bool))
    assert found.rows.tolist() == [24_999, 24_998, 24_997, 24_996, 24_995]


def test_few_allowed_rows_never_travel(rows: NDArray) -> None:
    embeddings = Embeddings.from_rows(rows)
    index = DeviceIndex(Deaf(embeddings), embeddings, "cpu", upload=DeviceRows)
    index.wait(120)
    with pytest.raises(AssertionError, match="should have answered"):
        index.search(clustered(16, 1, WIDTH)[0], 5, np.arange(SIZE) >= 800)
    assert len(index.search(clustered(16, 1, WIDTH)[0], 5, np.arange(SIZE) >= 900).rows) == 5


@pytest.mark.parametrize("why", ["no room", "no device", "failed", "refused", "unknown"])
def test_without_the_device_the_plain_index_answers(rows: NDArray, why: str, caplog: pytest.LogCaptureFixture) -> None:
    def upload(_embeddings: Embeddings, _device: str) -> DeviceRows | None:
        if why == "failed":
            raise RuntimeError("CUDA error:\n out of memory")
        return None

    def refused() -> str:
        raise ConfigError("no such device")

    caplog.set_level(logging.INFO)
    embeddings = Embeddings.from_rows(rows)
    device = {"no device": lambda: None, "refused": refused, "unknown": "cuda:99"}.get(why, "cuda:0")
    index = DeviceIndex(ExactIndex(embeddings), embeddings, device, upload=None if why == "unknown" else upload)
    index.wait(120)
    assert not index.is_on_device
    query, nothing = clustered(16, 1, WIDTH)[0], np.zeros(SIZE, bool)
    assert_same(index.search(query, 10, nothing), ExactIndex(embeddings).search(query, 10, nothing))
    assert ("device.unused" in caplog.text) == (why in ("failed", "refused", "unknown"))


def test_a_device_that_fails_during_a_search_is_replaced_for_that_search(rows: NDArray, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(DeviceRows):
        def top(self, query: NDArray[np.float64], k: int, count: int, skip: NDArray[np.bool_], allowed: int) -> Candidates:
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    embeddings = Embeddings.from_rows(rows)
    index = on_device(ExactIndex(embeddings), embeddings, None, "cpu", Failing)
    query, nothing = clustered(16, 1, WIDTH)[0], np.zeros(SIZE, bool)
    assert_same(index.search(query, 10, nothing), ExactIndex(embeddings).search(query, 10, nothing))
    assert "device.failed error=CUDA out of memory. Tried to allocate" in caplog.text


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("width", [16, 512, 1152])
def test_no_cosine_is_farther_from_the_bound_than_it_says(device: str, width: int) -> None:
    rows = clustered(5, 3000, width).astype(np.float16)
    resident = DeviceRows(Embeddings.from_rows(rows), device)
    assert resident.sums_in_float32
    wide = rows.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    queries = clustered(6, 5, width).astype(np.float64)
    for query in queries / np.linalg.norm(queries, axis=1, keepdims=True):
        cosines = wide @ query
        for share in (1.0, 0.1):
            allowed = np.arange(3000) < 3000 * share
            count = np.count_nonzero(allowed)
            found, stored, ceiling = resident.top(query, 50, 50, ~allowed, count)
            assert stored is not None
            assert np.array_equal(stored, rows[found])
            rest = allowed.copy()
            rest[found] = False
            assert cosines[rest].max() <= ceiling <= np.sort(cosines[found])[0] + 3e-3
            candidates, stored, same = resident.top(query, 5, 50, ~allowed, count)
            assert stored is not None
            assert np.array_equal(stored, rows[candidates])
            assert same == ceiling
            assert set(candidates.tolist()) <= set(found.tolist())
            assert 5 <= len(candidates) < 50
            dropped = sorted(set(found.tolist()) - set(candidates.tolist()))
            assert cosines[dropped].max() < np.sort(cosines[candidates])[-5]
            threshold = float(np.sort(cosines[allowed])[-80])
            within = resident.above(query, threshold, ~allowed, count, 3000)
            assert within is not None
            assert set(np.flatnonzero(allowed & (cosines >= threshold))) <= set(within.tolist())
            assert resident.above(query, threshold, ~allowed, count, 79) is None


def test_half_precision_sums_are_noticed() -> None:
    class Sloppy(DeviceRows):
        """Its library adds in half precision."""

        def _multiplied(self, rows: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
            total = torch.zeros(len(rows), dtype=torch.float16)
            for start in range(0, rows.shape[1], 8):
                total = total + (rows[:, start : start + 8] * vector[start : start + 8]).sum(1)
            return total

    assert not Sloppy(Embeddings.from_rows(clustered(5, 300, 1152).astype(np.float16)), "cpu").sums_in_float32


@pytest.mark.parametrize("size", [0, 1, 3])
def test_tiny_collections_work(size: int) -> None:
    embeddings = Embeddings.from_rows(clustered(3, size))
    index = on_device(ExactIndex(embeddings), embeddings, None)
    assert len(index.search(clustered(4, 1)[0], 5, np.zeros(size, bool)).rows) == size


def test_there_must_be_one_tie_key_a_row(rows: NDArray) -> None:
    embeddings = Embeddings.from_rows(rows)
    with pytest.raises(IndexMismatchError, match="3 tie keys for 6000 rows"):
        device_index(ExactIndex(embeddings), embeddings, "cpu", np.arange(3))
