"""Build a FAISS index of a collection, read the report, point the server at it, and see it noticed when the collection has grown.

Writes a small collection of its own; with a real one, use `clip-search-mcp index build` instead.
Run from the repository: python examples/build_index.py
"""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
import zarr
from zarr.storage import ZipStore

from mcp_server.indexes.building import build_index
from mcp_server.indexes.embeddings import load_embeddings
from mcp_server.indexes.exact import ExactIndex
from mcp_server.indexes.hybrid import HybridIndex
from mcp_server.indexes.measuring import check_index_file
from mcp_server.indexes.opening import open_index_or_exact

ROWS, WIDTH, TOPICS = 4_000, 64, 40


def write_embeddings(file: Path, rows: int) -> None:
    """Write unit vectors around a few topics, as pictures are; more rows leave the first ones as they are."""
    rng = np.random.default_rng(7)
    topics = rng.standard_normal((TOPICS, WIDTH))
    vectors = topics[np.arange(rows) % TOPICS] + 0.5 * np.random.default_rng(8).standard_normal((rows, WIDTH))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    file.unlink(missing_ok=True)
    with closing(ZipStore(file, mode="w")) as store:
        zarr.create_array(store, data=vectors.astype(np.float16), chunks=(1_000, WIDTH))


def main(folder: Path) -> None:
    """Build, check, search, grow, build again."""
    embeddings_file, index_file = folder / "embeddings.zarr.zip", folder / "index.faiss"
    write_embeddings(embeddings_file, ROWS)

    report = build_index(embeddings_file, index_file, "ivf")
    print(f"{report.kind} {report.parameters}: {report.rows:,} rows, {report.bytes:,} bytes")
    assert report.measured is not None
    for trial in report.measured.trials:
        print(f"  {trial.share:>4.0%} of the rows allowed: {trial.recall_at_10:.1%} of the nearest 10, {trial.recall_at_100:.1%} of 100")
    print(report.suggestion)
    assert report.measured.trials[0].recall_at_10 > 0.95
    assert "Keep IndexType = zarr" in report.suggestion  # so few rows are answered exactly anyway

    check = check_index_file(embeddings_file, index_file)
    assert check.problem is None
    assert check.of_these_embeddings
    stored = load_embeddings(embeddings_file)
    assert isinstance(open_index_or_exact("faiss", ExactIndex(stored), stored, index_file, None, embeddings_file), HybridIndex)

    write_embeddings(embeddings_file, ROWS + 500)  # the collection grows, and the index is left behind
    grown = load_embeddings(embeddings_file)
    index = open_index_or_exact("faiss", ExactIndex(grown), grown, index_file, None, embeddings_file)
    assert isinstance(index, ExactIndex)  # every search is right, though not the fastest
    newest = ROWS + 499
    assert index.search(grown.rows[newest].astype(np.float32), 1, np.zeros(grown.size, bool)).rows.tolist() == [newest]
    print(check_index_file(embeddings_file, index_file).problem)

    build_index(embeddings_file, index_file, "ivf")
    assert check_index_file(embeddings_file, index_file).problem is None
    print("built again: in use")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
