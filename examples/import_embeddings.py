"""Bring your own vectors: make a collection of an .npy file and a table, without a picture at hand, and search it.

The demo's vectors stand in for yours. Run from the repository: python examples/import_embeddings.py
"""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import anyio
import numpy as np
from first_search import ask
from mcp import Client, StdioServerParameters

from mcp_server.indexes.embeddings import load_embeddings
from mcp_server.ingest.imports.run import import_vectors
from mcp_server.stores.catalog import Catalog

DEMO = Path(__file__).resolve().parent.parent / "data" / "demo"


def write_yours(folder: Path) -> tuple[Path, Path]:
    """Write what you would have: an array (N, D), and a table whose row i is about vector i. One vector is broken, as some always are."""
    vectors = load_embeddings(DEMO / "embeddings.zarr.zip").rows
    with closing(Catalog.open(DEMO / "collection.db", len(vectors))) as catalog:
        items = catalog.items_at(np.arange(len(vectors)), "full")
    chosen = [row for row, item in enumerate(items) if "food-drink" in item.tags["category"]]
    mine = vectors[chosen] * 10.0
    mine[0] = np.nan
    np.save(folder / "vectors.npy", mine)
    rows = [
        {"url": f"https://example.org/{items[row].uri}", "title": items[row].title, "color": items[row].tags["color"]} for row in chosen
    ]
    (folder / "about.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder / "vectors.npy", folder / "about.jsonl"


async def search(config: Path, count: int) -> None:
    """Search the new collection as any other."""
    server = StdioServerParameters(command=sys.executable, args=["-m", "mcp_server", "serve", "--config", str(config)])
    async with Client(server) as client:
        overview = await ask(client, "describe_filters")
        print("fields:", ", ".join(field["name"] for field in overview["fields"]))
        assert {field["name"] for field in overview["fields"]} == {"title", "color"}

        found = await ask(client, "clip_search", text="a red apple", n=5, filters={"color": "red"}, detail="full")
        for hit in found["hits"]:
            print(f"  {hit['score']:.4f}  {hit['id']:>4}  {hit['title']}  {hit['uri']}")
        assert any("apple" in hit["title"] for hit in found["hits"])
        assert all(hit["uri"].startswith("https://example.org/") for hit in found["hits"])

        everything = await ask(client, "clip_search", text="food", n=1)
        assert everything["matching"] == count - 1  # all but the broken one


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        embeddings, metadata = write_yours(folder)
        config = folder / "data" / "config.ini"
        report = import_vectors(embeddings, metadata, folder / "data" / "food", config, "food", f"local-dir:{DEMO / 'model'}")
        print(f"{report.items} items of {report.rows} vectors, {report.not_unit} normalised; unusable rows: {report.unusable}")
        assert report.unusable == (0,)
        assert report.not_unit == report.items == report.rows - 1
        anyio.run(search, config, report.rows)
