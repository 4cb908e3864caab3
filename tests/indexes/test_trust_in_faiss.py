"""A FAISS index answers only where it was measured to be good and is seen to be, whatever a filter takes away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mcp_server.domain.search import Neighbors
from mcp_server.indexes.approval import Approval
from mcp_server.indexes.embeddings import Embeddings
from mcp_server.indexes.exact import ExactIndex
from mcp_server.indexes.faiss_index import FaissIndex
from mcp_server.indexes.faiss_library import faiss_library
from mcp_server.indexes.hybrid import HybridIndex
from mcp_server.indexes.trials import measured_approval
from tests.contracts.index_contract import unit
from tests.indexes.faiss_files import trusted, write_faiss

faiss: Any = faiss_library()

SIZE, WIDTH, TOPICS = 20_000, 32, 150
TARGET = 0.95
K = 10

Filter = Callable[[NDArray[np.float32], np.random.Generator], NDArray[np.bool_]]
"""From the score of every row to the rows it lets through."""


class Pictures:
    """Vectors of few common and many rare topics in a cone of their own, and queries from another cone, as texts are."""

    def __init__(self) -> None:
        random = np.random.default_rng(31)
        topics = random.standard_normal((TOPICS, WIDTH))
        weights = 1 / (1 + np.arange(TOPICS)) ** 0.7
        self.topic_of = random.choice(TOPICS, SIZE, p=weights / weights.sum())
        cone, other_cone = random.standard_normal((2, WIDTH))
        self.rows = unit(cone + 0.8 * topics[self.topic_of] + 0.5 * random.standard_normal((SIZE, WIDTH)))
        self.texts = unit(0.7 * other_cone + 0.5 * topics[random.choice(TOPICS, 24)] + 0.2 * random.standard_normal((24, WIDTH)))

    def without_best_topics(self, share: float) -> Filter:
        """Reject the topics the query likes best, `share` of all rows: perf figures call this cluster_neg."""

        def let_through(scores: NDArray[np.float32], _random: np.random.Generator) -> NDArray[np.bool_]:
            sizes = np.bincount(self.topic_of, minlength=TOPICS)
            order = np.argsort(-np.bincount(self.topic_of, scores, TOPICS) / np.maximum(1, sizes))
            rejected = order[: 1 + np.searchsorted(np.cumsum(sizes[order]), share * SIZE)]
            return ~np.isin(self.topic_of, rejected)

        return let_through


class Costly(ExactIndex):
    """An exact index whose every search takes a second of a clock of its own."""

    seconds = 0.0

    def search(self, query: NDArray[np.float32], k: int, skip: NDArray[np.bool_]) -> Neighbors:
        self.seconds += 1
        return super().search(query, k, skip)


def at_random(share: float) -> Filter:
    return lambda scores, random: random.random(len(scores)) < share


def without_best_rows(count: int) -> Filter:
    return lambda scores, _random: scores < np.partition(scores, -count)[-count]


PICTURES = Pictures()
BENIGN: dict[str, Filter] = {f"{share:.0%} at random": at_random(share) for share in (1.0, 0.5, 0.2, 0.1)}
HOSTILE: dict[str, Filter] = {
    **{f"best topics of {share:.0%} rejected": PICTURES.without_best_topics(share) for share in (0.01, 0.05, 0.2, 0.5, 0.9)},
    **{f"best {count} rows rejected": without_best_rows(count) for count in (200, 2000, 10_000)},
    "mostly rejected near the query": lambda scores, random: (
        random.random(len(scores)) < np.where(scores > np.quantile(scores, 0.9), 0.03, 0.9)
    ),
}


@pytest.fixture(scope="module", params=["ivf", "hnsw"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[ExactIndex, FaissIndex, Approval]:
    """The exact index, the FAISS index, and what was measured of it by a clock that only the exact one moves."""
    embeddings = Embeddings.from_rows(PICTURES.rows)
    recipe = {"ivf": "IVF400,SQ8", "hnsw": "HNSW16,SQ8"}[request.param]
    file = write_faiss(recipe, PICTURES.rows, tmp_path_factory.mktemp("trust") / "index.faiss")
    exact, approximate = ExactIndex(embeddings), FaissIndex(file, embeddings, nprobe=16)
    costly = Costly(embeddings)
    return exact, approximate, measured_approval(embeddings, approximate, costly, TARGET, queries=60, clock=lambda: costly.seconds)


def recalls(index: HybridIndex | FaissIndex, exact: ExactIndex, let_through: Filter) -> tuple[list[float], list[bool]]:
    """Return which part of the true best each text finds, and whether the answer said that it is approximate."""
    random = np.random.default_rng(7)
    found, approximate = [], []
    for text in PICTURES.texts:
        skip = ~let_through(PICTURES.rows @ text, random)
        truth = exact.search(text, K, skip).scores
        answer = index.search(text, K, skip)
        found.append(float(np.count_nonzero(answer.scores >= truth[-1])) / len(truth))
        approximate.append(answer.approximation is not None)
    return found, approximate


@pytest.mark.parametrize("name", [*BENIGN, *HOSTILE])
def test_the_target_is_kept_under_every_filter(name: str, pair: tuple[ExactIndex, FaissIndex, Approval]) -> None:
    exact, approximate, approval = pair
    found, _ = recalls(HybridIndex(exact, approximate, lambda: approval, exact_below=0), exact, (BENIGN | HOSTILE)[name])
    assert np.mean(found) >= TARGET


@pytest.mark.parametrize("name", ["best topics of 20% rejected", "best topics of 50% rejected", "best 10000 rows rejected"])
def test_without_these_checks_a_hostile_filter_loses_nearly_everything(name: str, pair: tuple[ExactIndex, FaissIndex, Approval]) -> None:
    exact, approximate, _ = pair
    assert np.mean(recalls(approximate, exact, HOSTILE[name])[0]) < 0.2


@pytest.mark.parametrize("recipe", ["IVF64,SQ4", "IVF64,PQ8x4", "PCA16,IVF64,Flat"])
def test_codes_too_coarse_for_what_a_filter_leaves_are_noticed(recipe: str, tmp_path: Path) -> None:
    """All lists are visited, so whatever is missed is the codes' fault; without the best, what is left is nearly equal."""
    embeddings = Embeddings.from_rows(PICTURES.rows)
    exact, approximate = ExactIndex(embeddings), FaissIndex(write_faiss(recipe, PICTURES.rows, tmp_path / "index.faiss"), embeddings)
    approval = replace(trusted(approximate)(), target=TARGET)
    let_through = without_best_rows(2000)
    assert np.mean(recalls(approximate, exact, let_through)[0]) < 0.8
    assert np.mean(recalls(HybridIndex(exact, approximate, lambda: approval, exact_below=0), exact, let_through)[0]) >= TARGET


def test_where_nothing_stands_against_it_faiss_does_answer(pair: tuple[ExactIndex, FaissIndex, Approval]) -> None:
    exact, approximate, approval = pair
    _, was_approximate = recalls(HybridIndex(exact, approximate, lambda: approval, exact_below=0), exact, BENIGN["100% at random"])
    assert np.mean(was_approximate) > 0.2


def test_more_is_tried_where_less_was_measured_not_to_be_enough(pair: tuple[ExactIndex, FaissIndex, Approval]) -> None:
    _, _, approval = pair
    efforts = [approval.effort_for(share, 100) or 10**6 for share in (1.0, 0.5, 0.2, 0.1)]
    assert efforts == sorted(efforts)
    assert approval.effort_for(1.0, 100) is not None
    for share in (1.0, 0.1):
        tried = [trial.effort for trial in approval.trials if trial.share == share]
        assert tried == sorted(set(tried))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, None),
        ({"k": 101}, "longer than what was measured"),
        ({"share": 0.05}, "fewer allowed than what was measured"),
        ({"exact_below": SIZE}, "few rows are quick to search exactly"),
        ({"approval": None}, "not measured yet"),
        ({"target": 1.0}, "nothing approximate is wanted"),
    ],
)
def test_each_condition_alone_makes_the_answer_exact(change: dict[str, Any], why: str | None, tmp_path: Path) -> None:
    embeddings = Embeddings.from_rows(PICTURES.rows)
    approximate = FaissIndex(write_faiss("IVF64,Flat", PICTURES.rows, tmp_path / "index.faiss"), embeddings)
    approval = replace(trusted(approximate, least=0.1)(), target=change.get("target", 0.5))
    hybrid = HybridIndex(ExactIndex(embeddings), approximate, lambda: change.get("approval", approval), change.get("exact_below", 0))
    skip = np.random.default_rng(1).random(SIZE) >= change.get("share", 0.5)
    answer = hybrid.search(PICTURES.texts[0], change.get("k", 10), skip)
    assert (answer.approximation is None) == (why is not None)
    assert answer.approximation in (None, "ivf nprobe=64")
    assert len(answer.rows) == change.get("k", 10)


def test_the_share_near_the_query_is_what_the_filter_leaves_there(tmp_path: Path) -> None:
    embeddings = Embeddings.from_rows(PICTURES.rows)
    for recipe in ("IVF64,Flat", "PCAR16,IVF64,Flat", "HNSW16"):
        index = FaissIndex(write_faiss(recipe, PICTURES.rows, tmp_path / "index.faiss"), embeddings)
        text, nothing = PICTURES.texts[0], np.zeros(SIZE, bool)
        hostile = PICTURES.rows @ text > np.quantile(PICTURES.rows @ text, 0.5)
        assert index.near_share(text, nothing, 4) == 1
        assert index.near_share(text, hostile, 4) < 0.2
        assert index.near_share(text, np.arange(SIZE) % 2 == 0, 4 if "IVF" in recipe else 512) == pytest.approx(0.5, abs=0.1)
    assert FaissIndex(write_faiss("Flat", PICTURES.rows, tmp_path / "flat.faiss"), embeddings).near_share(text, hostile, 0) == 1
