"""A collection one can compute by hand: each known word is an axis, so "red circle" must find the red circle."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import ZipStore

from mcp_server.domain.search import EncodedText
from mcp_server.encoders.loading import BackgroundText
from mcp_server.engine.collection import Collection, Media, ScaleFile
from mcp_server.engine.search import SearchEngine
from mcp_server.engine.shelf import Shelf
from mcp_server.errors import EncoderError
from mcp_server.indexes.embeddings import load_embeddings
from mcp_server.indexes.opening import open_index
from mcp_server.stores.catalog import Catalog
from mcp_server.stores.filter_index import FilterIndex
from mcp_server.stores.sessions import Sessions
from mcp_server.stores.thumbnails import PictureStore
from tests import m3

WORDS = ("red", "green", "blue", "circle", "square", "star", "big", "small")


SCALE = {"text_mean": [0.0] * len(WORDS), "text_fair": 1.0, "text_strong": 1.4, "pair_fair": 1.0, "pair_strong": 1.4}
"""A scale that is known from the start: nothing is measured behind a test's back."""


def vector_of(text: str) -> NDArray[np.float32]:
    """Return one axis a known word, unit length; a text of unknown words points a little everywhere."""
    words = re.findall(r"\w+", text.lower())
    vector = np.array([float(words.count(word)) for word in WORDS], np.float32) + np.float32(0.01)
    return vector / np.linalg.norm(vector)


class WordEncoder:
    """The text encoder of that little world; counts its runs, and fails on the word "fail"."""

    width = len(WORDS)

    def __init__(self) -> None:
        self.runs = 0

    def encode_text(self, text: str) -> EncodedText:
        self.runs += 1
        if "fail" in text:
            raise EncoderError("The text encoder failed on the server. Your arguments are fine; try again or tell the user.")
        return EncodedText(vector_of(text), len(text.split()) > 8, 8)


def write_collection(folder: Path, media: Sequence[tuple[m3.Media, str]], types: dict[str, str] | None = None) -> None:
    """Write catalog and embeddings; each medium comes with the words its picture shows."""
    m3.build(folder / "collection.db", [one for one, _ in media], types)
    rows = {one.row: vector_of(shown) for one, shown in media if one.row is not None}
    vectors = np.stack([rows.get(row, np.zeros(len(WORDS), np.float32)) for row in range(max(rows) + 1)])
    with closing(ZipStore(folder / "embeddings.zarr.zip", mode="w")) as store:
        zarr.create_array(store, data=vectors)


def open_collection(folder: Path, name: str, encoder: BackgroundText) -> Collection:
    """Open what `write_collection` wrote."""
    embeddings = load_embeddings(folder / "embeddings.zarr.zip")
    catalog = Catalog.open(folder / "collection.db", embeddings.size, embeddings.unusable)
    return Collection(
        name,
        catalog=catalog,
        filters=FilterIndex(catalog),
        load_index=lambda: open_index("zarr", embeddings, None, catalog.media_of_row),
        encoder=encoder,
        media=Media(PictureStore.open(""), PictureStore.open("")),
        scale_file=ScaleFile(lambda: SCALE, lambda _: None),
    )


def open_world(folder: Path, encoder: WordEncoder, names: Sequence[str] = ("toys",)) -> SearchEngine:
    """Return an engine over the collections called `names`, one folder each below `folder`."""
    background = BackgroundText(lambda: encoder, "words", WordEncoder.width)
    openers = {name: (lambda name=name: open_collection(folder / name, name, background)) for name in names}
    return SearchEngine(Shelf(openers), Sessions(folder / "sessions.db"))


def videos(count: int = 12, frames: int = 5, loose: int = 8, seed: int = 5) -> list[tuple[m3.Media, str]]:
    """Return videos with frames, loose pictures, an audio child without a row, and rows in no particular order."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(count * frames + loose).tolist()
    media: list[tuple[m3.Media, str]] = []
    for video in range(1, count + 1):
        media.append((m3.Media(video, tags={"Year": [2015 + video % 6], "Source": [("BBC", "ARD", "RTE")[video % 3]]}), ""))
        media.append((m3.Media(9_000 + video, group=video, tags={"Color": ["red"]}), ""))
        for frame in range(frames):
            words = rng.choice(WORDS, 3, replace=False).tolist()
            tags: dict[str, list[m3.Value]] = {"Color": [word for word in words if word in WORDS[:3]]} if frame else {}
            media.append((m3.Media(100 * video + 10 + frame, rows.pop(), video, tags), " ".join(words)))
    for extra in range(loose):
        words = rng.choice(WORDS, 2, replace=False).tolist()
        media.append((m3.Media(5_000 + extra, rows.pop(), None, {"Year": [2020 + extra % 3]}), " ".join(words)))
    return media
