"""The MCP Inspector's command line against the real server, over stdio and HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.process.node_tools import tool
from tests.process.serving import http_server

TRANSPORTS = ["stdio", "http"]


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[str]]]:
    folder = tmp_path_factory.mktemp("inspector")
    with http_server(folder) as url:
        config = str(folder / "demo" / "config.ini")
        program = str(Path(sys.executable).with_name("clip-search-mcp"))
        yield {"http": [url, "--transport", "http"], "stdio": [program, "serve", "-e", f"CLIP_SEARCH_CONFIG={config}"]}


@pytest.fixture(params=TRANSPORTS)
def target(request: pytest.FixtureRequest, targets: dict[str, list[str]]) -> list[str]:
    return targets[request.param]


def run(target: list[str], *options: str) -> subprocess.CompletedProcess[str]:
    """Run the Inspector once."""
    command = [*tool("mcp-inspector"), "--cli", *target, *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL)


def inspect(target: list[str], *options: str) -> Any:
    """Return what the Inspector prints, as JSON."""
    done = run(target, *options)
    assert done.returncode == 0, done.stderr[-2_000:]
    return json.loads(done.stdout)


def test_every_tool_schema_is_portable(target: list[str]) -> None:
    listed = inspect(target, "--method", "tools/list", "--strict")  # a schema that some client cannot take ends in status 6
    assert [one["name"] for one in listed["tools"]] == ["clip_search", "describe_filters", "view_media", "update_session"]


def test_an_agent_can_search_look_keep_and_read(target: list[str]) -> None:
    call = ("--method", "tools/call", "--tool-name")
    found = inspect(target, *call, "clip_search", "--tool-arg", 'text=["2: red apple","- worm"]', "n=2", "detail=full")
    hits = found["structuredContent"]["hits"]
    assert "apple" in hits[0]["title"]
    seen = inspect(target, *call, "view_media", "--tool-arg", f"ids=[{hits[0]['id']},{hits[1]['id']}]")
    assert [one["type"] for one in seen["content"]] == ["image", "text"]
    session = found["structuredContent"]["session"]
    kept = inspect(target, *call, "update_session", "--tool-arg", f"session={session}", f"keep=[{hits[0]['id']}]")
    assert kept["structuredContent"]["kept"] == {"demo": [hits[0]["id"]]}
    exported = inspect(target, "--method", "resources/read", "--uri", kept["structuredContent"]["export"])
    assert str(hits[0]["id"]) in exported["contents"][0]["text"]


def test_resources_prompts_facets_and_the_gallery_are_there(targets: dict[str, list[str]]) -> None:
    target = targets["http"]
    assert [one["uri"] for one in inspect(target, "--method", "resources/list")["resources"]][1:] == [
        "clip://collections",
        "clip://demo/filters",
    ]
    assert len(inspect(target, "--method", "resources/templates/list")["resourceTemplates"]) == 5
    rendered = inspect(target, "--method", "prompts/get", "--prompt-name", "find_images", "--prompt-args", "description=red cars")
    assert "red cars" in rendered["messages"][0]["content"]["text"]
    narrowed = inspect(
        target, "--method", "tools/call", "--tool-name", "describe_filters", "--tool-arg", "text=a red apple", "field=category"
    )
    assert "food-drink" in narrowed["structuredContent"]["field"]["values"]
    app = inspect(target, "--method", "tools/call", "--tool-name", "clip_search", "--app-info")
    assert app["resourceUri"].startswith("ui://")


def test_a_refusal_reaches_the_inspector_as_an_error(targets: dict[str, list[str]]) -> None:
    done = run(targets["http"], "--method", "tools/call", "--tool-name", "clip_search", "--tool-arg", "text=cat", "n=0")
    assert "1 to 100" in done.stdout + done.stderr
