"""The one door to FAISS: imported on first use, typed as `Any` because SWIG's stubs describe little of it."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray


def faiss_library() -> Any:
    """Return the `faiss` module, importing it on the first call (a third of a second)."""
    with warnings.catch_warnings():
        # importing it sets off deprecations in SWIG and numpy, depending on their versions; nothing here can change that
        warnings.simplefilter("ignore", DeprecationWarning)
        return importlib.import_module("faiss")


def selector_of(allowed: NDArray[np.bool_]) -> Any:
    """Return a FAISS selector that lets through the ids where `allowed`, one bool per id, is True.

    It holds its own bitmap (N / 8 bytes): `allowed` may change afterwards.
    """
    return faiss_library().IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
