"""An axis learnt from queries. What texts have in common, pictures hardly differ in, so the principal axes of pictures miss it.

Of a text's part beside those axes, the longest by far is the way from pictures to texts, which all texts share. Taken as one axis more, it
makes the bound of projections tighter at the price of one number a row: g, of unit length and orthogonal to the axes, with the rows'
coordinates a = <g, x - mean> in float32; and margin, the length of the rest, becomes sqrt(margin^2 - a^2).

Source of the common direction: Liang et al. 2022, Mind the Gap. The bound is that of `projections`, of the axes and g together: its skew is
measured for both, and what it has grown by is added to the rest, with |A (x - mean)|^2 <= 5.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_server.indexes.code_table import rounded_up
from mcp_server.indexes.codes import centred_tiles
from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.projections import FLOOR, Projections
from mcp_server.side_files import Draft, SideSet

FORMAT = 1
"""Counts up when an axis is made in another way."""
QUERIES = 16
"""From so many different ones an axis is learnt."""
_FAR = 0.5
"""Queries that are no longer than that beside the axes, as pictures are, have no need of another one and do not count."""
_PATIENCE = 1_000
"""After about so many of those it is not worth listening any more."""
_SAME = 0.999
_WORTH = 0.25
"""So much of the squared length of what is beside the axes must lie along the new one, on average."""


class Lesson:
    """Listens to queries until there is something to learn from them. Safe to use from several threads."""

    def __init__(self, projections: Projections) -> None:
        """Nothing was heard yet; `projections` are those that the axis is to be added to."""
        self._projections = projections
        self._heard: list[NDArray[np.float64]] = []
        self._near = 0
        self._is_over = False
        self._lock = threading.Lock()

    def hear(self, unit: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Take note of a query, (D,) float64 of unit length; return (D,) what queries have in common, once, if it is worth an axis."""
        if self._is_over:
            return None
        coordinates = self._projections.coordinates(unit)
        if 1 - float(coordinates @ coordinates) < _FAR**2:
            self._near += 1
            self._is_over = self._near >= _PATIENCE
            return None
        beside = self._projections.beside(unit, coordinates)
        beside /= np.linalg.norm(beside)
        with self._lock:
            if self._is_over or any(float(one @ beside) > _SAME for one in self._heard):
                return None
            self._heard.append(beside)
            if len(self._heard) < QUERIES:
                return None
            self._is_over = True
            heard, self._heard = np.array(self._heard), []
        common = heard.mean(axis=0)
        common /= max(float(np.linalg.norm(common)), FLOOR)
        return common if float(np.mean((heard @ common) ** 2)) >= _WORTH else None


def write_axis(
    embeddings: Embeddings,
    projections: Projections,
    direction: NDArray[np.float64],
    draft: Draft,
    is_wanted: Callable[[], bool] = lambda: True,
) -> None:
    """Write the axis nearest to `direction`, (D,), into `draft`, some 4 microseconds a row of 1,152. The same input gives the same axis.

    Raises:
        CodingStoppedError: `is_wanted` said no, which it is asked every few thousand rows.
        OSError: the disk is full.
    """
    wide = projections.axes.astype(np.float64)
    for _ in range(2):  # the second time for what rounding left the first time
        direction = direction - wide.T @ (wide @ direction)
        direction = direction / np.linalg.norm(direction)
    together = np.vstack([wide, direction])
    skew = float(np.linalg.norm(together @ together.T - np.eye(len(together))))
    grown = 5 * max(0.0, skew - projections.skew)
    size = embeddings.size
    along, beside = np.zeros(size, np.float32), np.zeros(size, np.float32)
    for stretch, tile in centred_tiles(embeddings, projections.mean, is_wanted):
        here = tile @ direction
        along[stretch] = here
        left = projections.table.margin[stretch].astype(np.float64) ** 2 + grown - (1 - skew) * here**2
        beside[stretch] = rounded_up(np.sqrt(np.maximum(left, 0)) + FLOOR)
    for name, array in (("direction", direction), ("along", along), ("beside", beside)):
        draft.put(name, array)
    draft.about["skew"] = skew


def key_of(projections: Projections) -> dict[str, Any]:
    """Return what an axis for `projections` is known by: it holds for these very axes, to the last bit."""
    return {"axis": FORMAT, "axes": hashlib.sha256(projections.axes.tobytes()).hexdigest()}


def with_axis(projections: Projections, stored: SideSet) -> Projections:
    """Return `projections` with the axis that `write_axis` wrote for them."""
    arrays = stored.arrays
    table = replace(projections.table, margin=arrays["beside"], along=arrays["along"])
    return replace(projections, table=table, skew=float(stored.about["skew"]), direction=arrays["direction"])
