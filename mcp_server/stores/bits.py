"""Sets of rows, one bit a row: the currency of filters. A million rows are 125 kB, and and, or, not and counting take microseconds.

Row r is bit r % 8, lowest first, of byte r // 8; the bytes are grouped into 64-bit words, and the bits after the last row are 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint64]
Mask = NDArray[np.bool_]

_WORD = 64
_AT_ONCE = 2**14


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


def bits_of_rows(parts: Iterable[NDArray[np.signedinteger[Any]]], size: int) -> Bits:
    """Return the set of the rows in all `parts`, in any order, repeats allowed, out of `size`."""
    mask = np.zeros(words(size) * _WORD, dtype=np.bool_)
    for rows in parts:
        for start in range(0, len(rows), _AT_ONCE):
            # numpy takes other whole numbers than intp one by one, three times as slowly; few at once stay in the processor's cache
            mask[rows[start : start + _AT_ONCE].astype(np.intp, copy=False)] = True
    return np.packbits(mask, bitorder="little").view(np.uint64)


def mask_of_bits(bits: Bits, size: int) -> Mask:
    """Return (size,) bool, True at the rows that are in `bits`."""
    return np.unpackbits(bits.view(np.uint8), count=size, bitorder="little").view(np.bool_)


def count_bits(bits: Bits) -> int:
    """Return how many rows are in `bits`."""
    return int(np.bitwise_count(bits).sum(dtype=np.int64))
