"""The walk from words to pictures: right, without repeats, honest about what is missing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zarr.storage import ZipStore

from mcp_server.domain.filter_syntax import parse_filter
from mcp_server.domain.search import SearchOutcome, SearchRequest, WeightedText
from mcp_server.domain.session import SessionChange
from mcp_server.engine.search import SearchEngine
from mcp_server.errors import CollectionError, EncoderError, UnknownCollectionError, UnknownSessionError, UnknownValueError
from mcp_server.protocol.arguments import filter_question
from mcp_server.protocol.filter_answers import filter_answer
from mcp_server.stores.facets import overview
from tests import m3
from tests.engine.toys import WordEncoder, open_world, vector_of, videos, write_collection

TYPES = {"Year": "numerical_int"}
MEDIA = videos()
INDEXED = {one.id: (one, shown) for one, shown in MEDIA if one.row is not None}
GROUPS = {one.id: one for one, _ in MEDIA}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("world")
    (where / "toys").mkdir()
    write_collection(where / "toys", MEDIA, TYPES)
    return where


@pytest.fixture
def encoder() -> WordEncoder:
    return WordEncoder()


@pytest.fixture
def engine(folder: Path, encoder: WordEncoder) -> Iterator[SearchEngine]:
    with closing(open_world(folder, encoder)) as opened:
        yield opened


def tags_of(media: int, name: str) -> set[Any]:
    one = INDEXED[media][0]
    own = set(one.tags.get(name, []))
    return own | set(GROUPS[one.group].tags.get(name, [])) if one.group else own


def expected_order(text: str, allowed: set[int]) -> list[int]:
    query = vector_of(text).astype(np.float64)
    scores = {media: np.float32(vector_of(INDEXED[media][1]).astype(np.float64) @ query) for media in allowed}
    return sorted(allowed, key=lambda media: (-scores[media], media))


def ask(engine: SearchEngine, text: str = "red circle", **arguments: Any) -> SearchOutcome:
    arguments["filters"] = parse_filter(arguments.get("filters"))
    return engine.search(SearchRequest((WeightedText(text),), **arguments))


def ids(outcome: SearchOutcome) -> list[int]:
    return [hit.item.id for hit in outcome.hits]


def test_a_search_returns_the_nearest_items_in_order_and_their_cosine(engine: SearchEngine) -> None:
    outcome = ask(engine, n=20)
    assert [round(hit.score, 5) for hit in outcome.hits] == sorted((round(hit.score, 5) for hit in outcome.hits), reverse=True)
    best = expected_order("red circle", set(INDEXED))
    assert set(ids(outcome)[:5]) <= set(best[:12])
    assert outcome.matching == len(INDEXED)
    assert outcome.unseen_left == len(INDEXED) - 20
    assert outcome.approximation is None


def recent_and_coloured(media: int) -> bool:
    return max(tags_of(media, "Year"), default=0) >= 2018 and bool(tags_of(media, "Color") & {"red", "blue"})


FILTERS: list[tuple[dict[str, Any] | None, Any]] = [
    (None, lambda media: True),
    ({"Color": "red"}, lambda media: "red" in tags_of(media, "Color")),
    ({"not": {"Color": "red"}}, lambda media: "red" not in tags_of(media, "Color")),
    ({"Year": {"gte": 2018}, "Color": ["red", "blue"]}, recent_and_coloured),
    ({"Source": {"exists": False}}, lambda media: not tags_of(media, "Source")),
    ({"any": [{"Source": "BBC"}, {"Year": 2021}]}, lambda media: "BBC" in tags_of(media, "Source") or 2021 in tags_of(media, "Year")),
    ({"Color": "red", "Source": "BBC", "Year": {"gt": 2100}}, lambda media: False),
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    choice=st.integers(0, len(FILTERS) - 1),
    n=st.integers(1, 30),
    seen=st.lists(st.sampled_from(sorted(INDEXED)), max_size=6),
    excluded=st.lists(st.sampled_from(sorted(INDEXED)), max_size=6),
    groups=st.lists(st.integers(1, 12), max_size=3),
)
def test_paging_to_the_end_covers_exactly_the_allowed_items_once(
    engine: SearchEngine, choice: int, n: int, seen: list[int], excluded: list[int], groups: list[int]
) -> None:
    raw, passes = FILTERS[choice]
    passing = {media for media in INDEXED if passes(media)}
    allowed = {media for media in passing - set(seen) - set(excluded) if INDEXED[media][0].group not in groups}
    shown: list[int] = []
    session = None
    while True:
        outcome = ask(engine, n=n, filters=raw, session=session, seen=tuple(seen), excluded=tuple(excluded), excluded_groups=tuple(groups))
        session = outcome.session
        assert outcome.matching == len(passing)
        assert outcome.hidden.filtered == len(INDEXED) - len(passing)
        assert outcome.matching == len(outcome.hits) + outcome.unseen_left + outcome.hidden.seen + outcome.hidden.excluded
        shown += ids(outcome)
        if not outcome.hits:
            break
        assert (outcome.short_reason is None) == (len(outcome.hits) == n)
    assert outcome.short_reason is not None
    assert len(shown) == len(set(shown))
    assert set(shown) == allowed
    assert outcome.unseen_left == 0


def test_two_agents_in_one_session_at_the_same_time_never_get_the_same_item(folder: Path) -> None:
    with closing(open_world(folder, WordEncoder())) as one, closing(open_world(folder, WordEncoder())) as two:
        session = ask(one, n=1).session
        got: list[list[int]] = [[], [], [], []]
        gate = threading.Barrier(4)

        def page(place: int, engine: SearchEngine) -> None:
            gate.wait()
            while True:
                outcome = ask(engine, "blue star", n=3, session=session)
                if not outcome.hits:
                    return
                got[place] += ids(outcome)

        threads = [threading.Thread(target=page, args=(place, (one, two)[place % 2])) for place in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    everything = [media for part in got for media in part]
    assert len(everything) == len(set(everything)) == len(INDEXED) - 1


def test_a_session_goes_on_after_a_restart(folder: Path) -> None:
    with closing(open_world(folder, WordEncoder())) as engine:
        first = ask(engine, n=10)
    with closing(open_world(folder, WordEncoder())) as engine:
        second = ask(engine, n=10, session=first.session)
    assert not set(ids(first)) & set(ids(second))


def test_repeats_query_hides_only_what_the_same_words_have_shown(engine: SearchEngine) -> None:
    first = ask(engine, "red circle", n=5)
    other = ask(engine, "red  CIRCLE big", n=5, session=first.session, repeats="query")
    assert other.hidden.seen == 0
    same = ask(engine, " Red circle", n=5, session=first.session, repeats="query")
    assert not set(ids(same)) & set(ids(first))
    everything = ask(engine, "red circle", n=5, session=first.session, repeats="allow")
    assert ids(everything) == ids(first)


def test_excluding_an_item_leaves_its_group_and_excluding_a_group_takes_all_of_it(engine: SearchEngine) -> None:
    best = ask(engine, n=1).hits[0].item
    with_frame_out = ask(engine, n=100, excluded=(best.id,))
    assert best.id not in ids(with_frame_out)
    assert len(with_frame_out.hits) == len(INDEXED) - 1
    grouped = next(hit.item for hit in with_frame_out.hits if hit.item.group is not None)
    assert grouped.group is not None
    without_group = ask(engine, n=100, excluded_groups=(grouped.group,))
    assert all(hit.item.group != grouped.group for hit in without_group.hits)
    assert without_group.hidden.excluded == 5


def test_a_hidden_item_that_is_better_than_all_shown_is_reported(engine: SearchEngine) -> None:
    first = ask(engine, n=3)
    second = ask(engine, n=3, session=first.session)
    assert second.hidden.best_hidden_score == pytest.approx(first.hits[0].score)
    assert first.hidden.best_hidden_score is None


def test_when_nothing_is_allowed_the_model_is_not_run(engine: SearchEngine, encoder: WordEncoder) -> None:
    outcome = ask(engine, filters={"Year": {"gt": 3000}})
    assert (outcome.hits, outcome.short_reason) == ((), "filters_match_only_0")
    assert encoder.runs == 0
    assert any("Year" in warning for warning in outcome.warnings)


def test_what_is_forgotten_while_an_exhausted_session_is_asked_comes_again(engine: SearchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    session = ask(engine, n=100).session
    pages = engine.sessions.pages

    def forgotten_meanwhile(session: str) -> int:
        engine.sessions.update(SessionChange(session, forget_seen=True))
        return pages(session)

    monkeypatch.setattr(engine.sessions, "pages", forgotten_meanwhile)
    outcome = ask(engine, n=3, session=session)
    assert len(outcome.hits) == 3
    assert outcome.unseen_left == len(INDEXED) - 3


def test_a_call_that_fails_marks_nothing_as_seen(engine: SearchEngine) -> None:
    session = ask(engine, n=2).session
    with pytest.raises(EncoderError):
        ask(engine, "fail", n=5, session=session)
    with pytest.raises(UnknownValueError):
        ask(engine, n=5, session=session, filters={"Color": "mauve"})
    assert ask(engine, n=2, session=session).hidden.seen == 2


def test_an_unknown_session_is_refused_before_the_model_runs(engine: SearchEngine, encoder: WordEncoder) -> None:
    with pytest.raises(UnknownSessionError):
        ask(engine, session="s_made_up")
    assert encoder.runs == 0


def test_short_reasons_tell_an_exhausted_collection_from_seen_items_and_narrow_filters(engine: SearchEngine) -> None:
    whole = ask(engine, n=100)
    assert whole.short_reason == "exhausted"
    assert ask(engine, n=5, session=whole.session).short_reason == "all_seen"
    narrow = {"Color": {"all": ["red", "blue"]}}
    few = ask(engine, n=100, filters=narrow)
    assert few.short_reason == f"filters_match_only_{few.matching}"
    assert 0 < few.matching < 20


def test_ids_without_a_row_are_warnings_and_an_unindexed_child_fails_nothing(engine: SearchEngine) -> None:
    outcome = ask(engine, n=100, seen=(1, 9_001, 10**12), excluded=(2,), filters={"Source": "ARD"})
    assert [warning.split(" ")[0] for warning in outcome.warnings] == ["3", "1"]
    assert outcome.hits


def test_two_collections_keep_their_sessions_groups_and_filters_apart(tmp_path: Path) -> None:
    for name, color in (("one", "red"), ("two", "blue")):
        (tmp_path / name).mkdir()
        media = [(m3.Media(1, tags={"Color": [color]}), ""), (m3.Media(7, 0, 1), "star"), (m3.Media(8, 1), "circle")]
        write_collection(tmp_path / name, media)
    with closing(open_world(tmp_path, WordEncoder(), ("one", "two"))) as engine:
        with pytest.raises(UnknownCollectionError, match='"one", "two"'):
            ask(engine)
        first = ask(engine, collection="one", filters={"Color": "red"})
        assert ids(first) == [7]
        assert ids(ask(engine, collection="TWO", filters={"Color": "blue"}, session=first.session)) == [7]
        with pytest.raises(UnknownValueError):
            ask(engine, collection="two", filters={"Color": "red"})


def test_a_collection_that_cannot_be_opened_fails_alone_and_is_tried_again(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "good").mkdir()
    write_collection(tmp_path / "good", MEDIA, TYPES)
    (tmp_path / "late").mkdir()
    with closing(open_world(tmp_path, WordEncoder(), ("good", "late"))) as engine:
        with pytest.raises(CollectionError):
            ask(engine, collection="late")
        assert ask(engine, collection="good").hits
        write_collection(tmp_path / "late", MEDIA, TYPES)
        assert ask(engine, collection="late").hits


def test_vectors_that_are_not_finite_or_have_no_length_count_nowhere(tmp_path: Path) -> None:
    media = [(m3.Media(1, 0, tags={"Color": ["red"]}), "star"), (m3.Media(2, 2, tags={"Color": ["red", "mauve"]}), "")]
    (tmp_path / "toys").mkdir()
    write_collection(tmp_path / "toys", media)
    with closing(ZipStore(tmp_path / "toys" / "embeddings.zarr.zip", mode="w")) as store:
        zarr.create_array(store, data=np.stack([vector_of("star"), vector_of("star"), np.full(8, np.nan, np.float32)]))
    with closing(open_world(tmp_path, WordEncoder())) as engine:
        catalog, filters = engine.shelf.collection("toys").catalog, engine.shelf.collection("toys").filters
        assert catalog.indexed == 1
        assert [summary.items for summary in overview(filters).fields] == [1]
        assert ids(ask(engine, filters={"Color": "red"})) == [1]
        nothing = ask(engine, filters={"Color": "mauve"})
        assert (nothing.matching, nothing.short_reason) == (0, "filters_match_only_0")
        assert "1 item" not in nothing.warnings[0]
        assert ask(engine, excluded=(2,)).warnings


def test_with_repeats_allowed_the_rest_of_the_session_is_still_counted(engine: SearchEngine) -> None:
    first = ask(engine, n=5)
    again = ask(engine, n=3, session=first.session, repeats="allow")
    assert again.unseen_left == len(INDEXED) - 5
    assert ids(again) == ids(first)[:3]


def test_a_collection_put_in_the_place_of_another_is_served_at_the_next_call(tmp_path: Path) -> None:
    for name, words in (("toys", "star"), ("new", "circle")):
        (tmp_path / name).mkdir()
        write_collection(tmp_path / name, [(m3.Media(7 if name == "toys" else 8, 0), words)])
    with closing(open_world(tmp_path, WordEncoder())) as engine:
        first = ask(engine)
        assert ids(first) == [7]
        for file in ("embeddings.zarr.zip", "collection.db"):
            (tmp_path / "new" / file).replace(tmp_path / "toys" / file)
        assert ids(ask(engine, session=first.session)) == [8]


def test_a_text_longer_than_the_model_reads_is_answered_with_a_warning(engine: SearchEngine) -> None:
    outcome = ask(engine, "red " * 20)
    assert any("8 tokens" in warning for warning in outcome.warnings)


def test_the_same_call_gives_the_same_answer(engine: SearchEngine) -> None:
    first, second = ask(engine, "big", n=30), ask(engine, "big", n=30)
    assert ids(first) == ids(second)
    assert [hit.score for hit in first.hits] == [hit.score for hit in second.hits]


def test_an_overview_gives_json_no_number_of_values(tmp_path: Path) -> None:
    media = [(m3.Media(10 + row, row, tags={"Extra": [f'{{"a": {row}}}'], "Color": ["red"]}), "red") for row in range(3)]
    (tmp_path / "toys").mkdir()
    write_collection(tmp_path / "toys", media, {"Extra": "json"})
    with closing(open_world(tmp_path, WordEncoder())) as engine:
        extra, color = filter_answer(engine, filter_question({})).body["fields"]
        assert extra == {"name": "Extra", "type": "json"}
        assert color == {"name": "Color", "type": "text", "values": 1, "top": {"red": 3}}
        assert "exists" in filter_answer(engine, filter_question({"field": "Extra"})).body["next"]


def test_an_overview_of_hundreds_of_fields_lists_those_that_most_items_have(tmp_path: Path) -> None:
    tags: list[dict[str, list[m3.Value]]] = [{f"Field {number}": ["some"] for number in range(0, 400, step)} for step in (1, 10)]
    media = [(m3.Media(10 + row, row, tags=each), "red") for row, each in enumerate(tags)]
    (tmp_path / "toys").mkdir()
    write_collection(tmp_path / "toys", media)
    with closing(open_world(tmp_path, WordEncoder())) as engine:
        told = filter_answer(engine, filter_question({}))
        named = [field["name"] for field in told.body["fields"]]
        assert len(told.text) <= 4_000 * 3.3
        assert {f"Field {number}" for number in range(0, 400, 10)} <= set(named)
        assert f"; {400 - len(named)} more can be named in field." in told.body["next"]
        assert filter_answer(engine, filter_question({"field": "field 399"})).body["field"]["values"] == {"some": 1}
