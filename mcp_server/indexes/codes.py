"""One byte a number: rows coded so that scores computed from the codes come with a proven bound on their error.

A unit row x is centred and rotated, r = R (x - mean) with R orthogonal, so that no coordinate is much larger than the others; then
r ~ scale * code, code in -127..127, and error = |r - scale * code| is kept. A unit query q becomes p = R q ~ t * k in the same way. Since
<q, x> = <q, mean> + <p, r>,

    |<q, x> - (<q, mean> + scale t <code, k>)| <= error |p| + |p - t k| |scale code|.

Source: Cauchy-Schwarz; everything but <code, k>, which is exact, is computed in float64, whose own rounding `_ROUNDING` covers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.rotation import Rotation
from mcp_server.indexes.scoring import unit_tile
from mcp_server.side_files import Draft, SideSet

FORMAT = 2
"""Counts up when codes are made in another way."""
_TILE = 2048
_LET_GO_EVERY = 64 * _TILE
_LARGEST = 127
_SAMPLE = 65_536
_ROUNDING = 1e-6
"""More than all the rounding of float64 above, and of the float32 in which estimates are summed, can amount to for scores up to 1."""


@dataclass(frozen=True, eq=False)
class CodedQuery:
    """A query in the terms of the codes.

    Attributes:
        code: (D,) int8.
        factor: t; an estimate is `offset + scale * factor * <code of the row, code>`.
        offset: <q, mean>.
        slack: what an estimate may be off by, beside the row's own `error`.
        rest: (D,) int8, what rounding the query to `code` lost, by `rest_factor`; an estimate with `scale * rest_factor * <code of the
            row, rest>` added is off by `rest_slack` only.
    """

    code: NDArray[np.int8]
    factor: float
    offset: float
    slack: float
    rest: NDArray[np.int8]
    rest_factor: float
    rest_slack: float


@dataclass(frozen=True, eq=False)
class Codes:
    """The codes of N rows of width D. Nothing in it changes; safe to share between threads.

    Attributes:
        codes: (N, D) int8; zeros for unusable rows.
        scale: (N,) float32.
        error: (N,) float32, rounded up.
        mean: (D,) float64.
        rotation: R.
        largest_error: the maximum of `error`.
        longest: the longest `scale * code`.
    """

    codes: NDArray[np.int8] = field(repr=False)
    scale: NDArray[np.float32] = field(repr=False)
    error: NDArray[np.float32] = field(repr=False)
    mean: NDArray[np.float64] = field(repr=False)
    rotation: Rotation = field(repr=False)
    largest_error: float
    longest: float

    def query(self, unit: NDArray[np.float64]) -> CodedQuery:
        """Return `unit`, (D,) float64 of unit length, in the terms of these codes."""
        code, factor, missed = _in_bytes(self.rotation.turn(unit[None])[0])
        rest, rest_factor, rest_missed = _in_bytes(missed)
        return CodedQuery(
            code,
            factor,
            float(self.mean @ unit),
            float(np.linalg.norm(missed)) * self.longest + _ROUNDING,
            rest,
            rest_factor,
            float(np.linalg.norm(rest_missed)) * self.longest + _ROUNDING,
        )

    @classmethod
    def of(cls, stored: SideSet) -> Codes:
        """Return the codes that `write_codes` wrote."""
        arrays, about = stored.arrays, stored.about
        return cls(
            arrays["codes"],
            arrays["scale"],
            arrays["error"],
            arrays["mean"],
            Rotation(arrays["left"], arrays["right"], arrays["signs"]),
            float(about["largest_error"]),
            float(about["longest"]),
        )


def _in_bytes(vector: NDArray[np.float64]) -> tuple[NDArray[np.int8], float, NDArray[np.float64]]:
    """Return whole numbers, by which factor they are near `vector`, and what is missing then."""
    factor = max(float(np.abs(vector).max()) / _LARGEST, 1e-30)
    code = np.rint(vector / factor)
    return code.astype(np.int8), factor, vector - factor * code


class CodingStoppedError(Exception):
    """The codes are not wanted any more."""


def write_codes(embeddings: Embeddings, draft: Draft, is_wanted: Callable[[], bool] = lambda: True) -> None:
    """Write the codes of `embeddings` into `draft`, some 15 microseconds a row of 1,152. The same rows give the same codes.

    Raises:
        CodingStoppedError: `is_wanted` said no, which it is asked every few thousand rows.
        OSError: the disk is full.
    """
    size, width = embeddings.size, embeddings.width
    mean, rotation = _mean(embeddings), Rotation.random(width)
    codes = draft.stream("codes", (size, width), np.int8)
    scale, error = np.zeros(size, np.float32), np.zeros(size, np.float32)
    lengths = np.zeros(size, np.float64)

    for start in range(0, size, _TILE):  # by one thread: searches go on beside it
        if not is_wanted():
            raise CodingStoppedError
        stretch = slice(start, min(start + _TILE, size))
        if start % _LET_GO_EVERY == 0:
            embeddings.passed()
        tile = unit_tile(embeddings, stretch) - mean
        turned = rotation.turn(tile)
        # rounded to float32 first: what is stored is what errors are measured with
        steps = (np.abs(turned).max(axis=1) / _LARGEST).astype(np.float32)
        steps[embeddings.unusable[stretch]] = 0
        wide = steps.astype(np.float64)[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            coded = np.where(wide > 0, np.clip(np.rint(turned / wide), -_LARGEST, _LARGEST), 0.0)
        decoded = wide * coded
        codes.append(coded.astype(np.int8))
        scale[stretch] = steps
        error[stretch] = np.nextafter(np.linalg.norm(turned - decoded, axis=1).astype(np.float32), np.float32(np.inf))
        lengths[stretch] = np.linalg.norm(decoded, axis=1)

    for name, array in (("scale", scale), ("error", error), ("mean", mean)):
        draft.put(name, array)
    for name, array in (("left", rotation.left), ("right", rotation.right), ("signs", rotation.signs)):
        draft.put(name, array)
    usable = ~embeddings.unusable
    draft.about |= {"largest_error": float(error[usable].max(initial=0)), "longest": float(lengths.max(initial=0))}


def _mean(embeddings: Embeddings) -> NDArray[np.float64]:
    """Return the mean of evenly spaced unit rows; any vector would do, this one makes the codes finest."""
    rows = np.flatnonzero(~embeddings.unusable)
    rows = rows[np.linspace(0, len(rows) - 1, min(_SAMPLE, len(rows))).astype(np.int64)]
    total = np.zeros(embeddings.width, np.float64)
    for start in range(0, len(rows), _TILE):
        total += unit_tile(embeddings, rows[start : start + _TILE]).sum(axis=0)
    return total / max(1, len(rows))
