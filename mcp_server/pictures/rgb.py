"""Turns decoded pictures of every kind into upright 8-bit RGB on white, in strips: beside the picture and the result, no third copy."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_STRIP_PIXELS = 2**20
_OPAQUE = 255

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What to do about each EXIF orientation; 1 is upright."""


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """Return `image` upright, given its EXIF orientation; itself if it is that already."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def on_white(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return `image`, which is loaded, as RGB with what is transparent laid on white, and its opacity.

    The opacity is an "L" picture of the same size, 255 where nothing shines through; None for a picture without transparency. Colour
    profiles are not applied. Grey of more than 8 bits is scaled: from the narrowest of 0..1 (float), 0..255, 0..65535 and its own range.
    A picture that is RGB already is returned as it is.
    """
    if image.mode == "RGB" and not image.has_transparency_data:
        return image, None
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _of_wide_grey(image)
    if not image.has_transparency_data:
        if image.width * image.height <= _STRIP_PIXELS:
            return image.convert("RGB"), None
        ground = Image.new("RGB", image.size)
        for top, strip in _strips(image):
            ground.paste(strip.convert("RGB"), (0, top))
        return ground, None
    ground = Image.new("RGB", image.size, "white")
    opacity = Image.new("L", image.size)
    for top, strip in _strips(image):
        over = strip.convert("RGBA")
        alpha = over.getchannel("A")
        opacity.paste(alpha, (0, top))
        ground.paste(over.convert("RGB"), (0, top), alpha)
    return ground, opacity


def _of_wide_grey(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Scale 16-bit, 32-bit and float grey; one 16-bit level may stand for transparent."""
    clear = image.info.get("transparency")
    low, high = _range(image)
    ground = Image.new("RGB", image.size)
    opacity = Image.new("L", image.size, _OPAQUE) if isinstance(clear, int) else None
    for top, strip in _strips(image):
        samples = _samples(strip)
        grey = Image.fromarray(_eight_bits(samples, low, high))
        if opacity is not None:
            holes = samples == clear
            opacity.paste(Image.fromarray(np.where(holes, 0, _OPAQUE).astype(np.uint8)), (0, top))
            grey.paste(_OPAQUE, (0, 0), Image.fromarray((holes * _OPAQUE).astype(np.uint8)))
        ground.paste(grey.convert("RGB"), (0, top))
    return ground, opacity


def _range(image: Image.Image) -> tuple[float, float]:
    """Return what becomes black and what becomes white. Samples that are no finite numbers have no say."""
    low, high = math.inf, -math.inf
    for _, strip in _strips(image):
        samples = _samples(strip)
        finite = samples[np.isfinite(samples)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low > high:
        return 0.0, 1.0
    if image.mode == "F" and low >= 0 and high <= 1:
        return 0.0, 1.0
    if low >= 0 and high <= 65535:
        return 0.0, 255.0 if high <= 255 else 65535.0
    return low, high


def _eight_bits(samples: NDArray[np.float64], low: float, high: float) -> NDArray[np.uint8]:
    if not high > low:
        return np.zeros(samples.shape, np.uint8)
    bounded = np.clip(np.nan_to_num(samples, nan=low, posinf=high, neginf=low), low, high)
    # in halves: the span of two doubles may be more than a double holds
    scaled = (bounded / 2 - low / 2) / (high / 2 - low / 2) * 255
    return np.round(scaled).astype(np.uint8)


def _samples(strip: Image.Image) -> NDArray[np.float64]:
    return np.asarray(strip).astype(np.float64)


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield `image` in bands of whole lines, each with the line it starts at."""
    lines = max(1, _STRIP_PIXELS // max(1, image.width))
    for top in range(0, image.height, lines):
        band = (0, top, image.width, min(image.height, top + lines))
        yield top, image.crop(band)
