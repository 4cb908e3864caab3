"""The one place where the benchmarks make the index they measure."""

from __future__ import annotations

import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_server.indexes.codes import FORMAT, Codes, write_codes
from mcp_server.indexes.embeddings import embeddings_of, measured
from mcp_server.indexes.exact import ExactIndex
from mcp_server.indexes.probes import measure_costs
from mcp_server.indexes.row_file import AT_MOST, RowFile
from mcp_server.side_files import SideFiles

KEPT_FROM = 20_000
KEPT = Path(tempfile.gettempdir()) / "clip-search-benchmarks" / "codes"


def ours(rows: NDArray[Any], folder: Path, ties: NDArray[np.int64] | None = None) -> ExactIndex:
    """Return the index that a collection of `rows` is served by once its codes are made.

    Args:
        rows: (N, D) float16 or float32; mapped from a file, they are searched where they lie, as the server does.
        folder: an empty one, where the codes are kept. It lives as long as the index. Codes of many rows are kept for the next run.
        ties: (N,) int64, as `ExactIndex` takes them.
    """
    plain = np.asarray(rows)
    blocks = ((start, plain[start : start + 4096]) for start in range(0, len(plain), 4096))
    norms = np.concatenate([lengths for _, lengths in measured(blocks, plain.dtype)] or [np.empty(0)])
    embeddings = embeddings_of(plain, norms, RowFile(plain) if isinstance(rows, np.memmap) and plain.nbytes > AT_MOST else None)
    index = ExactIndex(embeddings, ties)
    if embeddings.unusable.all():
        return index
    codes = _codes(embeddings, SideFiles(KEPT if len(plain) >= KEPT_FROM else folder), f"codes{len(plain)}")
    index.adopt(codes, measure_costs(embeddings, codes))
    return index


def _codes(embeddings: Any, side: SideFiles, name: str) -> Codes:
    some = embeddings.rows[:: max(1, embeddings.size // 1000)]
    key = {"format": FORMAT, "type": str(some.dtype), "sample": zlib.crc32(np.ascontiguousarray(some))}
    found = side.read(name, key)
    if found is None:
        with side.writing(name, key) as draft:
            write_codes(embeddings, draft)
        found = side.read(name, key)
        assert found is not None
    return Codes.of(found)
