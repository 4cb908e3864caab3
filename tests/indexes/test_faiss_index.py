"""FAISS files: what is refused when opening, and what a search never does to the shared index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mcp_server.errors import CollectionError, IndexMismatchError
from mcp_server.indexes import faiss_file
from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.exact import ExactIndex
from mcp_server.indexes.faiss_index import FaissIndex
from mcp_server.indexes.faiss_library import faiss_library
from mcp_server.indexes.hybrid import HybridIndex
from mcp_server.indexes.opening import check_index, open_index
from tests.contracts.index_contract import clustered
from tests.indexes.faiss_files import trusted, write_faiss, write_shuffled_ids

faiss: Any = faiss_library()

SIZE = 2000
NOTHING = np.zeros(SIZE, bool)


@pytest.fixture(scope="module")
def rows() -> NDArray[np.float32]:
    return clustered(21, SIZE)


@pytest.fixture(scope="module")
def embeddings(rows: NDArray) -> Embeddings:
    return Embeddings.from_rows(rows)


def core_of(index: FaissIndex) -> Any:
    return index._file.core  # the only way to see that a search leaves it alone


def test_nprobe_stays_as_it_was_however_narrow_the_filter(rows: NDArray, embeddings: Embeddings, tmp_path: Path) -> None:
    approximate = FaissIndex(write_faiss("IVF256,Flat", rows, tmp_path / "i"), embeddings)
    hybrid = HybridIndex(ExactIndex(embeddings), approximate, trusted(approximate), exact_below=0)
    before = faiss.serialize_index(core_of(approximate)).tobytes()
    for allowed in (1, 3, 100, 500):
        skip = np.ones(SIZE, bool)
        skip[:allowed] = False
        assert len(hybrid.search(rows[0], 10, skip).rows) == min(10, allowed)
        approximate.search(rows[0], 10, skip)
    assert core_of(approximate).nprobe == 1
    assert faiss.serialize_index(core_of(approximate)).tobytes() == before


def test_ef_search_stays_as_it_was_however_narrow_the_filter(rows: NDArray, embeddings: Embeddings, tmp_path: Path) -> None:
    approximate = FaissIndex(write_faiss("HNSW16", rows, tmp_path / "i"), embeddings)
    before = faiss.serialize_index(core_of(approximate)).tobytes()
    for allowed in (1, 3, 100, 500):
        skip = np.ones(SIZE, bool)
        skip[:allowed] = False
        approximate.search(rows[0], 10, skip)
    assert core_of(approximate).hnsw.efSearch == 16
    assert core_of(approximate).hnsw.search_bounded_queue
    assert faiss.serialize_index(core_of(approximate)).tobytes() == before


@pytest.mark.parametrize("recipe", ["IVF256,Flat", "HNSW8", "Flat", "IDMap,Flat", "PCA8,IVF64,Flat"])
def test_padding_never_leaves(recipe: str, rows: NDArray, embeddings: Embeddings, tmp_path: Path) -> None:
    index = FaissIndex(write_faiss(recipe, rows, tmp_path / "i"), embeddings, nprobe=1)
    for k in (1, 500, SIZE, SIZE + 5):
        found = index.search(rows[5], k, NOTHING)
        assert found.rows.min() >= 0
        assert len(found.rows) <= min(k, SIZE)
        assert found.scores.max() <= 1


def test_a_flat_file_with_three_allowed_rows_ends_with_those_three(rows: NDArray, embeddings: Embeddings, tmp_path: Path) -> None:
    skip = np.ones(SIZE, bool)
    skip[[4, 40, 400]] = False
    index = FaissIndex(write_faiss("IDMap,Flat", rows, tmp_path / "i"), embeddings)
    assert sorted(index.search(rows[0], 10, skip).rows.tolist()) == [4, 40, 400]


def test_a_short_approximate_answer_is_replaced_by_the_exact_one(rows: NDArray, embeddings: Embeddings, tmp_path: Path) -> None:
    """A quarter is allowed, but none of it near the query: the graph search comes back short."""
    approximate = FaissIndex(write_faiss("HNSW8", rows, tmp_path / "i"), embeddings)
    exact = ExactIndex(embeddings)
    scores = rows @ rows[0]
    skip = scores > np.quantile(scores, 0.25)
    assert len(approximate.search(rows[0], 100, skip).rows) < 100
    found = HybridIndex(exact, approximate, trusted(approximate), exact_below=0).search(rows[0], 100, skip)
    assert found.approximation is None
    assert found.rows.tolist() == exact.search(rows[0], 100, skip).rows.tolist()


def test_with_few_rows_everything_is_exact_and_with_many_it_says_it_is_not(rows: NDArray, embeddings: Embeddings, tmp_path: Path) -> None:
    approximate = FaissIndex(write_faiss("IVF64,Flat", rows, tmp_path / "i"), embeddings)
    exact = ExactIndex(embeddings)
    skip = np.arange(SIZE) >= 1000
    assert HybridIndex(exact, approximate, trusted(approximate), exact_below=1000).search(rows[0], 5, skip).approximation is None
    assert HybridIndex(exact, approximate, trusted(approximate), exact_below=999).search(rows[0], 5, skip).approximation == "ivf nprobe=64"


def test_the_files_own_effort_is_used_where_it_is_larger(rows: NDArray, embeddings: Embeddings, tmp_path: Path) -> None:
    index = faiss.index_factory(rows.shape[1], "IVF128,Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(rows)
    index.add(rows)
    index.nprobe = 100
    faiss.write_index(index, str(tmp_path / "ivf"))
    graph = faiss.IndexHNSWFlat(rows.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efSearch = 700
    graph.add(rows)
    faiss.write_index(graph, str(tmp_path / "hnsw"))
    assert FaissIndex(tmp_path / "ivf", embeddings).search(rows[0], 1, NOTHING).approximation == "ivf nprobe=100"
    assert FaissIndex(tmp_path / "hnsw", embeddings).search(rows[0], 1, NOTHING).approximation == "hnsw ef=700"


def test_the_queue_grows_with_the_rows_asked_for(rows: NDArray, embeddings: Embeddings, tmp_path: Path) -> None:
    index = FaissIndex(write_faiss("HNSW16", rows, tmp_path / "i"), embeddings)
    assert index.search(rows[0], 10, NOTHING).approximation == "hnsw ef=128"
    assert index.search(rows[0], 300, NOTHING).approximation == "hnsw ef=1200"


@pytest.mark.parametrize("arguments", [2, 3])
def test_a_type_that_cannot_leave_rows_out_is_not_searched_to_find_that_out(arguments: int) -> None:
    class Core:
        ntotal, d = 3, 2

        def get_InvertedListScanner(self, *given: object) -> None:  # noqa: N802 - as FAISS calls it
            raise RuntimeError("'!sel' failed") if len(given) == arguments else TypeError("of another version")

        def search(self, *_: object, **__: object) -> None:
            raise AssertionError("the process would have ended here")

    assert not faiss_file._takes_selectors(Core())


@pytest.mark.parametrize("recipe", ["PQ8x4fs", "IVF16,PQ8x4fs", "LSH", "IVF16,RQ2x4", "IVF16,ITQ16,SH1", "IVF16,PQ4+4"])
def test_a_type_that_takes_no_masks_says_so_and_is_answered_exactly(
    recipe: str, rows: NDArray, embeddings: Embeddings, tmp_path: Path
) -> None:
    file = write_faiss(recipe, rows, tmp_path / "i", faiss.METRIC_L2)
    approximate = FaissIndex(file, embeddings)
    assert not approximate.takes_masks
    assert "cannot leave rows out" in approximate.findings[0]
    with pytest.raises(IndexMismatchError, match="cannot leave rows out"):
        approximate.search(rows[0], 5, NOTHING)
    hybrid = HybridIndex(ExactIndex(embeddings), approximate, trusted(approximate), exact_below=0)
    assert hybrid.search(rows[0], 1, NOTHING).rows.tolist() == [0]
    assert check_index(hybrid, embeddings) == approximate.findings


@pytest.mark.parametrize("recipe", ["IVF16,Flat", "HNSW32", "PCAR16,IVF16,Flat"])
def test_a_file_that_fits_has_nothing_to_report(recipe: str, rows: NDArray, embeddings: Embeddings, tmp_path: Path) -> None:
    index = open_index("faiss", embeddings, write_faiss(recipe, rows, tmp_path / "i"))
    assert check_index(index, embeddings) == []


def test_ids_in_another_order_find_the_same_rows(rows: NDArray, embeddings: Embeddings, tmp_path: Path) -> None:
    plain = FaissIndex(write_faiss("Flat", rows, tmp_path / "a"), embeddings)
    shuffled = FaissIndex(write_shuffled_ids("RR16,Flat", rows, tmp_path / "b"), embeddings)
    skip = np.random.default_rng(1).random(SIZE) < 0.5
    for query in clustered(22, 5):
        assert shuffled.search(query, 20, skip).rows.tolist() == plain.search(query, 20, skip).rows.tolist()


def test_ids_kept_inside_an_ivf_index_are_followed(rows: NDArray, embeddings: Embeddings, tmp_path: Path) -> None:
    order = np.random.default_rng(2).permutation(SIZE)
    core = faiss.index_factory(rows.shape[1], "IVF16,Flat", faiss.METRIC_INNER_PRODUCT)
    core.train(rows)
    core.add_with_ids(rows[order], order)
    faiss.write_index(core, str(tmp_path / "i"))
    index = FaissIndex(tmp_path / "i", embeddings)
    assert [index.search(rows[row], 1, NOTHING).rows[0] for row in (0, 7, 1999)] == [0, 7, 1999]


@pytest.mark.parametrize("recipe", ["IDMap,Flat", "IDMap,IVF16,Flat", "IVF16,Flat"])
@pytest.mark.parametrize("ids", ["media ids", "one twice"])
def test_ids_that_are_not_the_row_positions_are_refused(
    recipe: str, ids: str, rows: NDArray, embeddings: Embeddings, tmp_path: Path
) -> None:
    numbers = np.arange(SIZE) + 1000 if ids == "media ids" else np.maximum(np.arange(SIZE), 1)
    index = faiss.index_factory(rows.shape[1], recipe, faiss.METRIC_INNER_PRODUCT)
    index.train(rows)
    index.add_with_ids(rows, numbers)
    faiss.write_index(index, str(tmp_path / "i"))
    with pytest.raises(IndexMismatchError, match=r"they must be the row positions 0\.\.1999, each once"):
        FaissIndex(tmp_path / "i", embeddings)


@pytest.mark.parametrize("recipe", ["Flat", "PCA8,Flat", "IDMap,Flat"])
def test_a_file_of_another_width_or_count_is_refused_with_all_the_numbers(
    recipe: str, rows: NDArray, embeddings: Embeddings, tmp_path: Path
) -> None:
    wider = write_faiss(recipe, clustered(1, SIZE, 24), tmp_path / "wider")
    fewer = write_faiss(recipe, rows[:1999], tmp_path / "fewer")
    with pytest.raises(IndexMismatchError, match="2000 vectors 24 wide; the embeddings hold 2000 rows 16 wide"):
        FaissIndex(wider, embeddings)
    with pytest.raises(IndexMismatchError, match="1999 vectors 16 wide; the embeddings hold 2000 rows 16 wide"):
        FaissIndex(fewer, embeddings)


def test_a_file_of_another_metric_is_refused(rows: NDArray, embeddings: Embeddings, tmp_path: Path) -> None:
    with pytest.raises(IndexMismatchError, match="use inner product, or L2"):
        FaissIndex(write_faiss("Flat", rows, tmp_path / "i", faiss.METRIC_L1), embeddings)


@pytest.mark.parametrize("content", [b"", b"IxFI", b"not an index at all" * 50])
def test_a_damaged_file_is_refused_in_a_sentence(content: bytes, embeddings: Embeddings, tmp_path: Path) -> None:
    (tmp_path / "i").write_bytes(content)
    with pytest.raises(CollectionError, match="cannot be read"):
        FaissIndex(tmp_path / "i", embeddings)


def test_a_file_cut_short_is_refused_in_a_sentence(rows: NDArray, embeddings: Embeddings, tmp_path: Path) -> None:
    whole = write_faiss("IVF16,Flat", rows, tmp_path / "i").read_bytes()
    (tmp_path / "i").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CollectionError, match="cannot be read"):
        FaissIndex(tmp_path / "i", embeddings)


def test_a_missing_or_unnamed_file_is_refused(embeddings: Embeddings, tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match="FAISS index not found"):
        open_index("faiss", embeddings, tmp_path / "none")
    with pytest.raises(CollectionError, match="needs CLIPIndexFile"):
        open_index("faiss", embeddings)


def test_doctor_hears_that_a_file_was_built_from_other_embeddings(rows: NDArray, embeddings: Embeddings, tmp_path: Path) -> None:
    index = open_index("faiss", embeddings, write_faiss("IVF16,Flat", rows[::-1].copy(), tmp_path / "i"))
    (finding,) = check_index(index, embeddings)
    assert finding.startswith("Only ")
    assert "of 50 sampled embeddings are found again" in finding


def test_doctor_hears_what_else_may_be_why_rows_are_not_found_again(rows: NDArray, embeddings: Embeddings, tmp_path: Path) -> None:
    lengths = np.exp(np.random.default_rng(8).standard_normal(SIZE)).astype(np.float32)
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows * lengths[:, None])
    faiss.write_index(index, str(tmp_path / "i"))
    longer = Embeddings.from_rows(rows * lengths[:, None])
    assert "or without giving them unit length" in check_index(open_index("faiss", longer, tmp_path / "i"), longer)[-1]
    (finding,) = check_index(open_index("faiss", embeddings, write_faiss("IVF16,PQ1x4", rows, tmp_path / "i")), embeddings)
    assert "or its codes are too coarse" in finding
    assert "unit length" not in finding


def test_doctor_hears_of_unusable_and_non_unit_rows_and_of_a_flat_file(rows: NDArray, tmp_path: Path) -> None:
    flawed = rows * 2
    flawed[[3, 9]] = 0
    embeddings = Embeddings.from_rows(flawed)
    unusable, lengths, flat = check_index(open_index("faiss", embeddings, write_faiss("Flat", flawed, tmp_path / "i")), embeddings)
    assert unusable.startswith("2 of 2000 embeddings are not finite or have no length and are never returned (rows 3, 9).")
    assert "not of unit length (2 to 2)" in lengths
    assert "is an IndexFlat" in flat
    assert "no faster than the embeddings" in flat


@pytest.mark.parametrize("recipe", ["Flat", "HNSW16", "IDMap,Flat"])
@pytest.mark.parametrize("size", [0, 1, 2])
def test_tiny_collections_work(recipe: str, size: int, tmp_path: Path) -> None:
    rows = clustered(3, size)
    embeddings = Embeddings.from_rows(rows)
    index = FaissIndex(write_faiss(recipe, rows, tmp_path / "i"), embeddings)
    hybrid = HybridIndex(ExactIndex(embeddings), index, trusted(index), exact_below=0)
    for tried in (index, hybrid):
        assert len(tried.search(clustered(4, 1)[0], 5, np.zeros(size, bool)).rows) == size
    assert "sampled" not in " ".join(check_index(hybrid, embeddings))


def test_the_best_hidden_score_is_exact(rows: NDArray, embeddings: Embeddings, tmp_path: Path) -> None:
    hybrid = open_index("faiss", embeddings, write_faiss("IVF16,Flat", rows, tmp_path / "i"))
    assert hybrid.best_score(rows[7], np.array([7, 8])) == pytest.approx(1)
