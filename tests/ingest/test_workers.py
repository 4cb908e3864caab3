"""Decoding in other processes: in order, equal to decoding here, and no file takes the work on the others along."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from mcp_server.encoders.sizing import Sizing
from mcp_server.ingest.ledger import Task
from mcp_server.ingest.pictures.decode import Facts, Picture, Unreadable, decode
from mcp_server.ingest.workers import Workers
from tests.ingest.toys import a_dozen, draw

SIZING = Sizing(16, 16, "squash")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "broken.png").write_text("no picture")
    return a_dozen(tmp_path)


def tasks(folder: Path) -> list[Task]:
    return [Task(path.relative_to(folder).as_posix(), ()) for path in sorted(folder.rglob("*")) if path.is_file()]


def test_answers_come_in_order_and_equal_decoding_in_this_process(pictures: Path) -> None:
    wanted = [decode(pictures, task.source, task.sidecars, SIZING) for task in tasks(pictures)]
    with Workers(pictures, SIZING, 3) as workers:
        found = list(workers.decode(tasks(pictures), ahead=4))
        assert workers.take_seconds() > 0
    assert len(found) == 13
    for here, there in zip(wanted, found, strict=True):
        assert type(here) is type(there)
        if isinstance(here, Picture) and isinstance(there, Picture):
            assert np.array_equal(here.pixels, there.pixels)
            assert (here.source, here.thumbnail, here.sha256) == (there.source, there.thumbnail, there.sha256)
            assert dict(here.facts) == dict(there.facts)
        else:
            assert here == there


def test_facts_can_be_asked_for_without_pixels(pictures: Path) -> None:
    with Workers(pictures, None, 1) as workers:
        (facts,) = workers.examine([Task("large.jpg", ())])
    assert isinstance(facts, Facts)
    assert facts.facts["width"] == 900


def test_a_process_that_something_else_ends_is_replaced_and_nothing_is_lost(pictures: Path) -> None:
    with Workers(pictures, SIZING, 1) as workers:
        answers = workers.decode(tasks(pictures), ahead=0)
        first = next(answers)
        (child,) = psutil.Process().children()
        child.send_signal(signal.SIGKILL)
        child.wait()
        rest = list(answers)
    assert [one.source for one in (first, *rest)] == [task.source for task in tasks(pictures)]
    assert [one.source for one in (first, *rest) if isinstance(one, Unreadable)] == ["broken.png"]


def test_a_file_that_takes_too_long_is_given_up_and_the_others_are_not(pictures: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (6000, 6000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(pictures / "a-slow.png", compress_level=1)
    with Workers(pictures, SIZING, 1, longest=0.4) as workers:
        found = list(workers.decode(tasks(pictures), ahead=2))
    assert found[0] == Unreadable("a-slow.png", "decoding it takes longer than 0 s", again=True)
    assert sum(isinstance(one, Picture) for one in found) == 12


def test_ending_early_leaves_no_process_behind(pictures: Path) -> None:
    with Workers(pictures, SIZING, 2) as workers:
        next(workers.decode(tasks(pictures), ahead=4))
        assert psutil.Process().children()
    assert not psutil.Process().children()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode_")]


def test_ending_in_the_middle_of_a_picture_says_nothing_of_it(pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (6000, 6000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(pictures / "b-slow.png", compress_level=1)
    with Workers(pictures, SIZING, 1) as workers:
        next(workers.decode([Task("disc.png", ()), Task("b-slow.png", ())], ahead=1))
    assert not caplog.records


def test_when_the_asking_process_is_killed_the_decoding_ones_end(pictures: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from mcp_server.encoders.sizing import Sizing
from mcp_server.ingest.ledger import Task
from mcp_server.ingest.workers import Workers
with Workers(Path(sys.argv[1]), Sizing(16, 16), 2) as workers:
    list(workers.decode([Task("disc.png", ())] * 4, 4))
    print("ready", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code, str(pictures)], stdout=subprocess.PIPE) as asking:
        assert asking.stdout is not None
        assert asking.stdout.readline() == b"ready\n"
        children = psutil.Process(asking.pid).children()
        assert len(children) == 2
        asking.kill()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive


def test_nothing_is_imported_from_the_working_folder(pictures: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "json.py").write_text("raise SystemExit(3)")
    draw(pictures / "one.png", "red")
    before = Path.cwd()
    os.chdir(trap)
    try:
        with Workers(pictures, SIZING, 1) as workers:
            (found,) = workers.decode([Task("one.png", ())], ahead=0)
    finally:
        os.chdir(before)
    assert isinstance(found, Picture)


def test_a_worker_is_light() -> None:
    code = "import sys, mcp_server.ingest.worker; print(*sorted({'torch', 'zarr', 'sqlite3', 'faiss', 'mcp'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert found.stdout.strip() == ""
