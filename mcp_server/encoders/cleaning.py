"""How a text is tidied before its words become ids: the three ways that open_clip names in a model's configuration.

Source of the rules: `open_clip.tokenizer.get_clean_fn`; a test compares.
"""

from __future__ import annotations

import html
import string
from collections.abc import Callable

import ftfy

Clean = Callable[[str], str]

_NO_PUNCTUATION = str.maketrans({"_": " ", **dict.fromkeys(string.punctuation.replace("_", ""), "")})


def clean_named(name: str) -> Clean | None:
    """Return the cleaning that open_clip calls `name`, None when this is none of those known here."""
    return {"whitespace": _spaced, "lower": _lowered, "canonicalize": _bare_words}.get(name)


def _repaired(text: str) -> str:
    return html.unescape(html.unescape(ftfy.fix_text(text)))  # twice: captions from the web are often escaped twice


def _spaced(text: str) -> str:
    return " ".join(_repaired(text).split())


def _lowered(text: str) -> str:
    return _spaced(text).lower()


def _bare_words(text: str) -> str:
    return " ".join(_repaired(text).translate(_NO_PUNCTUATION).lower().split())
