"""CLIP's own tokenizer, read from the vocabulary file inside open_clip without importing open_clip. Same ids as `open_clip.tokenize`.

Words become bytes, bytes become letters of an alphabet without blanks, and neighbours are merged in the order in which the file lists them.
Source of format and pattern: `open_clip.tokenizer.SimpleTokenizer`; a test compares.
"""

from __future__ import annotations

import gzip
import importlib.util
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import regex

from mcp_server.encoders.cleaning import Clean
from mcp_server.encoders.tokens import Tokens

FILE = "bpe_simple_vocab_16e6.txt.gz"
START, END = "<start_of_text>", "<end_of_text>"
VOCABULARY = 49_408

_MERGES = VOCABULARY - 2 * 256 - 2
_WORD_END = "</w>"
_WORDS = regex.compile(rf"{START}|{END}|'s|'t|'re|'ve|'m|'ll|'d|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+", regex.IGNORECASE)
_REMEMBERED_WORDS = 4096


def vocabulary_file() -> Path | None:
    """Return where open_clip keeps CLIP's vocabulary; None when it is not there. Runs nothing of open_clip."""
    package = importlib.util.find_spec("open_clip")
    folders = (package.submodule_search_locations or ()) if package is not None else ()
    return next((file for folder in folders if (file := Path(folder, FILE)).is_file()), None)


class ClipTokenizer:
    """Text to ids: start mark, words, end mark, zeros. Safe to call from several threads."""

    def __init__(self, file: Path, context_length: int, clean: Clean) -> None:
        """Read the vocabulary from `file`.

        Raises:
            ValueError, OSError: it is not CLIP's.
        """
        merges = [tuple(line.split()) for line in gzip.decompress(file.read_bytes()).decode("utf-8").split("\n")[1 : 1 + _MERGES]]
        self._alphabet = _alphabet()
        pieces = [*self._alphabet, *(letter + _WORD_END for letter in self._alphabet), *map("".join, merges), START, END]
        self._ids = {piece: number for number, piece in enumerate(pieces)}
        if len(pieces) != VOCABULARY or {len(merge) for merge in merges} != {2}:
            raise ValueError(f"{file.name} is not CLIP's vocabulary")
        self._letters = dict(zip(_byte_order(), self._alphabet, strict=True))
        self._ranks = {merge: rank for rank, merge in enumerate(merges)}
        self._length = context_length
        self._clean = clean
        self._ids_of_word = lru_cache(_REMEMBERED_WORDS)(self._word)

    def __call__(self, text: str) -> Tokens:
        words: list[str] = _WORDS.findall(self._clean(text))
        ids = [self._ids[START], *(number for word in words for number in self._ids_of_word(word)), self._ids[END]]
        if len(ids) > self._length:
            return Tokens((*ids[: self._length - 1], self._ids[END]), truncated=True)
        return Tokens((*ids, *[0] * (self._length - len(ids))), truncated=False)

    def _word(self, word: str) -> tuple[int, ...]:
        if word in (START, END):  # spelled out in a text they are the marks themselves
            return (self._ids[word],)
        letters = [self._letters[byte] for byte in word.encode("utf-8")]
        pieces = [*letters[:-1], letters[-1] + _WORD_END]
        while len(pieces) > 1:
            first = min(pairwise(pieces), key=self._rank)
            if first not in self._ranks:
                break
            pieces = _merged(pieces, first)
        return tuple(self._ids[piece] for piece in pieces)

    def _rank(self, pair: tuple[str, str]) -> int:
        return self._ranks.get(pair, _MERGES)


def _merged(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    """Join every occurrence of `pair`, from the left."""
    joined: list[str] = []
    place = 0
    while place < len(pieces):
        step = 2 if tuple(pieces[place : place + 2]) == pair else 1
        joined.append("".join(pieces[place : place + step]))
        place += step
    return joined


def _byte_order() -> list[int]:
    """Every byte once, those that print as themselves first: the order of the vocabulary's first ids."""
    printing = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [*printing, *(byte for byte in range(256) if byte not in set(printing))]


def _alphabet() -> list[str]:
    """A visible letter for each byte of `_byte_order`: itself, or, where it does not print, the next one from 256 on."""
    order = _byte_order()
    shown = 256 - sum(byte < 33 or 127 <= byte <= 160 or byte == 173 for byte in range(256))
    return [chr(byte) if place < shown else chr(256 + place - shown) for place, byte in enumerate(order)]
