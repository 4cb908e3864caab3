"""Sets of rows, one bit a row: the currency of filters. A million rows are 125 kB, and and, or, not and counting take microseconds.

Row r is bit r % 8, lowest first, of byte r // 8; the bytes are grouped into 64-bit words, and the bits after the last row are 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint64]
Mask = NDArray[np.bool_]

_WORD = 64
_AT_ONCE = 2**14
_MOST_SPARE = 2
_spare: list[Mask] = []
"""Masks to be used again: to get as much new memory from the system takes longer than the work in it."""
_FEW = 128
"""One row in more than so many is added to a word of bits by itself in less time than by way of a mask of all rows."""


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


def bits_of_rows(parts: Sequence[NDArray[np.signedinteger[Any]]], size: int) -> Bits:
    """Return the set of the rows in all `parts`, in any order, repeats allowed, out of `size`."""
    if sum(map(len, parts)) * _FEW > size:
        return _bits_by_mask(parts, size)
    bits = no_bits(size)
    for rows in parts:
        np.bitwise_or.at(bits, rows >> 6, np.left_shift(np.uint64(1), (rows & 63).astype(np.uint64)))
    return bits


def _bits_by_mask(parts: Iterable[NDArray[np.signedinteger[Any]]], size: int) -> Bits:
    length = words(size) * _WORD
    whole = _empty_mask(length)
    mask = whole[:length]
    for rows in parts:
        for start in range(0, len(rows), _AT_ONCE):
            # numpy takes other whole numbers than intp one by one, three times as slowly; few at once stay in the processor's cache
            mask[rows[start : start + _AT_ONCE].astype(np.intp, copy=False)] = True
    bits = np.packbits(mask, bitorder="little").view(np.uint64)
    mask.fill(False)
    if len(_spare) < _MOST_SPARE:
        _spare.append(whole)
    return bits


def _empty_mask(length: int) -> Mask:
    """Return a mask of at least `length` that is False everywhere, one that was used before if there is one."""
    try:
        mask = _spare.pop()
    except IndexError:
        mask = np.zeros(0, dtype=np.bool_)
    return mask if len(mask) >= length else np.zeros(length, dtype=np.bool_)


def mask_of_bits(bits: Bits, size: int) -> Mask:
    """Return (size,) bool, True at the rows that are in `bits`."""
    return np.unpackbits(bits.view(np.uint8), count=size, bitorder="little").view(np.bool_)


def count_bits(bits: Bits) -> int:
    """Return how many rows are in `bits`."""
    return int(np.bitwise_count(bits).sum(dtype=np.int64))
