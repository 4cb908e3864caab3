"""What decoding a file gives, and how an answer is framed between processes. Light: whoever only looks through these needs no decoder."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

THUMBNAIL_SIDE = 256
"""Longest side of a thumbnail in pixels."""

LENGTH = struct.Struct("<I")
"""Before the head of an answer: how many bytes it has."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        source: its path below the folder.
        pixels: (H, W, 3) uint8, C order: RGB, upright, transparency laid on white, cut as the model wants it.
        thumbnail: WebP, longest side at most `THUMBNAIL_SIDE`; a small WebP file without metadata is its own.
        sha256: of the file's bytes, hexadecimal.
        facts: field name to value or list of values.
        notes: what was wrong with its sidecars, one sentence each.
    """

    source: str
    pixels: NDArray[np.uint8]
    thumbnail: bytes
    sha256: str
    facts: dict[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """What a picture file says, without its pixels; attributes as those of `Picture`."""

    source: str
    sha256: str
    facts: dict[str, Any]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unreadable:
    """A file that could not be decoded.

    Attributes:
        reason: why, in a few words.
        again: the file itself may be fine (no memory, a disk error, a decoder that is not installed), so it is worth another try.
    """

    source: str
    reason: str
    again: bool = False
