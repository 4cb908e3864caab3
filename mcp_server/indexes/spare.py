"""Memory that is used again: to get new pages from the system takes as long as the work in them."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

_LARGEST = 64 * 2**20
"""Bytes of the largest piece that is kept."""


class Spare:
    """Up to `most` pieces of memory, each as large as was ever asked of it, 64 MiB at the most. Safe to use from several threads."""

    def __init__(self, most: int) -> None:
        """Hold nothing yet."""
        self._free: deque[NDArray[np.uint8]] = deque(maxlen=most)

    def take(self, needed: int) -> NDArray[np.uint8]:
        """Return at least `needed` bytes with anything in them."""
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(0, np.uint8)
        return memory if len(memory) >= needed else np.empty(needed, np.uint8)

    def give_back(self, memory: NDArray[np.uint8]) -> None:
        """Keep what `take` returned for the next: nothing may look at it any more, so not after an error."""
        if len(memory) <= _LARGEST:
            self._free.append(memory)
