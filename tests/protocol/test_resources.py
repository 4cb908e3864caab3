"""Everything that is named by an address can be read, completed and rendered, in both eras; what is not there is said to be so."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp.types import PromptReference, ResourceTemplateReference
from PIL import Image

from mcp_server.config import Settings
from mcp_server.engine.opening import open_engine
from mcp_server.engine.search import SearchEngine
from mcp_server.protocol import uris
from mcp_server.server import build_server

pytestmark = pytest.mark.anyio
ERAS = ["auto", "legacy"]
ODD_NAMES = ["session", "collections", "two words", "a/b", "100 %", "Ünïcode 🍎", "..", "c?d#e&f"]


@asynccontextmanager
async def connected(engine: SearchEngine, era: str = "auto", list_sessions: bool = True) -> AsyncGenerator[Client]:
    async with Client(build_server(engine, list_sessions=list_sessions), mode=era) as client:  # pyright: ignore[reportArgumentType]
        yield client


async def read(client: Client, uri: str) -> Any:
    (content,) = (await client.read_resource(uri)).contents
    assert content.uri == uri
    if content.mime_type == "application/json":
        return json.loads(content.text)  # pyright: ignore[reportAttributeAccessIssue]
    return base64.b64decode(content.blob) if hasattr(content, "blob") else content.text  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("era", ERAS)
async def test_every_address_in_every_answer_can_be_read(lent: SearchEngine, era: str) -> None:
    async with connected(lent, era) as client:
        listed = [one.uri for one in (await client.list_resources()).resources]
        assert listed == ["ui://clip-search/gallery.html", "clip://collections", "clip://demo/filters"]
        (collection,) = (await read(client, listed[1]))["collections"]
        assert (collection["name"], collection["items"], collection["model"]) == ("demo", 3513, "model")
        filters = await read(client, collection["filters"])
        assert {"category", "color"} <= {field["name"] for field in filters["fields"]}
        result = await client.call_tool("clip_search", {"text": "a red apple", "n": 4, "detail": "full"})
        found = result.structured_content
        assert found is not None
        links = [block.uri for block in result.content if block.type == "resource_link"]
        assert links == [hit["resource"] for hit in found["hits"]]
        for link in links:
            for uri, side in ((link, 1024), (f"{link}?side=256", 256)):
                shown = Image.open(io.BytesIO(await read(client, uri)))
                assert shown.format == "JPEG"
                assert max(shown.size) <= side
            info = await read(client, f"{link}/info")
            assert info["picture"] == link
            assert info["id"] in info["group"]["members"]
            assert info["tags"]["title"] == [info["title"]]
        kept = await client.call_tool("update_session", {"session": found["session"], "keep": [found["hits"][1]["id"]]})
        assert kept.structured_content is not None
        assert str(found["hits"][1]["id"]) in await read(client, kept.structured_content["export"])
        report = await read(client, f"clip://session/{found['session']}")
        assert [hit["id"] for hit in report["pages"][0]["hits"]] == [hit["id"] for hit in found["hits"]]
        for file in uris.SESSION_FILES:
            assert "red apple" in await read(client, uris.export_uri(found["session"], file))


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("clip://demo/media/999999", "999999"),
        ("clip://demo/media/abc", "digits only"),
        ("clip://demo/media/99999999999999999999", "digits only"),
        ("clip://demo/media/1/info/more", "Unknown resource"),
        ("clip://nothing/filters", 'no collection "nothing"'),
        ("clip://session/s_unknown", "unknown or expired"),
        ("clip://session/filters", 'no collection "session"'),
        ("clip://session/s_unknown/kept.csv", "unknown or expired"),
        ("clip://session/s_unknown/kept.exe", "kept.csv"),
        ("clip://demo/media/1?side=7", "256, 1024"),
        ("file:///etc/passwd", "Unknown resource"),
    ],
)
async def test_what_is_not_there_is_said_with_the_right_code(lent: SearchEngine, era: str, uri: str, words: str) -> None:
    async with connected(lent, era) as client:
        with pytest.raises(MCPError, match=words) as caught:
            await client.read_resource(uri)
        assert caught.value.error.code == -32602


async def test_collections_of_any_name_can_be_addressed(demo_settings: Settings) -> None:
    (demo,) = demo_settings.collections
    named = replace(demo_settings, collections=tuple(replace(demo, name=name) for name in ODD_NAMES))
    async with connected(open_engine(named, Path(":memory:"), math.inf)) as client:
        listed = (await read(client, "clip://collections"))["collections"]
        assert [one["name"] for one in listed] == ODD_NAMES
        for one in listed:
            assert (await read(client, one["filters"]))["collection"] == one["name"]
            uri = uris.media_uri(one["name"], 1221)
            assert Image.open(io.BytesIO(await read(client, f"{uri}?side=256"))).format == "JPEG"
            assert (await read(client, f"{uri}/info"))["collection"] == one["name"]
        state = await client.call_tool("update_session", {"collection": "session", "keep": [1221]})
        assert state.structured_content is not None
        assert (await read(client, f"clip://session/{state.structured_content['session']}"))["kept"][0]["title"] == "red apple"


async def complete(client: Client, ref: Any, name: str, value: str, collection: str | None = None) -> list[str]:
    context = {"collection": collection} if collection else None
    result = await client.complete(ref, {"name": name, "value": value}, context_arguments=context)
    assert len(result.completion.values) <= 100
    return result.completion.values


@pytest.mark.parametrize("era", ERAS)
async def test_every_template_and_prompt_argument_completes(lent: SearchEngine, era: str) -> None:
    async with connected(lent, era) as client:
        session = (await client.call_tool("clip_search", {"text": "a cat", "n": 1})).structured_content["session"]  # pyright: ignore[reportOptionalSubscript]
        for template in (await client.list_resource_templates()).resource_templates:
            ref = ResourceTemplateReference(type="ref/resource", uri=template.uri_template)
            for name in ("collection", "id", "side", "session", "file"):
                expected = f"{{{name}}}" in template.uri_template or f"{{?{name}}}" in template.uri_template
                assert bool(await complete(client, ref, name, "", "demo")) is expected, (template.uri_template, name)
        for prompt in (await client.list_prompts()).prompts:
            for argument in prompt.arguments or []:
                assert await complete(client, PromptReference(type="ref/prompt", name=prompt.name), argument.name, ""), argument.name
        media = ResourceTemplateReference(type="ref/resource", uri=uris.MEDIA)
        assert await complete(client, media, "collection", "DE") == ["demo"]
        assert await complete(client, media, "id", "122", "demo") == ["122", *(str(number) for number in range(1220, 1230))]
        assert await complete(client, media, "id", "x", "demo") == []
        assert await complete(client, media, "id", "0", "demo") == []
        assert await complete(client, media, "id", "1", "nothing") == []
        files = ResourceTemplateReference(type="ref/resource", uri=uris.SESSION_FILE)
        assert await complete(client, files, "file", "kept") == ["kept.csv", "kept.jsonl"]
        assert session in await complete(client, files, "session", session[:4])
        assert await complete(client, files, "session", session[: len(session) // 2]) == [session]
        assert "red car" in await complete(client, PromptReference(type="ref/prompt", name="curate"), "criteria", "red ca")
        assert await complete(client, PromptReference(type="ref/prompt", name="nothing"), "x", "") == []
        assert await complete(client, PromptReference(type="ref/prompt", name="curate"), "criteria", "a red " * 1_000) == []


async def test_sessions_are_secrets_where_others_can_ask(lent: SearchEngine) -> None:
    async with connected(lent, list_sessions=False) as client:
        session = (await client.call_tool("clip_search", {"text": "a cat", "n": 1})).structured_content["session"]  # pyright: ignore[reportOptionalSubscript]
        ref = ResourceTemplateReference(type="ref/resource", uri=uris.SESSION)
        assert await complete(client, ref, "session", "") == []
        assert await complete(client, ref, "session", session[:9]) == []
        assert await complete(client, ref, "session", session[:10]) == [session]


@pytest.mark.parametrize("era", ERAS)
async def test_every_prompt_renders_with_and_without_what_is_optional(lent: SearchEngine, era: str) -> None:
    tools = {"clip_search", "describe_filters", "view_media", "update_session"}
    async with connected(lent, era) as client:
        for prompt in (await client.list_prompts()).prompts:
            arguments = prompt.arguments or []
            needed = {one.name: f"my {one.name}" for one in arguments if one.required}
            full = {**needed, "count": "33", "collection": "demo", "session": "s_abc", "reject": "drawings"}
            for given in (needed, {**needed, **{one.name: "" for one in arguments if not one.required}}, full):
                rendered = await client.get_prompt(
                    prompt.name, {name: given[name] for name in given if name in {one.name for one in arguments}}
                )
                (message,) = rendered.messages
                text = message.content.text  # pyright: ignore[reportAttributeAccessIssue]
                assert len(text) / 3.3 <= 350
                assert all(f'"{value}"' in text for value in needed.values())
                assert {word for word in tools if word in text} >= {"clip_search", "view_media"}
                assert ("33" in text) is (given is full)


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("nothing", {}, "find_images, curate"),
        ("curate", {}, "needs criteria"),
        ("find_images", {"description": "a cat", "number": "3"}, "takes description, collection, count"),
        ("curate", {"criteria": "  "}, "needs criteria"),
        ("curate", {"criteria": "x", "count": "many"}, "1 to 1,000"),
        ("find_images", {"description": "x" * 1_001}, "1 to 1,000 characters"),
    ],
)
async def test_a_prompt_that_cannot_be_rendered_is_the_clients_error(
    lent: SearchEngine, era: str, name: str, arguments: dict[str, str], words: str
) -> None:
    async with connected(lent, era) as client:
        with pytest.raises(MCPError, match=words) as caught:
            await client.get_prompt(name, arguments)
        assert caught.value.error.code == -32602
