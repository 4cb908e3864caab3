"""Opens a FAISS file and peels it: what lies under its wrappers, and how its ids map to rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mcp_server.errors import CollectionError, IndexMismatchError, clipped
from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.faiss_library import faiss_library, selector_of
from mcp_server.indexes.inverted_lists import list_ids

Kind = Literal["flat", "ivf", "hnsw", "other"]
"""flat: scans all codes, exact or quantised. other: refuses selectors (FastScan, some IVF) or is not known to honour them."""


@dataclass(frozen=True, eq=False)
class FaissFile:
    """A FAISS index without its wrappers.

    Attributes:
        core: the innermost index, the one that is searched.
        kind: what search parameters it takes.
        name: its type, such as "IndexIVFFlat".
        rows: (N,) int64, the row behind each id of `core`; None when they are the same.
        transforms: what a query goes through before it reaches `core`, in order.
    """

    core: Any = field(repr=False)
    kind: Kind
    name: str
    rows: NDArray[np.int64] | None = field(repr=False)
    transforms: tuple[Any, ...] = field(repr=False)
    _whole: Any = field(repr=False)  # owns the memory of all the parts


def open_faiss(path: Path, embeddings: Embeddings) -> FaissFile:
    """Return the index in `path`, which must hold the rows of `embeddings`: as many, as wide, ids 0..N-1 each once, cosine-like metric.

    IDMap, PreTransform and Refine are peeled off, however nested: we map ids and queries ourselves and score anew anyway.

    Raises:
        CollectionError: nothing is there, or it is damaged.
        IndexMismatchError: it belongs to other embeddings.
    """
    whole = _read(path)
    if int(whole.ntotal) != embeddings.size or int(whole.d) != embeddings.width:
        raise IndexMismatchError(
            f"The FAISS index {path} holds {whole.ntotal} vectors {whole.d} wide; the embeddings hold {embeddings.size} rows "
            f"{embeddings.width} wide. Build the index again from these embeddings."
        )
    faiss = faiss_library()
    if whole.metric_type not in (faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2):
        raise IndexMismatchError(f"The FAISS index {path} uses metric {whole.metric_type}; use inner product, or L2 on unit vectors.")
    return _peeled(path, whole, embeddings.size)


def missing_file(path: Path) -> CollectionError:
    """Return the error for a FAISS file that is not there."""
    return CollectionError(f"FAISS index not found: {path}. Check CLIPIndexFile in the configuration, or set IndexType = zarr.")


def _read(path: Path) -> Any:
    if not path.is_file():
        raise missing_file(path)
    try:
        return faiss_library().read_index(str(path))
    except (RuntimeError, MemoryError) as error:  # a damaged header may ask for any amount of memory
        reason = clipped(str(error).rsplit(": ", maxsplit=1)[-1], 120)
        raise CollectionError(f"The FAISS index {path} cannot be read ({reason}). Build it again, or set IndexType = zarr.") from error


def _peeled(path: Path, whole: Any, size: int) -> FaissFile:
    faiss = faiss_library()
    core: Any = whole
    rows: NDArray[np.int64] | None = None
    transforms: list[Any] = []
    while True:
        if isinstance(core, faiss.IndexIDMap):
            ids = _each_row_once(path, faiss.vector_to_array(core.id_map), size)
            rows = ids if rows is None else rows[ids]
            core = faiss.downcast_index(core.index)
        elif isinstance(core, faiss.IndexPreTransform):
            transforms.extend(core.chain.at(place) for place in range(core.chain.size()))
            core = faiss.downcast_index(core.index)
        elif isinstance(core, faiss.IndexRefine):
            core = faiss.downcast_index(core.base_index)
        else:
            break
    kind = _kind(core)
    if kind == "ivf":
        _each_row_once(path, np.concatenate([np.empty(0, np.int64), *list_ids(core.invlists)]), size)
    return FaissFile(core, kind, type(core).__name__, rows, tuple(transforms), whole)


def _kind(core: Any) -> Kind:
    faiss = faiss_library()
    if "FastScan" in type(core).__name__:
        return "other"
    if isinstance(core, faiss.IndexIVF):
        return "ivf" if _takes_selectors(core) else "other"
    if isinstance(core, faiss.IndexHNSW):
        return "hnsw"
    return "flat" if isinstance(core, (faiss.IndexFlat, faiss.IndexScalarQuantizer)) else "other"


def _takes_selectors(core: Any) -> bool:
    """Tell by trying: IVF with additive quantisers, spectral hashing or PQ refined by a second PQ throws.

    What scans a list is asked for first: FAISS before 1.14 makes it in the threads of a search, where its error ends the process.
    """
    faiss = faiss_library()
    everything = selector_of(np.ones(int(core.ntotal), np.bool_))
    params = faiss.SearchParametersIVF(sel=everything, nprobe=1)
    try:
        try:
            core.get_InvertedListScanner(False, everything, params)
        except TypeError:  # before 1.11 it takes no parameters
            core.get_InvertedListScanner(False, everything)
        core.search(np.zeros((1, int(core.d)), np.float32), 1, params=params)
    except RuntimeError:
        return False
    return True


def _each_row_once(path: Path, ids: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    if len(ids) != size or not np.array_equal(np.sort(ids), np.arange(size)):
        spread = f" spread over {ids.min()}..{ids.max()}" if len(ids) else ""
        raise IndexMismatchError(
            f"The FAISS index {path} holds {len(ids)} ids{spread}; they must be the row positions 0..{size - 1}, each once. "
            "Build the index again with ids equal to row positions."
        )
    return ids
