"""What was measured of a FAISS file: how it is held against the target, kept, and found out behind the calls."""

from __future__ import annotations

import gc
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mcp_server.config import load_settings
from mcp_server.doctor import recall_findings
from mcp_server.indexes.approval import Approval, Trial, approval_from
from mcp_server.indexes.approval_file import cache_approval, key_of, read_approval
from mcp_server.indexes.approving import Approving
from mcp_server.indexes.building import BuildOptions, build_index
from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.exact import ExactIndex
from mcp_server.indexes.faiss_index import FaissIndex
from mcp_server.indexes.fingerprints import note_file, noted, noted_recall, write_note
from mcp_server.indexes.hybrid import HybridIndex
from mcp_server.indexes.measuring import check_index_file
from mcp_server.indexes.opening import Trust, open_index
from mcp_server.indexes.trials import measured_approval
from tests.contracts.index_contract import clustered, with_flaws
from tests.indexes.faiss_files import write_faiss
from tests.indexes.test_building import write_rows

GOOD = Trial(1.0, 1000, 64, recall_at_10=0.995, recall_at_100=0.97, kept=0.9, faiss_ms=3, exact_ms=30)
HARDER = replace(GOOD, effort=128, recall_at_100=0.992, faiss_ms=6)
HALF = replace(GOOD, share=0.5, effort=128, recall_at_10=0.991, recall_at_100=0.95)
TENTH = replace(GOOD, share=0.1, recall_at_10=0.9, recall_at_100=0.7)
APPROVAL = Approval(0.99, "many queries", (GOOD, HARDER, HALF, TENTH))


def test_the_least_effort_that_reaches_the_target_at_the_next_lower_share_is_used() -> None:
    assert [APPROVAL.effort_for(1.0, k) for k in (1, 10, 11, 100, 101)] == [64, 64, 128, 128, None]
    assert [APPROVAL.effort_for(share, 10) for share in (0.92, 0.8, 0.5, 0.46, 0.44, 0.1, 0.05, 0.0)] == [
        64,
        128,
        128,
        128,
        None,
        None,
        None,
        None,
    ]
    assert APPROVAL.smallest_share == 0.5
    assert [APPROVAL.is_used(trial) for trial in APPROVAL.trials] == [True, True, True, False]


def test_one_that_is_not_clearly_faster_is_not_used_however_good() -> None:
    for slow in (replace(GOOD, faiss_ms=25), replace(GOOD, kept=0.2), replace(GOOD, faiss_ms=12, kept=0.55)):
        assert Approval(0.9, "", (slow,)).effort_for(1.0, 10) is None


def test_with_a_target_of_one_nothing_is_used_and_a_stricter_target_lets_less_be_late() -> None:
    assert Approval(1.0, "", (replace(GOOD, recall_at_10=1.0),)).effort_for(1.0, 10) is None
    assert [Approval(target, "", ()).late_limit for target in (0.5, 0.9, 0.95, 0.99, 0.995, 1.0)] == [50, 10, 5, 1, 0, 0]


def test_an_approval_comes_back_from_json_and_another_target_or_format_does_not() -> None:
    kept = json.loads(json.dumps(APPROVAL.as_json()))
    assert approval_from(kept, 0.99) == APPROVAL
    assert approval_from(kept, 0.95) is None
    for damaged in (None, [], {}, kept | {"format": 0}, kept | {"trials": [{"share": 1}]}, kept | {"trials": 3}):
        assert approval_from(damaged, 0.99) is None


def test_building_and_checking_note_what_they_measured_for_servers_to_go_by(tmp_path: Path) -> None:
    source = write_rows(with_flaws(clustered(4, 1500)), tmp_path / "embeddings.zarr.zip")
    target = tmp_path / "index.faiss"
    report = build_index(source, target, "ivf", BuildOptions(queries=20))
    assert report.measured is not None
    assert read_approval(target, 0.99, source) == report.measured.approval
    assert read_approval(target, 0.9, source) is None
    again = check_index_file(source, target, queries=20, target_recall=0.9)
    assert again.measured is not None
    assert read_approval(target, 0.9, source) == again.measured.approval
    assert noted(target) is not None
    build_index(source, target, "ivf", BuildOptions(queries=0))
    assert noted_recall(target) is None
    assert read_approval(target, 0.9, source) is None


def test_of_a_file_of_another_maker_nothing_is_noted_but_in_the_cache(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = clustered(4, 500)
    source = write_rows(rows, tmp_path / "embeddings.zarr.zip")
    file, cached = write_faiss("IVF8,Flat", rows, tmp_path / "index.faiss"), tmp_path / "cache" / "toys.faiss.json"
    check_index_file(source, file, queries=4)
    assert not note_file(file).exists()
    assert read_approval(file, 0.99, source, cached) is None
    cache_approval(cached, key_of(file, source), APPROVAL)
    cache_approval(None, key_of(file, source), APPROVAL)
    assert read_approval(file, 0.99, source, cached) == APPROVAL
    assert read_approval(file, 0.99, None, cached) is None
    write_faiss("IVF8,Flat", rows[::-1].copy(), file)
    assert read_approval(file, 0.99, source, cached) is None
    cached.write_text("{")
    assert read_approval(file, 0.99, source, cached) is None
    assert "faiss.unreadable" in caplog.text


def test_what_was_measured_of_a_file_is_not_taken_for_one_that_replaced_it_meanwhile(tmp_path: Path) -> None:
    rows = clustered(4, 500)
    file, cached = write_faiss("IVF4,Flat", rows, tmp_path / "index.faiss"), tmp_path / "toys.faiss.json"
    index = open_index("faiss", Embeddings.from_rows(rows), file, trust=Trust(0.9, cached))
    assert isinstance(index, HybridIndex)
    assert index._approval() is None  # pyright: ignore[reportPrivateUsage]  # what a search asks where many rows are allowed
    (measuring,) = (thread for thread in threading.enumerate() if thread.name == "faiss-recall")
    write_faiss("IVF4,SQ4", rows, tmp_path / "coarse.faiss").replace(file)
    measuring.join(60)
    assert cached.exists()
    assert read_approval(file, 0.9, None, cached) is None


def test_what_is_not_known_is_measured_once_behind_the_calls_and_kept() -> None:
    kept: list[Approval] = []
    asked = threading.Semaphore(0)

    def measure(rest: Callable[[int, int], None]) -> Approval:
        asked.release()
        rest(1, 2)
        return APPROVAL

    approving = Approving(None, measure, kept.append, pause_seconds=0)
    for _ in range(3):
        approving.ready()
    approving.wait(30)
    assert approving.ready() == APPROVAL
    assert kept == [APPROVAL]
    assert asked.acquire(blocking=False)
    assert not asked.acquire(blocking=False)
    assert Approving(APPROVAL, _never, kept.append).ready() == APPROVAL


def test_an_approval_that_cannot_be_kept_is_used_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    def keep(_approval: Approval) -> None:
        raise PermissionError("read-only")

    approving = Approving(None, lambda _rest: APPROVAL, keep, pause_seconds=0)
    approving.ready()
    approving.wait(30)
    assert approving.ready() == APPROVAL
    assert "faiss.unkept" in caplog.text


def test_measuring_ends_when_nobody_wants_to_know_any_more() -> None:
    begun, ended = threading.Event(), threading.Event()

    def measure(rest: Callable[[int, int], None]) -> Approval:
        begun.set()
        try:
            while True:
                rest(0, 1)
        finally:
            ended.set()

    approving = Approving(None, measure, _never, pause_seconds=0)
    assert approving.ready() is None
    assert begun.wait(30)
    del approving
    gc.collect()
    assert ended.wait(30)


def test_the_same_seed_measures_the_same_recall_and_progress_ends_at_the_total(tmp_path: Path) -> None:
    rows = with_flaws(clustered(6, 1200))
    embeddings = Embeddings.from_rows(rows)
    index = FaissIndex(write_faiss("IVF64,Flat", rows, tmp_path / "i"), embeddings, nprobe=2)
    steps: list[tuple[int, int]] = []
    one, other = (
        measured_approval(
            embeddings, index, ExactIndex(embeddings), 0.99, seed=3, queries=6, clock=lambda: 0.0, told=lambda *s: steps.append(s)
        )
        for _ in range(2)
    )
    assert one == other
    assert steps[-1][0] == steps[-1][1]
    assert all(np.diff([done for done, _ in steps[: len(steps) // 2]]) >= 0)


def test_doctor_says_what_is_asked_of_the_index_what_it_reaches_and_whether_it_answers(tmp_path: Path) -> None:
    (tmp_path / "index.faiss").write_bytes(b"any")
    text = "[toys]\nIndexType = faiss\nCLIPIndexFile = index.faiss\nEmbeddingsFile = e\nDatabaseFile = d\n"
    (tmp_path / "config.ini").write_text(text, encoding="utf-8")
    settings = load_settings(tmp_path / "config.ini")
    (config,) = settings.collections

    def said(size: int = 1_000_000, target: float = 0.99) -> list[str]:
        return [f"{one.level}: {one.text}" for one in recall_findings(replace(config, target_recall=target), settings, size)]

    assert "whatever the FAISS index" in said(size=1000)[0]
    assert "TargetRecall is 1: every search is answered exactly" in said(target=1.0)[0]
    assert "`clip-search-mcp index check`" in said()[0]
    write_note(tmp_path / "index.faiss", "f", {"recall": APPROVAL.as_json()})
    answers, first, *_, last = said()
    assert answers == "ok: TargetRecall is 0.99; the FAISS index answers where at least 50% of the items are allowed"
    assert first == ("ok: 100% allowed, effort 64: recall 0.995 of 10, 0.970 of 100, 90% kept, 3.0 ms against 30.0 ms exactly: used")
    assert last.endswith(": not used")
    assert "at least 80% of the items" in said(size=250_000)[0]
    worse = replace(GOOD, recall_at_10=0.9)
    few_only = replace(APPROVAL, trials=(worse, replace(worse, share=0.5), replace(GOOD, share=0.1)))
    write_note(tmp_path / "index.faiss", "f", {"recall": few_only.as_json()})
    assert said(size=250_000)[0] == "note: TargetRecall is 0.99; the FAISS index does not reach it clearly faster and never answers."
    assert said(size=250_000)[-1].endswith(": not used")
    write_note(tmp_path / "index.faiss", "f", {"recall": replace(APPROVAL, trials=(TENTH,)).as_json()})
    assert said()[0] == "note: TargetRecall is 0.99; the FAISS index does not reach it clearly faster and never answers."


def _never(_: object) -> Approval:
    raise AssertionError("nobody asked for that")


def test_a_note_is_of_one_file_wherever_it_is_copied_to_and_of_no_other_of_its_size(tmp_path: Path) -> None:
    first, copy = tmp_path / "index.faiss", tmp_path / "copy.faiss"
    for size in (0, 10, 5_000, 3_000_000):
        content = np.random.default_rng(size).bytes(size)
        first.write_bytes(content)
        write_note(first, "f", {"recall": {"facts": [1]}})
        copy.write_bytes(content)
        note_file(first).replace(note_file(copy))
        assert noted(copy) == "f"
        assert noted_recall(copy) == {"facts": [1]}
        copy.write_bytes(content + b"1")
        assert noted(copy) is None
        copy.write_bytes(content[::-1])
        assert (noted(copy) is None) is (size > 0)
