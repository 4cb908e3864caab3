"""At most so many of a group: exactly what a scan of everything in order would show, over any number of pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mcp_server.domain.search import Neighbors, SearchRequest, WeightedText
from mcp_server.engine.group_caps import GroupCap
from mcp_server.engine.search import SearchEngine
from mcp_server.indexes.embeddings import load_embeddings
from mcp_server.indexes.exact import ExactIndex
from mcp_server.stores.catalog import Catalog
from tests.engine.toys import WordEncoder, open_world, videos, write_collection

MEDIA = videos()
GROUP = {one.id: one.group for one, _ in MEDIA if one.row is not None}
TEXT = (WeightedText("red circle"),)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchEngine]:
    folder: Path = tmp_path_factory.mktemp("groups")
    (folder / "toys").mkdir()
    write_collection(folder / "toys", MEDIA, {"Year": "numerical_int"})
    with closing(open_world(folder, WordEncoder())) as opened:
        yield opened


def greedy(order: list[int], most: int) -> list[int]:
    used: Counter[int | None] = Counter()
    shown: list[int] = []
    for media in order:
        group = GROUP[media]
        if group is None or used[group] < most:
            used[group] += 1
            shown.append(media)
    return shown


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n=st.integers(1, 12), most=st.integers(1, 3))
def test_pages_together_are_what_a_scan_in_order_would_show(engine: SearchEngine, n: int, most: int) -> None:
    everything = engine.search(SearchRequest(TEXT, n=100)).hits
    expected = greedy([hit.item.id for hit in everything], most)
    shown: list[int] = []
    session = None
    while True:
        outcome = engine.search(SearchRequest(TEXT, n=n, session=session, max_per_group=most))
        session = outcome.session
        shown += [hit.item.id for hit in outcome.hits]
        assert outcome.unseen_left == len(expected) - len(shown)
        if len(outcome.hits) < n:
            assert outcome.short_reason == "groups_full"
            break
        if not outcome.unseen_left:
            break
    assert shown == expected


class Forgetful(ExactIndex):
    """Misses the best row the first time, as an approximate index may."""

    searches = 0

    def search(self, query: NDArray[np.float32], k: int, skip: NDArray[np.bool_]) -> Neighbors:
        self.searches += 1
        if self.searches == 1:
            skip = skip.copy()
            skip[super().search(query, 1, skip).rows] = True
        return replace(super().search(query, k, skip), approximation="toy")


def test_what_an_approximate_index_brings_late_is_put_where_it_belongs(tmp_path: Path) -> None:
    write_collection(tmp_path, MEDIA, {"Year": "numerical_int"})
    embeddings = load_embeddings(tmp_path / "embeddings.zarr.zip")
    with closing(Catalog.open(tmp_path / "collection.db", embeddings.size)) as catalog:
        exact, forgetful = ExactIndex(embeddings, catalog.media_of_row), Forgetful(embeddings, catalog.media_of_row)
        loose = np.flatnonzero(catalog.group_of_row < 0)[:1]
        cap, query, nothing = GroupCap(catalog, 1, {}), exact.vectors(loose)[0], np.zeros(embeddings.size, bool)
        found, expected = (cap.search(index, query, 20, nothing) for index in (forgetful, exact))
    assert forgetful.searches > 1
    assert found.approximation == "toy"
    assert found.scores.tolist() == expected.scores.tolist()
    assert found.rows.tolist() == expected.rows.tolist()


def test_with_repeats_allowed_what_is_left_is_what_the_session_still_brings(engine: SearchEngine) -> None:
    session = engine.search(SearchRequest(TEXT, n=20)).session
    allowed = engine.search(SearchRequest(TEXT, n=3, session=session, repeats="allow", max_per_group=1))
    assert allowed.unseen_left == len(engine.search(SearchRequest(TEXT, n=100, session=session, max_per_group=1)).hits)


def test_a_best_score_below_the_limit_is_neither_shown_nor_marked(engine: SearchEngine) -> None:
    first = engine.search(SearchRequest(TEXT, n=5))
    least = round(first.hits[2].score, 4)
    outcome = engine.search(SearchRequest(TEXT, n=20, min_score=least))
    assert all(round(hit.score, 4) >= least for hit in outcome.hits)
    assert outcome.short_reason == "below_min_score"
    again = engine.search(SearchRequest(TEXT, n=1, session=outcome.session))
    assert again.hits[0].item.id not in [hit.item.id for hit in outcome.hits]
    assert {hit.score for hit in engine.search(SearchRequest(TEXT, min_score=1.0)).hits} <= {1.0}
