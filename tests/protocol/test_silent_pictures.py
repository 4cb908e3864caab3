"""Picture servers that take their time: who looks at pictures waits, nobody else does."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

import anyio
import pytest
from mcp import Client, MCPError

from mcp_server.encoders.loading import BackgroundText
from mcp_server.engine.collection import Collection, Media
from mcp_server.engine.search import SearchEngine
from mcp_server.engine.shelf import Shelf
from mcp_server.protocol.view import CALLS_AT_ONCE
from mcp_server.server import build_server
from mcp_server.stores.sessions import Sessions
from mcp_server.stores.thumbnails import PictureStore
from tests.engine.toys import WordEncoder, open_collection, videos, write_collection

pytestmark = pytest.mark.anyio


class SilentPictures(PictureStore):
    """A picture server that says nothing until `speak` is set, and then that it has no picture."""

    def __init__(self) -> None:
        self.speak = threading.Event()

    def read(self, uri: str) -> bytes | None:
        self.speak.wait()
        return None

    def close(self) -> None:
        self.speak.set()


async def test_no_other_call_waits_behind_pictures(tmp_path: Path) -> None:
    write_collection(tmp_path / "toys", videos())
    silent, encoder = SilentPictures(), BackgroundText(WordEncoder, "words", WordEncoder.width)

    def opened() -> Collection:
        collection = open_collection(tmp_path / "toys", "toys", encoder)
        collection.media = Media(silent, silent)
        return collection

    engine = SearchEngine(Shelf({"toys": opened}), Sessions(tmp_path / "sessions.db"))
    answered = 0
    async with Client(build_server(engine, log_level="ERROR")) as client, anyio.create_task_group() as tasks:

        async def look() -> None:
            nonlocal answered
            await client.call_tool("view_media", {"ids": [110]})
            answered += 1

        async def read() -> None:
            nonlocal answered
            with suppress(MCPError):
                await client.read_resource("clip://toys/media/110")
            answered += 1

        for _ in range(CALLS_AT_ONCE + 5):
            tasks.start_soon(look)
            tasks.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        try:
            for tool, arguments in (("clip_search", {"text": "red circle"}), ("describe_filters", {}), ("update_session", {"note": "x"})):
                assert not (await client.call_tool(tool, arguments)).is_error
                assert answered == 0
        finally:
            silent.speak.set()
