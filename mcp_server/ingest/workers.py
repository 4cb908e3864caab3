"""Decodes pictures in processes of their own, in order, a few ahead of the reader."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

import numpy as np

import mcp_server
from mcp_server.errors import IngestError
from mcp_server.ingest.ledger import Task
from mcp_server.ingest.pictures.results import LENGTH, Facts, Picture, Unreadable

if TYPE_CHECKING:
    from mcp_server.encoders.sizing import Sizing

logger = logging.getLogger(__name__)

MOST_WORKERS = 8
"""More would rarely be faster than the model, and each may hold a picture of 180 million pixels."""
_CODE = "import sys; sys.path.append(sys.argv[1]); from mcp_server.ingest.worker import main; main()"

LONGEST_SECONDS = 120.0
"""A file that takes longer to decode is given up."""


class Workers:
    """As many decoding processes as there are cores, up to `MOST_WORKERS`. A process that a file brings down is replaced.

    Attributes:
        count: how many processes.
    """

    def __init__(self, folder: Path, sizing: Sizing | None, count: int | None = None, longest: float = LONGEST_SECONDS) -> None:
        """Prepare to decode pictures below `folder`, cut as `sizing` says; without it only facts can be asked for."""
        self.count = count or min(MOST_WORKERS, os.cpu_count() or 1)
        self._seconds = 0.0
        self._were_ready = False
        self._start = {"folder": str(folder), "sizing": asdict(sizing) if sizing else None}
        self._longest = longest
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="decode")
        self._own = threading.local()
        self._lock = threading.Lock()
        self._all: list[_Worker] = []
        self._closed = threading.Event()

    def __enter__(self) -> Workers:
        threading.Thread(target=self._watch, name="decode-watch", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            left = list(self._all)
        for worker in left:
            worker.end()
        self._pool.shutdown()

    def take_seconds(self) -> float:
        """Return the processor time spent decoding since this was last asked."""
        with self._lock:
            seconds, self._seconds = self._seconds, 0.0
        return seconds

    def decode(self, tasks: Iterable[Task], ahead: int) -> Iterator[Picture | Unreadable]:
        """Yield the pictures of `tasks` in their order; up to `ahead` are decoded before they are asked for."""
        for one in self._answers(tasks, ahead, pixels=True):
            assert not isinstance(one, Facts)
            yield one

    def examine(self, tasks: Iterable[Task]) -> Iterator[Facts | Unreadable]:
        """Yield the facts of `tasks` in their order, without pixels."""
        for one in self._answers(tasks, 8 * self.count, pixels=False):
            assert not isinstance(one, Picture)
            yield one

    def _answers(self, tasks: Iterable[Task], ahead: int, *, pixels: bool) -> Iterator[Picture | Facts | Unreadable]:
        waiting: deque[Future[Picture | Facts | Unreadable]] = deque()
        for task in tasks:
            waiting.append(self._pool.submit(self._one, task, pixels))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _one(self, task: Task, pixels: bool) -> Picture | Facts | Unreadable:
        reason = "the decoder crashed on it"
        for _ in range(2):  # a process may also be ended by something that is not the file's fault
            worker: _Worker | None = getattr(self._own, "worker", None)
            try:
                if worker is None:
                    worker = self._own.worker = self._started()
                one, seconds = worker.ask(task, pixels)
            except _DiedError:
                self._own.worker = None
                if worker is not None:
                    self._forget(worker)
                    if worker.killed_for_time:
                        reason = f"decoding it takes longer than {self._longest:.0f} s"
                if self._closed.is_set():
                    return Unreadable(task.source, "not decoded", again=True)  # nobody waits for it
                continue
            with self._lock:
                self._seconds += seconds
            return one
        logger.warning("ingest.decoder_lost source=%s reason=%s", task.source, reason)
        return Unreadable(task.source, reason, again=True)

    def _started(self) -> _Worker:
        try:
            worker = _Worker(self._start)
            with self._lock:
                self._all.append(worker)
            worker.wait_until_ready()
        except (OSError, _DiedError) as error:  # no more processes or files just now; or none can be started at all
            if not self._were_ready and not self._closed.is_set():
                raise IngestError("The processes that decode pictures cannot be started. Is the program installed whole?") from error
            raise _DiedError from error
        self._were_ready = True
        return worker

    def _forget(self, worker: _Worker) -> None:
        worker.end()
        with self._lock:
            self._all.remove(worker)

    def _watch(self) -> None:
        step = min(1.0, self._longest / 4)
        woken = time.monotonic()
        while not self._closed.wait(step):
            overslept = time.monotonic() - woken > 3 * step  # stopped or asleep, and so were the others
            woken = time.monotonic()
            with self._lock:
                if overslept:
                    for worker in self._all:
                        worker.begin_anew()
                late = [worker for worker in self._all if worker.busy_seconds > self._longest]
            for worker in late:
                worker.kill_for_time()


class _DiedError(Exception):
    """The process ended in the middle of an answer."""


class _Worker:
    """One process and the pipes to it. Asked by one thread only."""

    def __init__(self, start: dict[str, Any]) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _CODE, str(Path(mcp_server.__file__).parent.parent)],  # -P: not from the working folder
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # decoders complain there about every odd file
            env=environment,
            start_new_session=True,  # an interrupt from the keyboard is for the asking program, which ends these
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests: IO[bytes] = self._process.stdin
        self._answers: IO[bytes] = self._process.stdout
        self._since: float | None = None
        self.killed_for_time = False
        self._tell(start)

    @property
    def busy_seconds(self) -> float:
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def wait_until_ready(self) -> None:
        """Return when the process has loaded its decoders. Raises _DiedError."""
        self._take(LENGTH.unpack(self._take(LENGTH.size))[0])

    def ask(self, task: Task, pixels: bool) -> tuple[Picture | Facts | Unreadable, float]:
        """Return the answer to `task` and the processor seconds it took. Raises _DiedError."""
        self._since = time.monotonic()
        self._tell({"source": task.source, "sidecars": task.sidecars, "pixels": pixels})
        head = json.loads(self._take(LENGTH.unpack(self._take(LENGTH.size))[0]))
        raw, thumbnail = self._take(head["pixels"]), self._take(head["thumbnail"])
        self._since = None
        match head["kind"]:
            case "Picture":
                cut = np.frombuffer(raw, np.uint8).reshape(head["shape"])
                return Picture(task.source, cut, thumbnail, head["sha256"], head["facts"], tuple(head["notes"])), head["seconds"]
            case "Facts":
                return Facts(task.source, head["sha256"], head["facts"], tuple(head["notes"])), head["seconds"]
            case _:
                return Unreadable(task.source, head["reason"], head["again"]), head["seconds"]

    def begin_anew(self) -> None:
        """Count the time of the task at hand from now."""
        if self._since is not None:
            self._since = time.monotonic()

    def kill_for_time(self) -> None:
        self.killed_for_time = True
        self._process.kill()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._requests, self._answers):
            try:
                pipe.close()
            except OSError:  # what was not written yet has no reader any more
                logger.debug("ingest.pipe_closed")

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            self._requests.write(json.dumps(message).encode() + b"\n")
            self._requests.flush()
        except (OSError, ValueError) as error:
            raise _DiedError from error

    def _take(self, count: int) -> bytes:
        try:
            data = self._answers.read(count)
        except (OSError, ValueError) as error:
            raise _DiedError from error
        if len(data) < count:
            raise _DiedError
        return data
