"""What a mask lets through is what a plain look at it says, at every length and density."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.indexes.masks import Allowed

SIZES = [0, 1, 7, 8, 9, 63, 64, 65, 1023, 1024, 1025, 4096, 9999, 70_001]


def assert_right(skip: np.ndarray) -> None:
    allowed = Allowed(skip)
    assert allowed.count == np.count_nonzero(~skip)
    assert allowed.rows.tolist() == np.flatnonzero(~skip).tolist()
    assert allowed.rows.dtype == np.int64
    expected = [not skip[start : start + 1024].all() for start in range(0, len(skip), 1024)]
    assert allowed.occupied.stretches.tolist() == expected
    assert allowed.runs == np.count_nonzero(~skip & np.concatenate(([True], skip[:-1]))[: len(skip)])
    assert allowed.occupied.rows == min(sum(expected) * 1024, len(skip))


@given(
    size=st.sampled_from(SIZES),
    runs=st.lists(st.tuples(st.integers(0, 70_000), st.integers(1, 3000)), max_size=5),
)
def test_runs_of_rows_are_found(size: int, runs: list[tuple[int, int]]) -> None:
    skip = np.ones(size, bool)
    for start, length in runs:
        skip[start : start + length] = False
    assert_right(skip)
    assert_right(~skip)


@given(seed=st.integers(0, 2**32), size=st.sampled_from(SIZES), share=st.sampled_from([0.0, 0.5, 0.98, 0.99, 0.999, 1.0]))
def test_rows_here_and_there_are_found(seed: int, size: int, share: float) -> None:
    assert_right(np.random.default_rng(seed).random(size) < share)


@pytest.mark.parametrize("step", [-1, 3])
def test_a_mask_may_be_a_view(step: int) -> None:
    assert_right((np.random.default_rng(1).random(5000) < 0.995)[::step])


def test_long_runs_are_told_from_rows_here_and_there() -> None:
    skip = np.ones(20_000, bool)
    skip[3_000:3_100] = skip[9_000:11_000] = False
    assert Allowed(skip).are_in_runs
    skip[9_000:11_000:40] = True
    assert not Allowed(skip).are_in_runs
    assert not Allowed(np.ones(20_000, bool)).are_in_runs
    assert Allowed(np.zeros(20_000, bool)).are_in_runs
