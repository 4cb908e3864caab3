"""Sums are what they claim to be: exact enough, and those in float64 do not depend on the neighbours."""

from __future__ import annotations

import math

import numpy as np
import pytest
import simsimd
from numpy.typing import NDArray

from mcp_server.indexes import kernels
from mcp_server.indexes.kernels import dots, rounding, wide_dots


def test_every_finite_float16_is_summed_as_itself() -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)][:, None]
    for factor in (1.0, -1 / 3, 1e-300):
        sums = wide_dots(np.array([factor]), finite)
        assert sums.dtype == np.float64
        assert np.array_equal(sums, finite[:, 0].astype(np.float64) * factor)
    assert np.array_equal(wide_dots(np.ones(1), finite[::2]), finite[::2, 0].astype(np.float64))  # rows that are not in one piece


@pytest.mark.parametrize("steady", [True, False])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("width", [1, 3, 64, 1151, 1152])
def test_equal_rows_have_equal_sums_in_float64_wherever_they_stand(
    dtype: type, width: int, steady: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not steady:
        monkeypatch.setattr(kernels, "_is_steady", lambda _width: False)
    random = np.random.default_rng(width)
    rows, query = random.standard_normal((50, width)).astype(dtype), random.standard_normal(width)
    rows[::7] = rows[3]
    sums = wide_dots(query, rows)
    true = [math.fsum((row * query).tolist()) for row in rows.astype(np.float64)]
    assert np.allclose(sums, true, rtol=0, atol=1e-15 * width)
    assert len(set(sums[::7].tolist())) == 1
    for start in range(50):
        assert np.array_equal(sums[start : start + 3], wide_dots(query, rows[start : start + 3]))


def test_a_library_that_sums_equal_rows_differently_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsteady(rows: NDArray[np.float64], query: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums the last row in another order than the others, as a product of matrices may."""
        sums = np.einsum("ij,j->i", rows, query)
        sums[-1] = (rows[-1] * query)[::-1].cumsum()[-1]
        return sums

    asked = kernels._is_steady.__wrapped__
    assert asked(1152)
    monkeypatch.setattr(np, "vecdot", unsteady)
    assert not asked(1152)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("width", [1, 3, 64, 1152])
def test_sums_of_floats_are_off_by_no_more_than_rounding_says(dtype: type, width: int) -> None:
    random = np.random.default_rng(width)
    rows, query = random.standard_normal((50, width)).astype(dtype), random.standard_normal(width).astype(dtype)
    true = rows.astype(np.float64) @ query.astype(np.float64)
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1) * np.linalg.norm(query.astype(np.float64))
    assert np.all(np.abs(dots(query, rows) - true) <= rounding(width) * lengths + 1e-30)


def test_sums_of_bytes_are_exact_up_to_their_rounding_to_float32() -> None:
    rows = np.random.default_rng(2).integers(-127, 128, (50, 1152)).astype(np.int8)
    rows[0] = 127
    query = np.full(1152, 127, np.int8)
    assert np.array_equal(dots(query, rows), (rows.astype(np.int64) @ query.astype(np.int64)).astype(np.float32))


def test_kernels_that_sum_float16_in_float16_are_switched_off() -> None:
    capabilities = simsimd.get_capabilities()
    assert not capabilities["sapphire"]
    assert not capabilities["sve_f16"]
