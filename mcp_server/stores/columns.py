"""Values of one field kept in arrays, so that a million of them need neither a million Python objects nor time to load."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import cast, overload

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

_CHUNK = 2**18
"""Bytes searched at once, few enough to stay in the processor's cache."""
_MANY = 64
"""Where one byte in so many fits, comparing all bytes takes less time than going from place to place."""
_SAMPLE = 2**16
_SIGNPOSTS = 4_096
"""At most so many texts, evenly apart, are kept as Python's bytes, so that finding one reads few others from the arrays."""
_LISTED = 2**17
"""Up to so many texts are kept as Python's once enough were looked for: some 150 bytes each."""
_SOUGHT_SHARE = 16
"""To find one text takes as long as to list so many."""


class Texts(Sequence[str]):
    """V texts, one after the other in UTF-8. Safe to call from several threads; may lie on a file.

    Attributes:
        blob: (B,) uint8.
        offsets: (V + 1,) int64; text k is `blob[offsets[k]:offsets[k + 1]]`.
    """

    def __init__(self, blob: NDArray[np.uint8], offsets: Ints) -> None:
        self.blob = blob
        self.offsets = offsets
        # one by one, Python reads these several times as fast as arrays
        self._bytes, self._edges = blob.data, offsets.data
        self._sought = 0

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """Return `texts` in their order."""
        encoded = [_utf8(text) for text in texts]
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(one) for one in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        return self._raw(range(len(self))[index]).decode("utf-8", "surrogatepass")

    def __iter__(self) -> Iterator[str]:
        whole, edges = self.blob.tobytes(), self.offsets.tolist()
        return (whole[start:stop].decode("utf-8", "surrogatepass") for start, stop in pairwise(edges))

    def find(self, texts: Sequence[str]) -> list[int | None]:
        """Return where each of `texts` is, None for those that are not there. The texts of this must be ascending and distinct."""
        self._sought += len(texts)  # two threads may lose a few of them: nothing but time depends on it
        if len(self) <= min(_LISTED, self._sought * _SOUGHT_SHARE):
            return list(map(self._places_of_texts.get, texts))
        return [self._find(_utf8(text)) for text in texts]

    def beginning(self, part: str) -> range:
        """Return where the texts that begin with `part` are. The texts must be ascending."""
        wanted = _utf8(part)
        start = bisect_left(range(len(self)), wanted, key=self._raw)
        return range(start, bisect_left(range(len(self)), wanted + b"\xff", start, key=self._raw))  # no UTF-8 has this byte

    def containing(self, part: str) -> Ints:
        """Return which texts contain `part`, ascending. Reads all bytes: 60 MB take some 50 ms."""
        wanted = _utf8(part)
        if not wanted:
            return np.arange(len(self), dtype=np.int64)
        # whole characters match whole characters in UTF-8, so bytes can be compared
        places = self._places(np.frombuffer(wanted, dtype=np.uint8))
        if len(places) < len(self) // 16:
            owners = np.searchsorted(self.offsets, places, side="right") - 1
            owners = owners[places + len(wanted) <= self.offsets[owners + 1]]  # else it runs over into the next text
            return owners[np.diff(owners, prepend=-1) != 0]
        # part is nearly everywhere: look from each text to the first place after its start
        first = np.append(places, len(self.blob))[np.searchsorted(places, self.offsets[:-1])]
        return np.flatnonzero(first + len(wanted) <= self.offsets[1:])

    def _find(self, wanted: bytes) -> int | None:
        step = self._step
        first = max(0, bisect_right(self._signposts, wanted) - 1) * step
        at = bisect_left(range(len(self)), wanted, first, min(first + step, len(self)), key=self._raw)  # bytes sort as texts do
        return at if at < len(self) and self._raw(at) == wanted else None

    def _raw(self, at: int) -> bytes:
        return self._bytes[self._edges[at] : self._edges[at + 1]].tobytes()

    def _places(self, wanted: NDArray[np.uint8]) -> Ints:
        """Return where in `blob` the bytes `wanted` begin: the rarest are compared first, the others only where those fit."""
        order = np.argsort(self._frequencies[wanted], kind="stable").tolist()
        found: list[Ints] = []
        last = len(self.blob) - len(wanted) + 1
        for start in range(0, last, _CHUNK):
            stop = min(start + _CHUNK, last)
            fits = self.blob[start + order[0] : stop + order[0]] == wanted[order[0]]
            done = 1
            while done < len(order) and np.count_nonzero(fits) * _MANY > len(fits):
                fits &= self.blob[start + order[done] : stop + order[done]] == wanted[order[done]]
                done += 1
            places = start + np.flatnonzero(fits)
            for at in order[done:]:
                places = places[self.blob[places + at] == wanted[at]]
            found.append(places)
        return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)

    @cached_property
    def _places_of_texts(self) -> dict[str, int]:
        return {text: at for at, text in enumerate(self)}

    @property
    def _step(self) -> int:
        return -(-len(self) // _SIGNPOSTS) or 1

    @cached_property
    def _signposts(self) -> list[bytes]:
        return [self._raw(at) for at in range(0, len(self), self._step)]

    @cached_property
    def _frequencies(self) -> Ints:
        step = max(1, len(self.blob) // _SAMPLE)
        return np.bincount(self.blob[::step], minlength=256)


class Numbers(Sequence[int | float]):
    """The numbers of an array, as Python's."""

    def __init__(self, array: NDArray[np.int64 | np.float64]) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> int | float: ...
    @overload
    def __getitem__(self, index: slice) -> list[int | float]: ...
    def __getitem__(self, index: int | slice) -> int | float | list[int | float]:
        return cast("int | float | list[int | float]", self.array[index].tolist())


def _utf8(text: str) -> bytes:
    # half of a surrogate pair, which JSON can hold, is in no stored text but must not stop the search
    return text.encode("utf-8", "surrogatepass")
