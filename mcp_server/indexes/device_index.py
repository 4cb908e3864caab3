"""Exact search on a graphics card: scored there in half precision, proven and scored anew here."""

from __future__ import annotations

import ctypes
import logging
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mcp_server.domain.search import Neighbors
from mcp_server.errors import ConfigError
from mcp_server.indexes.base import Index
from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.scoring import best_first, checked_mask, checked_tie_keys, cosines, cosines_of, unit_query

if TYPE_CHECKING:
    from mcp_server.indexes.device_rows import DeviceRows

logger = logging.getLogger(__name__)

_SPARE = 64
"""Rows fetched beyond k, at least, so that the first scan nearly always proves the answer."""
PLAIN_UP_TO = 800
"""So few allowed rows are scored as quickly without the way to the card and back, measured on an H200."""
_CANDIDATES = 20_000
"""With more near-equal rows than that the plain index searches: it reads them faster than they can be scored one by one."""

Device = str | Callable[[], str | None]
Upload = Callable[[Embeddings, str], "DeviceRows | None"]


class DeviceIndex:
    """Always the true nearest rows, as the index it stands before finds them, but faster. Implements `Index`.

    The rows are copied to the device in the background; until they are there, when there is no room for them, and for whatever the device
    cannot prove, the plain index answers. A scan of known error fetches a few more rows than asked; their cosines are computed anew from
    the stored rows as `ExactIndex` does, and the answer stands if no row outside can reach it. If one could (many near-equal rows),
    everything within the error of the k-th score is fetched.
    """

    def __init__(
        self,
        plain: Index,
        embeddings: Embeddings,
        device: Device,
        tie_keys: NDArray[np.int64] | None = None,
        *,
        plain_up_to: int = PLAIN_UP_TO,
        upload: Upload | None = None,
    ) -> None:
        """Stand before `plain`, the exact index of `embeddings` with the same tie keys, and begin to copy the rows to `device`.

        Args:
            plain: answers everything that is not answered on the device.
            embeddings: the rows.
            device: such as "cuda:0"; or what says so, asked in the background, None for no device at all.
            tie_keys: as those of `plain`.
            plain_up_to: so few allowed rows are left to `plain`.
            upload: copies the rows, returns None where there is no room; given by tests.

        Raises:
            IndexMismatchError: not one tie key per row.
        """
        self._plain = plain
        self._embeddings = embeddings
        self._ties = checked_tie_keys(embeddings, tie_keys)
        self._unusable = int(np.count_nonzero(embeddings.unusable))
        self._plain_up_to = plain_up_to
        self._resident: DeviceRows | None = None
        self._thread = threading.Thread(target=self._fetch, args=(device, upload or _upload), name="device-upload", daemon=True)
        self._thread.start()

    @property
    def size(self) -> int:
        """N."""
        return self._plain.size

    @property
    def width(self) -> int:
        """D."""
        return self._plain.width

    @property
    def unusable(self) -> NDArray[np.bool_]:
        """(N,) bool, rows never returned."""
        return self._plain.unusable

    @property
    def is_on_device(self) -> bool:
        """Whether the rows are on the device by now."""
        return self._resident is not None

    def wait(self, seconds: float) -> None:
        """Wait for the copying that is under way."""
        self._thread.join(seconds)

    def search(self, query: NDArray[np.float32], k: int, skip: NDArray[np.bool_]) -> Neighbors:
        """Return the best min(k, rows allowed) rows not in `skip`, as `Index.search` promises; `approximation` is None.

        Raises:
            IndexMismatchError: the query is not D wide or the mask not N long.
            ValueError: k is less than 1, or the query is not finite or has no length.
        """
        resident = self._resident
        if resident is not None:
            unit = unit_query(query, self.width)
            checked_mask(self._embeddings, k, skip)
            allowed = self.size - int(np.count_nonzero(skip)) - self._unusable  # at the least
            fetched = k + max(_SPARE, k)
            if allowed > max(self._plain_up_to, fetched):
                try:
                    nearest = self._proven(resident, unit, k, fetched, skip, allowed)
                except RuntimeError as error:  # what PyTorch raises when the card is full, or gone
                    logger.warning("device.failed error=%s The plain index answers.", " ".join(str(error).split())[:200])
                    nearest = None
                if nearest is not None:
                    return nearest
        return self._plain.search(query, k, skip)

    def best_score(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> float | None:
        """Return the best cosine among `rows`; see `ExactIndex.best_score`."""
        return self._plain.best_score(query, rows)

    def scores(self, query: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the cosine of each of `rows`; see `ExactIndex.scores`."""
        return self._plain.scores(query, rows)

    def vectors(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the stored vectors of `rows` at unit length; see `ExactIndex.vectors`."""
        return self._plain.vectors(rows)

    def _proven(
        self, resident: DeviceRows, unit: NDArray[np.float64], k: int, fetched: int, skip: NDArray[np.bool_], allowed: int
    ) -> Neighbors | None:
        """Return the answer, None where the device cannot prove it at little cost. More than `fetched` rows must be allowed."""
        near = resident.top(unit, k, fetched, skip, allowed)
        norms = self._embeddings.norms[near.positions]
        scores = cosines(self._embeddings, near.positions, unit) if near.rows is None else cosines_of(near.rows, norms, unit)
        best = best_first(near.positions, scores, self._ties, k)
        worst = float(best.scores[-1])
        if worst > near.ceiling:  # strictly: a row outside that only equals the k-th score may win by its tie key
            return best
        within = resident.above(unit, worst, skip, allowed, _CANDIDATES)
        return None if within is None else best_first(within, cosines(self._embeddings, within, unit), self._ties, k)

    def _fetch(self, device: Device, upload: Upload) -> None:
        try:
            name = device if isinstance(device, str) else device()
            resident = None if name is None else upload(self._embeddings, name)
        except (RuntimeError, ImportError, ConfigError) as error:
            logger.warning("device.unused error=%s The plain index answers.", " ".join(str(error).split())[:200])
            return
        if resident is not None:
            self._resident = resident
            logger.info("device.ready device=%s rows=%d width=%d", name, self.size, self.width)


def device_index(plain: Index, embeddings: Embeddings, device: Device, tie_keys: NDArray[np.int64] | None = None) -> Index:
    """Return `plain` with a device before it: `device` such as "cuda:0", or what says so in the background (None: no device).

    Returns at once and imports nothing heavy; see `DeviceIndex`.

    Raises:
        IndexMismatchError: not one tie key per row.
    """
    return DeviceIndex(plain, embeddings, device, tie_keys)


def has_cuda_driver() -> bool:
    """Tell whether this machine has the driver without which there is no CUDA device: a cheap question, unlike importing PyTorch."""
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def _upload(embeddings: Embeddings, device: str) -> DeviceRows | None:
    from mcp_server.indexes.device_rows import DeviceRows, has_room

    if not has_room(embeddings.size, embeddings.width, device):
        logger.info("device.no_room device=%s rows=%d The plain index answers.", device, embeddings.size)
        return None
    return DeviceRows(embeddings, device)
