"""Small FAISS files for tests, written by FAISS itself, and trust in them that nothing earned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_server.indexes.approval import Approval, Trial
from mcp_server.indexes.faiss_index import FaissIndex
from mcp_server.indexes.faiss_library import faiss_library

faiss: Any = faiss_library()


def trainable(rows: NDArray) -> NDArray[np.float32]:
    """Unit rows, with zeros where a row has no direction: FAISS refuses to train on NaN."""
    wide = rows.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(wide / lengths, nan=0, posinf=0, neginf=0).astype(np.float32)


def write_faiss(recipe: str, rows: NDArray, file: Path, metric: int = faiss.METRIC_INNER_PRODUCT) -> Path:
    """Write the index that FAISS's `index_factory` makes of `recipe` (an IDMap holds row positions) and return its path."""
    vectors = trainable(rows)
    index: Any = faiss.index_factory(vectors.shape[1], recipe, metric)
    index.train(vectors)
    if recipe.startswith("IDMap"):
        index.add_with_ids(vectors, np.arange(len(vectors)))
    else:
        index.add(vectors)
    faiss.write_index(index, str(file))
    return file


def write_shuffled_ids(recipe: str, rows: NDArray, file: Path, metric: int = faiss.METRIC_INNER_PRODUCT) -> Path:
    """Write an IDMap of `recipe` whose vectors lie in another order than the rows; the ids say which is which."""
    order = np.random.default_rng(12).permutation(len(rows))
    vectors = trainable(rows)[order]
    core: Any = faiss.index_factory(vectors.shape[1], recipe, metric)
    core.train(vectors)
    index = faiss.IndexIDMap2(core)
    index.add_with_ids(vectors, order)
    faiss.write_index(index, str(file))
    return file


def trusted(index: FaissIndex, least: float = 0.05) -> Callable[[], Approval]:
    """Return an approval that lets `index` answer wherever a share of at least `least` is allowed, and half of the answer may be late."""
    shares = [share for share in (1.0, 0.5, 0.2, 0.1, 0.05, 0.02) if share >= least]
    trials = tuple(Trial(share, 0, index.efforts[0], 1, 1, kept=1, faiss_ms=1, exact_ms=100) for share in shares)
    return lambda: Approval(0.5, "nobody asked", trials)
