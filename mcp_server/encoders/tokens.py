"""Text to token ids, and whether the end of the text was cut. No torch: tokenizers come in from outside or from the cache."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from mcp_server.encoders.cleaning import Clean

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


CLIP_CLEAN = "lower"
"""How `open_clip.tokenize`, CLIP's own tokenizer, cleans a text."""
PROBES = ("a photo of a dog on the beach", "Café, 2 naïve ﬁsh & <b>100%</b> un_usual-words!", "word " * 400)


def clip_record(model: str, text_cfg: Mapping[str, Any]) -> TokenizerRecord | None:
    """Return the record of CLIP's own tokenizer if that is what open_clip would use for `model`, else None."""
    settings: dict[str, Any] = text_cfg.get("tokenizer_kwargs") or {}
    if text_cfg.get("hf_tokenizer_name") or not set(settings) <= {"clean"} or "siglip" in model.lower():
        return None
    return TokenizerRecord("clip", int(text_cfg.get("context_length", 77)), str(settings.get("clean", CLIP_CLEAN)))


class SavedTokenizer:
    """A `tokenizers` file used as `HFTokenizer` of open_clip would: same ids. Safe to call from several threads."""

    def __init__(self, serialized: str, record: TokenizerRecord, clean: Clean) -> None:
        """Read `serialized`, the JSON text of a tokenizer, which must be whole: the error for a broken one is a bare Exception."""
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
    """Any of open_clip's own tokenizers. Whether the text was cut is found by asking for a longer version; only the padding may differ.

    Safe to call from several threads: they take turns, since some of these tokenizers keep the length asked for as state.
    """

    def __init__(self, tokenizer: Callable[..., Any], context_length: int) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._length = context_length
        (self._padding, _), *_ = Counter(self._ids("", 8 * context_length)).most_common(1)

    def __call__(self, text: str) -> Tokens:
        with self._lock:
            read = self._ids(text, self._length)
            whole = self._ids(text, 8 * self._length)
        return Tokens(read, self._unpadded(read) != self._unpadded(whole))

    def _unpadded(self, ids: tuple[int, ...]) -> list[int]:
        return [token for token in ids if token != self._padding]  # wherever it is: some pad on the left, or before a last mark

    def _ids(self, text: str, length: int) -> tuple[int, ...]:
        return tuple(int(token) for token in self._tokenizer([text], context_length=length)[0].tolist())


def saved_form(library: Any, context_length: int, clean_name: str, clean: Clean) -> tuple[SavedTokenizer, TokenizerRecord, str] | None:
    """Return an `HFTokenizer` of open_clip as it can be kept: ready to use, its record and its text.

    None when it has no such form, or the form gives other ids on a few awkward texts.
    """
    fast = library.tokenizer
    if not fast.is_fast or fast.pad_token is None or library.tokenizer_mode:
        return None
    record = TokenizerRecord(
        kind="saved",
        context_length=context_length,
        clean=clean_name,
        pad_id=int(fast.pad_token_id),
        pad_token=str(fast.pad_token),
        padding_side=str(fast.padding_side),
        truncation_side=str(fast.truncation_side),
        stripped_id=int(fast.sep_token_id) if library.strip_sep_token and fast.sep_token_id is not None else None,
    )
    serialized = str(fast.backend_tokenizer.to_str())  # as built, not as downloaded: the library rebuilds parts of it while loading
    saved, plain = SavedTokenizer(serialized, record, clean), LibraryTokenizer(library, context_length)
    return (saved, record, serialized) if all(saved(probe) == plain(probe) for probe in PROBES) else None


def check_vocabulary(fast: Any, expected: int) -> None:
    """Refuse a tokenizer that was read without its vocabulary: it would turn most words into one and the same id.

    Raises:
        ValueError: it has far fewer than the `expected` pieces, or does not know plain English words.
    """
    ids = list(fast(PROBES[0], add_special_tokens=False).input_ids)
    if len(fast) < 0.9 * expected or 2 * ids.count(fast.unk_token_id) > len(ids):
        raise ValueError(f"its tokenizer knows {len(fast)} pieces where the model has {expected}, so its vocabulary was not read.")
