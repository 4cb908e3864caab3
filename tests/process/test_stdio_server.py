"""The real server as a real process over stdio: quick to answer, clean to end, nothing but protocol on stdout."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from mcp_server.config import SIDE_FOLDER, demo_folder
from tests.process.handshake import INITIALIZE


class Server:
    """A server process and its lines, every one of which must be JSON."""

    def __init__(self, config: Path, *flags: str, before: Sequence[str] = ()) -> None:
        self.process = subprocess.Popen(
            [*before, sys.executable, "-m", "mcp_server", "serve", "--config", str(config), *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.answers: Queue[dict[str, Any]] = Queue()
        self.strays: list[bytes] = []
        self.errors: list[bytes] = []
        self._readers = [threading.Thread(target=self._read, daemon=True), threading.Thread(target=self._read_errors, daemon=True)]
        for reader in self._readers:
            reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                self.answers.put(json.loads(line))
            except ValueError:
                self.strays.append(line)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self.errors.extend(self.process.stderr)

    def send(self, message: dict[str, Any] | bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def answer(self, number: object) -> dict[str, Any]:
        while True:
            message = self.answers.get(timeout=120)
            if "id" in message and message["id"] == number:
                return message

    def start(self) -> None:
        self.send(INITIALIZE)
        assert "result" in self.answer(1)
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def call(self, number: int, tool: str, **arguments: Any) -> dict[str, Any]:
        self.send({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": tool, "arguments": arguments}})
        return self.answer(number)["result"]

    def end(self) -> int:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        code = self.process.wait(timeout=30)
        for reader in self._readers:
            reader.join(timeout=10)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return code


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The demo, copied to where its sessions may be written."""
    folder = tmp_path / "demo"
    shutil.copytree(demo_folder(), folder)
    return folder / "config.ini"


@pytest.fixture
def server(config: Path) -> Iterator[Server]:
    running = Server(config)
    yield running
    if running.process.poll() is None:
        running.process.kill()
    if running.process.stdout and not running.process.stdout.closed:
        running.end()


def test_a_search_over_stdio_answers_and_stdout_carries_only_protocol(server: Server) -> None:
    server.start()
    described = server.call(2, "describe_filters")
    assert described["structuredContent"]["items"] > 3_000
    found = server.call(3, "clip_search", text="a red apple", n=3)["structuredContent"]
    assert any("apple" in hit["title"] for hit in found["hits"])
    assert server.end() == 0
    assert server.strays == []
    assert any(b"search.done" in line for line in server.errors)
    assert not any(b"a red apple" in line for line in server.errors)


BROKEN_ARGUMENTS = {
    "surrogate": r'{"text":"cat","collection":"\ud800"}',
    "depth": '{"text":"cat","filters":' + '{"not":' * 500 + '{"color":"red"}' + "}" * 500 + "}",
    "digits": '{"text":"cat","n":1' + "0" * 5_000 + "}",
    "long": '{"text":"' + "x" * 1_000_000 + '"}',
}


SLOW_TORCH = """
import time
from pathlib import Path

while not Path(__file__).with_name("go").exists():
    time.sleep(0.02)
raise ImportError("this one is only slow")
"""


def test_a_search_that_waits_for_the_model_holds_up_no_other_call(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow" / "torch").mkdir(parents=True)
    (tmp_path / "slow" / "torch" / "__init__.py").write_text(SLOW_TORCH)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "slow"), *filter(None, [os.environ.get("PYTHONPATH")])]))
    server = Server(config)
    server.start()
    calls = [
        {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}
        for number, tool, arguments in ((5, "clip_search", {"text": "cat"}), (6, "describe_filters", {}))
    ]
    server.send("".join(json.dumps(call) + "\n" for call in calls).encode())
    first = server.answers.get(timeout=120)
    assert first["id"] == 6
    assert not first["result"]["isError"]
    (tmp_path / "slow" / "torch" / "go").touch()
    assert "text encoder" in server.answer(5)["result"]["content"][0]["text"]
    assert server.end() == 0


def test_lines_that_the_parser_refuses_are_answered_and_the_next_call_works(server: Server) -> None:
    server.start()
    for number, arguments in enumerate(BROKEN_ARGUMENTS.values(), start=10):
        line = '{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"clip_search","arguments":%s}}\n'
        server.send((line % (number, arguments)).encode())
        result = server.answer(number)["result"]
        assert result["isError"]
        assert len(result["content"][0]["text"]) <= 300
    server.send(b"this is not JSON\n")
    assert server.answer(None)["error"]["code"] == -32700
    server.send(b'{"jsonrpc":"2.0","id":77,"method":5}\n')
    assert server.answer(77)["error"]["code"] == -32600
    assert not server.call(99, "clip_search", text="cat", n=1).get("isError")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_ends_the_process_with_its_sessions_saved(server: Server, config: Path, number: signal.Signals) -> None:
    server.start()
    session = server.call(2, "clip_search", text="cat", n=5)["structuredContent"]["session"]
    server.process.send_signal(number)
    assert server.process.wait(timeout=30) == 0
    again = Server(config)
    again.start()
    assert again.call(2, "update_session", session=session)["structuredContent"]["seen"] == {"demo": 5}
    assert again.end() == 0


def test_a_signal_while_the_model_is_loading_ends_the_process(server: Server) -> None:
    server.start()
    server.send({"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": {"name": "clip_search", "arguments": {"text": "cat"}}})
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=30) == 0


def test_a_killed_server_loses_nothing_but_the_call_in_flight(server: Server, config: Path) -> None:
    server.start()
    first = server.call(2, "clip_search", text="cat", n=5)["structuredContent"]
    server.send({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "clip_search", "arguments": {"text": "dog"}}})
    server.process.kill()
    server.process.wait(timeout=30)
    again = Server(config)
    again.start()
    shown = [hit["id"] for hit in first["hits"]]
    more = again.call(2, "clip_search", like=shown[:1], n=5, session=first["session"])["structuredContent"]  # needs no model
    assert more["hidden"]["seen"] == 5
    assert not set(shown) & {hit["id"] for hit in more["hits"]}
    assert again.end() == 0


@pytest.mark.parametrize("flags", [(), ("--no-cache",)])
def test_the_users_files_are_byte_identical_afterwards(config: Path, flags: tuple[str, ...]) -> None:
    def contents() -> dict[str, bytes]:
        files = [path for path in config.parent.rglob("*") if path.is_file() and not path.name.startswith("sessions.db")]
        return {str(path): path.read_bytes() for path in files if SIDE_FOLDER not in path.parts}

    server = Server(config, *flags)

    before = contents()
    server.start()
    server.call(2, "describe_filters", field="color")
    server.call(3, "clip_search", text="cat", filters={"color": "red"})
    assert server.end() == 0
    assert contents() == before
    assert (config.parent / SIDE_FOLDER).exists() is not bool(flags)
    assert (b"slower with --no-cache" in b"".join(server.errors)) is bool(flags)


@pytest.mark.anyio
@pytest.mark.parametrize("era", ["auto", "legacy"])
async def test_the_sdks_client_searches_over_stdio_in_both_eras(config: Path, era: str) -> None:
    parameters = StdioServerParameters(
        command=sys.executable, args=["-m", "mcp_server", "serve", "--config", str(config)], env=dict(os.environ)
    )
    async with Client(parameters, mode=era) as client:  # pyright: ignore[reportArgumentType]
        result = await client.call_tool("clip_search", {"text": "a yellow banana", "n": 5})
    assert result.structured_content is not None
    assert any("banana" in hit["title"] for hit in result.structured_content["hits"])


def test_a_client_that_is_gone_is_no_error(config: Path) -> None:
    line = [sys.executable, "-m", "mcp_server", "serve", "--config", str(config)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.write(json.dumps(INITIALIZE).encode() + b"\n")
        process.stdin.flush()
        said = process.stderr.read().decode()
        assert process.wait(60) == 0
    assert "stdio.client_gone" in said
    assert "Traceback" not in said


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit of this kind")
def test_a_low_limit_of_open_files_does_not_limit_the_collections(config: Path) -> None:
    text = config.read_text(encoding="utf-8")
    section = text[text.index("[demo]") :]
    config.write_text(text + "".join(section.replace("[demo]", f"[demo{number}]") for number in range(40)), encoding="utf-8")
    server = Server(config, "--no-cache", before=["sh", "-c", 'ulimit -S -n 64; exec "$@"', "sh"])
    server.start()
    found = server.call(2, "describe_filters")["structuredContent"]["collections"]
    assert list(found.values()) == [3513] * 41
    assert server.end() == 0
