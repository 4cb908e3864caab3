"""Shorter codes: of the rows' projections on the few directions in which they differ most, with a bound for what is left out.

A unit row x is centred and projected, y = A (x - mean), where the rows of A, (H, D), span the first principal axes of the collection; y ~
scale * code, and margin >= |x - mean - A^T y|, the length of the rest, is kept. With a unit query q, p = A q ~ t * k:

    |<q, x> - (<q, mean> + scale t <code, k>)| <= |q - A^T p| margin + |p| |y - scale * code| + |p - t k| |scale code|.

Rows that this rules out, nearly all of them if the rest is short, need not be looked at in the longer codes.

One more direction may be learnt from queries (`query_axis`). It counts as one axis more; the rows' coordinates on it are kept as they are.

Source: Cauchy-Schwarz, on the axes and beside them. A is of float32, hence a little off being orthonormal: by the norm of A A^T - 1, which
is measured. Codes are made in float64, whose own rounding `ROUNDING` covers; p is summed in float32, whose rounding is in the bounds.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mcp_server.indexes.code_table import ROUNDING, CodedQuery, CodeTable, coded, rounded_up
from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.kernels import UNIT_ROUNDOFF, dots, rounding
from mcp_server.indexes.rotation import random_orthogonal
from mcp_server.indexes.scoring import unit_tile
from mcp_server.side_files import Draft, SideSet

logger = logging.getLogger(__name__)

_SAMPLE = 16_384
_TILE = 4_096
_STEP = 64
"""H is a multiple of it, so that rows begin where cache lines do."""
_REST = 0.26
"""H is so large that the rest of a row is about so long: by then nearly all rows are ruled out, and more axes cost more than they save."""
_REST_AT_MOST = 0.3
"""With a rest longer than that at D / 2 axes, too few are."""
FLOOR = 1e-7
"""Above the rounding of the length of a rest, a root of a difference."""


@dataclass(frozen=True, eq=False)
class Projections:
    """The codes of the projections of N rows. Nothing in it changes; safe to share between threads.

    Attributes:
        table: of the projections, W = H.
        mean: (D,) float64.
        axes: (H, D) float32, A.
        largest_error: the longest `y - scale * code`.
        skew: the norm of A A^T - 1; with a direction, of A and it together.
        direction: (D,) float64, the axis learnt from queries; None: there is none.
    """

    table: CodeTable
    mean: NDArray[np.float64] = field(repr=False)
    axes: NDArray[np.float32] = field(repr=False)
    largest_error: float
    skew: float
    direction: NDArray[np.float64] | None = field(default=None, repr=False)

    def query(self, unit: NDArray[np.float64]) -> CodedQuery:
        """Return `unit`, (D,) float64 of unit length, in the terms of these codes."""
        vector = self.coordinates(unit)
        count, width = self.axes.shape
        off = (1 + self.skew) * (math.sqrt(count) * rounding(width) + UNIT_ROUNDOFF)
        along = float(self.direction @ unit) if self.direction is not None else 0.0
        length = math.hypot(float(np.linalg.norm(vector)), along)
        # |q - A^T p|^2 = 1 - 2 |p|^2 + |A^T p|^2
        beside = math.sqrt(max(0.0, 1 - (1 - self.skew) * max(0.0, length - off) ** 2)) + FLOOR
        slack = (length + off) * (self.largest_error + 2 * self.skew) + ROUNDING
        return self.table.query(vector, float(self.mean @ unit), beside, slack, off, along)

    def coordinates(self, unit: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return A q of `unit`, (D,) of unit length: (H,) float64, summed in float32."""
        return dots(unit.astype(np.float32), self.axes).astype(np.float64)

    def beside(self, unit: NDArray[np.float64], coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return what `unit`, (D,), which has these `coordinates`, is beside the axes, (D,) float64."""
        return unit - coordinates @ self.axes

    @classmethod
    def of(cls, stored: SideSet) -> Projections | None:
        """Return the projections that a `ProjectionWriter` wrote; None where there were no axes."""
        arrays, about = stored.arrays, stored.about
        if "axes" not in arrays:
            return None
        table = CodeTable(arrays["projected"], arrays["projected_scale"], arrays["beside"], float(about["projected_longest"]))
        return cls(table, arrays["mean"], arrays["axes"], float(about["projected_error"]), float(about["skew"]))


class ProjectionWriter:
    """Writes projections into a draft, stretch by stretch."""

    def __init__(self, draft: Draft, size: int, mean: NDArray[np.float64], axes: NDArray[np.float32]) -> None:
        """Begin to write those of `size` rows on `axes`."""
        self._draft = draft
        self._axes = axes
        self._wide = axes.astype(np.float64)
        self._skew = float(np.linalg.norm(self._wide @ self._wide.T - np.eye(len(axes))))
        self._codes = draft.stream("projected", (size, len(axes)), np.int8)
        self._scale, self._margin = np.zeros(size, np.float32), np.zeros(size, np.float32)
        self._longest = self._largest_error = 0.0

    def add(self, stretch: slice, centred: NDArray[np.float64]) -> None:
        """Write the next rows, those of `stretch`, (M, D) less the mean, zeros for unusable ones."""
        projected = centred @ self._wide.T
        code, self._scale[stretch], decoded = coded(projected)
        self._codes.append(code)
        left = np.einsum("ij,ij->i", centred, centred) - (1 - self._skew) * np.einsum("ij,ij->i", projected, projected)
        self._margin[stretch] = rounded_up(np.sqrt(np.maximum(left, 0)) + FLOOR)
        self._longest = max(self._longest, float(np.linalg.norm(decoded, axis=1).max()))
        self._largest_error = max(self._largest_error, float(np.linalg.norm(projected - decoded, axis=1).max()))

    def end(self) -> None:
        """Write what belongs to all rows."""
        for name, array in (("projected_scale", self._scale), ("beside", self._margin), ("axes", self._axes)):
            self._draft.put(name, array)
        self._draft.about |= {"projected_longest": self._longest, "projected_error": self._largest_error, "skew": self._skew}


def principal_axes(embeddings: Embeddings, mean: NDArray[np.float64]) -> NDArray[np.float32] | None:
    """Return (H, D) float32, orthonormal, along which evenly spaced unit rows less `mean` vary most; None if D / 2 are too few for that."""
    rows = np.flatnonzero(~embeddings.unusable)
    width = embeddings.width
    if len(rows) < width or width < 2 * _STEP:
        return None
    rows = rows[np.linspace(0, len(rows) - 1, min(_SAMPLE, len(rows))).astype(np.int64)]
    covariance = np.zeros((width, width), np.float64)
    for start in range(0, len(rows), _TILE):
        centred = (unit_tile(embeddings, rows[start : start + _TILE]) - mean).astype(np.float32)
        covariance += centred.T @ centred
    strengths, vectors = np.linalg.eigh(covariance / len(rows))
    left = np.sqrt(np.maximum(0, strengths.sum() - np.cumsum(strengths[::-1])))
    counts = range(_STEP, width // 2 + 1, _STEP)
    if left[counts[-1] - 1] > _REST_AT_MOST:
        logger.debug("projections.none width=%d rest=%.3f", width, left[counts[-1] - 1])
        return None
    count = next((count for count in counts if left[count - 1] <= _REST), counts[-1])
    # turned, so that no number of a projection is much larger than the others
    return np.ascontiguousarray((random_orthogonal(count) @ vectors[:, ::-1][:, :count].T).astype(np.float32))
