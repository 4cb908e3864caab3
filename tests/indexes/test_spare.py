"""Memory that is lent again is never in two hands at once, and what was read into it is right."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.masks import Allowed
from mcp_server.indexes.picked import picked
from mcp_server.indexes.spare import Spare


def test_what_is_lent_is_large_enough_and_lent_once() -> None:
    spare = Spare(2)
    first, second = spare.take(100), spare.take(1_000)
    assert len(first) >= 100
    assert len(second) >= 1_000
    assert not np.shares_memory(first, second)
    spare.give_back(first)
    spare.give_back(second)
    assert len(spare.take(2_000)) >= 2_000
    assert spare.take(50) is first, "what is there is used again"


def test_no_more_is_kept_than_was_said() -> None:
    spare = Spare(1)
    first, second = spare.take(10), spare.take(10)
    spare.give_back(first)
    spare.give_back(second)
    assert spare.take(10) is second
    assert spare.take(10) is not first


def test_rows_picked_in_several_threads_at_once_are_the_right_ones() -> None:
    rows = np.random.default_rng(0).standard_normal((500, 24)).astype(np.float16)
    embeddings = Embeddings.from_rows(rows)

    def right(seed: int) -> bool:
        some = np.random.default_rng(seed).permutation(500)[: 1 + seed % 300]
        with picked(embeddings, some) as read:
            return bool(np.array_equal(read.rows, np.sort(some)) and np.array_equal(read.stored, rows[np.sort(some)]))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(right, range(400)))


def test_after_an_error_nothing_wrong_is_lent() -> None:
    embeddings = Embeddings.from_rows(np.eye(6, dtype=np.float32))
    with pytest.raises(RuntimeError), picked(embeddings, np.array([1, 2])):
        raise RuntimeError
    with picked(embeddings, np.array([5, 0])) as read:
        assert np.array_equal(read.stored, np.eye(6)[[0, 5]])


@pytest.mark.parametrize("size", [1, 63, 65, 1_024, 65_536, 65_543, 200_001])
@pytest.mark.parametrize("share", [0.0, 0.0001, 0.004, 0.02, 0.1, 0.13, 0.5, 1.0])
def test_allowed_rows_are_those_the_mask_lets_through(size: int, share: float) -> None:
    skip = np.random.default_rng(size).random(size) >= share
    assert np.array_equal(Allowed(skip).rows, np.flatnonzero(~skip))
    assert Allowed(skip).count == np.count_nonzero(~skip)
