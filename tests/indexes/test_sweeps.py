"""Estimates are never off by more than they say, by any way, type, length and width; and what they leave in the running is enough."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mcp_server.indexes.code_table import CodedQuery, CodeTable
from mcp_server.indexes.codes import Codes, CodingStoppedError, write_codes
from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.estimates import BLOCK, SKIPPED, Estimates, peaks_of
from mcp_server.indexes.exact import ExactIndex
from mcp_server.indexes.masks import Allowed
from mcp_server.indexes.planner import Costs, Way
from mcp_server.indexes.rotation import Rotation
from mcp_server.indexes.scoring import unit_query
from mcp_server.indexes.sweeps import CodeSweep, RowSweep
from mcp_server.side_files import SideFiles
from tests.contracts.index_contract import anti_correlated, assert_exact, clustered, unit

WAYS: tuple[Way, ...] = get_args(Way)


def codes_of(embeddings: Embeddings, folder: Path) -> Codes:
    side = SideFiles(folder)
    with side.writing("codes", {}) as draft:
        write_codes(embeddings, draft)
    found = side.read("codes", {})
    assert found is not None
    return Codes.of(found)


def estimates(found: Estimates) -> NDArray[np.float64]:
    return found.offset + found.factor * found.values[:3000].astype(np.float64)


def assert_bounded(found: Estimates, table: CodeTable, query: CodedQuery, rows: NDArray[np.int64], true: NDArray[np.float64]) -> None:
    """No cosine is above what was found, and none further below than the margins explain."""
    upper, off = estimates(found) + found.slack, query.margin_factor * table.margin[rows].astype(np.float64)
    assert not found.both_ways
    assert np.all(true <= upper)
    assert np.all(upper - true <= 2 * (off + found.slack) + 1e-6)


def decaying(seed: int, size: int, width: int) -> NDArray[np.float32]:
    """Unit vectors that differ in few directions, as a model's do, and lie around a common mean."""
    random = np.random.default_rng(seed)
    basis = np.linalg.qr(np.random.default_rng(1).standard_normal((width, width)))[0]
    strengths = 1 / (1 + np.arange(width))
    return unit(basis[1] + random.standard_normal((size, width)) * strengths @ basis + 0.002 * random.standard_normal((size, width)))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("width", [128, 320])
def test_a_projection_is_never_off_by_more_than_it_says_and_tells_most_rows_apart(tmp_path: Path, dtype: type, width: int) -> None:
    rows = (decaying(30, 3000, width) * np.random.default_rng(2).uniform(0.5, 2, (3000, 1))).astype(dtype)
    rows[::25] = unit(np.random.default_rng(3).standard_normal((120, width)))  # nothing like the others: much of them is beside the axes
    embeddings = Embeddings.from_rows(rows)
    projections = codes_of(embeddings, tmp_path).projections
    assert projections is not None
    count = len(projections.axes)
    assert count % 64 == 0
    assert count <= width // 2
    assert 0 < projections.skew < 1e-5
    margin = projections.table.margin
    assert np.median(margin) < 0.2
    assert margin[::25].min() > 2 * np.median(margin)
    everything, none = np.arange(3000), np.zeros(3000, bool)
    sweep = CodeSweep(projections)
    odd = unit(np.random.default_rng(4).standard_normal((2, width)))
    for query in (*decaying(31, 3, width), *odd, rows[25].astype(np.float32), -rows[9].astype(np.float32)):
        coded, true = sweep.query(unit_query(query, width)), true_cosines(rows, query)
        assert coded.slack < 0.03
        for found in (sweep.gathered(coded, everything), sweep.scanned(coded, none, Allowed(none).occupied)):
            assert_bounded(found, projections.table, coded, everything, true)
    like = sweep.gathered(sweep.query(unit_query(decaying(31, 1, width)[0], width)), everything)
    assert len(like.contenders(float(np.sort(true_cosines(rows, decaying(31, 1, width)[0]))[-10]))) < 1500


def test_rows_that_differ_in_every_direction_and_rows_too_few_to_tell_have_no_projections(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    assert codes_of(Embeddings.from_rows(unit(random.standard_normal((3000, 256)))), tmp_path / "a").projections is None
    assert codes_of(Embeddings.from_rows(decaying(6, 100, 128)), tmp_path / "b").projections is None
    assert codes_of(Embeddings.from_rows(decaying(6, 3000, 96)), tmp_path / "c").projections is None


def true_cosines(rows: NDArray, query: NDArray) -> NDArray[np.float64]:
    wide = rows.astype(np.float64)
    return wide @ unit_query(query, rows.shape[1]) / np.linalg.norm(wide, axis=1)


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [(np.float16, 1), (np.float32, 1), (np.float16, 3), (np.float32, 1e-20), (np.float32, 1e30), (np.float32, 1e-40), (np.float32, 1e37)],
)
@pytest.mark.parametrize("width", [1, 3, 64, 1152])
def test_an_estimate_is_never_off_by_more_than_it_says(tmp_path: Path, dtype: type, scale: float, width: int) -> None:
    rows = (clustered(10, 3000, width) * np.float64(scale)).astype(dtype)
    embeddings = Embeddings.from_rows(rows)
    codes = codes_of(embeddings, tmp_path)
    everything, none = np.arange(3000), np.zeros(3000, bool)
    occupied = Allowed(none).occupied
    for query in clustered(11, 4, width):
        true = true_cosines(rows, query)
        unit64 = unit_query(query, width)
        by_rows, by_codes, coded = RowSweep(embeddings), CodeSweep(codes), codes.query(unit64)
        for found in (by_rows.gathered(unit64, everything), by_rows.scanned(unit64, none, occupied)):
            assert np.abs(estimates(found) - true).max() <= found.slack < 2e-3
        for found in (by_codes.gathered(coded, everything), by_codes.scanned(coded, none, occupied), by_codes.finer(coded, everything)):
            assert_bounded(found, codes.table, coded, everything, true)
        assert codes.table.margin.max() < 0.02
        assert by_codes.finer(coded, everything).slack <= max(2e-6, by_codes.gathered(coded, everything).slack / 50)


def test_codes_are_much_finer_with_the_rotation_than_heavy_coordinates_would_make_them(tmp_path: Path) -> None:
    rows = clustered(1, 2000, 256)
    rows[:, :2] += 1.5
    codes = codes_of(Embeddings.from_rows(unit(rows)), tmp_path)
    assert codes.table.margin.max() < 0.011


@pytest.mark.parametrize("width", [1, 2, 7, 12, 192, 768, 1152])
def test_a_rotation_keeps_angles_and_lengths_and_spreads_every_number_over_all_others(width: int) -> None:
    rotation = Rotation.random(width)
    matrix = rotation.turn(np.eye(width))
    assert np.abs(matrix @ matrix.T - np.eye(width)).max() < 1e-13
    assert np.all(matrix != 0)
    assert np.array_equal(Rotation.random(width).turn(np.eye(width)), matrix)
    if width == 1152:
        assert (len(rotation.left), len(rotation.right)) == (32, 36)
        assert np.abs(matrix).max() < 0.5


def test_the_same_rows_give_the_same_codes(tmp_path: Path) -> None:
    embeddings = Embeddings.from_rows(clustered(3, 5000, 48))
    first, second = codes_of(embeddings, tmp_path / "a"), codes_of(embeddings, tmp_path / "b")
    for name in ("codes", "scale", "margin"):
        assert getattr(first.table, name).tobytes() == getattr(second.table, name).tobytes()
    assert first.mean.tobytes() == second.mean.tobytes()


def test_coding_stops_when_it_is_not_wanted_any_more_and_leaves_nothing(tmp_path: Path) -> None:
    answers = iter([True, False])
    embeddings = Embeddings.from_rows(clustered(3, 5000))
    side = SideFiles(tmp_path)

    def code() -> None:
        with side.writing("codes", {}) as draft:
            write_codes(embeddings, draft, lambda: next(answers))

    with pytest.raises(CodingStoppedError):
        code()
    assert list(tmp_path.iterdir()) == []


@given(seed=st.integers(0, 2**32), k=st.integers(1, 300), share=st.sampled_from([0.0, 0.5, 0.99, 0.9999]))
@settings(max_examples=60, deadline=None)
def test_a_scans_highest_floor_and_contenders_are_those_of_a_plain_sort(seed: int, k: int, share: float) -> None:
    random = np.random.default_rng(seed)
    values = np.round(random.standard_normal(2 * BLOCK), 2).astype(np.float32)  # rounded: many equal
    values[random.random(2 * BLOCK) < share] += SKIPPED
    allowed = np.flatnonzero(values > -1e29)
    k = min(k, len(allowed))
    if k == 0:
        return
    peaks = np.concatenate([peaks_of(values[:BLOCK]), peaks_of(values[BLOCK:])])
    assert np.array_equal(peaks, peaks_of(values))
    found = Estimates(values, None, peaks, 0.25)
    ordered = np.sort(values[allowed])[::-1]
    assert sorted(values[found.highest(k)].tolist(), reverse=True) == ordered[:k].tolist()
    assert found.floor(k) == pytest.approx(float(ordered[k - 1]) - 0.25)
    floor = float(ordered[k - 1])
    assert set(found.contenders(floor)) >= set(allowed[values[allowed].astype(np.float64) + 0.25 >= floor])
    scaled = Estimates(values, None, peaks, 0.25, 0.5, 2.0)
    left = set(scaled.contenders(2 + floor / 2).tolist())
    upper = 2 + 0.5 * values.astype(np.float64) + 0.25
    assert set(allowed[upper[allowed] >= 2 + floor / 2].tolist()) <= left
    assert left <= set(allowed[upper[allowed] >= 2 + floor / 2 - 1e-5].tolist())
    assert scaled.floor(k) == pytest.approx(2 + floor / 2 - 0.25)


LARGE = 128


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> ExactIndex:
    """Three blocks and a bit, a third of it near copies of other rows."""
    random = np.random.default_rng(12)
    rows = decaying(12, 3 * BLOCK + 777, LARGE)
    rows[::3] = unit(rows[1] + 3e-4 * random.standard_normal((len(rows[::3]), LARGE)))
    embeddings = Embeddings.from_rows(rows.astype(np.float16))
    index = ExactIndex(embeddings, np.random.default_rng(9).permutation(len(rows)).astype(np.int64))
    codes = codes_of(embeddings, tmp_path_factory.mktemp("codes"))
    assert codes.projections is not None
    index.adopt(codes, Costs())
    return index


def masks(index: ExactIndex, query: NDArray) -> dict[str, NDArray[np.bool_]]:
    random, size = np.random.default_rng(13), index.size
    made = {f"random {share}": random.random(size) < share for share in (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999)}
    for name, start, stop in (("run", 20_000, 60_000), ("short run", 65_530, 65_545), ("tail", size - 300, size)):
        made[name] = np.ones(size, bool)
        made[name][start:stop] = False
    made["hostile"] = anti_correlated(index.embeddings.rows, query)
    made["aligned"] = ~made["hostile"]
    made["nothing"] = np.ones(size, bool)
    return made


def test_every_way_gives_the_true_answer_over_several_blocks(large: ExactIndex) -> None:
    ties = np.random.default_rng(9).permutation(large.size).astype(np.int64)
    rows = large.embeddings.rows
    for query in (decaying(14, 1, LARGE)[0], unit(np.random.default_rng(14).standard_normal(LARGE)), rows[1].astype(np.float32)):
        for skip in masks(large, query).values():
            for k in (1, 100):
                assert_exact(large, rows, ties, query, k=k, skip=skip)
                expected = large.search(query, k, skip)
                for way in WAYS:
                    found = large.search_by(way, query, k, skip)
                    assert found.rows.tolist() == expected.rows.tolist(), way
                    assert found.scores.tobytes() == expected.scores.tobytes()


def test_more_rows_than_groups_can_be_asked_for(large: ExactIndex) -> None:
    ties = np.random.default_rng(9).permutation(large.size).astype(np.int64)
    assert_exact(large, large.embeddings.rows, ties, decaying(15, 1, LARGE)[0], k=5000, skip=np.zeros(large.size, bool))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_rows_that_are_not_finite_are_passed_over_in_silence(dtype: type) -> None:
    rows = clustered(16, 2 * BLOCK, 4).astype(dtype)
    rows[::7, 1], rows[1::7] = np.inf, np.nan
    index = ExactIndex(Embeddings.from_rows(rows))
    assert_exact(index, rows, np.arange(len(rows)), clustered(17, 1, 4)[0], k=20, skip=np.zeros(len(rows), bool))
    found = index.search_by("scan rows", clustered(17, 1, 4)[0], 20, np.zeros(len(rows), bool))
    assert np.all(np.isfinite(found.scores))


def test_a_mask_may_be_a_view_of_any_kind() -> None:
    rows = clustered(18, 3000)
    index = ExactIndex(Embeddings.from_rows(rows))
    wide = np.random.default_rng(18).random(6001) < 0.5
    for skip in (wide[:6000:2], wide[1:3001], wide[2999::-1], np.broadcast_to(np.False_, 3000)):
        assert_exact(index, rows, np.arange(3000), clustered(19, 1)[0], k=20, skip=skip)


def test_codes_of_other_rows_are_refused(tmp_path: Path) -> None:
    from mcp_server.errors import IndexMismatchError

    codes = codes_of(Embeddings.from_rows(clustered(1, 100)), tmp_path)
    with pytest.raises(IndexMismatchError, match="101"):
        ExactIndex(Embeddings.from_rows(clustered(1, 101))).adopt(codes, Costs())
