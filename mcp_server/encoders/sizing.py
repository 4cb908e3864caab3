"""How a model wants a picture cut: the part of open_clip's preprocessing that works on pixels. Decoding processes use it, so: no torch.

Source of the rules: `open_clip.transform.image_transform` (resize modes), torchvision's `resize` and `center_crop`; a test compares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

THINNEST = 32
"""A picture whose sides differ more than so many times is laid on white first: resizing would leave nothing of the shorter side."""
_LONGEST_THIN = 8192


@dataclass(frozen=True)
class Sizing:
    """What becomes of a picture of any size before the model sees it.

    Attributes:
        height, width: pixels that the model takes.
        mode: shortest: scale until the picture covers that, cut off the rest; longest: scale until it fits in, fill the rest; squash: scale
            each side by itself.
        interpolation: how it is scaled.
        fill: grey level, 0 to 255, of what is filled.
    """

    height: int
    width: int
    mode: Literal["shortest", "longest", "squash"] = "shortest"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    fill: int = 0


def fitted(image: Image.Image, sizing: Sizing) -> NDArray[np.uint8]:
    """Return the RGB picture `image` as (height, width, 3) uint8, C order."""
    image = _not_too_thin(image)
    scaled = _resized(image, _scaled_size(image.size, sizing), sizing)
    return np.ascontiguousarray(np.asarray(_centred(scaled, sizing), dtype=np.uint8))


def _scaled_size(size: tuple[int, int], sizing: Sizing) -> tuple[int, int]:
    """Return (width, height) after scaling, before cutting and filling."""
    width, height = size
    if sizing.mode == "squash":
        return sizing.width, sizing.height
    if sizing.mode == "shortest" and sizing.width == sizing.height:
        long = int(sizing.width * max(size) / min(size))
        return (sizing.width, long) if width <= height else (long, sizing.width)
    ratios = (height / sizing.height, width / sizing.width)
    ratio = max(ratios) if sizing.mode == "longest" else min(ratios)
    return max(1, round(width / ratio)), max(1, round(height / ratio))


def _resized(image: Image.Image, size: tuple[int, int], sizing: Sizing) -> Image.Image:
    if image.size == size:
        return image
    bilinear = sizing.interpolation == "bilinear" and not (sizing.mode == "shortest" and sizing.width != sizing.height)
    return image.resize(size, Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC)


def _centred(image: Image.Image, sizing: Sizing) -> Image.Image:
    """Cut or fill `image` evenly on opposite sides; of an odd number of pixels, filling puts one more right and below."""
    wide, high = max(0, sizing.width - image.width), max(0, sizing.height - image.height)
    if wide or high:
        fill = sizing.fill if sizing.mode == "longest" else 0
        ground = Image.new("RGB", (image.width + wide, image.height + high), (fill, fill, fill))
        ground.paste(image, (wide // 2, high // 2))
        image = ground
    if image.size == (sizing.width, sizing.height):
        return image
    left, top = round((image.width - sizing.width) / 2), round((image.height - sizing.height) / 2)
    return image.crop((left, top, left + sizing.width, top + sizing.height))


def _not_too_thin(image: Image.Image) -> Image.Image:
    if max(image.size) <= THINNEST * min(image.size):
        return image
    if max(image.size) > _LONGEST_THIN:  # before it is laid on white: the ground of a very long one would fill the memory
        share = _LONGEST_THIN / max(image.size)
        image = image.resize((max(1, round(image.width * share)), max(1, round(image.height * share))), Image.Resampling.BICUBIC)
    least = -(-max(image.size) // THINNEST)
    ground = Image.new("RGB", (max(image.width, least), max(image.height, least)), "white")
    ground.paste(image, ((ground.width - image.width) // 2, (ground.height - image.height) // 2))
    return ground
