"""Puts the right index together, and checks it for `doctor`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mcp_server.errors import CollectionError, IndexMismatchError
from mcp_server.indexes.approval import TARGET_RECALL, Approval
from mcp_server.indexes.approval_file import cache_approval, key_of, read_approval
from mcp_server.indexes.approving import Approving
from mcp_server.indexes.base import Index
from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.exact import ExactIndex
from mcp_server.indexes.faiss_file import missing_file
from mcp_server.indexes.faiss_index import FaissIndex
from mcp_server.indexes.fingerprints import is_of_other_embeddings
from mcp_server.indexes.hybrid import EXACT_BELOW, HybridIndex
from mcp_server.indexes.trials import SHARES, Told, measured_approval

logger = logging.getLogger(__name__)

_SAMPLE = 50
_LOST_AT_MOST = 0.1
"""Share of sampled rows an approximate index may fail to find again before it is suspected of belonging to other embeddings."""
_BACKGROUND_QUERIES = 60


@dataclass(frozen=True)
class Trust:
    """How far a FAISS file is trusted.

    Attributes:
        target: part of the true nearest it must have been measured to find (`TargetRecall`).
        cached: file for what is measured behind the calls, where the FAISS file's own note says nothing; None keeps it nowhere.
    """

    target: float = TARGET_RECALL
    cached: Path | None = None


def open_index(
    index_type: Literal["zarr", "faiss"],
    embeddings: Embeddings,
    faiss_file: Path | None = None,
    tie_keys: NDArray[np.int64] | None = None,
    embeddings_file: Path | None = None,
    trust: Trust | None = None,
) -> ExactIndex | HybridIndex:
    """Return the index a collection asks for: exact for "zarr"; `faiss_file` backed by the exact one for "faiss".

    Args:
        index_type: as in the configuration.
        embeddings: kept in memory by the index.
        faiss_file: needed for "faiss", ignored for "zarr".
        tie_keys: (N,) int64; of two equal scores the row with the lower key comes first. Default: the lower row.
        embeddings_file: where `embeddings` were read; given, a FAISS file that notes what it was built from is held against it.
        trust: how far a FAISS file is trusted. Default: the default target, nothing kept.

    Raises:
        CollectionError: the file is not named, missing or damaged.
        IndexMismatchError: the file or the keys do not fit the embeddings.
    """
    exact = ExactIndex(embeddings, tie_keys)
    if index_type == "zarr":
        return exact
    return _backed(exact, embeddings, _named(faiss_file), tie_keys, embeddings_file, trust or Trust())


def open_index_or_exact(
    index_type: Literal["zarr", "faiss"],
    exact: Index,
    embeddings: Embeddings,
    faiss_file: Path | None = None,
    tie_keys: NDArray[np.int64] | None = None,
    embeddings_file: Path | None = None,
    trust: Trust | None = None,
    ready: Callable[[], None] | None = None,
) -> Index:
    """Return `exact`, for "faiss" behind the FAISS file; alone, and with a warning in the log, where that is damaged or does not fit.

    `exact` is an exact index of `embeddings` with the same tie keys; `ready` waits until it is as fast as it will be, before FAISS is
    measured against it. The rest as in `open_index`.

    Raises:
        CollectionError: the file is not named or missing.
        IndexMismatchError: the keys do not fit the embeddings.
    """
    if index_type == "zarr":
        return exact
    file = _named(faiss_file)
    try:
        return _backed(exact, embeddings, file, tie_keys, embeddings_file, trust or Trust(), ready)
    except CollectionError as error:
        logger.warning("faiss.unused reason=%s Searches are answered exactly until `clip-search-mcp index build` is run.", error)
        return exact


def _named(faiss_file: Path | None) -> Path:
    if faiss_file is None:
        raise CollectionError("IndexType = faiss needs CLIPIndexFile; name the file, or set IndexType = zarr.")
    if not faiss_file.is_file():
        raise missing_file(faiss_file)
    return faiss_file


def _backed(
    exact: Index,
    embeddings: Embeddings,
    file: Path,
    tie_keys: NDArray[np.int64] | None,
    embeddings_file: Path | None,
    trust: Trust,
    ready: Callable[[], None] | None = None,
) -> HybridIndex:
    if embeddings_file is not None and is_of_other_embeddings(file, embeddings_file):
        raise IndexMismatchError(
            f"The FAISS index {file} was built from another version of {embeddings_file.name}. Build the index again from these embeddings."
        )
    key = key_of(file, embeddings_file)  # before it is read: what is measured is not of a file that replaces it meanwhile
    approximate = FaissIndex(file, embeddings, tie_keys)

    def measured(rest: Told) -> Approval:
        if ready is not None:
            ready()
        shares = _shares_that_matter(exact.size)
        return measured_approval(embeddings, approximate, exact, trust.target, queries=_BACKGROUND_QUERIES, shares=shares, told=rest)

    known = read_approval(file, trust.target, embeddings_file, trust.cached) if trust.target < 1 else Approval(trust.target, "", ())
    return HybridIndex(exact, approximate, Approving(known, measured, partial(cache_approval, trust.cached, key)).ready)


def _shares_that_matter(size: int) -> tuple[float, ...]:
    """Return the shares worth measuring: those that leave so many rows that FAISS may answer, and the next lower one."""
    return SHARES[: 1 + sum(share * size > EXACT_BELOW for share in SHARES)]


def check_index(index: Index, embeddings: Embeddings) -> list[str]:
    """Return what is worth telling about an index built from `embeddings`, one sentence or two each; empty when all is well."""
    findings: list[str] = []
    if unusable := int(np.count_nonzero(embeddings.unusable)):
        first = ", ".join(map(str, np.flatnonzero(embeddings.unusable)[:5]))
        findings.append(
            f"{unusable} of {embeddings.size} embeddings are not finite or have no length and are never returned (rows {first}"
            f"{', …' if unusable > 5 else ''}). Embed those items again."
        )
    if not embeddings.normalised:
        lengths = embeddings.norms[~embeddings.unusable]
        findings.append(
            f"Embeddings are not of unit length ({lengths.min():.4g} to {lengths.max():.4g}). Scores are right all the same; "
            "storing unit vectors saves memory."
        )
    if isinstance(index, HybridIndex):
        findings.extend(index.approximate.findings)
        findings.extend(_strangers(index.approximate, embeddings))
    return findings


def _strangers(index: FaissIndex, embeddings: Embeddings) -> list[str]:
    usable = np.flatnonzero(~embeddings.unusable)
    if not index.takes_masks or len(usable) == 0:
        return []
    sample = usable[np.linspace(0, len(usable) - 1, min(_SAMPLE, len(usable))).astype(np.int64)]
    found = sum(_finds(index, embeddings, int(row)) for row in sample)
    if len(sample) - found <= _LOST_AT_MOST * len(sample):
        return []
    or_longer = "" if embeddings.normalised else ", or without giving them unit length"
    return [
        f"Only {found} of {len(sample)} sampled embeddings are found again in the FAISS index: it was built from other embeddings, or from "
        f"these in another order{or_longer}, or its codes are too coarse. Build it again from these embeddings; until then searches may "
        "miss the best items."
    ]


def _finds(index: FaissIndex, embeddings: Embeddings, row: int) -> bool:
    vector = embeddings.rows[row].astype(np.float64)
    nearest = index.search((vector / np.linalg.norm(vector)).astype(np.float32), 1, embeddings.unusable)
    return len(nearest.scores) > 0 and float(nearest.scores[0]) > 1 - 1e-6  # itself, or a copy of it
