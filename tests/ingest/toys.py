"""A dozen drawn pictures and an encoder one can compute by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mcp_server.encoders.sizing import Sizing

COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "white": (255, 255, 255),
    "black": (0, 0, 0),
}


class ColourEncoder:
    """A picture's vector is its mean red, green and blue, scaled to unit length; a black picture has none."""

    width = 3
    sizing = Sizing(8, 8, "squash")

    def __init__(self, batch: int = 64) -> None:
        self.batch = batch
        self.seen = 0

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.seen += len(pixels)
        means = pixels.reshape(len(pixels), -1, 3).mean(axis=1)
        lengths = np.linalg.norm(means, axis=1, keepdims=True)
        return (means / np.where(lengths == 0, 1, lengths)).astype(np.float32)


class BreakingEncoder(ColourEncoder):
    """Works for the first batches, then fails."""

    def __init__(self, good_batches: int, batch: int = 64) -> None:
        super().__init__(batch)
        self.left = good_batches

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("the power went")
        return super().encode_pixels(pixels)


def draw(file: Path, colour: str, size: tuple[int, int] = (40, 30)) -> Path:
    """Draw a one-coloured picture, without loss if the format can."""
    file.parent.mkdir(parents=True, exist_ok=True)
    options = {"lossless": True} if file.suffix == ".webp" else {}
    Image.new("RGB", size, COLOURS[colour]).save(file, **options)
    return file


def draw_disc(file: Path, colour: str) -> Path:
    """Draw a disc on a transparent ground."""
    image = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((10, 10, 29, 29), fill=COLOURS[colour])
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file)
    return file


def write_rows(file: Path, rows: Sequence[Mapping[str, Any] | str]) -> Path:
    """Write one row a line; text is written as it is."""
    file.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
    return file


def a_dozen(folder: Path) -> Path:
    """Draw twelve pictures in `folder` and return it."""
    for number, colour in enumerate(("red", "green", "blue", "yellow", "white")):
        draw(folder / f"plain/{number}-{colour}.png", colour)
        draw(folder / f"web/{number}-{colour}.webp", colour)
    draw(folder / "large.jpg", "red", (900, 600))
    draw_disc(folder / "disc.png", "blue")
    return folder
