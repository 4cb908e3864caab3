"""Text to token ids, and whether the end of the text was cut. No torch: tokenizers come in from outside or from the cache."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Tokenize = Callable[[str], "Tokens"]


@dataclass(frozen=True)
class Tokens:
    """A text as the model sees it: exactly as many ids as the model reads, padded; `truncated` when the text had more."""

    ids: tuple[int, ...]
    truncated: bool


@dataclass(frozen=True)
class TokenizerRecord:
    """What must be known beside a saved tokenizer to use it as it was trained.

    `kind` is "clip" for CLIP's own tokenizer, which ships with open_clip and needs no file, else "saved".
    """

    kind: Literal["clip", "saved"]
    context_length: int
    clean: str
    """open_clip's name of the cleaning that comes before: canonicalize, lower or whitespace."""
    pad_id: int = 0
    pad_token: str = ""
    padding_side: str = "right"
    truncation_side: str = "right"
    stripped_id: int | None = None
    """This id is replaced by 0 after tokenising; None: none is."""


class SavedTokenizer:
    """A `tokenizers` file used as `HFTokenizer` of open_clip would: same ids. Safe to call from several threads."""

    def __init__(self, serialized: str, record: TokenizerRecord, clean: Callable[[str], str]) -> None:
        """Read `serialized`, the JSON text of a tokenizer, which must be whole: the library's error for a broken one is a bare Exception."""
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from tokenizers import Tokenizer

        tokenizer: Any = Tokenizer.from_str(serialized)
        tokenizer.enable_truncation(record.context_length, direction=record.truncation_side)
        tokenizer.enable_padding(
            length=record.context_length, pad_id=record.pad_id, pad_token=record.pad_token, direction=record.padding_side
        )
        self._tokenizer = tokenizer
        self._clean = clean
        self._stripped = record.stripped_id

    def __call__(self, text: str) -> Tokens:
        encoding = self._tokenizer.encode(self._clean(text))
        ids = tuple(0 if token == self._stripped else int(token) for token in encoding.ids)
        return Tokens(ids, bool(encoding.overflowing))


class LibraryTokenizer:
    """Any of open_clip's own tokenizers. Whether the text was cut is found by asking for a longer version and comparing."""

    def __init__(self, tokenizer: Callable[..., Any], context_length: int) -> None:
        self._tokenizer = tokenizer
        self._length = context_length

    def __call__(self, text: str) -> Tokens:
        read = self._ids(text, self._length)
        whole = self._ids(text, 8 * self._length)
        padding = whole[self._length :]
        return Tokens(read, read != whole[: self._length] or any(token != padding[-1] for token in padding))

    def _ids(self, text: str, length: int) -> tuple[int, ...]:
        return tuple(int(token) for token in self._tokenizer([text], context_length=length)[0].tolist())
