"""Curating over time: shortlists, exclusions, pages sent again, forks, and lists handed over."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mcp_server.cli import main
from mcp_server.config import Settings
from mcp_server.domain.filters import AnyOf
from mcp_server.domain.ids import MediaId
from mcp_server.domain.search import Item, SearchOutcome, SearchRequest, WeightedText
from mcp_server.domain.session import PageEntry, SessionChange
from mcp_server.engine.curation import update_session
from mcp_server.engine.export import as_csv, as_jsonl, export_rows, session_report
from mcp_server.engine.opening import open_engine
from mcp_server.engine.question import in_words
from mcp_server.engine.search import SearchEngine
from mcp_server.errors import (
    MESSAGE_LIMIT,
    BadArgumentError,
    CatalogBusyError,
    CatalogReplacedError,
    UnknownCollectionError,
    UnknownFieldError,
    UnknownMediaError,
    UnknownSessionError,
)
from mcp_server.stores.catalog import Catalog
from mcp_server.stores.sessions import SESSIONS_FILE, Sessions
from tests.engine.toys import WordEncoder, open_world, videos, write_collection

CAT = (WeightedText("a cat"),)


@pytest.fixture
def engine(demo_settings: Settings, tmp_path: Path) -> Iterator[SearchEngine]:
    with closing(open_engine(demo_settings, tmp_path / "sessions.db", math.inf)) as opened:
        yield opened


def ids(outcome: SearchOutcome) -> list[int]:
    return [int(hit.item.id) for hit in outcome.hits]


def test_an_excluded_item_never_comes_again_until_it_is_dropped(engine: SearchEngine) -> None:
    first = engine.search(SearchRequest(CAT, n=3))
    best = ids(first)[0]
    update_session(engine.shelf, engine.sessions, SessionChange(first.session, exclude=(best,)))
    for repeats in ("skip", "query", "allow"):
        again = engine.search(SearchRequest(CAT, n=10, session=first.session, repeats=repeats))
        assert best not in ids(again)
    update_session(engine.shelf, engine.sessions, SessionChange(first.session, drop=(best,), forget_seen=True))
    assert ids(engine.search(SearchRequest(CAT, n=3, session=first.session)))[0] == best


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (SessionChange(None, keep=(999_999,)), UnknownMediaError),
        (SessionChange(None, keep=(1221, 999_999)), UnknownMediaError),
        (SessionChange(None, "nothing", keep=(1221,)), UnknownCollectionError),
        (SessionChange("s_unknown"), UnknownSessionError),
    ],
)
def test_what_cannot_be_kept_is_refused_and_changes_nothing(engine: SearchEngine, change: SessionChange, error: type[Exception]) -> None:
    session = update_session(engine.shelf, engine.sessions, SessionChange(None, keep=(1,))).session
    with pytest.raises(error):
        update_session(engine.shelf, engine.sessions, change if change.session else replace(change, session=session))
    assert [one.id for one in engine.sessions.history(session).kept] == [1]


def test_what_is_kept_of_a_collection_that_is_no_longer_served_can_be_dropped_and_forgotten(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        write_collection(tmp_path / name, videos())
    with closing(open_world(tmp_path, WordEncoder(), ("old", "new"))) as engine:
        found = engine.search(SearchRequest((WeightedText("red circle"),), "old", n=3))
        session, best = found.session, ids(found)
        update_session(engine.shelf, engine.sessions, SessionChange(session, "old", keep=(best[0],), exclude=(best[1],)))
    with closing(open_world(tmp_path, WordEncoder(), ("new",))) as engine:
        for change in (
            SessionChange(session, "old", keep=(best[2],)),
            SessionChange(session, "old", drop=(best[0],), exclude=(best[2],)),
            SessionChange(session, "older", drop=(best[0],)),
            SessionChange(None, "old", drop=(best[0],)),
        ):
            with pytest.raises(UnknownCollectionError):
                update_session(engine.shelf, engine.sessions, change)
        state = update_session(engine.shelf, engine.sessions, SessionChange(session, "old", drop=(best[0], best[1]), forget_seen=True))
        assert (state.kept, state.excluded, state.seen) == ({}, {}, {})


def write(outcome: SearchOutcome) -> str:
    return json.dumps([outcome.session, outcome.page, ids(outcome)])


def test_a_page_asked_for_again_is_the_same_answer_and_the_next_one_is_made(engine: SearchEngine) -> None:
    first = engine.answer(SearchRequest(CAT, n=3), write)
    session, page, shown = json.loads(first)
    assert page == 1
    second = engine.answer(SearchRequest(CAT, n=3, session=session, page=2), write)
    assert json.loads(second)[1] == 2
    assert not set(json.loads(second)[2]) & set(shown)
    assert engine.answer(SearchRequest(CAT, n=3, session=session, page=2), write) == second
    assert engine.answer(SearchRequest(session=session, page=1), write) == first
    assert engine.sessions.pages(session) == 2
    with pytest.raises(BadArgumentError, match="the next is 3"):
        engine.answer(SearchRequest(CAT, session=session, page=4), write)
    with pytest.raises(BadArgumentError, match="Give text or like"):
        engine.answer(SearchRequest(session=session, page=3), write)


def test_a_page_is_not_given_as_the_answer_to_another_question(engine: SearchEngine) -> None:
    red = AnyOf("color", ("red",))
    first = engine.answer(SearchRequest(CAT, n=3, filters=red), write)
    session = json.loads(first)[0]
    engine.answer(SearchRequest(like=(MediaId(1221),), n=3, session=session), write)
    for same in (
        SearchRequest(CAT, n=50, filters=AnyOf("COLOR", ("Red",))),
        SearchRequest(CAT, "demo", filters=red),
        SearchRequest((), "demo"),
    ):
        assert engine.answer(replace(same, session=session, page=1), write) == first
    for other in (
        SearchRequest((WeightedText("red apple"),), filters=red),
        SearchRequest((*CAT, WeightedText("night", -1)), filters=red),
        SearchRequest(CAT),
        SearchRequest(CAT, filters=AnyOf("color", ("blue",))),
        SearchRequest(CAT, filters=red, unlike=(MediaId(1221),)),
        SearchRequest(like=(MediaId(1221),)),
    ):
        with pytest.raises(BadArgumentError, match=r'Page 1 .* answered "a cat; filters: color is red" in "demo"; .* Leave out page'):
            engine.answer(replace(other, session=session, page=1), write)
    with pytest.raises(BadArgumentError, match=r'Page 2 .* "like 1221"'):
        engine.answer(SearchRequest(CAT, session=session, page=2), write)
    with pytest.raises(UnknownCollectionError):
        engine.answer(SearchRequest((), "nothing", session=session, page=1), write)
    with pytest.raises(UnknownFieldError):
        engine.answer(SearchRequest(CAT, filters=AnyOf("colour of the sky", ("red",)), session=session, page=1), write)
    engine.answer(SearchRequest((WeightedText("a cat on a sofa " * 20),), session=session), write)
    with pytest.raises(BadArgumentError, match=r"have that answer again\.$") as refused:
        engine.answer(SearchRequest(CAT, session=session, page=3), write)
    assert len(str(refused.value)) <= MESSAGE_LIMIT
    assert engine.sessions.pages(session) == 3


def test_a_call_repeated_while_its_first_try_is_under_way_gets_the_same_page(engine: SearchEngine) -> None:
    session = json.loads(engine.answer(SearchRequest(CAT, n=2), write))[0]
    gate = threading.Barrier(6)
    answers: list[str] = []

    def repeat() -> None:
        gate.wait()
        answers.append(engine.answer(SearchRequest(CAT, n=2, session=session, page=2), write))

    threads = [threading.Thread(target=repeat) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 6
    assert len(set(answers)) == 1
    assert engine.sessions.pages(session) == 2


def test_processes_that_share_a_session_make_each_page_once_and_count_what_the_other_showed(
    engine: SearchEngine, demo_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process answers after this one has searched, and before it writes."""
    session = json.loads(engine.answer(SearchRequest(CAT, n=3), write))[0]
    record = engine.sessions.record
    with closing(open_engine(demo_settings, tmp_path / "sessions.db", math.inf)) as other:
        for request in (SearchRequest(CAT, n=4, session=session, page=2), SearchRequest(CAT, n=5, session=session, max_per_group=1)):
            answered: list[SearchOutcome | str] = []

            def late(*arguments: Any, request: SearchRequest = request, answered: list[Any] = answered) -> Any:
                if not answered:
                    answered.append(other.answer(request, write) if request.page else other.search(request))
                return record(*arguments)

            monkeypatch.setattr(engine.sessions, "record", late)
            if request.page:
                assert engine.answer(request, write) == answered[0]
                assert engine.sessions.pages(session) == 2
                continue
            mine, (theirs,) = engine.search(request), answered
            assert isinstance(theirs, SearchOutcome)
            assert (theirs.page, mine.page) == (3, 4)
            assert mine.hidden.seen == 3 + 4 + 5
            groups = [hit.item.group for hit in (*theirs.hits, *mine.hits) if hit.item.group is not None]
            assert len(groups) == len(set(groups))


def test_two_forks_search_in_parallel_and_neither_repeats_itself_or_the_common_past(engine: SearchEngine) -> None:
    common = engine.search(SearchRequest(CAT, n=10))
    forks = [update_session(engine.shelf, engine.sessions, SessionChange(common.session, fork=True)).session for _ in range(2)]
    shown: dict[str, list[int]] = {fork: [] for fork in forks}
    gate = threading.Barrier(4)

    def search(fork: str) -> None:
        gate.wait()
        for _ in range(25):
            shown[fork] += ids(engine.search(SearchRequest(CAT, n=2, session=fork)))

    threads = [threading.Thread(target=search, args=(fork,)) for fork in forks for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for fork in forks:
        assert len(shown[fork]) == len(set(shown[fork])) == 100
        assert not set(shown[fork]) & set(ids(common))
    assert set(shown[forks[0]]) == set(shown[forks[1]])  # each goes down the same list on its own


def test_a_shortlist_is_handed_over_with_what_found_each_item(engine: SearchEngine, tmp_path: Path) -> None:
    found = engine.search(SearchRequest((WeightedText("red apple", 2.0), WeightedText("worm", -1.0)), n=4))
    more = engine.search(SearchRequest(like=(found.hits[0].item.id,), n=2, session=found.session))
    kept = (ids(more)[0], ids(found)[1], 5)
    update_session(engine.shelf, engine.sessions, SessionChange(found.session, keep=kept, note="for the poster"))  # pyright: ignore[reportArgumentType]
    rows = export_rows(engine.shelf, engine.sessions, found.session, "kept")
    assert [(row["id"], row["page"]) for row in rows] == [(kept[0], 2), (kept[1], 1), (5, None)]
    assert rows[1]["query"] == "2: red apple; -1: worm"
    assert rows[0]["query"] == f"like {ids(found)[0]}"
    assert rows[1]["score"] == round(found.hits[1].score, 4)
    assert rows[1]["uri"].startswith("images/")
    shown = export_rows(engine.shelf, engine.sessions, found.session, "shown")
    assert [row["id"] for row in shown] == [*ids(found), *ids(more)]
    assert [json.loads(line) for line in as_jsonl(rows).splitlines()] == rows
    read = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert [int(row["id"]) for row in read] == list(kept)
    report = session_report(engine.shelf, engine.sessions, found.session)
    assert [page["page"] for page in report["pages"]] == [1, 2]
    assert report["pages"][0]["text"] == ["2: red apple", "-1: worm"]
    assert report["notes"] == ["for the poster"]
    assert [one["id"] for one in report["kept"]] == list(kept)
    assert tmp_path


def test_an_export_is_refused_while_the_catalog_is_locked_and_read_anew_when_it_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toys").mkdir()
    write_collection(tmp_path / "toys", videos())
    catalog = tmp_path / "toys" / "collection.db"
    with closing(open_world(tmp_path, WordEncoder())) as engine:
        session = engine.search(SearchRequest((WeightedText("red circle"),), n=3)).session
        rows = export_rows(engine.shelf, engine.sessions, session, "shown")
        assert all(row["title"] for row in rows)
        with closing(sqlite3.connect(catalog, isolation_level=None)) as writer:
            writer.execute("BEGIN EXCLUSIVE")
            with pytest.raises(CatalogBusyError):
                export_rows(engine.shelf, engine.sessions, session, "shown")
        items_at, replaced = Catalog.items_at, False

        def replaced_under_it(*arguments: Any) -> list[Item]:
            nonlocal replaced
            if not replaced:
                replaced = True
                raise CatalogReplacedError("The catalog was replaced by another file.")
            return items_at(*arguments)

        monkeypatch.setattr(Catalog, "items_at", replaced_under_it)
        assert export_rows(engine.shelf, engine.sessions, session, "shown") == rows


def test_spreadsheets_get_no_formulas_and_json_lines_have_everything_exact() -> None:
    row = {
        "collection": "c",
        "id": 1,
        "title": '=HYPERLINK("x")',
        "uri": "=cmd|' /C calc'!A0",
        "original_url": "",
        "score": -0.5,
        "query": '-x, "y"\nz',
        "page": 1,
    }
    (read,) = csv.DictReader(io.StringIO(as_csv([row])))
    assert read["title"] == '\'=HYPERLINK("x")'
    assert read["query"] == '\'-x, "y"\nz'
    assert read["uri"] == "'=cmd|' /C calc'!A0"
    assert read["score"] == "-0.5"
    assert json.loads(as_jsonl([row])) == row


def test_questions_are_told_in_words() -> None:
    assert in_words({"text": ["a cat"], "unlike": [3, 4], "filters": "color is red"}) == "a cat; unlike 3, 4; filters: color is red"
    assert in_words({"like": [1]}) == "like 1"


def test_the_command_line_exports_a_session_and_never_overwrites_unasked(
    demo_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "data" / "config.ini"
    config.parent.mkdir()
    demo = demo_settings.config_file
    config.write_text(demo.read_text(encoding="utf-8").replace("./", f"{demo.parent}/"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with closing(open_engine(replace(demo_settings, state_folder=config.parent), patience_seconds=math.inf)) as engine:
        found = engine.search(SearchRequest(CAT, n=2))
        update_session(engine.shelf, engine.sessions, SessionChange(found.session, keep=(ids(found)[0],)))
    assert main(["export", found.session]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith(f"demo,{ids(found)[0]},")
    out = tmp_path / "shown.jsonl"
    command = ["export", found.session, "--list", "shown", "--format", "jsonl", "--output", str(out)]
    assert main(command) == 0
    assert [json.loads(line)["id"] for line in out.read_text(encoding="utf-8").splitlines()] == ids(found)
    assert main(command) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0
    before = out.read_text(encoding="utf-8")

    def full(_: Path, __: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(Path, "replace", full)
        assert main([*command, "--force"]) == 2
    assert "No space left" in capsys.readouterr().err
    assert out.read_text(encoding="utf-8") == before
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".new"] == []
    assert main(["export", found.session, "--output", str(tmp_path / f"{'写' * 80}.csv")]) == 0  # 244 bytes of the 255 a name may have
    assert main(["export", "s_nothing"]) == 2


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_an_export_that_is_redirected_is_the_file_that_output_writes(tmp_path: Path, form: str) -> None:
    config, file = tmp_path / "config.ini", tmp_path / "shown"
    config.write_text("[SERVER]\n", encoding="utf-8")
    with closing(Sessions(tmp_path / SESSIONS_FILE)) as sessions:
        made = sessions.record(None, PageEntry("gone", "q", {"text": ["gr\u00fcner \U0001f34e"]}, (1,), (0.5,)), "skip")
    assert made is not None
    command = [sys.executable, "-m", "mcp_server", "export", made.session, "--list", "shown", "--format", form, "--config", str(config)]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    redirected = subprocess.run(command, capture_output=True, timeout=120, check=True, env=environment)
    subprocess.run([*command, "--output", str(file)], capture_output=True, timeout=120, check=True, env=environment)
    assert redirected.stdout == file.read_bytes()
    assert "gr\u00fcner \U0001f34e" in redirected.stdout.decode("utf-8")
