"""Vectors as whole numbers of one byte each: what is common to all codes.

A vector r ~ scale * code, code in -127..127. For a query p ~ t * k, coded in the same way, and any vector p' and r' beside them,

    |<p', r'> - scale t <code, k>| <= |<p', r' - scale * code>| + |p' - t k| |scale code|.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LARGEST = 127
_LEAST_FACTOR = 1e-20
"""Margins are divided by a query's factor, and must stay far from the values that stand for skipped rows."""
ROUNDING = 1e-6
"""More than all the rounding of float64 behind codes, and of the float32 in which estimates are summed, amounts to for scores up to 1."""


@dataclass(frozen=True, eq=False)
class CodeTable:
    """The codes of N vectors of width W. Nothing in it changes; safe to share between threads.

    Attributes:
        codes: (N, W) int8; zeros for unusable rows.
        scale: (N,) float32.
        margin: (N,) float32, what a query's `margin_factor` is multiplied with.
        longest: the longest `scale * code`.
        along: (N,) float32, one more coordinate, not coded; what a query's `along_factor` is multiplied with. None: there is none.
    """

    codes: NDArray[np.int8] = field(repr=False)
    scale: NDArray[np.float32] = field(repr=False)
    margin: NDArray[np.float32] = field(repr=False)
    longest: float
    along: NDArray[np.float32] | None = field(default=None, repr=False)

    @property
    def arrays(self) -> list[NDArray[Any]]:
        """What a search reads, the largest last."""
        return [self.scale, self.margin, *([] if self.along is None else [self.along]), self.codes]

    def query(
        self, vector: NDArray[np.float64], offset: float, margin_factor: float, slack: float, off: float = 0.0, along_factor: float = 0.0
    ) -> CodedQuery:
        """Return a query for this table.

        Args:
            vector: (W,), p; the true one is up to `off` away from it.
            offset: added to every score.
            margin_factor: see `CodedQuery`.
            slack: what scores are off by for other reasons than the rounding of the query and `margin`.
            along_factor: the query's coordinate beside `vector`, where rows have one.
        """
        code, factor, missed = in_bytes(vector)
        return CodedQuery(code, factor, missed, offset, margin_factor, self.longest, off * self.longest + slack, along_factor)


@dataclass(frozen=True, eq=False)
class CodedQuery:
    """A query in the terms of a table of codes.

    Attributes:
        code: (W,) int8.
        factor: t; a score is near `offset + scale * factor * <code of the row, code>`.
        missed: (W,) float64, what rounding the query to `code` lost.
        offset: what is added.
        margin_factor: a score may be off by this times the row's `margin`, beside `slack`.
        longest: the longest row of the table.
        least_slack: what scores are off by even if nothing is missed.
        along_factor: to a score is added this times the row's `along`, where there is one.
    """

    code: NDArray[np.int8]
    factor: float
    missed: NDArray[np.float64] = field(repr=False)
    offset: float
    margin_factor: float
    longest: float
    least_slack: float
    along_factor: float

    @property
    def slack(self) -> float:
        """What scores are off by, beside the margins of rows."""
        return float(np.linalg.norm(self.missed)) * self.longest + self.least_slack

    @property
    def rest(self) -> tuple[NDArray[np.int8], float, float]:
        """A second code, (W,) int8, for `missed`, its factor, and by what scores are off with its products added."""
        code, factor, missed = in_bytes(self.missed)
        return code, factor, float(np.linalg.norm(missed)) * self.longest + self.least_slack


def in_bytes(vector: NDArray[np.float64]) -> tuple[NDArray[np.int8], float, NDArray[np.float64]]:
    """Return whole numbers, by which factor they are near `vector`, and what is missing then."""
    factor = max(float(np.abs(vector).max()) / _LARGEST, _LEAST_FACTOR)
    code = np.rint(vector / factor)
    return code.astype(np.int8), factor, vector - factor * code


def coded(vectors: NDArray[np.float64]) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float64]]:
    """Return codes and scale of `vectors`, (M, W), and `scale * code`, (M, W). Vectors of zeros have a scale of 0."""
    # rounded to float32 first: what is stored is what errors are measured with
    scale = (np.abs(vectors).max(axis=1) / _LARGEST).astype(np.float32)
    wide = scale.astype(np.float64)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        codes = np.where(wide > 0, np.clip(np.rint(vectors / wide), -_LARGEST, _LARGEST), 0.0)
    return codes.astype(np.int8), scale, wide * codes


def rounded_up(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return `values` as float32 that are no smaller."""
    return np.nextafter(values.astype(np.float32), np.float32(np.inf))
