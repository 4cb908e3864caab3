"""Words and examples become one vector: alone they are themselves, together neither drowns the other, and equal calls give equal bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mcp_server.domain.ids import MediaId
from mcp_server.domain.search import SearchRequest, WeightedText
from mcp_server.engine.query_vectors import compose
from mcp_server.engine.search import SearchEngine
from mcp_server.errors import BadArgumentError

Floats = NDArray[np.float32]
NONE = np.empty((0, 8), np.float32)
SAMPLE = np.random.default_rng(7).normal(size=(50, 8)).astype(np.float32)


def unit(*numbers: float) -> Floats:
    vector = np.zeros(8, np.float32)
    vector[: len(numbers)] = numbers
    return vector / np.linalg.norm(vector)


def test_one_text_or_one_example_is_the_query_itself() -> None:
    text = unit(1, 2)
    query = compose([(text, 1.0)], NONE, NONE, NONE)
    assert query.vector is text
    assert query.text is query.vector
    assert query.like is None
    example = compose([], unit(3, 1)[None], NONE, NONE)
    assert np.array_equal(example.vector, unit(3, 1))
    assert example.text is None


def test_weights_lead_towards_and_away() -> None:
    query = compose([(unit(1, 0), 2.0), (unit(0, 1), -1.0)], NONE, NONE, NONE)
    assert np.allclose(query.vector, unit(2, -1))
    assert np.allclose(query.text, unit(1, 0))


def test_the_mix_is_the_documented_formula() -> None:
    text, like, unlike = unit(1, 2, 3), np.stack([unit(0, 1), unit(1, 1)]), unit(0, 0, 1)[None]
    wide = SAMPLE.astype(np.float64)
    parts = [text.astype(np.float64), like.sum(axis=0, dtype=np.float64), unlike[0].astype(np.float64)]
    parts = [part / np.linalg.norm(part) for part in parts]
    expected = sum(factor * part / (wide @ part).std() for factor, part in zip((1, 1, -0.25), parts, strict=True))
    query = compose([(text, 1.0)], like, unlike, SAMPLE)
    assert np.allclose(query.vector, expected / np.linalg.norm(expected), atol=1e-6)


def test_what_cancels_out_is_refused() -> None:
    with pytest.raises(BadArgumentError, match="cancel"):
        compose([(unit(1), 1.0), (unit(1), -1.0)], NONE, NONE, NONE)


@given(st.integers(0, 2**32 - 1), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
def test_every_mix_has_unit_length_and_is_the_same_each_time(seed: int, texts: int, likes: int, unlikes: int) -> None:
    if not texts and not likes:
        return
    rng = np.random.default_rng(seed)

    def some(count: int) -> Floats:
        rows = rng.normal(size=(count, 8)).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True) if count else NONE

    words, like, unlike = [(row, 1.0) for row in some(texts)], some(likes), some(unlikes)
    first, again = compose(words, like, unlike, SAMPLE), compose(words, like.copy(), unlike.copy(), SAMPLE.copy())
    assert np.array_equal(first.vector, again.vector)
    assert abs(float(np.linalg.norm(first.vector.astype(np.float64))) - 1) < 1e-6


def ids(engine: SearchEngine, **asked: object) -> list[int]:
    return [hit.item.id for hit in engine.search(SearchRequest(n=100, **asked)).hits]  # pyright: ignore[reportArgumentType]


def test_like_alone_finds_the_nearest_neighbours_but_not_the_example(demo: SearchEngine) -> None:
    with demo.shelf.using("demo") as collection:
        row = int(collection.catalog.rows_of([1221]).rows[0])
        vectors = collection.index.vectors(np.arange(collection.index.size)).astype(np.float64)
        order = [int(collection.catalog.media_of_row[at]) for at in np.argsort(-(vectors @ vectors[row])) if at != row]
    found = ids(demo, like=(MediaId(1221),))
    assert found[:50] == order[:50]


def test_unlike_moves_what_is_near_it_down_and_the_same_call_gives_the_same_answer(demo: SearchEngine) -> None:
    apple = (WeightedText("a red apple"),)
    plain = ids(demo, texts=apple)
    unwanted = MediaId(3257)
    near = [media for media in ids(demo, like=(unwanted,))[:5] if media in plain]
    mixed = ids(demo, texts=apple, unlike=(unwanted,))
    assert unwanted not in mixed
    assert near
    ranks = [(plain.index(media), mixed.index(media) if media in mixed else 100) for media in near]
    assert sum(after > before for before, after in ranks) > len(ranks) / 2
    again = demo.search(SearchRequest(texts=apple, unlike=(unwanted,), n=100)).hits
    assert [hit.score for hit in again] == [hit.score for hit in demo.search(SearchRequest(texts=apple, unlike=(unwanted,), n=100)).hits]
