"""The one place where the benchmarks make the index they measure."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_server.indexes.codes import FORMAT, Codes, write_codes
from mcp_server.indexes.embeddings import embeddings_of, measured
from mcp_server.indexes.exact import ExactIndex
from mcp_server.indexes.prefault import prefault
from mcp_server.indexes.probes import measure_costs
from mcp_server.indexes.projections import Projections
from mcp_server.indexes.query_axis import Lesson, key_of, with_axis, write_axis
from mcp_server.indexes.row_file import AT_MOST, RowFile
from mcp_server.indexes.scoring import unit_query
from mcp_server.side_files import Draft, SideFiles, SideSet

KEPT_FROM = 20_000
KEPT = Path(tempfile.gettempdir()) / "clip-search-benchmarks" / "codes"


def ours(rows: NDArray[Any], folder: Path, ties: NDArray[np.int64] | None = None, heard: NDArray[np.float32] | None = None) -> ExactIndex:
    """Return the index that a collection of `rows` is served by once its codes are made and it has learnt from the queries it has heard.

    Args:
        rows: (N, D) float16 or float32; mapped from a file, they are searched where they lie, as the server does.
        folder: an empty one, where the codes are kept. It lives as long as the index. Codes of many rows are kept for the next run.
        ties: (N,) int64, as `ExactIndex` takes them.
        heard: (Q, D) unit vectors, queries that were asked before.
    """
    plain = np.asarray(rows)
    blocks = ((start, plain[start : start + 4096]) for start in range(0, len(plain), 4096))
    norms = np.concatenate([lengths for _, lengths in measured(blocks, plain.dtype)] or [np.empty(0)])
    embeddings = embeddings_of(plain, norms, RowFile(plain) if isinstance(rows, np.memmap) and plain.nbytes > AT_MOST else None)
    index = ExactIndex(embeddings, ties)
    if embeddings.unusable.all():
        return index
    side = SideFiles(KEPT if len(plain) >= KEPT_FROM else folder)
    some = plain[:: max(1, len(plain) // 1000)]
    key = {"format": FORMAT, "type": str(some.dtype), "sample": zlib.crc32(np.ascontiguousarray(some))}
    codes = Codes.of(_made(side, f"codes{len(plain)}", key, lambda draft: write_codes(embeddings, draft)))
    costs = measure_costs(embeddings, codes)
    learnt = _learnt(codes, heard)
    if learnt is not None:
        projections, direction = learnt
        of_axis = key | key_of(projections) | {"direction": zlib.crc32(direction)}
        stored = _made(side, f"axis{len(plain)}", of_axis, lambda draft: write_axis(embeddings, projections, direction, draft))
        codes = replace(codes, projections=with_axis(projections, stored))
    index.adopt(codes, costs)
    prefault([*([plain] if embeddings.file is None else []), *codes.arrays], lambda: True)
    return index


def _learnt(codes: Codes, heard: NDArray[np.float32] | None) -> tuple[Projections, NDArray[np.float64]] | None:
    """Return projections and the direction of an axis to be added to them."""
    if codes.projections is None or heard is None:
        return None
    lesson = Lesson(codes.projections)
    for query in heard:
        direction = lesson.hear(unit_query(query, len(query)))
        if direction is not None:
            return codes.projections, direction
    return None


def _made(side: SideFiles, name: str, key: dict[str, Any], make: Callable[[Draft], None]) -> SideSet:
    found = side.read(name, key)
    if found is None:
        with side.writing(name, key) as draft:
            make(draft)
        found = side.read(name, key)
        assert found is not None
    return found
