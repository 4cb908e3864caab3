"""Runs the image tower over decoded pictures, in batches, into unit vectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mcp_server.encoders.base import ImageEncoder
from mcp_server.ingest.pictures import Picture, Unreadable

BATCH_PICTURES = 64
BATCH_PIXELS = 64_000_000
"""A batch is closed at whichever comes first: large photographs would otherwise fill the memory."""


@dataclass(frozen=True)
class Embedded:
    """A batch of pictures with their vectors, and what could not be read on the way.

    Attributes:
        pictures: the M pictures, in the order they came.
        vectors: (M, D) float32, unit length, row for row.
        failed: files that have no vector.
        seen: how many files this batch stands for, readable or not.
    """

    pictures: tuple[Picture, ...]
    vectors: NDArray[np.float32]
    failed: tuple[Unreadable, ...]

    @property
    def seen(self) -> int:
        return len(self.pictures) + len(self.failed)


def embed(decoded: Iterable[Picture | Unreadable], encoder: ImageEncoder) -> Iterator[Embedded]:
    """Yield `decoded` batch by batch, in order, each with its vectors. What the encoder raises rises."""
    pictures: list[Picture] = []
    failed: list[Unreadable] = []
    pixels = 0
    for one in decoded:
        if isinstance(one, Unreadable):
            failed.append(one)
            continue
        pictures.append(one)
        pixels += one.image.width * one.image.height
        if len(pictures) >= BATCH_PICTURES or pixels >= BATCH_PIXELS:
            yield _batch(pictures, failed, encoder)
            pictures, failed, pixels = [], [], 0
    if pictures or failed:
        yield _batch(pictures, failed, encoder)


def _batch(pictures: list[Picture], failed: list[Unreadable], encoder: ImageEncoder) -> Embedded:
    """Encode one batch; a picture whose vector has no direction counts as failed."""
    if not pictures:
        return Embedded((), np.empty((0, encoder.width), np.float32), tuple(failed))
    vectors = np.asarray(encoder.encode_images([picture.image for picture in pictures]), dtype=np.float32)
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    usable = np.isfinite(lengths) & (lengths > 0)
    kept = tuple(picture for picture, good in zip(pictures, usable, strict=True) if good)
    lost = (
        Unreadable(picture.source, "the model made no vector of it") for picture, good in zip(pictures, usable, strict=True) if not good
    )
    units = (vectors[usable] / lengths[usable, None]).astype(np.float32)
    return Embedded(kept, units, (*failed, *lost))
