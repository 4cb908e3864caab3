"""Relevance is judged by the collection's own scale: what is there is strong or fair, what is not is weak, whatever the model's numbers."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mcp_server.config import Settings
from mcp_server.domain.search import Drop, EncodedText, SearchRequest, WeightedText
from mcp_server.engine.opening import open_engine, trust_of
from mcp_server.engine.query_vectors import QueryVector, sample_of
from mcp_server.engine.relevance import BackgroundRelevance, Relevance, Scale, largest_drop, match_probability, measure
from mcp_server.engine.search import SearchEngine
from mcp_server.errors import ModelLoadingError
from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.exact import ExactIndex
from mcp_server.stores.relevance_file import cached_file, read_scale, write_scale

NONSENSE = [
    "quarterly revenue forecast",
    "zxq vbn plomk",
    "the dative case in german",
    "null hypothesis testing",
    "a mortgage approval letter",
]
RANDOM = random.Random(9)
NONSENSE += ["".join(RANDOM.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(8)) for _ in range(15)]


def rels(engine: SearchEngine, text: str, n: int = 10) -> list[str | None]:
    return [hit.rel for hit in engine.search(SearchRequest((WeightedText(text),), n=n)).hits]


def test_unrelated_and_nonsense_texts_come_out_weak(demo: SearchEngine) -> None:
    found = [rels(demo, text) for text in NONSENSE]
    every = [rel for hits in found for rel in hits]
    assert every.count("weak") >= 0.95 * len(every)
    assert every.count("strong") <= 0.01 * len(every)


def test_what_is_there_by_its_title_is_strong_or_fair(demo: SearchEngine) -> None:
    with demo.shelf.using("demo") as collection:
        titles = sorted({item.title for item in collection.catalog.items_at(np.arange(collection.index.size), "concise")})
    chosen = random.Random(4).sample(titles, 100)
    right = [hit.rel for title in chosen for hit in demo.search(SearchRequest((WeightedText(title),), n=5)).hits if hit.item.title == title]
    assert right.count("weak") <= 0.06 * len(right)
    assert right.count("strong") >= 0.4 * len(right)


def test_plain_words_of_which_there_are_many_pictures_are_not_weak(demo: SearchEngine) -> None:
    words = ["cat", "car", "star", "clock", "bird", "fish", "flower", "flag", "hand", "woman", "tree", "hat"]
    found = [rels(demo, text) for text in words]
    assert [word for word, hits in zip(words, found, strict=True) if hits[0] == "weak"] == []
    every = [rel for hits in found for rel in hits]
    assert every.count("weak") <= 0.25 * len(every)


def test_a_collection_of_one_subject_does_not_call_that_subject_weak(demo: SearchEngine) -> None:
    with demo.shelf.using("demo") as collection:
        mask = collection.filters.evaluate(None).mask.copy()
        cats = demo.search(SearchRequest((WeightedText("a cat face"),), n=60)).hits
        rows = collection.catalog.rows_of([hit.item.id for hit in cats]).rows
        index = ExactIndex(Embeddings.from_rows(collection.index.vectors(rows)))
        everything = np.ones(index.size, np.bool_)
        sample = sample_of(index, everything)
        relevance = Relevance(measure(collection.encoder.encode_text, index, everything, sample), sample)
        vector = collection.encoder.encode_text("a cat face").vector
        near = index.search(vector, 10, ~everything)
        judged = relevance.judge(QueryVector(vector, vector, None), near.rows, index, near.scores)
    assert mask.any()
    assert judged is not None
    assert judged.count("weak") <= 2


def test_a_mixed_query_counts_as_its_weaker_part_and_unwanted_texts_alone_as_nothing() -> None:
    rows = np.eye(4, dtype=np.float32)
    index = ExactIndex(Embeddings.from_rows(rows))
    scale = Scale((0.0,) * 4, text_fair=0.5, text_strong=1.5, pair_fair=0.5, pair_strong=1.5)
    relevance = Relevance(scale, np.zeros((1, 4), np.float32))
    text, like = rows[0], rows[1]
    places = np.arange(3)
    both = QueryVector((rows[0] + rows[1]) / np.sqrt(np.float32(2)), text, like)
    assert relevance.judge(QueryVector(text, text, None), places, index, index.scores(text, places)) == ["strong", "weak", "weak"]
    assert relevance.judge(both, places, index, index.scores(both.vector, places)) == ["weak", "weak", "weak"]
    assert relevance.judge(QueryVector(text, None, None), places, index, index.scores(text, places)) is None


def encoder_of_scale(factor: float) -> Callable[[str], EncodedText]:
    """Return an encoder whose texts are random directions, with cosines to the rows squeezed by `factor`."""

    def encode(text: str) -> EncodedText:
        rng = np.random.default_rng(abs(hash_of(text)))
        vector = rng.normal(size=32)
        vector[0] = np.sqrt(np.sum(vector[1:] ** 2)) / factor  # most of it lies where no row is
        return EncodedText((vector / np.linalg.norm(vector)).astype(np.float32), False, 64)

    return encode


def hash_of(text: str) -> int:
    return int.from_bytes(text.encode()[:8].ljust(8, b"x"), "big")


@pytest.mark.parametrize("factor", [10.0, 0.1])
def test_the_scale_follows_the_model_however_small_its_cosines(factor: float) -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(300, 32)).astype(np.float32)
    rows[:, 0] = 0
    index = ExactIndex(Embeddings.from_rows(rows))
    everything = np.ones(300, np.bool_)
    sample = sample_of(index, everything)
    encode = encoder_of_scale(factor)
    relevance = Relevance(measure(encode, index, everything, sample), sample)
    related = encode("x").vector.copy()
    related[1:] = index.vectors(np.array([5]))[0][1:] * np.linalg.norm(related[1:])
    near = index.search(related, 3, ~everything)
    assert near.rows[0] == 5
    judged = relevance.judge(QueryVector(related, related, None), near.rows, index, near.scores)
    assert judged is not None
    assert judged[0] == "strong"
    assert judged[2] == "weak"


@pytest.mark.parametrize("size", [1, 2, 5])
def test_tiny_collections_have_a_scale_too(size: int) -> None:
    rows = np.random.default_rng(1).normal(size=(size, 32)).astype(np.float32)
    index = ExactIndex(Embeddings.from_rows(rows))
    everything = np.ones(size, np.bool_)
    scale = measure(encoder_of_scale(1.0), index, everything, sample_of(index, everything))
    assert scale.text_fair <= scale.text_strong
    assert np.isfinite([scale.text_fair, scale.text_strong, scale.pair_fair, scale.pair_strong]).all()


def test_what_is_measured_is_kept_where_it_can_be_written(demo_settings: Settings, tmp_path: Path) -> None:
    (config,) = demo_settings.collections
    for file in (config.embeddings_file, config.database_file):  # without the scale that lies beside them
        shutil.copy(file, tmp_path)
    mine = replace(config, embeddings_file=tmp_path / config.embeddings_file.name, database_file=tmp_path / config.database_file.name)
    settings = replace(demo_settings, collections=(mine,), state_folder=tmp_path / "state", cache_folder=tmp_path / "ro", side_folder=None)
    (tmp_path / "state").mkdir()
    with closing(open_engine(settings)) as engine, engine.shelf.using("demo") as collection:
        collection.scale_file.write(asdict(Scale((0.5, 0.25, 0.125), 0.1, 0.2, 0.3, 0.4)))
    assert cached_file(tmp_path / "state", "demo").is_file()
    cached = trust_of(mine, settings).cached
    assert cached is not None
    assert cached.parent == tmp_path / "state"
    assert not (tmp_path / "ro").exists()


def test_the_scale_is_measured_once_behind_the_calls_and_kept(tmp_path: Path) -> None:
    file, key = cached_file(tmp_path / "cache", "a/b"), {"model": "m", "items": 3}
    sample: NDArray[np.float32] = np.eye(3, dtype=np.float32)
    scale = Scale((0.5, 0.25, 0.125), 0.1, 0.2, 0.3, 0.4)
    begun, may_end = threading.Event(), threading.Event()
    attempts: list[int] = []

    def make() -> Scale:
        attempts.append(1)
        if len(attempts) == 1:
            raise ModelLoadingError("not yet")
        begun.set()
        may_end.wait(10)
        return scale

    def background() -> BackgroundRelevance:
        return BackgroundRelevance("x", lambda: read_scale([file], key), lambda fields: write_scale(file, key, fields))

    first = background()
    first.start(make, sample)
    first.start(make, sample)
    assert begun.wait(10)
    assert first.ready(sample) is None
    may_end.set()
    for thread in threading.enumerate():
        if thread.name == "relevance":
            thread.join(10)
    made = first.ready(sample)
    assert made is not None
    assert made.scale == scale
    again = background().ready(sample)
    assert again is not None
    assert again.scale == scale
    assert len(attempts) == 2
    assert background().ready(np.eye(4, dtype=np.float32)) is None
    assert read_scale([file], {"model": "other", "items": 3}) is None
    file.write_text("{", encoding="utf-8")
    assert read_scale([file], key) is None


def test_the_models_own_probability_is_the_sigmoid_of_its_logit() -> None:
    cosines = np.array([0.15, 0.0, -1.0], np.float32)
    assert match_probability(None, cosines) is None
    likely, unlikely, never = match_probability((112.0, -16.5), cosines) or (0, 0, 0)
    assert likely == pytest.approx(0.574, abs=2e-3)
    assert unlikely == pytest.approx(6.8e-8, rel=0.02)
    assert 0 <= never < 1e-50


@pytest.mark.parametrize(
    ("scores", "drop"),
    [
        ([], None),
        ([0.5, 0.4], None),
        ([0.5, 0.5, 0.5], None),
        ([0.5, 0.49, 0.2], Drop(2, 0.29)),
        ([0.9, 0.4, -0.1], Drop(1, 0.5)),
        ([0.5, 0.3, 0.2999], Drop(1, 0.2)),
    ],
)
def test_the_largest_drop_is_the_first_of_its_size(scores: list[float], drop: Drop | None) -> None:
    assert largest_drop(scores) == drop


def test_the_first_call_can_wait_for_a_scale_that_is_quickly_measured() -> None:
    scale = Scale((0.5, 0.25, 0.125), 0.1, 0.2, 0.3, 0.4)
    sample: NDArray[np.float32] = np.eye(3, dtype=np.float32)
    may_end = threading.Event()

    def made_after(event: threading.Event) -> Callable[[], Scale]:
        def make() -> Scale:
            event.wait(10)
            return scale

        return make

    background = BackgroundRelevance("x", lambda: None, lambda _: None)
    background.start(made_after(may_end), sample)
    threading.Timer(0.05, may_end.set).start()
    background.wait(10)
    made = background.ready(sample)
    assert made is not None
    assert made.scale == scale
    stuck = BackgroundRelevance("y", lambda: None, lambda _: None)
    never = threading.Event()
    stuck.start(made_after(never), sample)
    stuck.wait(0.01)
    stuck.wait()  # only the first call waits: this one returns at once
    assert stuck.ready(sample) is None
    never.set()
    stuck.close()
