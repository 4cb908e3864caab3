"""Pages are mapped in before they are needed, and not where nobody wants them or there is no room."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mcp_server.indexes import prefault as prefaulting
from mcp_server.indexes.prefault import prefault
from mcp_server.indexes.side_vectors import SideVectors
from mcp_server.side_files import SideFiles
from tests.indexes.test_side_vectors import SIZE, stored

resource = pytest.importorskip("resource", reason="only where the system counts page faults")

SHAPE = (4096, 8192)
LARGEST_STEP = 2 * 2**20
"""At one fault the system maps so much around it at the most."""


@pytest.fixture
def mapped(tmp_path: Path) -> NDArray[np.uint8]:
    file = tmp_path / "a.npy"
    np.save(file, np.ones(SHAPE, np.uint8))
    return np.asarray(np.load(file, mmap_mode="r"))


def faults_of_a_look_at(array: NDArray) -> int:
    pages = array.reshape(-1).view(np.uint8)[:: mmap.PAGESIZE]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    assert np.add.reduce(pages) == len(pages)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_what_was_touched_needs_no_page_fault_any_more(mapped: NDArray[np.uint8]) -> None:
    prefault([np.zeros((0, 3), np.float32), mapped], lambda: True)
    assert faults_of_a_look_at(mapped) < mapped.nbytes // LARGEST_STEP // 4


def test_nothing_is_touched_when_nobody_wants_it_any_more(mapped: NDArray[np.uint8]) -> None:
    answers = iter([True, False])
    prefault([mapped], lambda: next(answers))
    first, rest = mapped[:1024], mapped[1024:]  # the first eight MiB had been touched
    assert faults_of_a_look_at(first) < rest.nbytes // LARGEST_STEP // 4 < faults_of_a_look_at(rest)


def test_nothing_is_touched_where_it_would_fill_the_memory(mapped: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefaulting, "_memory", lambda: 2 * mapped.nbytes - 1)
    prefault([mapped], lambda: True)
    assert faults_of_a_look_at(mapped) > mapped.nbytes // LARGEST_STEP // 4


def test_the_rows_and_codes_of_a_collection_are_touched_when_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = stored(tmp_path / "e.zip", np.random.default_rng(1).standard_normal((SIZE, 32)).astype(np.float16))
    touched: list[tuple[NDArray, ...]] = []
    monkeypatch.setattr(SideVectors, "_prefault", lambda _, arrays: touched.append(tuple(arrays)))
    vectors = SideVectors(SideFiles(tmp_path / "side"), file)
    vectors.index(vectors.open(), None)
    vectors.complete()
    assert [array.shape for arrays in touched for array in arrays] == [(SIZE, 32), (SIZE,), (SIZE,), (SIZE, 32)]
    vectors.close()
