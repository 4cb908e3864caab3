"""Says how far a score can be trusted: held against what unrelated texts reach in the same collection.

The relevance of item x to a text q is r = 2 cos(q, x) - m(q) / 2 - p(x), where m(q) is the mean cosine of q over a sample of the collection
(some texts are near everything; but a text that names a good part of the collection is so by right, hence half of it) and p(x) that of x to
the unrelated texts (some pictures are). r of the best item of each unrelated text gives the scale: "fair" is above what 90 % of them reach,
"strong" above 97 %. For examples instead of words r has all of m(q), p(x) is the mean cosine of x over the sample, and the scale is r of
random pairs of items: "fair" is above 99 % of the pairs, "strong" above 99.9 %.

Source of the measure: cross-domain similarity local scaling, Conneau et al. 2018, with means over samples in the place of neighbours.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_server.domain.search import Drop, EncodedText, Rel
from mcp_server.engine.query_vectors import QueryVector
from mcp_server.engine.unrelated_prompts import UNRELATED, VERSION
from mcp_server.errors import CollectionError, EncoderError, ModelLoadingError
from mcp_server.indexes.base import Index

logger = logging.getLogger(__name__)

Floats = NDArray[np.float32]
Wide = NDArray[np.float64]

FORMAT = f"2.{VERSION}"
"""Part of every key: what was measured in another way is measured again."""
TEXT_MEAN, PAIR_MEAN = 0.5, 1.0
"""How much of m(q) is taken off."""
TEXT_FAIR, TEXT_STRONG = 0.90, 0.97
PAIR_FAIR, PAIR_STRONG = 0.99, 0.999
RETRY_SECONDS = 2.0
FIRST_SECONDS = 3.0
"""How long the first search of a new collection waits for its scale; later ones do not wait."""
CLOSING_SECONDS = 2.0
"""How long closing waits; a process that ends in the middle of the model's work may crash."""
_LEAST_DROP_HITS = 3


class _ClosedError(Exception):
    """Nobody needs what is being measured any more."""


@dataclass(frozen=True)
class Scale:
    """What r is held against.

    Attributes:
        text_mean: D numbers, the mean vector of the unrelated texts.
        text_fair, text_strong: r of a text's hit must be above.
        pair_fair, pair_strong: r of an example's hit must be above.
    """

    text_mean: tuple[float, ...]
    text_fair: float
    text_strong: float
    pair_fair: float
    pair_strong: float


class Relevance:
    """Judges hits of one collection. Nothing in it changes; safe to call from several threads."""

    def __init__(self, scale: Scale, sample: Floats) -> None:
        """Judge by `scale`; `sample` is (S, D) float32, the rows of the collection it was measured with."""
        self.scale = scale
        self._text_mean = np.array(scale.text_mean, np.float64)
        self._item_mean = _mean(sample)

    def judge(self, query: QueryVector, rows: NDArray[np.int64], index: Index, scores: Floats) -> list[Rel] | None:
        """Return how relevant each of `rows`, hits of `query` with these `scores`, is; None where only unwanted texts were given.

        Where there are words and examples, a hit counts as the weaker of the two.
        """
        if query.text is None and query.like is None:
            return None
        vectors = index.vectors(rows).astype(np.float64)
        grades = np.full(len(rows), 2, np.int64)
        for part, share, mean, fair, strong in (
            (query.text, TEXT_MEAN, self._text_mean, self.scale.text_fair, self.scale.text_strong),
            (query.like, PAIR_MEAN, self._item_mean, self.scale.pair_fair, self.scale.pair_strong),
        ):
            if part is not None:
                cosines = scores if part is query.vector else index.scores(part, rows)
                relevance = 2 * cosines.astype(np.float64) - share * (part.astype(np.float64) @ self._item_mean) - vectors @ mean
                grades = np.minimum(grades, (relevance > fair).astype(np.int64) + (relevance > strong))
        names: tuple[Rel, Rel, Rel] = ("weak", "fair", "strong")
        return [names[grade] for grade in grades.tolist()]


def measure(encode: Callable[[str], EncodedText], index: Index, mapped: NDArray[np.bool_], sample: Floats) -> Scale:
    """Return the scale of a collection; takes as long as 120 searches, the model's part included.

    Args:
        encode: the collection's text encoder.
        index: its vectors.
        mapped: (N,) bool, the rows that count; at least one is usable.
        sample: (S, D) float32, see `sample_of`.

    Raises:
        EncoderError: the model cannot answer now.
        CollectionError: no row is usable.
    """
    if not np.any(mapped & ~index.unusable):
        raise CollectionError("there is nothing in the collection to measure.")
    texts = [encode(text).vector for text in UNRELATED]
    text_mean, item_mean = _mean(np.stack(texts)), _mean(sample)
    best: list[float] = []
    for text in texts:
        near = index.search(text, 1, ~mapped)
        vector = index.vectors(near.rows)[0].astype(np.float64)
        best.append(2 * float(near.scores[0]) - TEXT_MEAN * float(text.astype(np.float64) @ item_mean) - float(vector @ text_mean))
    fair, strong = np.quantile(best, (TEXT_FAIR, TEXT_STRONG))
    pair_fair, pair_strong = np.quantile(_pairs(sample), (PAIR_FAIR, PAIR_STRONG))
    return Scale(tuple(round(float(one), 7) for one in text_mean), float(fair), float(strong), float(pair_fair), float(pair_strong))


class BackgroundRelevance:
    """The scale of one collection: read where it is kept, or else measured in a thread of its own. Safe to call from several threads."""

    def __init__(
        self,
        name: str,
        read: Callable[[], dict[str, Any] | None],
        write: Callable[[dict[str, Any]], None],
    ) -> None:
        """Do nothing yet.

        Args:
            name: of the collection, for the log.
            read: returns the fields of a kept `Scale`, None when there is none for these vectors.
            write: keeps the fields of a `Scale`; an OSError means that it is measured again at the next start.
        """
        self._name = name
        self._read = read
        self._write = write
        self._lock = threading.Lock()
        self._looked = False
        self._ready: Relevance | None = None
        self._thread: threading.Thread | None = None
        self._may_wait = True
        self._closed = threading.Event()

    def ready(self, sample: Floats) -> Relevance | None:
        """Return the scale if it is known by now, without waiting for it; `sample` is (S, D), the rows that stand for the collection."""
        with self._lock:
            if self._ready is None and not self._looked:
                self._looked = True
                kept = self._read()
                self._ready = None if kept is None else _relevance(kept, sample)
            return self._ready

    def start(self, make: Callable[[], Scale], sample: Floats) -> None:
        """Begin to measure with `make` unless the scale is known or being measured. Returns at once; failures go to the log.

        `make` is called in a thread, again while the model is still loading.
        """
        if self.ready(sample) is not None:
            return
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._run, args=(make, sample), name="relevance", daemon=True)
                self._thread.start()

    def wait(self, seconds: float = FIRST_SECONDS) -> None:
        """Wait for the measuring under way, but only in the first call: with a small model it is done by then."""
        with self._lock:
            thread, self._may_wait = (self._thread if self._may_wait else None), False
        if thread is not None:
            thread.join(seconds)

    def guarded(self, encode: Callable[[str], EncodedText]) -> Callable[[str], EncodedText]:
        """Return `encode` for `make`: once this is closed, it ends the measuring instead."""

        def encode_unless_closed(text: str) -> EncodedText:
            if self._closed.is_set():
                raise _ClosedError
            return encode(text)

        return encode_unless_closed

    def close(self) -> None:
        """Give up measuring: waits for the text that is being encoded, no longer than `CLOSING_SECONDS`."""
        self._closed.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(CLOSING_SECONDS)

    def _run(self, make: Callable[[], Scale], sample: Floats) -> None:
        while not self._closed.is_set():
            try:
                scale = make()
            except ModelLoadingError:
                self._closed.wait(RETRY_SECONDS)
                continue
            except _ClosedError:
                return
            except (EncoderError, CollectionError) as error:
                logger.warning("relevance.not_measured name=%s reason=%s", self._name, error)
                return
            with self._lock:
                self._ready = Relevance(scale, sample)
            logger.info("relevance.measured name=%s fair=%.4f strong=%.4f", self._name, scale.text_fair, scale.text_strong)
            try:
                self._write(asdict(scale))
            except OSError as error:
                logger.warning("relevance.not_kept name=%s reason=%s", self._name, error)
            return


def _relevance(kept: dict[str, Any], sample: Floats) -> Relevance | None:
    """Return the scale with the fields `kept`; None where they do not fit."""
    try:
        numbers = {name: float(kept[name]) for name in ("text_fair", "text_strong", "pair_fair", "pair_strong")}
        mean = tuple(float(one) for one in kept["text_mean"])
    except (KeyError, TypeError, ValueError):
        return None
    return Relevance(Scale(mean, **numbers), sample) if len(mean) == sample.shape[1] else None


def match_probability(logits: tuple[float, float] | None, cosines: Floats) -> list[float] | None:
    """Return the model's own probability that words and picture belong together, for each of `cosines`; None for models without one.

    It is sigmoid(scale * cosine + bias) with the scale and bias that a model trained with a sigmoid loss carries: `logits`.
    Source: Zhai et al. 2023, Sigmoid Loss for Language Image Pre-Training.
    """
    if logits is None:
        return None
    scale, bias = logits
    return [1 / (1 + math.exp(-max(-700.0, min(700.0, scale * float(cosine) + bias)))) for cosine in cosines]


def largest_drop(scores: Sequence[float] | Floats) -> Drop | None:
    """Return where `scores`, best first, fall most, the first such place; None for fewer than three hits or where none falls."""
    if len(scores) < _LEAST_DROP_HITS:
        return None
    falls = -np.diff(np.asarray(scores, np.float64))
    at = int(np.argmax(falls))
    by = round(float(falls[at]), 4)
    return Drop(at + 1, by) if by > 0 else None


def _pairs(sample: Floats) -> Wide:
    """Return r of every pair of different rows of `sample`; one 0 where there is no pair."""
    if len(sample) < 2:
        return np.zeros(1)
    wide = sample.astype(np.float64)
    near = wide @ _mean(sample)
    relevance = 2 * (wide @ wide.T) - PAIR_MEAN * near[:, None] - near[None, :]
    return relevance[np.triu_indices(len(sample), 1)]


def _mean(vectors: Floats) -> Wide:
    return vectors.astype(np.float64).mean(axis=0)
