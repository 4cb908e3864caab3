"""Filters and sessions, as an agent uses them: look at the fields, narrow, page until nothing is left, learn from a refusal.

Run from the repository: python examples/agent_loop.py
"""

from __future__ import annotations

import anyio
from first_search import SERVER, ask
from mcp import Client


async def main() -> None:
    """Collect every orange or red food picture of the demo for "fruit", each once."""
    async with Client(SERVER) as client:
        overview = await ask(client, "describe_filters")
        print("fields:", ", ".join(field["name"] for field in overview["fields"]))
        colors = await ask(client, "describe_filters", field="color")
        print("colors:", colors["field"]["values"])
        assert "red" in colors["field"]["values"]

        refused = await client.call_tool("clip_search", {"text": "fruit", "filters": {"colour": "red"}})
        assert refused.is_error
        print("refused:", refused.content[0].text)  # the refusal names the right field
        assert "color" in refused.content[0].text

        wanted = {"category": ["food-drink", "food"], "color": ["red", "orange"]}
        shortlist: list[int] = []
        session = None
        while True:
            page = await ask(client, "clip_search", text="fruit", n=25, filters=wanted, session=session)
            session = page["session"]
            shortlist += [hit["id"] for hit in page["hits"]]
            print(f"{page['returned']:>3} of {page['matching']} ({page['filters']}), {page['unseen_left']} left")
            if not page["unseen_left"]:
                break
        assert len(shortlist) == len(set(shortlist)) == page["matching"]

        again = await ask(client, "clip_search", text="fruit", n=25, filters=wanted, session=session)
        assert again["returned"] == 0
        assert again["short_reason"] == "all_seen"

        one = await ask(client, "clip_search", text="a strawberry", n=1)
        group = one["hits"][0]["group"]
        rest = await ask(client, "clip_search", text="a strawberry", n=10, excluded_groups=[group])
        assert all(hit.get("group") != group for hit in rest["hits"])
        print("without that group:", ", ".join(hit["title"] for hit in rest["hits"][:5]))


if __name__ == "__main__":
    anyio.run(main)
