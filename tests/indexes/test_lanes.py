"""Long passes share two threads: everything is done once, failures and cancellations end them, and nobody waits for ever."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import anyio
import anyio.from_thread
import anyio.to_thread
import numpy as np
import pytest

from mcp_server.domain.stopping import stoppable
from mcp_server.indexes import lanes
from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.exact import ExactIndex
from tests.contracts.index_contract import assert_same, clustered


@pytest.mark.parametrize("count", [0, 1, 2, 3, 100])
def test_every_piece_is_done_once(count: int) -> None:
    done: list[int] = []
    lanes.each(done.append, range(count))
    assert sorted(done) == list(range(count))


def test_never_more_than_three_pieces_are_worked_on_however_many_search() -> None:
    lock, now, most = threading.Lock(), [0], [0]

    def work(_: int) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        np.ones(200_000).sum()
        with lock:
            now[0] -= 1

    def call(_: int) -> None:
        with lanes.turn():
            lanes.each(work, range(40))

    with ThreadPoolExecutor(8) as callers:
        list(callers.map(call, range(8)))
    assert 1 <= most[0] <= 2 * lanes.LANES - 1


def test_a_caller_does_not_wait_for_a_helper_who_is_busy_elsewhere() -> None:
    busy, go_on = threading.Event(), threading.Event()

    def hold(_: int) -> None:
        busy.set()
        assert go_on.wait(60)

    holder = threading.Thread(target=lanes.each, args=(hold, range(2)))
    holder.start()
    assert busy.wait(60)
    done: list[int] = []
    lanes.each(done.append, range(10))
    assert sorted(done) == list(range(10))
    go_on.set()
    holder.join(60)


def test_what_fails_on_the_other_thread_fails_for_the_caller() -> None:
    caller, met = threading.get_ident(), threading.Barrier(lanes.LANES)

    def work(_: int) -> None:
        met.wait(60)
        if threading.get_ident() != caller or lanes.LANES == 1:
            raise KeyError

    with pytest.raises(KeyError):
        lanes.each(work, range(2))


def test_a_piece_that_fails_ends_the_rest_and_leaves_the_lanes_in_order() -> None:
    done: list[int] = []

    def work(piece: int) -> None:
        if piece == 3:
            raise KeyError(piece)
        done.append(piece)

    with pytest.raises(KeyError):
        lanes.each(work, range(100_000))
    assert len(done) < 100_000
    lanes.each(done.append, [-1, -2])
    assert {-1, -2} <= set(done)


class StoppedError(Exception):
    """Stands for whatever a host raises in a call that is not wanted any more."""


def stopping_after(calls: int) -> Callable[[], None]:
    left = [calls]

    def check() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise StoppedError

    return check


FORKED = """
import contextlib, os, signal, threading
from mcp_server.indexes import lanes
both = threading.Barrier(2)
lanes.each(lambda _: both.wait(30) if lanes.LANES == 2 else None, range(2))
with contextlib.ExitStack() as turns:
    for _ in range(lanes.LANES):
        turns.enter_context(lanes.turn())
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        with lanes.turn():
            done = []
            lanes.each(done.append, range(10))
        os._exit(len(done))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_has_threads_and_turns_of_its_own() -> None:
    ran = subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout.strip() == "10", ran.stderr


def test_work_that_is_not_wanted_stops_between_pieces() -> None:
    begun: list[int] = []
    at_work, go_on = threading.Event(), threading.Event()

    def work(piece: int) -> None:
        begun.append(piece)
        at_work.set()
        assert go_on.wait(60)

    def check() -> None:
        assert at_work.wait(60)
        go_on.set()
        raise StoppedError

    with stoppable(check), pytest.raises(StoppedError):
        lanes.each(work, range(100_000))
    assert len(begun) < 100_000
    ended = len(begun)
    lanes.each(lambda _: None, range(10))
    assert len(begun) == ended, "nothing of it goes on behind"


def test_a_search_that_is_stopped_leaves_the_next_one_untouched() -> None:
    index = ExactIndex(Embeddings.from_rows(clustered(1, 150_000)))
    query, everything = clustered(2, 1)[0], np.zeros(150_000, bool)
    expected = index.search_by("scan rows", query, 20, everything)
    with stoppable(stopping_after(0)), pytest.raises(StoppedError):
        index.search_by("gather rows", query, 20, everything[:])
    assert_same(index.search_by("scan rows", query, 20, everything), expected)


@pytest.mark.anyio
async def test_a_cancelled_task_stops_the_thread_that_searches_for_it() -> None:
    at_work, stopped = threading.Event(), threading.Event()

    def search() -> None:
        try:
            with stoppable(anyio.from_thread.check_cancelled):
                lanes.each(lambda _: (at_work.set(), threading.Event().wait(0.01)), range(100_000))
        finally:
            stopped.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, search)
        while not at_work.is_set():
            await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert stopped.is_set()


def test_turns_go_round_in_the_order_of_the_calls() -> None:
    order: list[int] = []
    inside = threading.Semaphore(0)
    go_on = [threading.Event() for _ in range(lanes.LANES)]

    def hold(number: int) -> None:
        with lanes.turn():
            inside.release()
            assert go_on[number].wait(60)

    def pass_through(number: int) -> None:
        with lanes.turn():
            order.append(number)

    holders = [threading.Thread(target=hold, args=(number,)) for number in range(lanes.LANES)]
    for holder in holders:
        holder.start()
        assert inside.acquire(timeout=60)
    waiting = [threading.Thread(target=pass_through, args=(number,)) for number in range(20)]
    for number, thread in enumerate(waiting):
        thread.start()
        while len(lanes._turns._queue) <= number:  # pyright: ignore[reportPrivateUsage]
            threading.Event().wait(0.001)
    with stoppable(stopping_after(0)), pytest.raises(StoppedError), lanes.turn():
        raise AssertionError("there is no turn to be had")
    go_on[0].set()  # one turn for all who wait, so that their order can be told
    for thread in waiting:
        thread.join(60)
    assert order == list(range(20))
    for event in go_on:
        event.set()
    for thread in holders:
        thread.join(60)
    for _ in range(3 * lanes.LANES):
        with lanes.turn():
            pass
