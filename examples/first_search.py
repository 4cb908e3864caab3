"""First search: connect to the server over stdio as a host does, ask what can be filtered, search, page on.

Run from the repository: python examples/first_search.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters

DEMO = Path(__file__).resolve().parent.parent / "data" / "demo" / "config.ini"
SERVER = StdioServerParameters(command=sys.executable, args=["-m", "mcp_server", "serve", "--config", str(DEMO)])


async def ask(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool and return its structured answer; a refusal is printed and ends the program."""
    result = await client.call_tool(tool, arguments)
    if result.is_error or result.structured_content is None:
        sys.exit(f"{tool} was refused: {result.content}")
    return result.structured_content


async def main() -> None:
    """Find apples in the bundled demo, twice without a repeat."""
    async with Client(SERVER) as client:
        tools = [tool.name for tool in (await client.list_tools()).tools]
        print("tools:", ", ".join(tools))
        assert tools == ["clip_search", "describe_filters", "view_media", "update_session"]

        first = await ask(client, "clip_search", text="a red apple", n=5)
        for hit in first["hits"]:
            print(f"  {hit['score']:.4f}  {hit['id']:>5}  {hit['title']}")
        assert any("apple" in hit["title"] for hit in first["hits"])

        more = await ask(client, "clip_search", text="a red apple", n=5, session=first["session"])
        assert not {hit["id"] for hit in first["hits"]} & {hit["id"] for hit in more["hits"]}
        assert more["hidden"]["seen"] == 5
        print("next five:", ", ".join(hit["title"] for hit in more["hits"]))


if __name__ == "__main__":
    anyio.run(main)
