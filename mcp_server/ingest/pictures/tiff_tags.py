"""Reads the tags of a TIFF structure, which is also how EXIF data are kept. Copies nothing that is not asked for, so that a block of data
that points at itself a thousand times costs nothing.

Source: TIFF 6.0, section 2; BigTIFF; EXIF 2.32, 4.6.2.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mcp_server.ingest.pictures import clean

_MOST_TAGS = 4096
_MOST_NUMBERS = 64
_FORMS = {
    1: "B",
    2: "B",
    3: "H",
    4: "I",
    5: "II",
    6: "b",
    7: "B",
    8: "h",
    9: "i",
    10: "ii",
    11: "f",
    12: "d",
    13: "I",
    16: "Q",
    17: "q",
    18: "Q",
}
_SIZES = {kind: struct.calcsize("<" + form) for kind, form in _FORMS.items()} | {129: 1}
_EVERY_TAG = 65536
_SUBDIRECTORIES = (0x8769, 0x8825, 0xA005)
_RATIONALS = (5, 10)
_TEXT_BYTES = 65536

Order = Literal["<", ">"]


@dataclass(frozen=True)
class Tag:
    """One tag's value, not yet read. Every reader gives None, or nothing, for what makes no sense."""

    kind: int
    data: memoryview
    order: Order

    def octets(self) -> bytes:
        """Return the value's bytes, at most 64 KiB."""
        return bytes(self.data[:_TEXT_BYTES])

    def numbers(self) -> list[float | int]:
        """Return the first 64 numbers; a fraction over zero is left out."""
        form = _FORMS.get(self.kind)
        if form is None:
            return []
        size = _SIZES[self.kind]
        count = min(len(self.data) // size, _MOST_NUMBERS)
        raw = list(struct.unpack(f"{self.order}{form * count}", self.data[: size * count]))
        if self.kind in _RATIONALS:
            return [above / below for above, below in zip(raw[::2], raw[1::2], strict=True) if below]
        return raw

    def number(self, low: float, high: float) -> float | None:
        """Return the first number if it is in [low, high]. A number written as text counts."""
        if self.kind == 2:
            return clean.number(self.text(), low, high)
        found = self.numbers()
        return clean.number(found[0], low, high) if found else None

    def text(self) -> str | None:
        """Return the text up to the first NUL."""
        return clean.text(self.octets().lstrip(b"\0").split(b"\0", 1)[0])


@dataclass(frozen=True)
class TiffBlock:
    """A TIFF structure in memory.

    Attributes:
        data: from the byte-order mark on.
        order: how its numbers are stored.
        big: whether offsets have 64 bits.
    """

    data: memoryview
    order: Order
    big: bool

    @property
    def first(self) -> int:
        """Where the first directory starts."""
        return self._unsigned(8, 8) if self.big else self._unsigned(4, 4)

    def tags(self, offset: int, most: int = _MOST_TAGS) -> Mapping[int, Tag]:
        """Return the first `most` tags of the directory at `offset`, the first of each number; what points outside is left out."""
        head, entry, inline = (8, 20, 8) if self.big else (2, 12, 4)
        if not 8 <= offset <= len(self.data) - head:
            return {}
        found: dict[int, Tag] = {}
        for number in range(min(self._unsigned(offset, head), most)):
            place = offset + head + number * entry
            if place + entry > len(self.data):
                break
            name, kind = self._unsigned(place, 2), self._unsigned(place + 2, 2)
            size = self._unsigned(place + 4, inline) * _SIZES.get(kind, 0)
            start = place + 4 + inline
            if size > inline:
                start = self._unsigned(start, inline)
            if size and start + size <= len(self.data):
                found.setdefault(name, Tag(kind, self.data[start : start + size], self.order))
        return found

    def _unsigned(self, place: int, size: int) -> int:
        return int.from_bytes(self.data[place : place + size], "little" if self.order == "<" else "big")


def tiff_block(data: bytes) -> TiffBlock | None:
    """Return `data` as a TIFF structure, a leading "Exif" mark left out; None if it is none."""
    start = 6 if data[:4] == b"Exif" else 0
    mark = data[start : start + 4]
    if mark[:2] not in (b"II", b"MM") or len(data) - start < 8:
        return None
    order: Order = "<" if mark[:2] == b"II" else ">"
    version = int.from_bytes(mark[2:], "little" if order == "<" else "big")
    if version not in (42, 43) or (version == 43 and len(data) - start < 16):
        return None
    return TiffBlock(memoryview(data)[start:], order, version == 43)


def claimed_bytes(block: TiffBlock) -> int:
    """Return how many bytes the values of the main directories have together: far more than the block holds when it is a trap."""
    main = block.tags(block.first, _EVERY_TAG)
    below = (int(offset) for number in _SUBDIRECTORIES if (tag := main.get(number)) and (offset := tag.number(8, 2**63)) is not None)
    directories = (main, *(block.tags(offset, _EVERY_TAG) for offset in below))
    return sum(len(tag.data) for directory in directories for tag in directory.values())
