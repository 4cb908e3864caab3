"""Runs the image tower over decoded pictures, batch by batch."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcp_server.encoders.base import ImageEncoder
from mcp_server.ingest.pictures.results import Picture, Unreadable


@dataclass(frozen=True)
class Embedded:
    """A batch of pictures with their vectors, and what could not be read on the way.

    Attributes:
        pictures: the M pictures, in the order they came.
        vectors: (M, D) float32, unit length, row for row.
        failed: files that have no vector.
        waited, computed: seconds that went by until the pictures were there, and in the model.
    """

    pictures: tuple[Picture, ...]
    vectors: NDArray[np.float32]
    failed: tuple[Unreadable, ...]
    waited: float
    computed: float

    @property
    def files(self) -> int:
        return len(self.pictures) + len(self.failed)


def embed(decoded: Iterable[Picture | Unreadable], encoder: ImageEncoder) -> Iterator[Embedded]:
    """Yield `decoded` in batches of as many readable pictures as suit the encoder, in order, each with its vectors.

    Where a batch begins depends on nothing but the order of what came before: a run that goes on after the last complete batch gets the
    same vectors, bit for bit.
    """
    pictures: list[Picture] = []
    failed: list[Unreadable] = []
    started = time.perf_counter()
    for one in decoded:
        if isinstance(one, Unreadable):
            failed.append(one)
            continue
        pictures.append(one)
        if len(pictures) >= encoder.batch:
            yield _batch(pictures, failed, encoder, time.perf_counter() - started)
            pictures, failed = [], []
            started = time.perf_counter()
    if pictures or failed:
        yield _batch(pictures, failed, encoder, time.perf_counter() - started)


def _batch(pictures: list[Picture], failed: list[Unreadable], encoder: ImageEncoder, waited: float) -> Embedded:
    """Encode one batch; a picture whose vector has no direction counts as failed."""
    if not pictures:
        return Embedded((), np.empty((0, encoder.width), np.float32), tuple(failed), waited, 0.0)
    started = time.perf_counter()
    vectors = encoder.encode_pixels(np.stack([picture.pixels for picture in pictures])).astype(np.float64)
    lengths = np.linalg.norm(vectors, axis=1)
    usable = np.isfinite(lengths) & (lengths > 0)
    kept = tuple(picture for picture, good in zip(pictures, usable, strict=True) if good)
    lost = [
        Unreadable(picture.source, "the model made no vector of it") for picture, good in zip(pictures, usable, strict=True) if not good
    ]
    units = (vectors[usable] / lengths[usable, None]).astype(np.float32)
    return Embedded(kept, units, (*failed, *lost), waited, time.perf_counter() - started)
