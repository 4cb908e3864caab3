"""One byte a number: rows coded so that scores computed from the codes come with a proven bound on their error.

A unit row x is centred and rotated, r = R (x - mean) with R orthogonal, so that no coordinate is much larger than the others; then
r ~ scale * code, and margin = |r - scale * code| is kept. With a unit query q, p = R q ~ t * k, and <q, x> = <q, mean> + <p, r>:

    |<q, x> - (<q, mean> + scale t <code, k>)| <= margin + |p - t k| |scale code|.

Source: Cauchy-Schwarz; everything but <code, k>, which is exact, is computed in float64, whose own rounding `ROUNDING` covers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_server.indexes.code_table import ROUNDING, CodedQuery, CodeTable, coded, rounded_up
from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.projections import Projections, ProjectionWriter, principal_axes
from mcp_server.indexes.rotation import Rotation
from mcp_server.indexes.scoring import unit_tile
from mcp_server.side_files import Draft, SideSet

FORMAT = 5
"""Counts up when codes are made in another way."""
_TILE = 2048
_LET_GO_EVERY = 64 * _TILE
_SAMPLE = 65_536


@dataclass(frozen=True, eq=False)
class Codes:
    """The codes of N rows of width D. Nothing in it changes; safe to share between threads.

    Attributes:
        table: of the turned rows, W = D.
        mean: (D,) float64.
        rotation: R.
        projections: codes of fewer bytes, where they are of use.
    """

    table: CodeTable
    mean: NDArray[np.float64] = field(repr=False)
    rotation: Rotation = field(repr=False)
    projections: Projections | None

    @property
    def arrays(self) -> list[NDArray[Any]]:
        """What a search reads, what it looks at first at the front."""
        return [*(self.projections.table.arrays if self.projections is not None else []), *self.table.arrays]

    def query(self, unit: NDArray[np.float64]) -> CodedQuery:
        """Return `unit`, (D,) float64 of unit length, in the terms of these codes."""
        return self.table.query(self.rotation.turn(unit[None])[0], float(self.mean @ unit), 1.0, ROUNDING)

    @classmethod
    def of(cls, stored: SideSet) -> Codes:
        """Return the codes that `write_codes` wrote."""
        arrays = stored.arrays
        return cls(
            CodeTable(arrays["codes"], arrays["scale"], arrays["margin"], float(stored.about["longest"])),
            arrays["mean"],
            Rotation(arrays["left"], arrays["right"], arrays["signs"]),
            Projections.of(stored),
        )


class CodingStoppedError(Exception):
    """The codes are not wanted any more."""


def centred_tiles(
    embeddings: Embeddings, mean: NDArray[np.float64], is_wanted: Callable[[], bool]
) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yield all rows at unit length less `mean`, (M, D) float64, zeros for unusable ones, and which rows they are.

    By one thread: searches go on beside it.

    Raises:
        CodingStoppedError: `is_wanted` said no, which it is asked before every tile.
    """
    for start in range(0, embeddings.size, _TILE):
        if not is_wanted():
            raise CodingStoppedError
        stretch = slice(start, min(start + _TILE, embeddings.size))
        if start % _LET_GO_EVERY == 0:
            embeddings.passed()
        tile = unit_tile(embeddings, stretch) - mean
        tile[embeddings.unusable[stretch]] = 0
        yield stretch, tile


def write_codes(embeddings: Embeddings, draft: Draft, is_wanted: Callable[[], bool] = lambda: True) -> None:
    """Write the codes of `embeddings` into `draft`, some 40 microseconds a row of 1,152. The same rows give the same codes.

    Raises:
        CodingStoppedError: `is_wanted` said no, which it is asked every few thousand rows.
        OSError: the disk is full.
    """
    size, width = embeddings.size, embeddings.width
    mean, rotation = _mean(embeddings), Rotation.random(width)
    axes = principal_axes(embeddings, mean)
    projections = ProjectionWriter(draft, size, mean, axes) if axes is not None else None
    codes = draft.stream("codes", (size, width), np.int8)
    scale, margin = np.zeros(size, np.float32), np.zeros(size, np.float32)
    longest = 0.0

    for stretch, tile in centred_tiles(embeddings, mean, is_wanted):
        turned = rotation.turn(tile)
        code, scale[stretch], decoded = coded(turned)
        codes.append(code)
        margin[stretch] = rounded_up(np.linalg.norm(turned - decoded, axis=1))
        longest = max(longest, float(np.linalg.norm(decoded, axis=1).max()))
        if projections is not None:
            projections.add(stretch, tile)

    for name, array in (("scale", scale), ("margin", margin), ("mean", mean)):
        draft.put(name, array)
    for name, array in (("left", rotation.left), ("right", rotation.right), ("signs", rotation.signs)):
        draft.put(name, array)
    draft.about["longest"] = longest
    if projections is not None:
        projections.end()


def _mean(embeddings: Embeddings) -> NDArray[np.float64]:
    """Return the mean of evenly spaced unit rows; any vector would do, this one makes the codes finest."""
    rows = np.flatnonzero(~embeddings.unusable)
    rows = rows[np.linspace(0, len(rows) - 1, min(_SAMPLE, len(rows))).astype(np.int64)]
    total = np.zeros(embeddings.width, np.float64)
    for start in range(0, len(rows), _TILE):
        total += unit_tile(embeddings, rows[start : start + _TILE]).sum(axis=0)
    return total / max(1, len(rows))
