"""Loading behind the server's back: waiting, failing, trying again, encoding once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mcp_server.domain.search import EncodedText
from mcp_server.encoders.loading import CACHED_QUERIES, BackgroundText
from mcp_server.errors import MESSAGE_LIMIT, ConfigError, EncoderError, ModelLoadingError, ModelUnavailableError
from tests.encoders.conftest import ROOT

LONG = 60.0


class CountingEncoder:
    """Every text gets the axis of its length; counts what it is asked, and can be held or made to fail."""

    def __init__(self, width: int = 8) -> None:
        self.width = width
        self.asked: list[str] = []
        self.arrived = threading.Event()
        self.open = threading.Event()
        self.open.set()
        self.failures: list[EncoderError] = []

    def encode_text(self, text: str) -> EncodedText:
        self.asked.append(text)
        self.arrived.set()
        assert self.open.wait(LONG)
        if self.failures:
            raise self.failures.pop()
        vector = np.zeros(self.width, np.float32)
        vector[len(text) % self.width] = 1
        return EncodedText(vector, False, 4)

    def times(self, text: str) -> int:
        return self.asked.count(text)


class FoldingEncoder(CountingEncoder):
    """Sees no difference between upper and lower case."""

    def cache_key(self, text: str) -> str:
        return text.lower()


class Gate:
    """A load that waits until it is opened, and fails as often as told."""

    def __init__(self, encoder: CountingEncoder, *failures: Exception) -> None:
        self.encoder = encoder
        self.failures = list(failures)
        self.loads = 0
        self.open = threading.Event()

    def __call__(self) -> CountingEncoder:
        self.loads += 1
        assert self.open.wait(LONG)
        if self.failures:
            raise self.failures.pop(0)
        return self.encoder


def ready(encoder: CountingEncoder) -> BackgroundText:
    return BackgroundText(lambda: encoder, "toy", encoder.width, LONG)


def test_a_call_starts_the_load_and_waits_for_it() -> None:
    background = ready(CountingEncoder())
    assert (background.state, background.loading_seconds, background.width) == ("idle", 0.0, 8)
    assert background.encode_text("abc").vector.tolist() == [0, 0, 0, 1, 0, 0, 0, 0]
    assert background.state == "ready"
    assert background.loading_seconds >= 0


def test_a_call_that_cannot_wait_says_that_its_arguments_are_fine() -> None:
    gate = Gate(CountingEncoder())
    background = BackgroundText(gate, "toy", 8, patience_seconds=0)
    with pytest.raises(ModelLoadingError, match=r"still loading \(\d+ s so far\)\. Your arguments are fine; try again shortly") as caught:
        background.encode_text("abc")
    assert len(str(caught.value)) <= MESSAGE_LIMIT
    assert background.state == "loading"
    gate.open.set()


def test_starting_again_and_calling_at_once_load_once() -> None:
    gate = Gate(CountingEncoder())
    background = BackgroundText(gate, "toy", 8, LONG)
    background.start()
    background.start()
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(background.encode_text, text) for text in ("a", "b", "c", "d")]
        gate.open.set()
        assert all(answer.result(LONG).token_limit == 4 for answer in answers)
    assert gate.loads == 1


def test_loading_ahead_runs_the_model_once_so_that_the_first_query_is_quick() -> None:
    encoder = CountingEncoder()
    background = ready(encoder)
    background.start()
    background.encode_text("abc")
    assert encoder.times("abc") == 1
    assert len(encoder.asked) <= 2


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (ModelUnavailableError("No weights. Tell the user.", "/secret/path: see https://host"), "No weights. Tell the user."),
        (ConfigError("/secret/path is wrong"), "could not start on the server"),
        (RuntimeError("CUDA error at /secret/path"), "could not start on the server"),
        (ImportError("No module named 'transformers' in /secret/path"), "could not start on the server"),
    ],
)
def test_a_failed_load_is_told_without_paths_logged_in_full_and_tried_again(
    failure: Exception, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate(CountingEncoder(), failure)
    gate.open.set()
    background = BackgroundText(gate, "toy", 8, LONG)
    with pytest.raises(EncoderError) as caught:
        background.encode_text("abc")
    assert told in str(caught.value)
    assert "secret" not in str(caught.value)
    assert len(str(caught.value)) <= MESSAGE_LIMIT
    assert "/secret/path" in caplog.text
    assert background.state == "failed"
    assert background.encode_text("abc").token_limit == 4
    assert (background.state, gate.loads) == ("ready", 2)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the bug is meant to rise out of the thread
def test_a_bug_while_loading_leaves_nobody_waiting() -> None:
    gate = Gate(CountingEncoder(), KeyError("bug"))
    gate.open.set()
    background = BackgroundText(gate, "toy", 8, LONG)
    with pytest.raises(EncoderError, match="could not start"):
        background.encode_text("abc")
    assert background.state == "failed"
    for thread in threading.enumerate():
        if thread.name == "text-encoder-load":
            thread.join(LONG)  # so that the bug rises within this test


def test_a_model_of_another_width_than_declared_is_not_used() -> None:
    background = BackgroundText(lambda: CountingEncoder(width=8), "toy", 9, LONG)
    with pytest.raises(EncoderError, match="gives 8 numbers where its configuration says 9"):
        background.encode_text("abc")


def test_a_width_not_known_before_comes_from_the_loaded_model() -> None:
    assert BackgroundText(lambda: CountingEncoder(width=8), "toy", None, LONG).width == 8


def test_a_query_seen_before_is_not_encoded_again() -> None:
    encoder = CountingEncoder()
    background = ready(encoder)
    assert background.encode_text("abc") is background.encode_text("abc")
    assert encoder.times("abc") == 1


def test_texts_that_the_model_cannot_tell_apart_are_encoded_once() -> None:
    encoder = FoldingEncoder()
    background = ready(encoder)
    background.encode_text("abc")
    background.encode_text("ABC")
    assert (encoder.times("abc"), encoder.times("ABC")) == (1, 0)


def test_remembered_vectors_cannot_be_changed_by_a_caller() -> None:
    vector = ready(CountingEncoder()).encode_text("abc").vector
    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 5


def test_the_least_recently_used_query_is_forgotten_first() -> None:
    encoder = CountingEncoder()
    background = ready(encoder)
    for number in range(CACHED_QUERIES):
        background.encode_text(f"query {number}")
    background.encode_text("query 0")
    background.encode_text("one more")
    background.encode_text("query 0")
    background.encode_text("query 1")
    assert (encoder.times("query 0"), encoder.times("query 1")) == (1, 2)


def together(encoder: CountingEncoder, calls: list[Callable[[], EncodedText]]) -> list[EncodedText | BaseException]:
    """Run `calls` at once, the encoder held until one is inside it and the others are under way."""
    encoder.open.clear()
    encoder.arrived.clear()
    begun = threading.Barrier(len(calls) + 1)

    def run(call: Callable[[], EncodedText]) -> EncodedText:
        begun.wait(LONG)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(run, call) for call in calls]
        begun.wait(LONG)
        assert encoder.arrived.wait(LONG)
        encoder.open.set()
        return [future.exception(LONG) or future.result() for future in futures]


def test_equal_queries_at_the_same_time_are_encoded_once() -> None:
    encoder = CountingEncoder()
    background = ready(encoder)
    background.encode_text("first")
    answers = together(encoder, [lambda: background.encode_text("abc")] * 8)
    assert encoder.times("abc") == 1
    assert all(isinstance(answer, EncodedText) for answer in answers)


def test_a_failed_encoding_is_not_remembered() -> None:
    encoder = CountingEncoder()
    background = ready(encoder)
    background.encode_text("first")
    encoder.failures = [EncoderError("out of memory")]
    with pytest.raises(EncoderError, match="out of memory"):
        background.encode_text("abc")
    assert background.encode_text("abc").token_limit == 4
    assert encoder.times("abc") == 2


def test_a_process_may_end_while_the_model_loads() -> None:
    code = """
import sys
from pathlib import Path
from mcp_server.encoders.loading import BackgroundText, text_loader
background = BackgroundText(text_loader(sys.argv[1], "cpu", Path("unused")), "demo", 192, 0)
background.start()
assert background.state == "loading"
"""
    model = f"local-dir:{ROOT / 'data' / 'demo' / 'model'}"
    done = subprocess.run([sys.executable, "-c", code, model], cwd=ROOT, timeout=60, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize(("setting", "used"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_torch_is_told_how_its_threads_wait_before_it_is_loaded(setting: dict[str, str], used: str) -> None:
    code = """
import os, sys
from pathlib import Path
from mcp_server.encoders.loading import text_loader
from mcp_server.errors import ConfigError
seen = []
def note(event, args):
    if event == "import" and args[0] == "torch":
        seen.append(os.environ.get("OMP_WAIT_POLICY"))
sys.addaudithook(note)
try:
    text_loader("local-dir:/nowhere", "cpu", Path("unused"))()
except ConfigError:
    sys.stderr.write(seen[0])
"""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | setting
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, timeout=60, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", used)
