"""An agent that goes only by what the tools say finds, looks at, keeps and hands over 25 pictures over three restarts of the server."""

from __future__ import annotations

import csv
import io
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from mcp_server.config import demo_folder

WANTED = 25
WORDINGS = ["a cat", "a cat face", "a dog", "a fox", "a bear"]


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    return result.structured_content or result


@pytest.mark.anyio
async def test_an_agent_curates_over_three_restarts_without_a_repeat(tmp_path: Path) -> None:
    shutil.copytree(demo_folder(), tmp_path / "demo")
    command = ["-m", "mcp_server", "serve", "--config", str(tmp_path / "demo" / "config.ini")]
    server = StdioServerParameters(command=sys.executable, args=command)
    session: str | None = None
    shown: list[int] = []
    kept: list[int] = []
    for run in range(4):
        async with Client(server) as client:
            if session is not None:  # back after a restart: the shortlist and the last answer are there
                state = await call(client, "update_session", session=session)
                assert state["kept"] == {"demo": kept}
                last = await call(client, "clip_search", session=session, page=state["pages"])
                assert [hit["id"] for hit in last["hits"]] == shown[-len(last["hits"]) :]
            for text in WORDINGS[run : run + 2]:
                page = await call(client, "clip_search", text=text, n=12, **({"session": session} if session else {}))
                session = page["session"]
                ids = [hit["id"] for hit in page["hits"]]
                assert not set(ids) & set(shown)
                shown += ids
                looked = await call(client, "view_media", ids=ids)
                assert looked.content[0].type == "image"
                good = [hit["id"] for hit in page["hits"] if hit["rel"] != "weak"][: WANTED - len(kept)]
                kept += good
                await call(client, "update_session", session=session, keep=good, exclude=[one for one in ids if one not in good][:3])
    if len(kept) < WANTED:
        async with Client(server) as client:
            more = await call(client, "clip_search", like=kept[:3], n=WANTED - len(kept), session=session)
            kept += [hit["id"] for hit in more["hits"]]
            assert not set(kept[-len(more["hits"]) :]) & set(shown)
            await call(client, "update_session", session=session, keep=kept)
    async with Client(server) as client:
        state = await call(client, "update_session", session=session)
        assert state["kept_count"] == WANTED
        (content,) = (await client.read_resource(state["export"])).contents
    rows = list(csv.DictReader(io.StringIO(content.text)))  # pyright: ignore[reportAttributeAccessIssue]
    assert [int(row["id"]) for row in rows] == kept
    assert len(set(kept)) == WANTED
    assert all(row["query"] and row["uri"] for row in rows)
