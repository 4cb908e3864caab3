"""Sessions: nothing is shown twice, nothing is lost, nothing is kept too long."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mcp_server.domain.ids import MediaId
from mcp_server.domain.search import Repeats
from mcp_server.domain.session import PageEntry, SessionChange
from mcp_server.errors import MESSAGE_LIMIT, BadArgumentError, SessionStoreError, UnknownSessionError
from mcp_server.stores.sessions import KEPT_LONG_SECONDS, KEPT_SECONDS, MOST_ANSWERS, Sessions


class Clock:
    def __init__(self) -> None:
        self.time = 1_000_000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sessions(tmp_path: Path, clock: Clock) -> Iterator[Sessions]:
    with closing(Sessions(tmp_path / "sessions.db", now=clock, most_ids=6, most_sessions=3)) as store:
        yield store


def remember(store: Sessions, session: str | None, collection: str, query: str, ids: list[MediaId], repeats: Repeats) -> str | None:
    """Record one answer; return its session, None when it was refused."""
    entry = PageEntry(collection, query, {"text": [query]}, tuple(ids), tuple(1 - place / 100_000 for place in range(len(ids))))
    made = store.record(session, entry, repeats)
    return made.session if made is not None else None


def ids(*values: int) -> list[MediaId]:
    return [MediaId(value) for value in values]


def test_a_new_handle_is_long_random_and_known(sessions: Sessions) -> None:
    first = remember(sessions, None, "demo", "q", ids(1, 2), "skip")
    second = remember(sessions, None, "demo", "q", ids(1, 2), "skip")
    assert first
    assert second
    assert first != second
    assert len(first) >= 24
    sessions.check(first)


def test_shown_ids_are_kept_by_collection_and_by_query(sessions: Sessions) -> None:
    session = remember(sessions, None, "demo", "dogs", ids(1, 2), "skip")
    assert session
    assert remember(sessions, session, "demo", "cats", ids(3), "skip") == session
    assert remember(sessions, session, "other", "dogs", ids(9), "skip") == session
    assert sorted(sessions.shown(session, "demo").tolist()) == [1, 2, 3]
    assert sessions.shown(session, "demo", "cats").tolist() == [3]
    assert sessions.shown(session, "other").tolist() == [9]


def test_an_id_shown_meanwhile_refuses_the_whole_answer_and_writes_nothing(sessions: Sessions) -> None:
    session = remember(sessions, None, "demo", "q", ids(1), "skip")
    assert session
    assert remember(sessions, session, "demo", "q", ids(2, 1), "skip") is None
    assert sessions.shown(session, "demo").tolist() == [1]


def test_repeats_query_minds_only_the_same_query_and_allow_minds_nothing(sessions: Sessions) -> None:
    session = remember(sessions, None, "demo", "dogs", ids(1), "skip")
    assert session
    assert remember(sessions, session, "demo", "cats", ids(1), "query") == session
    assert remember(sessions, session, "demo", "cats", ids(1), "query") is None
    assert remember(sessions, session, "demo", "cats", ids(1), "allow") == session


def test_a_session_is_gone_a_day_after_its_last_use_and_says_what_to_do(sessions: Sessions, clock: Clock) -> None:
    session = remember(sessions, None, "demo", "q", ids(1), "skip")
    assert session
    clock.time += KEPT_SECONDS - 1
    remember(sessions, session, "demo", "q", ids(2), "skip")
    clock.time += KEPT_SECONDS - 1
    sessions.check(session)
    clock.time += 2
    with pytest.raises(UnknownSessionError, match="without session starts a new one") as caught:
        remember(sessions, session, "demo", "q", ids(3), "skip")
    assert len(caught.value.message) <= MESSAGE_LIMIT


def test_beginning_a_session_takes_no_more_steps_when_there_are_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def connect_and_note(*given: Any, **named: Any) -> sqlite3.Connection:
        opened.append(connect(*given, **named))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", connect_and_note)
    with closing(Sessions(tmp_path / "s.db")) as store:
        (db,) = opened
        steps: list[int] = []

        def hundred_more() -> int:
            steps[-1] += 1
            return 0

        db.set_progress_handler(hundred_more, 100)
        for number in range(1_500):
            steps.append(0)
            remember(store, None, "demo", f"q{number}", ids(1, 2), "skip")
        db.set_progress_handler(None, 0)
    assert max(steps[1_400:]) <= 2 * max(steps[100:200]) + 1


def test_the_oldest_ids_of_a_session_are_forgotten_first(sessions: Sessions) -> None:
    session = remember(sessions, None, "demo", "q", ids(1, 2, 3, 4), "skip")
    assert session
    remember(sessions, session, "demo", "q", ids(5, 6, 7, 8), "skip")
    assert sorted(sessions.shown(session, "demo").tolist()) == [3, 4, 5, 6, 7, 8]


def test_the_session_used_longest_ago_makes_room_for_a_new_one(sessions: Sessions, clock: Clock) -> None:
    handles: list[str] = []
    for value in range(4):
        clock.time += 1
        handle = remember(sessions, None, "demo", "q", ids(value), "skip")
        assert handle
        handles.append(handle)
    with pytest.raises(UnknownSessionError):
        sessions.check(handles[0])
    for handle in handles[1:]:
        sessions.check(handle)
    assert sessions.shown(handles[0], "demo").size == 0


def test_sessions_survive_a_restart_and_are_shared_by_two_stores(tmp_path: Path) -> None:
    file = tmp_path / "sessions.db"
    with closing(Sessions(file)) as one, closing(Sessions(file)) as two:
        session = remember(one, None, "demo", "q", ids(1), "skip")
        assert session
        assert remember(two, session, "demo", "q", ids(1), "skip") is None
        assert remember(two, session, "demo", "q", ids(2), "skip") == session
    with closing(Sessions(file)) as later:
        assert sorted(later.shown(session, "demo").tolist()) == [1, 2]


def test_overlapping_claims_of_one_item_are_won_by_exactly_one(tmp_path: Path) -> None:
    file = tmp_path / "sessions.db"
    with closing(Sessions(file)) as one, closing(Sessions(file)) as two:
        session = remember(one, None, "demo", "q", [], "skip")
        assert session
        won: list[int] = []
        gate = threading.Barrier(2)

        def claim(store: Sessions) -> None:
            for item in range(40):
                gate.wait()
                if remember(store, session, "demo", "q", ids(item), "skip") is not None:
                    won.append(item)

        threads = [threading.Thread(target=claim, args=(store,)) for store in (one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(won) == list(range(40))


def test_a_damaged_sessions_file_is_set_aside_and_searching_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "sessions.db"
    file.write_bytes(b"this is not a database, it is a note" * 100)
    with closing(Sessions(file)) as sessions:
        assert remember(sessions, None, "demo", "q", ids(1), "skip")
    assert [path.name for path in tmp_path.glob("sessions.db.damaged-*")]


def test_a_file_that_cannot_be_written_is_a_sentence_for_the_user_and_named_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "no" / "such" / "folder" / "sessions.db"
    with pytest.raises(SessionStoreError, match="Tell the user") as caught:
        Sessions(file)
    assert str(tmp_path) not in caught.value.message
    assert str(file) in caplog.text


@pytest.mark.skipif(os.name != "posix", reason="Windows has no rights for others in a file's mode; a user's folders are the user's alone")
def test_sessions_are_their_owners_alone_to_read(tmp_path: Path) -> None:
    usual = os.umask(0)
    try:
        with closing(Sessions(tmp_path / "sessions.db")) as sessions:
            assert remember(sessions, None, "demo", "q", ids(1), "skip")
            made = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    finally:
        os.umask(usual)
    assert made == dict.fromkeys(("sessions.db", "sessions.db-wal", "sessions.db-shm"), 0o600)


def test_sessions_in_memory_make_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with closing(Sessions(Path(":memory:"))) as sessions:
        assert remember(sessions, None, "demo", "q", ids(1), "skip")
    assert list(tmp_path.iterdir()) == []


def test_a_transaction_cut_off_in_the_middle_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "sessions.db"
    with closing(Sessions(file)) as sessions:
        session = remember(sessions, None, "demo", "q", ids(1), "skip")
        assert session
        cut = sqlite3.connect(file, isolation_level=None)
        cut.execute("BEGIN IMMEDIATE")
        cut.execute("INSERT INTO shown (session, collection, query, media) VALUES (?, 'demo', 'q', 2)", (session,))
        cut.close()  # without COMMIT, as when the process is killed
        assert sessions.shown(session, "demo").tolist() == [1]
        assert remember(sessions, session, "demo", "q", ids(2), "skip") == session


def damaged(file: Path) -> str:
    """Write a sessions file that opens and cannot be read; return the session in it."""
    with closing(Sessions(file)) as sessions:
        session = remember(sessions, None, "demo", "q", ids(*range(5_000)), "skip")
    content = bytearray(file.read_bytes())
    for at in range(4096, len(content), 4096):
        content[at : at + 2_000] = b"\xa5" * 2_000
    file.write_bytes(bytes(content))
    assert session
    return session


def test_damage_found_while_in_use_is_set_aside_and_the_next_call_works(tmp_path: Path) -> None:
    file = tmp_path / "sessions.db"
    session = damaged(file)
    with closing(Sessions(file)) as sessions:
        with pytest.raises(SessionStoreError, match="without session"):
            sessions.shown(session, "demo")
        fresh = remember(sessions, None, "demo", "q", ids(1), "skip")
        assert fresh
        assert sessions.shown(fresh, "demo").tolist() == [1]
    assert [path.name for path in tmp_path.glob("sessions.db.damaged-*")]


def test_a_damaged_file_that_another_process_has_set_aside_costs_nothing_that_was_begun_since(tmp_path: Path) -> None:
    file = tmp_path / "sessions.db"
    session = damaged(file)
    with closing(Sessions(file)) as one, closing(Sessions(file)) as other:
        with pytest.raises(SessionStoreError, match="without session"):
            one.shown(session, "demo")
        fresh = remember(one, None, "demo", "q", ids(1), "skip")
        assert fresh
        with pytest.raises(SessionStoreError, match="without session"):
            other.shown(session, "demo")
        assert other.shown(fresh, "demo").tolist() == [1]
    with closing(Sessions(file)) as sessions:
        sessions.check(fresh)


def test_a_damaged_file_that_cannot_be_set_aside_is_a_sentence_for_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "sessions.db"
    session = damaged(file)

    def refused(*_: object) -> None:
        raise PermissionError("The process cannot access the file because it is being used by another process")

    with closing(Sessions(file)) as sessions:
        monkeypatch.setattr(Path, "rename", refused)
        for _ in range(2):
            with pytest.raises(SessionStoreError, match="Tell the user"):
                sessions.shown(session, "demo")


def entry(*media: int, collection: str = "demo", query: str = "q") -> PageEntry:
    return PageEntry(collection, query, {"text": [query]}, media, tuple(round(1 - place / 100, 6) for place in range(len(media))))


def test_a_page_is_sent_again_word_for_word_and_numbered_from_one(sessions: Sessions) -> None:
    first = sessions.record(None, entry(1), "skip", lambda handle, page: f"{handle} ünï {page}")
    assert first is not None
    second = sessions.record(first.session, entry(2), "skip", lambda _, page: f"answer {page}")
    assert second is not None
    assert (first.page, second.page, sessions.pages(first.session)) == (1, 2, 2)
    assert sessions.page(first.session, 1) == f"{first.session} ünï 1"
    assert sessions.page(first.session, 2) == "answer 2"
    with pytest.raises(BadArgumentError, match="pages 1 to 2"):
        sessions.page(first.session, 3)


def test_an_answer_that_cannot_be_written_leaves_nothing_behind(sessions: Sessions) -> None:
    made = sessions.record(None, entry(1), "skip")
    assert made is not None

    def fail(_handle: str, _page: int) -> str:
        raise ValueError("no answer")

    with pytest.raises(ValueError, match="no answer"):
        sessions.record(made.session, entry(2), "skip", fail)
    assert sessions.shown(made.session, "demo").tolist() == [1]
    assert sessions.pages(made.session) == 1


def test_only_the_latest_answers_keep_their_text_but_all_pages_their_ids(tmp_path: Path) -> None:
    with closing(Sessions(tmp_path / "sessions.db")) as sessions:
        made = sessions.record(None, entry(0), "skip", lambda _, page: str(page))
        assert made is not None
        for media in range(1, MOST_ANSWERS + 2):
            sessions.record(made.session, entry(media), "skip", lambda _, page: str(page))
        with pytest.raises(BadArgumentError, match=f"pages 3 to {MOST_ANSWERS + 2}"):
            sessions.page(made.session, 2)
        assert sessions.page(made.session, 3) == "3"
        assert [page.ids for page in sessions.history(made.session).pages] == [(media,) for media in range(MOST_ANSWERS + 2)]


def test_a_session_with_a_shortlist_lives_thirty_days(sessions: Sessions, clock: Clock) -> None:
    plain, kept = sessions.record(None, entry(1), "skip"), sessions.record(None, entry(1), "skip")
    assert plain is not None
    assert kept is not None
    state = sessions.update(SessionChange(kept.session, "demo", keep=(1,)))
    assert state.expires_hours == 720
    clock.time += KEPT_SECONDS + 1
    with pytest.raises(UnknownSessionError, match="30 days with a shortlist"):
        sessions.check(plain.session)
    clock.time += KEPT_LONG_SECONDS - KEPT_SECONDS - 2
    sessions.check(kept.session)
    clock.time += 2
    with pytest.raises(UnknownSessionError):
        sessions.check(kept.session)


def test_a_shortlist_keeps_its_order_and_says_what_found_each_item_first(sessions: Sessions) -> None:
    made = sessions.record(None, entry(1, 2, query="dogs"), "skip")
    assert made is not None
    sessions.record(made.session, entry(2, 3, query="cats"), "allow")
    sessions.update(SessionChange(made.session, "demo", keep=(3, 2)))
    state = sessions.update(SessionChange(made.session, "demo", keep=(2, 9)))
    assert state.kept == {"demo": [3, 2, 9]}
    kept = sessions.history(made.session).kept
    assert [(one.id, one.page, one.score) for one in kept] == [(3, 2, 0.99), (2, 1, 0.99), (9, None, None)]
    assert kept[1].question == {"text": ["dogs"]}


def test_a_score_is_handed_over_with_the_digits_that_the_answer_showed(sessions: Sessions) -> None:
    score = 0.31744998693466187  # a float32; rounded to six digits first, it would end in 5 and come out as 0.3175
    made = sessions.record(None, PageEntry("demo", "q", {"text": ["q"]}, (1,), (score,)), "skip")
    assert made is not None
    (page,) = sessions.history(made.session).pages
    assert round(page.scores[0], 4) == round(score, 4) == 0.3174


def test_excluding_takes_off_the_shortlist_keeping_ends_the_exclusion_and_dropping_both(sessions: Sessions) -> None:
    session = sessions.update(SessionChange(None, "demo", keep=(1, 2, 3))).session
    assert sessions.update(SessionChange(session, "demo", exclude=(2, 4))).kept == {"demo": [1, 3]}
    assert sorted(sessions.excluded(session, "demo").tolist()) == [2, 4]
    assert sessions.update(SessionChange(session, "demo", keep=(2,))).excluded == {"demo": 1}
    assert sessions.update(SessionChange(session, "demo", drop=(1, 4))).kept == {"demo": [3, 2]}
    assert sessions.excluded(session, "demo").tolist() == []
    assert sessions.excluded(session, "other").tolist() == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (SessionChange(None, "demo", keep=(1,), exclude=(1,)), "keep and exclude both name 1"),
        (SessionChange(None, "demo", fork=True), "pass the session to copy"),
        (SessionChange(None, "demo", keep=tuple(range(10_001))), "at most 10,000"),
    ],
)
def test_a_change_that_cannot_be_made_changes_nothing(sessions: Sessions, change: SessionChange, words: str) -> None:
    session = sessions.update(SessionChange(None, "demo", keep=(7,))).session
    with pytest.raises(BadArgumentError, match=words):
        sessions.update(change if change.fork else SessionChange(session, "demo", change.keep, change.drop, change.exclude))
    assert sessions.history(session).kept[0].id == 7
    assert len(sessions.history(session).kept) == 1


def test_forgetting_what_was_seen_keeps_pages_shortlist_and_other_collections(sessions: Sessions) -> None:
    made = sessions.record(None, entry(1, 2), "skip", lambda _, page: f"page {page}")
    assert made is not None
    sessions.record(made.session, entry(5, collection="other"), "skip")
    state = sessions.update(SessionChange(made.session, "demo", keep=(1,), forget_seen=True))
    assert state.seen == {"other": 1}
    assert sessions.shown(made.session, "demo").tolist() == []
    assert sessions.page(made.session, 1) == "page 1"
    assert sessions.update(SessionChange(made.session, forget_seen=True)).seen == {}


def test_a_fork_begins_with_everything_and_goes_its_own_way(sessions: Sessions) -> None:
    made = sessions.record(None, entry(1, 2), "skip", lambda _, page: f"page {page}")
    assert made is not None
    sessions.update(SessionChange(made.session, "demo", keep=(1,), note="first"))
    fork = sessions.update(SessionChange(made.session, "demo", keep=(2,), note="second", fork=True))
    assert fork.session != made.session
    assert fork.kept == {"demo": [1, 2]}
    assert fork.notes == ["first", "second"]
    assert sessions.shown(fork.session, "demo").tolist() == [1, 2]
    assert sessions.page(fork.session, 1) == "page 1"
    sessions.record(fork.session, entry(3), "skip")
    assert sessions.shown(made.session, "demo").tolist() == [1, 2]
    assert [one.id for one in sessions.history(made.session).kept] == [1]


def test_an_answer_sent_again_in_a_fork_names_the_fork(sessions: Sessions) -> None:
    made = sessions.record(None, entry(1), "skip", lambda handle, page: f'{{"session":"{handle}","page":{page}}}')
    assert made is not None
    fork = sessions.update(SessionChange(made.session, fork=True)).session
    second = sessions.update(SessionChange(fork, fork=True)).session
    for session in (made.session, fork, second):
        assert sessions.page(session, 1) == f'{{"session":"{session}","page":1}}'


def test_two_forks_search_side_by_side_without_a_repeat_in_either(tmp_path: Path) -> None:
    file = tmp_path / "sessions.db"
    with closing(Sessions(file)) as one, closing(Sessions(file)) as two:
        made = one.record(None, entry(*range(10)), "skip")
        assert made is not None
        forks = [store.update(SessionChange(made.session, fork=True)).session for store in (one, two)]
        gate = threading.Barrier(4)
        won: dict[str, list[int]] = {fork: [] for fork in forks}

        def search(store: Sessions, fork: str, seed: int) -> None:
            rng = random.Random(seed)
            gate.wait()
            for _ in range(50):
                media = rng.randrange(10, 200)
                if store.record(fork, entry(media), "skip") is not None:
                    won[fork].append(media)

        calls = [(one, forks[0], 1), (two, forks[0], 2), (one, forks[1], 3), (two, forks[1], 4)]
        threads = [threading.Thread(target=search, args=call) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for fork in forks:
            assert len(won[fork]) == len(set(won[fork])) > 50
            assert set(one.shown(fork, "demo").tolist()) == {*range(10), *won[fork]}


def test_a_file_of_an_older_version_goes_on_with_what_it_has_shown(tmp_path: Path) -> None:
    file = tmp_path / "sessions.db"
    with closing(sqlite3.connect(file)) as old:
        old.executescript("""
            CREATE TABLE sessions (id TEXT PRIMARY KEY, used REAL NOT NULL) WITHOUT ROWID;
            CREATE TABLE shown (seq INTEGER PRIMARY KEY, session TEXT NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
                collection TEXT NOT NULL, query TEXT NOT NULL, media INTEGER NOT NULL, UNIQUE (session, collection, query, media));
            INSERT INTO sessions VALUES ('s_old', 1000000.0);
            INSERT INTO shown (session, collection, query, media) VALUES ('s_old', 'demo', 'q', 4);
        """)
    with closing(Sessions(file, now=lambda: 1_000_001.0)) as sessions:
        assert sessions.shown("s_old", "demo").tolist() == [4]
        assert sessions.record("s_old", entry(4), "skip") is None
        made = sessions.record("s_old", entry(5), "skip", lambda _, page: f"page {page}")
        assert made is not None
        assert made.page == 1


def test_sessions_with_a_shortlist_make_room_last(sessions: Sessions, clock: Clock) -> None:
    kept = sessions.update(SessionChange(None, "demo", keep=(1,))).session
    for _ in range(5):
        clock.time += 1
        sessions.record(None, entry(1), "skip")
    sessions.check(kept)
    assert len(sessions.recent("s_", 10)) == 3


def test_recent_sessions_are_listed_by_last_use_and_by_prefix(sessions: Sessions, clock: Clock) -> None:
    handles: list[str] = []
    for _ in range(3):
        clock.time += 1
        handles.append(sessions.update(SessionChange(None)).session)
    clock.time += 1
    sessions.update(SessionChange(handles[0]))
    assert sessions.recent("", 10) == [handles[0], handles[2], handles[1]]
    assert sessions.recent(handles[1][:12], 10) == [handles[1]]
    assert sessions.recent("s_%", 10) == []
    clock.time += KEPT_SECONDS
    assert sessions.recent("", 10) == [handles[0]]


def test_what_was_shown_is_remembered_as_the_file_has_it(tmp_path: Path) -> None:
    """Every way in which the file changes, by this store or by another one that shares it, counts at the next look."""
    with closing(Sessions(tmp_path / "s.db", most_ids=6)) as sessions, closing(Sessions(tmp_path / "s.db")) as other:

        def show(store: Sessions, ids: list[int], query: str = "cats", repeats: Repeats = "skip") -> str | None:
            made = store.record(session, PageEntry("demo", query, {}, tuple(ids), tuple(0.5 for _ in ids)), repeats)
            return made and made.session

        def seen(query: str | None = None) -> list[int]:
            here, there = sessions.shown(session or "", "demo", query), other.shown(session or "", "demo", query)
            assert sorted(here.tolist()) == sorted(there.tolist())
            assert not here.flags.writeable
            return sorted(here.tolist())

        session = None
        session = show(sessions, [1, 2])
        assert seen() == seen("cats") == [1, 2]
        assert show(sessions, [2, 3]) is None
        assert show(other, [3]) == session
        assert show(sessions, [3]) is None, "the other store has shown it"
        assert seen() == [1, 2, 3]
        assert show(sessions, [2, 4], "dogs", "query") == session
        assert seen() == [1, 2, 3, 4]
        assert seen("dogs") == [2, 4]
        assert show(sessions, [2, 2], "dogs", "allow") == session
        assert seen("dogs") == [2, 4]
        assert show(sessions, [5, 6, 7]) == session
        assert seen() == [2, 3, 4, 5, 6, 7], "the oldest are forgotten; 2 was shown for another query as well"

        def fail(session: str, page: int) -> str:
            raise KeyError

        before = seen()
        with pytest.raises(KeyError):
            sessions.record(session, PageEntry("demo", "cats", {}, (9,), (0.5,)), "skip", fail)
        assert seen() == before
        fork = sessions.update(SessionChange(session, fork=True)).session
        assert sorted(sessions.shown(fork, "demo").tolist()) == before
        sessions.update(SessionChange(session, forget_seen=True))
        assert seen() == []
        assert sorted(sessions.shown(fork, "demo").tolist()) == before


def test_a_fork_is_never_made_room_for_by_what_it_copies(sessions: Sessions, clock: Clock) -> None:
    oldest = remember(sessions, None, "demo", "q", ids(1, 2, 3), "skip")
    for _ in range(2):
        clock.time += 1
        other = remember(sessions, None, "demo", "q", ids(1), "skip")
        sessions.update(SessionChange(other, "demo", keep=(1,)))
    clock.time += 1
    fork = sessions.update(SessionChange(oldest, fork=True))
    assert fork.seen == {"demo": 3}
    assert fork.pages == 1
    assert oldest
    sessions.check(oldest)


def test_forks_of_a_long_session_do_not_fill_the_disk(tmp_path: Path, clock: Clock) -> None:
    file = tmp_path / "sessions.db"
    with closing(Sessions(file, now=clock, most_bytes=1_000_000)) as sessions:
        long = remember(sessions, None, "demo", "q", ids(*range(5_000)), "skip")
        forks: list[str] = []
        for _ in range(20):
            clock.time += 1
            forks.append(sessions.update(SessionChange(long, fork=True)).session)
        assert long
        assert len(sessions.shown(long, "demo")) == len(sessions.shown(forks[-1], "demo")) == 5_000
        with pytest.raises(UnknownSessionError):
            sessions.check(forks[0])
    assert file.stat().st_size < 2_000_000


def test_an_answer_made_from_what_was_seen_before_another_is_not_recorded(sessions: Sessions) -> None:
    session = remember(sessions, None, "demo", "q", ids(1), "skip")
    entry = PageEntry("demo", "q", {"text": ["q"]}, (2,), (0.5,))
    assert sessions.record(session, entry, "allow", after=0) is None
    made = sessions.record(session, entry, "allow", after=1)
    assert made is not None
    assert made.page == 2


def test_a_session_at_its_limit_forgets_some_of_the_oldest_at_once(tmp_path: Path) -> None:
    with closing(Sessions(tmp_path / "s.db", most_ids=300)) as sessions:
        session, held = None, []
        for page in range(50):
            shown = ids(*range(10 * page, 10 * page + 10))
            session = remember(sessions, session, "demo", "q", shown, "skip")
            assert session
            held.append(sessions.shown(session, "demo").tolist())
    assert held[29] == list(range(300))
    assert max(map(len, held)) == 300, "never more, counted or not"
    for page, there in enumerate(held):
        assert there == list(range(10 * page + 10 - len(there), 10 * page + 10)), "the newest, in order"
        assert len(there) >= min(10 * page + 10, 297)
