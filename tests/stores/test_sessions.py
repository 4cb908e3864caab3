"""Sessions: nothing is shown twice, nothing is lost, nothing is kept too long."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mcp_server.domain.ids import MediaId
from mcp_server.errors import MESSAGE_LIMIT, SessionStoreError, UnknownSessionError
from mcp_server.stores.sessions import KEPT_SECONDS, Sessions


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


def ids(*values: int) -> list[MediaId]:
    return [MediaId(value) for value in values]


def test_a_new_handle_is_long_random_and_known(sessions: Sessions) -> None:
    first = sessions.remember(None, "demo", "q", ids(1, 2), "skip")
    second = sessions.remember(None, "demo", "q", ids(1, 2), "skip")
    assert first
    assert second
    assert first != second
    assert len(first) >= 24
    sessions.check(first)


def test_shown_ids_are_kept_by_collection_and_by_query(sessions: Sessions) -> None:
    session = sessions.remember(None, "demo", "dogs", ids(1, 2), "skip")
    assert session
    assert sessions.remember(session, "demo", "cats", ids(3), "skip") == session
    assert sessions.remember(session, "other", "dogs", ids(9), "skip") == session
    assert sorted(sessions.shown(session, "demo").tolist()) == [1, 2, 3]
    assert sessions.shown(session, "demo", "cats").tolist() == [3]
    assert sessions.shown(session, "other").tolist() == [9]


def test_an_id_shown_meanwhile_refuses_the_whole_answer_and_writes_nothing(sessions: Sessions) -> None:
    session = sessions.remember(None, "demo", "q", ids(1), "skip")
    assert session
    assert sessions.remember(session, "demo", "q", ids(2, 1), "skip") is None
    assert sessions.shown(session, "demo").tolist() == [1]


def test_repeats_query_minds_only_the_same_query_and_allow_minds_nothing(sessions: Sessions) -> None:
    session = sessions.remember(None, "demo", "dogs", ids(1), "skip")
    assert session
    assert sessions.remember(session, "demo", "cats", ids(1), "query") == session
    assert sessions.remember(session, "demo", "cats", ids(1), "query") is None
    assert sessions.remember(session, "demo", "cats", ids(1), "allow") == session


def test_a_session_is_gone_a_day_after_its_last_use_and_says_what_to_do(sessions: Sessions, clock: Clock) -> None:
    session = sessions.remember(None, "demo", "q", ids(1), "skip")
    assert session
    clock.time += KEPT_SECONDS - 1
    sessions.remember(session, "demo", "q", ids(2), "skip")
    clock.time += KEPT_SECONDS - 1
    sessions.check(session)
    clock.time += 2
    with pytest.raises(UnknownSessionError, match="without session to start a new one") as caught:
        sessions.remember(session, "demo", "q", ids(3), "skip")
    assert len(caught.value.message) <= MESSAGE_LIMIT


def test_the_oldest_ids_of_a_session_are_forgotten_first(sessions: Sessions) -> None:
    session = sessions.remember(None, "demo", "q", ids(1, 2, 3, 4), "skip")
    assert session
    sessions.remember(session, "demo", "q", ids(5, 6, 7, 8), "skip")
    assert sorted(sessions.shown(session, "demo").tolist()) == [3, 4, 5, 6, 7, 8]


def test_the_session_used_longest_ago_makes_room_for_a_new_one(sessions: Sessions, clock: Clock) -> None:
    handles: list[str] = []
    for value in range(4):
        clock.time += 1
        handle = sessions.remember(None, "demo", "q", ids(value), "skip")
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
        session = one.remember(None, "demo", "q", ids(1), "skip")
        assert session
        assert two.remember(session, "demo", "q", ids(1), "skip") is None
        assert two.remember(session, "demo", "q", ids(2), "skip") == session
    with closing(Sessions(file)) as later:
        assert sorted(later.shown(session, "demo").tolist()) == [1, 2]


def test_overlapping_claims_of_one_item_are_won_by_exactly_one(tmp_path: Path) -> None:
    file = tmp_path / "sessions.db"
    with closing(Sessions(file)) as one, closing(Sessions(file)) as two:
        session = one.remember(None, "demo", "q", [], "skip")
        assert session
        won: list[int] = []
        gate = threading.Barrier(2)

        def claim(store: Sessions) -> None:
            for item in range(40):
                gate.wait()
                if store.remember(session, "demo", "q", ids(item), "skip") is not None:
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
        assert sessions.remember(None, "demo", "q", ids(1), "skip")
    assert [path.name for path in tmp_path.glob("sessions.db.damaged-*")]


def test_a_file_that_cannot_be_written_is_a_sentence_for_the_user(tmp_path: Path) -> None:
    with pytest.raises(SessionStoreError, match="Tell the user") as caught:
        Sessions(tmp_path / "no" / "such" / "folder" / "sessions.db")
    assert str(tmp_path) not in caught.value.message


def test_a_transaction_cut_off_in_the_middle_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "sessions.db"
    with closing(Sessions(file)) as sessions:
        session = sessions.remember(None, "demo", "q", ids(1), "skip")
        assert session
        cut = sqlite3.connect(file, isolation_level=None)
        cut.execute("BEGIN IMMEDIATE")
        cut.execute("INSERT INTO shown (session, collection, query, media) VALUES (?, 'demo', 'q', 2)", (session,))
        cut.close()  # without COMMIT, as when the process is killed
        assert sessions.shown(session, "demo").tolist() == [1]
        assert sessions.remember(session, "demo", "q", ids(2), "skip") == session


def test_damage_found_while_in_use_is_set_aside_and_the_next_call_works(tmp_path: Path) -> None:
    file = tmp_path / "sessions.db"
    with closing(Sessions(file)) as sessions:
        session = sessions.remember(None, "demo", "q", ids(*range(5_000)), "skip")
        assert session
    content = bytearray(file.read_bytes())
    for at in range(4096, len(content), 4096):
        content[at : at + 2_000] = b"\xa5" * 2_000
    file.write_bytes(bytes(content))
    with closing(Sessions(file)) as sessions:
        with pytest.raises(SessionStoreError, match="without session"):
            sessions.shown(session, "demo")
        fresh = sessions.remember(None, "demo", "q", ids(1), "skip")
        assert fresh
        assert sessions.shown(fresh, "demo").tolist() == [1]
    assert [path.name for path in tmp_path.glob("sessions.db.damaged-*")]
