"""Memory for the rows of a collection that numpy and FAISS both see, so that one copy serves reading, re-scoring and scanning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_server.indexes.faiss_library import faiss_library

Rows = NDArray[np.float16] | NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class RowMemory:
    """N rows of width D and a FAISS inner-product index over the same bytes.

    Attributes:
        rows: (N, D) float16 or float32, C order. It keeps the memory alive on its own.
        scanner: FAISS index of metric inner product whose codes are exactly those bytes. Never added to.
    """

    rows: Rows
    scanner: Any = field(repr=False)


class _Bytes:
    """Lets numpy hold on to the FAISS index that owns the bytes it looks at."""

    def __init__(self, owner: Any, address: int, shape: tuple[int, int], dtype: np.dtype[Any]) -> None:
        self._owner = owner
        self.__array_interface__ = {"data": (address, False), "shape": shape, "typestr": dtype.str, "version": 3}


def row_memory(size: int, width: int, dtype: np.dtype[Any]) -> RowMemory:
    """Return zeroed memory for `size` rows of `width` numbers; `dtype` is float16 or float32, `width` at least 1."""
    faiss = faiss_library()
    if dtype == np.float16:
        scanner = faiss.IndexScalarQuantizer(width, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    else:
        scanner = faiss.IndexFlatIP(width)
    if size == 0:
        return RowMemory(np.zeros((0, width), dtype), scanner)
    scanner.codes.resize(size * width * dtype.itemsize)
    scanner.ntotal = size
    address = faiss.rev_swig_ptr(scanner.codes.data(), 1).ctypes.data
    return RowMemory(np.asarray(_Bytes(scanner, address, (size, width), dtype)), scanner)
