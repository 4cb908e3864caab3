"""Building FAISS files: they fit, they appear whole or not at all, and the report tells the truth about them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from zarr.storage import ZipStore

from mcp_server.errors import CollectionError, IndexMismatchError
from mcp_server.indexes.base import Index
from mcp_server.indexes.building import INDEX_KINDS, BuildOptions, IndexKind, build_index, lists_for
from mcp_server.indexes.embeddings import Embeddings, load_embeddings
from mcp_server.indexes.exact import ExactIndex
from mcp_server.indexes.faiss_index import FaissIndex
from mcp_server.indexes.fingerprints import fingerprint_of, note_file
from mcp_server.indexes.hybrid import HybridIndex
from mcp_server.indexes.measuring import check_index_file
from mcp_server.indexes.opening import check_index, open_index, open_index_or_exact
from tests.contracts.index_contract import FullAnswers, clustered, unit, with_flaws
from tests.indexes.faiss_files import trusted

UNMEASURED = BuildOptions(queries=0)


def write_rows(rows: NDArray, file: Path, chunk: int = 200) -> Path:
    file.unlink(missing_ok=True)
    with closing(ZipStore(file, mode="w")) as store:
        zarr.create_array(store, data=rows, chunks=(min(chunk, len(rows)), rows.shape[1]))
    return file


@pytest.fixture
def embeddings_file(tmp_path: Path) -> Path:
    return write_rows(with_flaws(clustered(4, 1500)), tmp_path / "embeddings.zarr.zip")


class Built(FullAnswers):
    """The index contract, held by what `build_index` writes."""

    kind: IndexKind = "flat"
    effort: ClassVar[dict[str, int]] = {}

    @classmethod
    def opened(cls, rows: NDArray, ties: NDArray[np.int64], folder: Path) -> Index:
        source = write_rows(rows, folder / "embeddings.zarr.zip")
        build_index(source, folder / "index.faiss", cls.kind, UNMEASURED)
        embeddings = Embeddings.from_rows(rows)
        approximate = FaissIndex(folder / "index.faiss", embeddings, ties, **cls.effort)
        return HybridIndex(ExactIndex(embeddings, ties), approximate, trusted(approximate), exact_below=0)


class TestFlat(Built):
    kind = "flat"
    recall = 1.0


class TestSq8(Built):
    kind = "sq8"
    recall = 1.0


class TestIvf(Built):
    kind = "ivf"
    recall = 0.99


class TestIvfSq8(Built):
    kind = "ivf_sq8"
    recall = 0.99


class TestHnsw(Built):
    """With a queue long enough for the many copies in the rows, which split the graph."""

    kind = "hnsw"
    effort: ClassVar[dict[str, int]] = {"ef_search": 1500}
    recall = 0.95


class TestHnswSq8(TestHnsw):
    kind = "hnsw_sq8"


@pytest.mark.parametrize("kind", INDEX_KINDS)
def test_each_kind_is_found_again_row_for_row_and_reported(embeddings_file: Path, tmp_path: Path, kind: IndexKind) -> None:
    steps: list[tuple[str, int, int]] = []
    target = tmp_path / "new folder" / "ïndex.faiss"
    report = build_index(embeddings_file, target, kind, progress=lambda *step: steps.append(step))
    assert (report.rows, report.width, report.unusable, report.kind) == (1500, 16, 3, kind)
    assert report.bytes == target.stat().st_size
    assert sorted(file.name for file in target.parent.iterdir()) == ["ïndex.faiss", "ïndex.faiss.json"]
    assert [total for step, done, total in steps if done == total and step in ("add", "write", "measure")][:2] == [1500, 1]
    assert steps[-1][0] == "measure"
    assert steps[-1][1] == steps[-1][2]
    embeddings = load_embeddings(embeddings_file)
    index = open_index("faiss", embeddings, target, None, embeddings_file)
    assert not [finding for finding in check_index(index, embeddings) if "sampled" in finding]
    assert report.measured is not None
    assert list(dict.fromkeys(trial.share for trial in report.measured.trials)) == [1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01]
    plain = report.measured.trials[0]
    assert plain.allowed == 1497
    assert min(plain.recall_at_10, plain.recall_at_100) > (0.9 if "hnsw" not in kind else 0.5)
    assert min(plain.faiss_ms, plain.exact_ms) > 0
    assert not any(report.measured.is_used(trial) for trial in report.measured.trials)
    assert "Keep IndexType = zarr" in report.suggestion
    assert "200 sampled rows" in report.measured.queries


@pytest.mark.parametrize("kind", INDEX_KINDS)
def test_the_same_embeddings_and_seed_give_the_same_file(embeddings_file: Path, tmp_path: Path, kind: IndexKind) -> None:
    script = "import sys; from pathlib import Path; from mcp_server.indexes.building import *; build_index(Path(sys.argv[1]), "
    script += "Path(sys.argv[2]), sys.argv[3], BuildOptions(queries=0, seed=int(sys.argv[4])))"
    files = []
    for number, seed in enumerate(("3", "3")):
        target = tmp_path / f"{number}.faiss"
        subprocess.run(
            [sys.executable, "-c", script, str(embeddings_file), str(target), kind, seed],
            check=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            timeout=120,
        )
        files.append(target.read_bytes())
    assert files[0] == files[1]


def test_how_the_embeddings_are_cut_into_chunks_does_not_matter(tmp_path: Path) -> None:
    rows = with_flaws(clustered(4, 1500)).astype(np.float16)
    files = []
    for chunk in (1500, 64):
        source = write_rows(rows, tmp_path / f"{chunk}.zarr.zip", chunk)
        build_index(source, tmp_path / f"{chunk}.faiss", "ivf_sq8", UNMEASURED)
        files.append((tmp_path / f"{chunk}.faiss").read_bytes())
    assert files[0] == files[1]


def test_parameters_follow_the_number_of_rows_unless_given(embeddings_file: Path, tmp_path: Path) -> None:
    assert [lists_for(rows) for rows in (1, 39, 1500, 10_000, 1_000_000)] == [1, 1, 38, 256, 4000]
    target = tmp_path / "index.faiss"
    assert build_index(embeddings_file, target, "ivf", UNMEASURED).parameters == {"nlist": 38, "nprobe": 38}
    given = BuildOptions(nlist=10, nprobe=5, queries=0)
    assert build_index(embeddings_file, target, "ivf_sq8", given).parameters == {"nlist": 10, "nprobe": 5}
    graph = BuildOptions(links=8, ef_construction=40, ef_search=77, queries=0)
    assert build_index(embeddings_file, target, "hnsw", graph).parameters == {"links": 8, "ef_construction": 40, "ef_search": 77}
    for wrong in ({"nlist": 0}, {"links": 1}, {"queries": -1}, {"seed": -1}, {"seed": 2**31}):
        with pytest.raises(ValueError, match="at least"):
            BuildOptions(**wrong)
    with pytest.raises(ValueError, match="kind must be one of flat, sq8"):
        build_index(embeddings_file, target, "lsh")  # pyright: ignore[reportArgumentType]


def test_a_failure_leaves_the_file_that_was_there(embeddings_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "index.faiss"
    build_index(embeddings_file, target, "flat", UNMEASURED)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    nothing = write_rows(np.zeros((50, 16), np.float32), tmp_path / "nothing.zarr.zip")
    for kind in INDEX_KINDS:
        with pytest.raises(CollectionError, match=r"(nothing|too little) to index"):
            build_index(nothing, target, kind)
    with pytest.raises(CollectionError, match="not found"):
        build_index(tmp_path / "none", target, "flat")
    (tmp_path / "torn.zarr.zip").write_bytes(embeddings_file.read_bytes()[:3000])
    with pytest.raises(CollectionError):
        build_index(tmp_path / "torn.zarr.zip", target, "flat")
    (tmp_path / "file").touch()
    with pytest.raises(CollectionError, match="cannot be written"):
        build_index(embeddings_file, tmp_path / "file" / "index.faiss", "flat", UNMEASURED)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert not list(tmp_path.glob("*.building"))


def test_a_build_that_is_killed_leaves_the_file_that_was_there(embeddings_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "index.faiss"
    build_index(embeddings_file, target, "flat", UNMEASURED)
    before = target.read_bytes()
    script = """
import os, signal, sys
from pathlib import Path
from mcp_server.indexes.building import BuildOptions, build_index
def progress(step, done, total):
    if step == "write" and done == 0:
        os.kill(os.getpid(), signal.SIGKILL)
build_index(Path(sys.argv[1]), Path(sys.argv[2]), "ivf", BuildOptions(queries=0), progress)
"""
    if not hasattr(signal, "SIGKILL"):
        pytest.skip("needs SIGKILL")
    killed = subprocess.run([sys.executable, "-c", script, str(embeddings_file), str(target)], check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert target.read_bytes() == before


def test_what_a_killed_build_left_is_removed_by_a_later_one(embeddings_file: Path, tmp_path: Path) -> None:
    old, fresh = tmp_path / "index.faiss.1.building", tmp_path / "index.faiss.2.building"
    old.touch()
    fresh.touch()
    os.utime(old, (0, 0))
    build_index(embeddings_file, tmp_path / "index.faiss", "flat", UNMEASURED)
    assert [old.exists(), fresh.exists()] == [False, True]


def test_embeddings_replaced_during_a_build_are_noticed(embeddings_file: Path, tmp_path: Path) -> None:
    def progress(step: str, done: int, total: int) -> None:
        if step == "add" and done == total:
            write_rows(clustered(5, 1500), tmp_path / "new").replace(embeddings_file)

    with pytest.raises(CollectionError, match="replaced while"):
        build_index(embeddings_file, tmp_path / "index.faiss", "flat", UNMEASURED, progress)
    assert not (tmp_path / "index.faiss").exists()


def test_a_file_built_from_an_earlier_version_of_as_many_rows_is_not_used(embeddings_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "index.faiss"
    build_index(embeddings_file, target, "ivf", UNMEASURED)
    rows = with_flaws(clustered(4, 1500))
    rows[700] = unit(np.ones(16))
    write_rows(rows, embeddings_file)
    embeddings = load_embeddings(embeddings_file)
    with pytest.raises(IndexMismatchError, match="another version"):
        open_index("faiss", embeddings, target, None, embeddings_file)
    assert isinstance(open_index_or_exact("faiss", ExactIndex(embeddings), embeddings, target, None, embeddings_file), ExactIndex)
    check = check_index_file(embeddings_file, target)
    assert check.of_these_embeddings is False
    assert check.problem is not None
    assert "index build" in check.problem
    note_file(target).unlink()  # as beside a file of another maker
    assert isinstance(open_index_or_exact("faiss", ExactIndex(embeddings), embeddings, target, None, embeddings_file), HybridIndex)


def test_a_note_left_beside_another_file_does_not_count(embeddings_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "index.faiss"
    build_index(embeddings_file, target, "flat", UNMEASURED)
    foreign = build_index(write_rows(clustered(9, 900), tmp_path / "other.zarr.zip"), tmp_path / "o.faiss", "ivf", UNMEASURED).file
    foreign.replace(target)
    assert check_index_file(embeddings_file, target).of_these_embeddings is None


def test_the_fingerprint_tells_contents_apart_and_nothing_else(tmp_path: Path) -> None:
    rows = clustered(2, 300)
    one, other = write_rows(rows, tmp_path / "a.zip"), write_rows(rows, tmp_path / "b.zip")
    assert fingerprint_of(one) == fingerprint_of(other)
    rows[299, 15] += 0.1
    assert fingerprint_of(write_rows(rows, tmp_path / "b.zip")) != fingerprint_of(one)
    zarr.create_array(str(tmp_path / "folder"), data=rows)
    first = fingerprint_of(tmp_path / "folder")
    assert first == fingerprint_of(tmp_path / "folder")
    (tmp_path / "folder" / "more").touch()
    assert fingerprint_of(tmp_path / "folder") != first
    with pytest.raises(CollectionError):
        fingerprint_of(tmp_path / "none")


def test_a_check_tells_what_the_file_is_and_how_good(embeddings_file: Path, tmp_path: Path) -> None:
    target = tmp_path / "index.faiss"
    report = build_index(embeddings_file, target, "ivf", BuildOptions(seed=5, queries=40))
    check = check_index_file(embeddings_file, target, seed=5, queries=40)
    assert (check.type, check.rows, check.width, check.metric, check.problem) == ("IndexIVFFlat", 1500, 16, "inner product", None)
    assert check.of_these_embeddings is True
    assert check.seconds_behind <= 0
    assert check.measured is not None
    assert report.measured is not None
    recalls: list[Any] = [[(t.allowed, t.recall_at_10, t.recall_at_100) for t in one.measured.trials] for one in (check, report)]
    assert recalls[0] == recalls[1]


def test_a_check_says_why_a_file_is_of_no_use(embeddings_file: Path, tmp_path: Path) -> None:
    other = write_rows(clustered(4, 900), tmp_path / "other.zarr.zip")
    target = build_index(other, tmp_path / "index.faiss", "flat", UNMEASURED).file
    check = check_index_file(embeddings_file, target)
    assert "900 vectors" in (check.problem or "")
    (tmp_path / "torn.faiss").write_bytes(target.read_bytes()[:50])
    assert "cannot be read" in (check_index_file(embeddings_file, tmp_path / "torn.faiss").problem or "")
    with pytest.raises(CollectionError, match="no FAISS index"):
        check_index_file(embeddings_file, tmp_path / "none.faiss")
