"""Pages of mapped files, mapped in before a search needs them."""

from __future__ import annotations

import logging
import mmap
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

_AT_ONCE = 8 * 2**20
_SHARE = 0.5
_USUAL_MEMORY = 4 * 2**30


def prefault(arrays: Sequence[NDArray[Any]], is_wanted: Callable[[], bool]) -> None:
    """Touch every page of `arrays`, C-contiguous ones over mapped files, in their order, until `is_wanted` says no.

    The first look at a page of a mapped file is a page fault, which takes as long as some fifty rows take a search: without this, the first
    searches after a start take several times as long as later ones. A gigabyte in the system's cache takes about a tenth of a second, in
    which other threads can run. Nothing is touched where the arrays would fill more than half of the machine's memory.
    """
    if fill_memory(arrays):
        needed = sum(array.nbytes for array in arrays)
        logger.info("prefault.left_out bytes=%d They are more than half of the memory; pages are mapped in as searches need them.", needed)
        return
    for array in arrays:
        pages = array.reshape(-1).view(np.uint8)
        for start in range(0, len(pages), _AT_ONCE):
            if not is_wanted():
                return
            np.add.reduce(pages[start : start + _AT_ONCE : mmap.PAGESIZE])


def fill_memory(arrays: Iterable[NDArray[Any]]) -> bool:
    """Tell whether `arrays` would take more than half of the machine's memory."""
    return sum(array.nbytes for array in arrays) > _SHARE * _memory()


def _memory() -> int:
    """Return the bytes of the machine's memory, 4 GiB where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return _USUAL_MEMORY
