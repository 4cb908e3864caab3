"""Inner products of one query with many rows. The one door to SimSIMD."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import numpy as np
import simsimd
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

UNIT_ROUNDOFF = 2.0**-24
"""Of float32."""
_SIGN_AND_MAGNITUDE = np.int32(-0x70000001)
_TRIALS = 64
_PLACES, _SHIFTS = 5, 8
"""Rows, and places of eight bytes in a cache line, at which equal sums are asked for."""
_TILE = 1024

for _summing_in_float16 in ("sapphire", "sve_f16"):
    simsimd.disable_capability(_summing_in_float16)  # for all of the process; the next best kernels sum float16 in float32


def dots(query: NDArray[Any], rows: NDArray[Any]) -> NDArray[np.float32]:
    """Return <query, row> of each row, (M,) float32.

    `query` is (D,) and `rows` (M, D) with rows in one piece, both int8, float16 or float32. Of int8 the sums are exact before they are
    rounded to float32; of floats they are off by at most `rounding(D)` times the product of the lengths. Lets other threads run meanwhile.
    """
    if _is_right(query.dtype.str, query.shape[0]):
        return _products(query, rows)
    wide = query.astype(np.float64)
    with np.errstate(invalid="ignore"):  # of rows that are not finite; the library does not warn of them either
        tiles = [rows[start : start + _TILE].astype(np.float64) @ wide for start in range(0, len(rows), _TILE)]
    return np.concatenate([np.empty(0), *tiles]).astype(np.float32)


def wide_dots(query: NDArray[np.float64], rows: NDArray[Any]) -> NDArray[np.float64]:
    """Return <query, row> of each row, (M,) float64, summed in float64, every row in the same order wherever it stands.

    `query` is (D,) and `rows` (M, D) of finite float16 or float32.
    """
    if rows.dtype != np.float16:
        return _summed(rows.astype(np.float64), query)
    # sign, exponent and fraction of a float16 at their places in a float32, whose exponent is by 112 larger for the same number: exact, and
    # quicker than numpy's own way from float16
    bits = rows.view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= _SIGN_AND_MAGNITUDE
    return _summed(bits.view(np.float32).astype(np.float64), query * 2.0**112)


def rounding(width: int) -> float:
    """Return the largest relative error of a float32 sum of `width` products, in any order.

    Source: N. J. Higham, Accuracy and Stability of Numerical Algorithms, section 3.1: n u / (1 - n u).
    """
    steps = (width + 4) * UNIT_ROUNDOFF
    return steps / (1 - steps) if steps < 1 else float("inf")


def _summed(rows: NDArray[np.float64], query: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return <query, row> of each row, every row summed in the same order."""
    # vecdot hands row by row to BLAS, which may sum by where in memory a row begins; einsum never does, and takes twice as long
    return np.vecdot(rows, query) if _is_steady(query.shape[0]) else np.einsum("ij,j->i", rows, query)


@cache
def _is_steady(width: int) -> bool:
    """Tell whether numpy's BLAS gives equal rows of this width equal sums, wherever in memory they and the query begin."""
    random = np.random.default_rng(width)
    row, query = random.standard_normal((2, width))
    here, there = np.empty(_PLACES * width + _SHIFTS), np.empty(width + _SHIFTS)
    sums: set[float] = set()
    for shift in range(_SHIFTS):
        rows, vector = here[shift : shift + _PLACES * width].reshape(_PLACES, width), there[-shift % _SHIFTS :][:width]
        rows[:], vector[:] = row, query
        for count in range(1, _PLACES + 1):
            sums.update(np.vecdot(rows[:count], vector).tolist())
    return len(sums) == 1


def _products(query: NDArray[Any], rows: NDArray[Any]) -> NDArray[np.float32]:
    # not its `out` argument: each use of it takes a reference from None (6.5.16), which ends Python 3.11 after some thousands
    return np.asarray(simsimd.cdist(query[None], rows, metric="dot", out_dtype="float32"))[0]


@cache
def _is_right(dtype: str, width: int) -> bool:
    """Try the library at this type and width against float64: on some processors it sums float16 in float16, which is too coarse here."""
    random = np.random.default_rng(width)
    if np.dtype(dtype) == np.int8:
        rows: NDArray[Any] = random.integers(-127, 128, (_TRIALS, width)).astype(np.int8)
        rows[0], query = 127, np.full(width, 127, np.int8)
        allowed = UNIT_ROUNDOFF * np.abs(rows.astype(np.float64) @ query.astype(np.float64))
    else:
        # all of one sign: what is lost in a coarse sum does not cancel out
        rows = (random.random((_TRIALS, width)) / np.sqrt(width)).astype(dtype)
        query = (random.random(width) / np.sqrt(width)).astype(dtype)
        allowed = rounding(width) * np.linalg.norm(rows.astype(np.float64), axis=1) * np.linalg.norm(query.astype(np.float64))
    try:
        right = bool(np.all(np.abs(_products(query, rows) - rows.astype(np.float64) @ query.astype(np.float64)) <= allowed + 1e-30))
    except (ValueError, TypeError, RuntimeError) as error:
        logger.debug("kernels.refused dtype=%s width=%d error=%s", dtype, width, error)
        right = False
    if not right:
        logger.warning("kernels.slow dtype=%s width=%d SimSIMD is not exact enough on this processor; plain numpy is used.", dtype, width)
    return right
