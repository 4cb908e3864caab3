"""The axis learnt from queries: its bound holds for every row, it rules more rows out, and it is learnt once and only where it helps."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mcp_server.indexes import projections as projections_module
from mcp_server.indexes import side_vectors
from mcp_server.indexes.codes import CodingStoppedError
from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.exact import ExactIndex
from mcp_server.indexes.masks import Allowed
from mcp_server.indexes.planner import Costs
from mcp_server.indexes.projections import Projections
from mcp_server.indexes.query_axis import QUERIES, Lesson, with_axis, write_axis
from mcp_server.indexes.scoring import unit_query
from mcp_server.indexes.side_vectors import CODED_FROM, SideVectors
from mcp_server.indexes.sweeps import CodeSweep
from mcp_server.side_files import SideFiles
from tests.contracts.index_contract import assert_exact, unit
from tests.indexes.test_side_vectors import names, stored
from tests.indexes.test_sweeps import assert_bounded, codes_of, decaying, true_cosines

WIDTH = 128


def texts(seed: int, count: int) -> NDArray[np.float32]:
    """Unit vectors with much in common that rows of `decaying` hardly differ in, and a little of what rows are like."""
    own = np.random.default_rng(seed).standard_normal((count, WIDTH)) / 3
    return unit(common() + 0.7 * decaying(seed, count, WIDTH) + own / np.sqrt(WIDTH))


def common() -> NDArray[np.float32]:
    """The direction of all texts: away from what tells rows apart."""
    basis = np.linalg.qr(np.random.default_rng(1).standard_normal((WIDTH, WIDTH)))[0]
    return basis[-20:].mean(axis=0) * np.float32(np.sqrt(20))


def pictures(count: int = 3000) -> NDArray[np.float16]:
    """Unit vectors that do have a part of their own in the direction of texts."""
    return unit(decaying(30, count, WIDTH) + np.random.default_rng(7).standard_normal((count, 1)) * 0.005 * common()).astype(np.float16)


def axis_added(embeddings: Embeddings, folder: Path, projections: Projections, direction: NDArray[np.float64]) -> Projections:
    side = SideFiles(folder)
    with side.writing("axis", {}) as draft:
        write_axis(embeddings, projections, direction, draft)
    found = side.read("axis", {})
    assert found is not None
    return with_axis(projections, found)


def beside(projections: Projections, query: NDArray[np.float32]) -> NDArray[np.float64]:
    unit64 = unit_query(query, WIDTH)
    found = projections.beside(unit64, projections.coordinates(unit64))
    axes = projections.axes.astype(np.float64)
    assert np.abs(axes @ found).max() < 1e-5
    assert np.allclose(found + axes.T @ (axes @ unit64), unit64, atol=1e-5)
    return found


def projections_of(embeddings: Embeddings, folder: Path) -> Projections:
    found = codes_of(embeddings, folder).projections
    assert found is not None
    return found


@pytest.mark.parametrize("kind", ["of texts", "any", "nearly an axis", "between two rows"])
def test_the_bound_holds_with_one_axis_more(tmp_path: Path, kind: str) -> None:
    rows = pictures()
    strange = unit(np.random.default_rng(3).standard_normal((120, WIDTH)))
    rows[10::25] = strange  # in more directions than there are axes
    rows[::50] *= np.float16(3)
    rows[::70] = 0
    embeddings = Embeddings.from_rows(rows)
    plain = projections_of(embeddings, tmp_path / "codes")
    direction = {
        "of texts": common(),
        "any": np.random.default_rng(8).standard_normal(WIDTH),
        "nearly an axis": plain.axes[3] + 1e-3 * np.random.default_rng(9).standard_normal(WIDTH),
        "between two rows": beside(plain, strange[0]) + beside(plain, strange[1]),
    }[kind].astype(np.float64)
    both = axis_added(embeddings, tmp_path / "axis", plain, direction)
    assert both.direction is not None
    assert np.abs(plain.axes @ both.direction).max() < 1e-6
    assert 0 < both.skew < 1e-5
    usable = np.flatnonzero(~embeddings.unusable)
    sweep, skip = CodeSweep(both), embeddings.unusable
    odd = unit(np.random.default_rng(4).standard_normal((3, WIDTH)))
    for query in (*texts(5, 3), *-texts(5, 2), *odd, rows[25].astype(np.float32), both.direction.astype(np.float32), *strange[:3]):
        coded, true = sweep.query(unit_query(query, WIDTH)), true_cosines(rows[usable], query)
        assert_bounded(sweep.gathered(coded, usable), both.table, coded, usable, true)
        scanned = sweep.scanned(coded, skip, Allowed(skip).occupied)
        values = scanned.offset + scanned.factor * scanned.values[usable].astype(np.float64) + scanned.slack
        assert np.all(true <= values)


def test_what_texts_have_in_common_rules_out_more_rows(tmp_path: Path) -> None:
    embeddings = Embeddings.from_rows(pictures())
    plain = projections_of(embeddings, tmp_path / "codes")
    both = axis_added(embeddings, tmp_path / "axis", plain, common().astype(np.float64))
    everything = np.arange(embeddings.size)
    for query in texts(5, 4):
        floor = float(np.sort(true_cosines(embeddings.rows, query))[-10])
        left: list[int] = []
        for projections in (plain, both):
            sweep = CodeSweep(projections)
            left.append(len(sweep.gathered(sweep.query(unit_query(query, WIDTH)), everything).contenders(floor)))
        assert left[1] < left[0] / 2


def heard(lesson: Lesson, queries: NDArray[np.float32]) -> list[NDArray[np.float64]]:
    found = [lesson.hear(unit_query(query, WIDTH)) for query in queries]
    return [direction for direction in found if direction is not None]


def test_a_lesson_ends_with_the_common_direction_of_enough_different_queries(tmp_path: Path) -> None:
    projections = projections_of(Embeddings.from_rows(pictures()), tmp_path)
    lesson = Lesson(projections)
    asked = texts(1, QUERIES)
    assert heard(lesson, np.repeat(asked[:1], 30, axis=0)) == []
    assert heard(lesson, pictures(40).astype(np.float32)) == []
    (direction,) = heard(lesson, asked)
    wanted = beside(projections, texts(2, 500).mean(axis=0))
    assert direction @ wanted / np.linalg.norm(wanted) > 0.95
    assert np.linalg.norm(direction) == pytest.approx(1)
    assert heard(lesson, texts(3, 40)) == []


def test_a_lesson_ends_when_only_pictures_are_asked_for(tmp_path: Path) -> None:
    lesson = Lesson(projections_of(Embeddings.from_rows(pictures()), tmp_path))
    assert heard(lesson, pictures(1_000).astype(np.float32)) == []
    assert heard(lesson, texts(3, 40)) == []


def test_queries_with_nothing_in_common_teach_nothing(tmp_path: Path) -> None:
    lesson = Lesson(projections_of(Embeddings.from_rows(pictures()), tmp_path))
    assert heard(lesson, unit(np.random.default_rng(1).standard_normal((40, WIDTH)))) == []
    assert heard(lesson, texts(3, 40)) == []


def test_an_axis_that_is_not_wanted_any_more_leaves_nothing(tmp_path: Path) -> None:
    embeddings = Embeddings.from_rows(pictures())
    projections = projections_of(embeddings, tmp_path / "codes")
    side, asked = SideFiles(tmp_path / "axis"), iter([True, False])
    with pytest.raises(CodingStoppedError), side.writing("axis", {}) as draft:
        write_axis(embeddings, projections, texts(1, 1)[0].astype(np.float64), draft, lambda: next(asked))
    assert list((tmp_path / "axis").iterdir()) == []


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return stored(tmp_path / "e.zip", pictures(CODED_FROM + 5))


def opened(file: Path, folder: Path) -> tuple[ExactIndex, SideVectors]:
    vectors = SideVectors(SideFiles(folder), file)
    index = vectors.index(vectors.open(), None)
    vectors.complete()
    return index, vectors


def ask_all(index: ExactIndex, queries: NDArray[np.float32]) -> None:
    for query in queries:
        index.search(query, 10, np.zeros(index.size, bool))


def test_an_index_learns_from_its_searches_once_and_keeps_what_it_learnt(file: Path, tmp_path: Path) -> None:
    side = tmp_path / "side"
    index, vectors = opened(file, side)
    assert names(side) == ["codes", "costs", "rows"]
    ask_all(index, texts(1, QUERIES + 5))
    vectors.complete()
    assert names(side) == ["axis", "codes", "costs", "rows"]
    written = {path: path.stat().st_mtime_ns for path in side.rglob("*.npy")}
    again, vectors = opened(file, side)
    for one in (index, again):
        rows = np.asarray(one.embeddings.rows)
        for query in (*texts(9, 3), *decaying(31, 2, WIDTH)):
            assert_exact(one, rows, np.arange(len(rows)), query, k=50, skip=np.arange(len(rows)) % 3 == 0)
    ask_all(again, texts(2, QUERIES + 5))
    vectors.complete()
    assert {path: path.stat().st_mtime_ns for path in side.rglob("*.npy")} == written


def test_pages_are_mapped_in_of_what_is_searched_with_the_axis_too(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mapped: list[NDArray] = []
    monkeypatch.setattr(SideVectors, "_prefault", lambda _, arrays: mapped.extend(arrays))
    index, vectors = opened(file, tmp_path / "side")
    ask_all(index, texts(1, QUERIES + 5))
    vectors.complete()
    again, _ = opened(file, tmp_path / "side")
    for one in (index, again):
        coded = one._coded  # pyright: ignore[reportPrivateUsage]
        assert coded is not None
        assert coded.projections is not None
        table = coded.projections._table  # pyright: ignore[reportPrivateUsage]
        assert table.along is not None
        for used in (table.along, table.margin, table.codes):
            assert any(array is used for array in mapped)


def test_an_axis_of_other_axes_is_not_taken(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    side = tmp_path / "side"
    index, vectors = opened(file, side)
    ask_all(index, texts(1, QUERIES))
    vectors.complete()
    (codes,) = (path for path in side.iterdir() if path.is_dir() and path.name.startswith("codes"))
    shutil.rmtree(codes)
    # as another library for linear algebra might find them: the same format, the same rows, other axes
    monkeypatch.setattr(projections_module, "random_orthogonal", np.eye)
    again, _ = opened(file, side)
    coded = again._coded  # pyright: ignore[reportPrivateUsage]
    assert coded is not None
    assert coded.heard is not None, "there is no axis yet, so it listens"


def test_searches_are_answered_while_an_axis_is_made(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, vectors = opened(file, tmp_path / "side")
    may_go_on, begun = threading.Event(), threading.Event()

    def slowly(embeddings: Embeddings, *given: object) -> None:
        begun.set()
        assert may_go_on.wait(20)
        write_axis(embeddings, *given)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(side_vectors, "write_axis", slowly)
    ask_all(index, texts(1, QUERIES))
    assert begun.wait(20)
    rows = np.asarray(index.embeddings.rows)
    assert_exact(index, rows, np.arange(len(rows)), texts(3, 1)[0], k=20, skip=np.zeros(len(rows), bool))
    may_go_on.set()
    vectors.complete()
    assert "axis" in names(tmp_path / "side")


@pytest.mark.parametrize("failure", [OSError("the disk is full"), CodingStoppedError()])
def test_an_axis_that_cannot_be_made_only_costs_speed(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    def fail(*_: object) -> None:
        raise failure

    index, vectors = opened(file, tmp_path / "side")
    monkeypatch.setattr(side_vectors, "write_axis", fail)
    ask_all(index, texts(1, 2 * QUERIES))
    vectors.complete()
    assert names(tmp_path / "side") == ["codes", "costs", "rows"]
    rows = np.asarray(index.embeddings.rows)
    assert_exact(index, rows, np.arange(len(rows)), texts(3, 1)[0], k=20, skip=np.zeros(len(rows), bool))


@pytest.mark.parametrize("with_an_axis", [False, True])
def test_a_query_of_which_projections_know_nothing_at_all_is_answered_exactly(tmp_path: Path, with_an_axis: bool) -> None:
    """It lies on a coordinate that is zero in every row from which the axes are found: its code is zero."""
    size, last = 20_000, WIDTH - 1
    rows = decaying(30, size, WIDTH)
    rows[:, last] = 0
    sampled = np.zeros(size, bool)
    sampled[np.linspace(0, size - 1, projections_module._SAMPLE).astype(np.int64)] = True  # pyright: ignore[reportPrivateUsage]
    others = np.flatnonzero(~sampled)[:1_000].reshape(-1, 2)
    rows[others[:, 1]] = rows[others[:, 0]]  # in pairs, so that the mean is zero there
    rows[others] += np.array([[0.25], [-0.25]], np.float32) * np.eye(WIDTH, dtype=np.float32)[last]
    rows[others[0]] = np.array([[1], [-1]], np.float32) * np.eye(WIDTH, dtype=np.float32)[last]
    rows = unit(rows)
    embeddings, ties = Embeddings.from_rows(rows), np.arange(size)
    codes = codes_of(embeddings, tmp_path)
    assert codes.projections is not None
    query = -np.eye(WIDTH, dtype=np.float32)[last]
    assert codes.projections.query(unit_query(query, WIDTH)).factor < 1e-12
    if with_an_axis:
        codes = replace(codes, projections=axis_added(embeddings, tmp_path / "axis", codes.projections, -query.astype(np.float64)))
    index = ExactIndex(embeddings, ties)
    index.adopt(codes, Costs())
    few = np.ones(size, bool)
    few[others[1:, 0]] = False
    best = np.zeros(size, bool)
    best[others[0, 1]] = True
    for skip in (few, best):
        for k in (1, 5):
            assert_exact(index, rows, ties, query, k=k, skip=skip)
            expected = index.search_by("gather rows", query, k, skip).rows.tolist()
            for way in ("gather projections", "scan projections", "gather codes", "scan codes"):
                assert index.search_by(way, query, k, skip).rows.tolist() == expected
