"""A folder of pictures becomes a collection, and stays one: ingest, search, add a picture while the server runs, ingest, find it.

Run from the repository: python examples/ingest_folder.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters

DEMO = Path(__file__).resolve().parent.parent / "data" / "demo"
APPLE = "images/noto/noto-1f34e.webp"


def ingest(pictures: Path, config: Path) -> str:
    """Run the command as a person would, with the demo's small model in place of the large one; return what it says."""
    command = [sys.executable, "-m", "mcp_server", "ingest", str(pictures), "--name", "mine", "--config", str(config)]
    done = subprocess.run([*command, "--model", f"local-dir:{DEMO / 'model'}"], check=True, capture_output=True, text=True)
    print("\n".join(f"  {line}" for line in done.stdout.splitlines()[:3]))
    return done.stdout


async def search(client: Client, **arguments: Any) -> dict[str, Any]:
    """Call `clip_search` and return its answer."""
    result = await client.call_tool("clip_search", {**arguments, "detail": "full"})
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content


async def main() -> None:
    """Ingest fifty pictures, then one more beside a running server."""
    with tempfile.TemporaryDirectory() as place:
        pictures, config = Path(place) / "pictures", Path(place) / "config.ini"
        with zipfile.ZipFile(DEMO / "thumbnails.zip") as archive:
            archive.extractall(pictures, [name for name in archive.namelist() if name != APPLE and "fluent" in name][:50])
            said = ingest(pictures, config)
            assert said.startswith("added 50, unchanged 0, changed 0, removed 0, failed 0")

            server = StdioServerParameters(command=sys.executable, args=["-m", "mcp_server", "serve", "--config", str(config)])
            async with Client(server) as client:
                first = await search(client, text="a red apple", n=3, filters={"orientation": "square"})
                assert first["matching"] == 50

                archive.extract(APPLE, pictures)
                said = ingest(pictures, config)
                assert said.startswith("added 1, unchanged 50, changed 0, removed 0, failed 0")

                again = await search(client, text="a red apple", n=3, session=first["session"], filters={"filename": "noto-1f34e.webp"})
                assert [hit["uri"] for hit in again["hits"]] == [APPLE]
                print("found beside a running server:", again["hits"][0]["uri"])


if __name__ == "__main__":
    anyio.run(main)
