"""At most so many of a group: exactly what a scan of everything in order would show, over any number of pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcp_server.domain.search import SearchRequest, WeightedText
from mcp_server.engine.search import SearchEngine
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
