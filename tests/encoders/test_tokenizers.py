"""Our cleaning and our tokenizers give open_clip's ids, whatever the text."""

from __future__ import annotations

import gzip
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import open_clip
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer, get_clean_fn

from mcp_server.encoders.cache import read_record
from mcp_server.encoders.cleaning import clean_named
from mcp_server.encoders.clip_tokenizer import ClipTokenizer, vocabulary_file
from mcp_server.encoders.models import cache_paths
from mcp_server.encoders.tokens import LibraryTokenizer, SavedTokenizer, Tokens, clip_record, saved_form
from tests.encoders.conftest import SIGLIP, FirstStart

CLEANINGS = ("whitespace", "lower", "canonicalize")
AWKWARD = (
    "a photo of a dog",
    "Ünïcödé Çafé naïve ÅNGSTRÖM",
    "e\u0301 as two and é as one",
    "👩‍👩‍👧‍👦 family, 🏴󠁧󠁢󠁳󠁣󠁴󠁿 flag, ❤️ and 🤷🏽‍♀️",
    "ﬁsh, ﬂag, ﬀ and Æsop’s œuvre",
    "ＦＵＬＬ ｗｉｄｔｈ １２３！",
    "&lt;b&gt; &amp;amp; &eacute; &#x1F600; &nbsp;x",
    "<start_of_text> spelled <END_OF_TEXT> out <end_of_text>",
    "it's WE'VE you'll I'm they'd 'tis ſ'ſ",
    "1234567 3.14 ½ ² Ⅷ ٣",
    "snake_case __init__ C:\\path/to//file",
    "!!! ... ???---*** ~~~ `x` {y} [z] | ^",
    "tabs\tand\nnewlines \u00a0 \u2003 \u200b zero width",
    "schÃ¶n and â€œquotesâ€\x9d broken on the way",
    "русский 日本語のテキスト 한국어 العربية हिन्दी ไทย",
    "İstanbul ıI ß ẞ ΣΑΣ",
    "soft\u00adhyphen \x00 nul \x1b[31mred\x1b[0m \ufeff mark \ufffd",
    "x" * 300,
    "word " * 400,
    "é" * 200,
    "?",
    "   ",
    "",
)
PIECES = st.sampled_from([*AWKWARD[:17], "'s", "'S", "&amp;", "<start_of_text>", "_", "ſ", "\u0345", "\U0001f3fd", "İ", "ｆ", "``", "I'LL"])
TEXTS = st.one_of(st.text(max_size=80), st.lists(st.one_of(PIECES, st.text(max_size=6)), max_size=6).map("".join))


@lru_cache
def ours(length: int, clean: str) -> ClipTokenizer:
    file, cleaning = vocabulary_file(), clean_named(clean)
    assert file is not None
    assert cleaning is not None
    return ClipTokenizer(file, length, cleaning)


@lru_cache
def theirs(clean: str) -> SimpleTokenizer:
    return SimpleTokenizer(clean=clean)


def expected(text: str, length: int, clean: str) -> Tokens:
    """open_clip's ids, and whether there were more of them."""
    library = theirs(clean)
    return Tokens(tuple(library([text], context_length=length)[0].tolist()), len(library.encode(text)) + 2 > length)


@pytest.mark.parametrize("clean", CLEANINGS)
@pytest.mark.parametrize("length", [4, 32, 77])
def test_awkward_texts_have_open_clips_ids(length: int, clean: str) -> None:
    for text in AWKWARD:
        assert ours(length, clean)(text) == expected(text, length, clean), text


@given(TEXTS, st.sampled_from(CLEANINGS))
@example("<START_OF_TEXT>", "whitespace")
@settings(max_examples=300, deadline=None)
def test_any_text_has_open_clips_ids(text: str, clean: str) -> None:
    assert ours(32, clean)(text) == expected(text, 32, clean)


@given(TEXTS, st.sampled_from(CLEANINGS))
@settings(max_examples=300, deadline=None)
def test_any_text_is_cleaned_as_open_clip_does(text: str, clean: str) -> None:
    cleaning = clean_named(clean)
    assert cleaning is not None
    assert cleaning(text) == get_clean_fn(clean)(text)


def test_a_cleaning_that_open_clip_may_add_is_not_guessed() -> None:
    assert clean_named("stemmed") is None


def test_what_open_clip_calls_its_tokenizer_is_this_one() -> None:
    for text in AWKWARD:
        assert ours(77, "lower")(text).ids == tuple(open_clip.tokenize([text])[0].tolist())


@pytest.fixture(scope="module")
def saved(first_start: FirstStart, tiny: dict[str, Path]) -> tuple[SavedTokenizer, HFTokenizer]:
    """The tiny SigLIP's tokenizer as the cache holds it, and open_clip's own from the files it was published with."""
    whole = read_record(cache_paths(SIGLIP, first_start.data), SIGLIP)
    assert whole is not None
    record = whole.tokenizer
    text = cache_paths(SIGLIP, first_start.data).tokenizer.read_text(encoding="utf-8")
    cleaning = clean_named(record.clean)
    assert cleaning is not None
    return SavedTokenizer(text, record, cleaning), HFTokenizer(str(tiny["tiny/siglip"]), context_length=16, clean="canonicalize")


def test_a_saved_tokenizer_gives_the_ids_of_the_published_one(saved: tuple[SavedTokenizer, HFTokenizer]) -> None:
    kept, published = saved
    for text in AWKWARD:
        assert kept(text).ids == tuple(published([text])[0].tolist()), text


@given(TEXTS)
@settings(max_examples=100, deadline=None)
def test_any_text_has_the_ids_of_the_published_tokenizer(saved: tuple[SavedTokenizer, HFTokenizer], text: str) -> None:
    kept, published = saved
    assert kept(text).ids == tuple(published([text])[0].tolist())


def test_a_file_that_is_not_the_vocabulary_is_refused(tmp_path: Path) -> None:
    for body in (b"nothing", gzip.compress(b"#version\na b\n")):
        (tmp_path / "vocabulary.gz").write_bytes(body)
        with pytest.raises((ValueError, OSError)):
            ClipTokenizer(tmp_path / "vocabulary.gz", 77, str.lower)


@pytest.mark.parametrize(
    ("model", "text_cfg", "clean"),
    [
        ("ViT-B-32", {}, "lower"),
        ("ViT-B-32", {"tokenizer_kwargs": {"clean": "whitespace"}}, "whitespace"),
        ("ViT-B-32", {"tokenizer_kwargs": {"reduction_mask": "simple"}}, None),
        ("ViT-B-32", {"hf_tokenizer_name": "bert-base-uncased"}, None),
        ("my-SigLIP", {}, None),
    ],
)
def test_clips_tokenizer_is_taken_where_open_clip_takes_it(model: str, text_cfg: dict[str, Any], clean: str | None) -> None:
    record = clip_record(model, text_cfg)
    assert (record and record.clean) == clean


@pytest.mark.parametrize("mode", [None, "clips"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_only_a_text_that_is_cut_is_flagged_wherever_the_padding_is(mode: str | None, side: str, tmp_path: Path) -> None:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "apple"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    marks = {"bos_token": "[CLS]", "eos_token": "[SEP]", "padding_side": side}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer", **marks}), encoding="utf-8")
    library = HFTokenizer(str(tmp_path), context_length=12, tokenizer_mode=mode)
    plain = LibraryTokenizer(library, 12)
    room = 10 if mode is None else 9  # a mark at both ends, and one more at the very end
    for count in (1, room - 1, room, room + 1, 200):
        text = " ".join(["apple"] * count)
        assert plain(text) == Tokens(tuple(library([text])[0].tolist()), truncated=count > room), count
    kept = saved_form(library, 12, "whitespace", get_clean_fn("whitespace"))
    assert (kept is None) == (mode is not None)
