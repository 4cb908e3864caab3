"""FAISS files of every supported kind, behind `HybridIndex`: as a small collection has them, and held to the approximate path."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from mcp_server.errors import IndexMismatchError
from mcp_server.indexes.base import Index
from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.exact import ExactIndex
from mcp_server.indexes.faiss_index import FaissIndex
from mcp_server.indexes.faiss_library import faiss_library
from mcp_server.indexes.hybrid import HybridIndex
from mcp_server.indexes.opening import open_index
from tests.contracts.index_contract import FullAnswers, IndexContract
from tests.indexes.faiss_files import trusted, write_faiss, write_shuffled_ids

faiss: Any = faiss_library()


class Approximate(FullAnswers):
    """The FAISS answer is used whenever it is long enough."""

    recipe = ""
    metric = faiss.METRIC_INNER_PRODUCT
    shuffled = False
    effort: ClassVar[dict[str, int]] = {}

    @classmethod
    def opened(cls, rows: NDArray, ties: NDArray[np.int64], folder: Path) -> Index:
        write = write_shuffled_ids if cls.shuffled else write_faiss
        file = write(cls.recipe, rows, folder / "index.faiss", cls.metric)
        embeddings = Embeddings.from_rows(rows)
        approximate = FaissIndex(file, embeddings, ties, **cls.effort)
        return HybridIndex(ExactIndex(embeddings, ties), approximate, trusted(approximate), exact_below=0)

    def test_a_plain_search_says_that_it_is_approximate(self, index: Index, queries: NDArray) -> None:
        approximation = index.search(queries[0], 10, np.zeros(index.size, bool)).approximation
        assert approximation is not None
        assert approximation.startswith(("ivf nprobe=", "hnsw ef="))

    def test_few_allowed_rows_are_answered_exactly(self, index: Index, queries: NDArray) -> None:
        skip = np.ones(index.size, bool)
        skip[::40] = False
        assert index.search(queries[0], 10, skip).approximation is None


class TestIvf(Approximate):
    recipe = "IVF16,Flat"
    recall = 0.99


class TestIvfByL2(Approximate):
    recipe = "IVF16,Flat"
    metric = faiss.METRIC_L2
    recall = 0.99


class TestIvfWithFewProbes(Approximate):
    recipe = "IVF128,SQ8"
    recall = 0.9


class TestIvfWithProductQuantiser(Approximate):
    recipe = "IVF16,PQ8x4"


class PatientHnsw(Approximate):
    """A queue long enough for the many copies in the rows, which split the graph."""

    effort: ClassVar[dict[str, int]] = {"ef_search": 1500}
    recall = 0.95


class TestHnsw(PatientHnsw):
    recipe = "HNSW32"


class TestHnswByL2(PatientHnsw):
    recipe = "HNSW32"
    metric = faiss.METRIC_L2


class TestHnswWithScalarQuantiser(PatientHnsw):
    recipe = "HNSW32,SQ8"


class TestRotatedIvf(Approximate):
    recipe = "OPQ4_12,IVF16,Flat"
    effort: ClassVar[dict[str, int]] = {"nprobe": 16}
    recall = 0.7
    """A quarter of the dimensions is gone before FAISS looks."""


class TestShuffledIdsOverIvf(Approximate):
    recipe = "IVF16,Flat"
    shuffled = True
    recall = 0.99


class TestShuffledIdsOverRotatedHnsw(PatientHnsw):
    recipe = "PCAR16,HNSW32"
    shuffled = True


class TestRefinedIvf(Approximate):
    recipe = "IVF16,SQ8,RFlat"
    recall = 0.99


class SmallCollection(IndexContract):
    """As `open_index` builds it: of a few thousand rows everything is answered exactly, whatever the file."""

    recipe = ""

    @classmethod
    def opened(cls, rows: NDArray, ties: NDArray[np.int64], folder: Path) -> Index:
        return open_index("faiss", Embeddings.from_rows(rows), write_faiss(cls.recipe, rows, folder / "index.faiss"), ties)


class TestSmallFlat(SmallCollection):
    recipe = "Flat"


class TestSmallScalarQuantiser(SmallCollection):
    recipe = "SQ8"


class TestSmallIvf(SmallCollection):
    recipe = "IVF64,Flat"


class TestSmallHnsw(SmallCollection):
    recipe = "HNSW16"


class TestSmallIdMap(SmallCollection):
    recipe = "IDMap,Flat"


class TestSmallPreTransform(SmallCollection):
    recipe = "PCA8,IVF16,Flat"


class TestSmallFastScan(SmallCollection):
    recipe = "IVF16,PQ8x4fs"


class AllOfAFlatFile(FullAnswers):
    """The FAISS side alone: a flat index visits everything, so even alone it never comes back short."""

    recipe = "Flat"
    recall = 0.99

    @classmethod
    def opened(cls, rows: NDArray, ties: NDArray[np.int64], folder: Path) -> Index:
        return FaissIndex(write_faiss(cls.recipe, rows, folder / "index.faiss"), Embeddings.from_rows(rows), ties)


class TestFlatAlone(AllOfAFlatFile):
    pass


class TestScalarQuantiserAlone(AllOfAFlatFile):
    recipe = "SQfp16"


class TestIdMapAlone(AllOfAFlatFile):
    recipe = "IDMap,Flat"


class TestRotatedFlatAlone(AllOfAFlatFile):
    recipe = "RR16,Flat"


class TestIvfVisitingEveryListAlone(AllOfAFlatFile):
    recipe = "IVF16,Flat"


@pytest.mark.parametrize("recipe", ["IVF16,Flat", "HNSW32"])
def test_exact_and_approximate_must_be_of_one_size(recipe: str, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((700, 8)).astype(np.float32)
    approximate = FaissIndex(write_faiss(recipe, rows, tmp_path / "index.faiss"), Embeddings.from_rows(rows))
    with pytest.raises(IndexMismatchError, match="699 rows 8 wide, the approximate one 700 rows"):
        HybridIndex(ExactIndex(Embeddings.from_rows(rows[1:])), approximate, lambda: None)
