"""The real server as a real process over Streamable HTTP: loopback only, Host checked, a token where others can reach it."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from mcp import Client

from mcp_server.config import demo_folder
from mcp_server.errors import ConfigError
from mcp_server.protocol.http import listening
from tests.process.handshake import INITIALIZE

TOKEN = "only-for-this-test"


def started(config: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    """Start the server on a free port and return it with its URL, which it logs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mcp_server", "serve", "--config", str(config), "--http", "--port", "0", *options],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        found = re.search(r"http\.listening url=(\S+)", line)
        if found:
            return process, found.group(1)
    raise AssertionError("the server did not start")


def stopped(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    return process.returncode


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copied = tmp_path_factory.mktemp("http") / "demo"
    shutil.copytree(demo_folder(), copied)
    return copied


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    process, address = started(folder / "config.ini")
    yield address
    assert stopped(process) == 0


@pytest.mark.anyio
@pytest.mark.parametrize("era", ["auto", "legacy"])
async def test_a_search_over_http_answers_in_both_eras(url: str, era: str) -> None:
    async with Client(url, mode=era) as client:  # pyright: ignore[reportArgumentType]
        result = await client.call_tool("clip_search", {"text": "a red apple", "n": 5})
        assert result.structured_content is not None
        assert any("apple" in hit["title"] for hit in result.structured_content["hits"])
        refused = await client.call_tool("clip_search", {"text": "cat", "top_k": 5})
        assert refused.is_error


def test_another_host_name_is_refused_and_health_is_open(url: str) -> None:
    body = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    headers = {"Accept": "application/json, text/event-stream", "Host": "evil.example"}
    assert httpx.post(url, json=body, headers=headers).status_code == 421
    assert httpx.get(url.replace("/mcp", "/health")).json() == {"status": "ok"}


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "localhost:80", "[::1]"])
def test_a_client_may_leave_out_the_port_as_it_does_where_it_is_the_usual_one(url: str, name: str) -> None:
    headers = {"Accept": "application/json, text/event-stream", "Host": name, "Origin": f"http://{name}"}
    assert httpx.post(url, json=INITIALIZE, headers=headers).status_code == 200


def test_a_client_that_leaves_in_the_middle_of_its_request_is_no_error(folder: Path) -> None:
    process, address = started(folder / "config.ini")
    port = int(address.split(":")[2].split("/")[0])
    for _ in range(8):
        with socket.create_connection(("127.0.0.1", port)) as wire:
            start = f"POST /mcp HTTP/1.1\r\nHost: localhost:{port}\r\nAccept: application/json, text/event-stream\r\n"
            wire.sendall((start + 'Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"jsonrpc":').encode())
            time.sleep(0.05)
    assert httpx.post(address, json=INITIALIZE, headers={"Accept": "application/json, text/event-stream"}).status_code == 200
    process.send_signal(signal.SIGTERM)
    _, log = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in log


def test_a_picture_server_that_keeps_silent_does_not_hold_up_the_end(folder: Path) -> None:
    config = folder / "silent.ini"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        base = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        config.write_text((folder / "config.ini").read_text(encoding="utf-8").replace("./thumbnails.zip", base), encoding="utf-8")
        process, address = started(config)
        look = {"name": "view_media", "arguments": {"ids": list(range(1, 13))}}
        call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": look}
        headers = {"Accept": "application/json, text/event-stream"}
        session = httpx.post(address, json=INITIALIZE, headers=headers, timeout=60).headers["Mcp-Session-Id"]
        headers["Mcp-Session-Id"] = session
        with httpx.stream("POST", address, json=call, headers=headers, timeout=60), silent.accept()[0]:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=15)
    assert process.returncode == 0


def test_a_web_page_from_an_allowed_origin_may_call_and_another_may_not(folder: Path) -> None:
    config = folder / "web.ini"
    text = (folder / "config.ini").read_text(encoding="utf-8")
    config.write_text("[SERVER]\nAllowedOrigins = https://App.example.org/\n" + text, encoding="utf-8")
    process, address = started(config)
    headers = {"Accept": "application/json, text/event-stream"}
    ours = {"Origin": "https://app.example.org"}
    asked = {**ours, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    preflight = httpx.options(address, headers=asked)
    allowed = httpx.post(address, json=INITIALIZE, headers={**headers, **ours})
    refused = httpx.post(address, json=INITIALIZE, headers={**headers, "Origin": "https://evil.example"})
    assert stopped(process) == 0
    assert (preflight.status_code, allowed.status_code, refused.status_code) == (200, 200, 403)
    assert allowed.headers["Access-Control-Allow-Origin"] == "https://app.example.org"


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.2"])
def test_an_open_address_needs_an_allowlist_and_a_token(folder: Path, host: str) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "mcp_server", "serve", "--config", str(folder / "config.ini"), "--http", "--host", host, "--port", "0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 2
    assert "AllowedHosts" in process.stderr
    assert "Token" in process.stderr


def test_with_a_token_every_request_must_carry_it(folder: Path) -> None:
    config = folder / "guarded.ini"
    server = f"[SERVER]\nToken = {TOKEN}\nAllowedHosts = 127.0.0.1:* DESKTOP-1:*\n"
    config.write_text(server + (folder / "config.ini").read_text(encoding="utf-8").replace("[SERVER]", "[LOGGING]"), encoding="utf-8")
    process, address = started(config)
    headers = {"Accept": "application/json, text/event-stream"}
    refused = httpx.post(address, json=INITIALIZE, headers=headers)
    wrong = httpx.post(address, json=INITIALIZE, headers={**headers, "Authorization": "Bearer guess"})
    names = ["127.0.0.1", "DESKTOP-1", "desktop-1:8000"]
    passed = [httpx.post(address, json=INITIALIZE, headers={**headers, "Authorization": f"bearer {TOKEN}", "Host": name}) for name in names]
    assert stopped(process) == 0
    assert (refused.status_code, wrong.status_code, *(one.status_code for one in passed)) == (401, 401, 200, 200, 200)
    assert refused.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(("system", "reuses"), [("posix", True), ("nt", False)])
def test_an_address_is_taken_over_from_a_server_that_ended_but_never_shared_with_one_that_runs(system: str, reuses: bool) -> None:
    with listening("127.0.0.1", 0, system) as listener:
        assert bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)) == reuses
        with pytest.raises(ConfigError, match="--port"):
            listening("127.0.0.1", listener.getsockname()[1], system)


@pytest.mark.parametrize("port", [None, "99999"])
def test_a_port_that_cannot_be_used_is_said_in_one_sentence(folder: Path, url: str, port: str | None) -> None:
    port = port or url.rsplit(":", 1)[1].split("/", maxsplit=1)[0]  # the one in use
    process = subprocess.run(
        [sys.executable, "-m", "mcp_server", "serve", "--config", str(folder / "config.ini"), "--http", "--port", port],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 2
    assert "--port" in process.stderr
    assert ".." not in process.stderr
    assert "Traceback" not in process.stderr
