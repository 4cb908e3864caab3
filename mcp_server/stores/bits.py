"""Sets of rows, one bit a row: the currency of filters. A million rows are 125 kB, and and, or, not and counting take microseconds.

Row r is bit r % 8, lowest first, of byte r // 8; the bytes are grouped into 64-bit words, and the bits after the last row are 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint64]
Mask = NDArray[np.bool_]

_WORD = 64


def words(size: int) -> int:
    """Return how many words hold `size` rows."""
    return -(-size // _WORD)


def no_bits(size: int) -> Bits:
    """Return the empty set over `size` rows."""
    return np.zeros(words(size), dtype=np.uint64)


def bits_of_mask(mask: Mask) -> Bits:
    """Return the rows at which `mask` is True."""
    padded = np.zeros(words(len(mask)) * _WORD, dtype=np.bool_)
    padded[: len(mask)] = mask
    return np.packbits(padded, bitorder="little").view(np.uint64)


def bits_of_rows(rows: NDArray[np.signedinteger[Any]], size: int) -> Bits:
    """Return the set of `rows`, in any order, repeats allowed, out of `size`."""
    mask = np.zeros(words(size) * _WORD, dtype=np.bool_)
    mask[rows.astype(np.intp, copy=False)] = True  # numpy takes other whole numbers one by one, three times as slowly
    return np.packbits(mask, bitorder="little").view(np.uint64)


def mask_of_bits(bits: Bits, size: int) -> Mask:
    """Return (size,) bool, True at the rows that are in `bits`."""
    return np.unpackbits(bits.view(np.uint8), count=size, bitorder="little").view(np.bool_)


def count_bits(bits: Bits) -> int:
    """Return how many rows are in `bits`."""
    return int(np.bitwise_count(bits).sum(dtype=np.int64))
