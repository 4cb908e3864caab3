"""Rows in half precision on a graphics card, and a scan of them whose scores come with a proven bound on their error."""

from __future__ import annotations

import logging
import threading
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mcp_server.indexes.embeddings import Embeddings

logger = logging.getLogger(__name__)

RESERVE = 0.2
"""Part of the card's memory left to others: the encoder, other collections, other programs."""
GATHER_BELOW = 0.15
"""Below this share of allowed rows, gathering them is quicker than reading all: a row takes six times as long then, measured on an H200."""
_GATHERED_AT_ONCE = 131_072
_UPLOADED_AT_ONCE = 16_384
_FLOAT32_ROUNDOFF = 2.0**-24
_DEVICE_ROUNDOFF = 2.0**-22
_SAMPLE = 2_048


class Candidates(NamedTuple):
    """Rows that may be among the best.

    Attributes:
        positions: (C,) int64, in the order of their scores on the device.
        rows: (C, D) float16 as they are stored, None where the device has something else.
        ceiling: no cosine of an allowed row that the device scores lower exceeds it.
    """

    positions: NDArray[np.int64]
    rows: NDArray[np.float16] | None
    ceiling: float


class DeviceRows:
    """Scores the rows of a collection by inner product where they lie. Safe to call from several threads; one call computes at a time.

    A row x on the device stands for the unit vector u of the stored row, a query p for the unit vector q. The products of half-precision
    numbers are exact in float32, and a float32 sum of D of them, in any order, is off by at most D v / (1 - D v) |p| |x|. So the sum
    differs from the cosine <q, u> by no more than |x - u| + |p - q| |x| + that: the margin. Sums are then rounded to half precision, which
    keeps their order: nothing that is not among the best is above the next number after the lowest of the best.

    v is 2**-24 for sums rounded to nearest; 2**-22 is used, because the adders of tensor cores truncate.
    Sources: N. J. Higham, Accuracy and Stability of Numerical Algorithms, section 3.1; M. Fasi et al., Numerical behavior of NVIDIA tensor
    cores, PeerJ Computer Science 7:e330, 2021.

    That a device sums in float32 is not taken on trust: `torch.mv` is held against float64 on these very rows, and on rows whose sums half
    precision gets wrong. Where it is off by more than the bound, products are formed and summed in float32 one by one, which is slower and
    leaves nothing to the library. The check is of a sample, so on a device whose library breaks its own promise now and then it is
    evidence, not proof.
    """

    def __init__(self, embeddings: Embeddings, device: str) -> None:
        """Copy the rows to `device`, such as "cuda:0"; "cpu" runs the same code.

        Raises:
            RuntimeError: the device is not there, or its memory is full.
        """
        self._device = torch.device(device)
        self._lock = threading.Lock()
        self._as_stored = embeddings.normalised and embeddings.rows.dtype == np.float16
        self._rows, self._residual = _uploaded(embeddings, self._device, self._as_stored)
        self._unusable = embeddings.unusable
        self._stage = torch.empty(embeddings.size, dtype=torch.bool, pin_memory=self._device.type == "cuda").numpy()
        if self._device.type == "cuda":
            # sums split over blocks may otherwise meet in half precision; the process has no other use for that
            torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
        self.sums_in_float32 = self._is_within_bound()
        if not self.sums_in_float32:
            logger.warning("device.sums_not_in_float32 device=%s Rows are scored in float32, which is slower.", self._device)

    def top(self, query: NDArray[np.float64], k: int, count: int, skip: NDArray[np.bool_], allowed: int) -> Candidates:
        """Return those of the `count` allowed rows of highest score that may be among the best k.

        Args:
            query: (D,) of unit length.
            k: at most `count`.
            count: fewer than there are allowed rows.
            skip: (N,) bool; usable rows outside it are allowed.
            allowed: how many these are, at the least.

        Raises:
            RuntimeError: the memory of the device is full.
        """
        vector, margin = self._rounded(query)
        with self._lock:
            scores, rows = self._scored(vector, skip, allowed)
            best = torch.topk(scores, count)
            found = best.indices if rows is None else rows[best.indices]
            values, positions, *stored = self._landed(best.values, found, *([self._rows[found]] if self._as_stored else []))
        lowest, highest = _sums(values)
        may = highest + margin >= lowest[k - 1] - margin
        return Candidates(positions[may], stored[0][may] if stored else None, float(highest[-1]) + margin)

    def above(
        self, query: NDArray[np.float64], threshold: float, skip: NDArray[np.bool_], allowed: int, limit: int
    ) -> NDArray[np.int64] | None:
        """Return, in no order, allowed rows among which are all whose cosine is at least `threshold`; None when more than `limit` are.

        Takes and raises what `top` does.
        """
        vector, margin = self._rounded(query)
        with self._lock:
            scores, rows = self._scored(vector, skip, allowed)
            narrow = np.float16 if scores.dtype == torch.float16 else np.float32
            within = scores >= float(np.nextafter(narrow(threshold - margin), narrow(-np.inf)))  # rounded down: none may be missed
            if int(torch.count_nonzero(within)) > limit:
                return None
            found = torch.nonzero(within)[:, 0]
            return self._landed(found if rows is None else rows[found])[0]

    def _landed(self, *found: torch.Tensor) -> list[NDArray[Any]]:
        """Return what was found, in memory of the machine: one wait for all of it."""
        if self._device.type != "cuda":
            return [one.cpu().numpy() for one in found]
        landed = [torch.empty(one.shape, dtype=one.dtype, pin_memory=True) for one in found]
        for here, there in zip(landed, found, strict=True):
            here.copy_(there, non_blocking=True)
        torch.cuda.current_stream(self._device).synchronize()
        return [here.numpy() for here in landed]

    def _rounded(self, query: NDArray[np.float64]) -> tuple[torch.Tensor, float]:
        """Return the query as the device gets it, and the margin of scores found with it."""
        kept = query.astype(np.float16 if self.sums_in_float32 else np.float32)
        missing = float(np.linalg.norm(kept.astype(np.float64) - query))
        return torch.from_numpy(kept).to(self._device), self._margin(missing)

    def _margin(self, missing: float) -> float:
        steps = (self._rows.shape[1] + 4) * _DEVICE_ROUNDOFF
        summing = steps / (1 - steps) if steps < 1 else np.inf
        row = 1 + self._residual
        return self._residual + missing * row + summing * (1 + missing) * row + 2 * _FLOAT32_ROUNDOFF  # the last: cosines are rounded too

    def _scored(self, vector: torch.Tensor, skip: NDArray[np.bool_], allowed: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return scores, of all rows with -inf where not allowed, or of the rows returned with them. Under the lock."""
        scores = self._products(self._rows, vector) if allowed >= GATHER_BELOW * len(skip) else None  # goes on while the mask is made
        np.logical_or(skip, self._unusable, out=self._stage)
        mask = torch.from_numpy(self._stage).to(self._device, non_blocking=True)
        if scores is not None:
            return scores.masked_fill_(mask, -torch.inf), None
        rows = torch.nonzero(~mask)[:, 0]
        return torch.cat([self._products(self._rows.index_select(0, some), vector) for some in rows.split(_GATHERED_AT_ONCE)]), rows

    def _products(self, rows: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        if vector.dtype == torch.float16:
            return self._multiplied(rows, vector)
        return torch.cat([(part.float() * vector).sum(1) for part in rows.split(_UPLOADED_AT_ONCE)])

    def _multiplied(self, rows: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        """Return the products in half precision, as the device's library forms them."""
        return torch.mv(rows, vector)

    def _is_within_bound(self) -> bool:
        """Tell whether half-precision products of these rows, and of rows that half-precision sums get wrong, are as the bound says."""
        size, width = self._rows.shape
        if size == 0:
            return True
        random = np.random.default_rng(0)
        query = random.standard_normal(width)
        query = (query / np.linalg.norm(query)).astype(np.float16)
        flat = np.full(width, 1 / np.sqrt(width), np.float16)
        # equal numbers, added one by one: rounding errs to the same side every time
        equal = np.repeat(np.linspace(0.6, 1, 64)[:, None] / np.sqrt(width), width, axis=1).astype(np.float16)
        sample = np.sort(random.choice(size, min(size, _SAMPLE), replace=False))
        places = torch.from_numpy(sample).to(self._device)
        for rows, shown, vector in (
            (self._rows, places, query),
            (self._rows, places, flat),
            (self._rows.index_select(0, places), None, query),
            (torch.from_numpy(equal).to(self._device), None, flat),
        ):
            scores = self._multiplied(rows, torch.from_numpy(vector).to(self._device))
            read, scores = (rows, scores) if shown is None else (rows.index_select(0, shown), scores.index_select(0, shown))
            wide, narrow = read.cpu().numpy().astype(np.float64), scores.cpu().numpy()
            summing = self._margin(0) * np.linalg.norm(wide, axis=1) * np.linalg.norm(vector.astype(np.float64))
            if np.any(np.abs(narrow.astype(np.float64) - wide @ vector.astype(np.float64)) > summing + np.spacing(np.abs(narrow))):
                return False
        return True


def _sums(scores: NDArray[np.float16] | NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what the sums, of which `scores` are what is left, were at least and at most."""
    if scores.dtype == np.float32:
        return scores.astype(np.float64), scores.astype(np.float64)
    lower, upper = (np.nextafter(scores, np.float16(end)).astype(np.float64) for end in (-np.inf, np.inf))
    return lower, upper


def has_room(size: int, width: int, device: str) -> bool:
    """Tell whether a card has memory for that many rows, what a search needs on top, and a reserve; other devices always have.

    Raises:
        RuntimeError: the device is not there.
    """
    if torch.device(device).type != "cuda":
        return True
    torch.cuda.empty_cache()  # what an earlier version of the collection left behind counts as free
    free, total = torch.cuda.mem_get_info(torch.device(device))
    return 2 * size * width + 16 * size + 4 * width * _GATHERED_AT_ONCE <= free - RESERVE * total


def _uploaded(embeddings: Embeddings, device: torch.device, as_stored: bool) -> tuple[torch.Tensor, float]:
    """Return the rows on `device`, as they are stored or at unit length, unusable ones as zeros, and how far the farthest usable one is
    from its unit vector."""
    size, width = embeddings.rows.shape
    on_device = torch.zeros((size, width), dtype=torch.float16, device=device)
    stage = torch.empty((min(size, _UPLOADED_AT_ONCE), width), dtype=torch.float16, pin_memory=device.type == "cuda")
    lengths = embeddings.norms[~embeddings.unusable].astype(np.float64)
    # a stored row and its unit vector differ by how far its length, kept in float32, is from 1
    residual = float(np.abs(lengths - 1).max(initial=0)) + 2 * _FLOAT32_ROUNDOFF if as_stored else 0.0
    for start in range(0, size, _UPLOADED_AT_ONCE):
        block = embeddings.rows[start : start + _UPLOADED_AT_ONCE]
        unusable = embeddings.unusable[start : start + len(block)]
        staged = stage[: len(block)]
        if as_stored:
            staged.numpy()[:] = block
        else:
            residual = max(residual, _rounded_units(block, unusable, staged.numpy()))
        staged.numpy()[unusable] = 0
        on_device[start : start + len(block)].copy_(staged)
    return on_device, residual


def _rounded_units(block: NDArray[np.float16] | NDArray[np.float32], unusable: NDArray[np.bool_], target: NDArray[np.float16]) -> float:
    """Write the unit vectors of `block` to `target`, and return how far the farthest of them is from what was written."""
    wide = block.astype(np.float64)
    wide[unusable] = 0
    lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    wide /= np.where(lengths > 0, lengths, 1)[:, None]
    target[:] = wide
    wide -= target
    return float(np.sqrt(np.einsum("ij,ij->i", wide, wide)).max(initial=0))
