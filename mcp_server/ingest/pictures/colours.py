"""Names the dominant colours of a picture with the eleven basic colour words.

A pixel's name follows from its lightness, chroma and hue in OKLCH, where equal steps look about equal.
Source of the conversion: B. Ottosson, "A perceptual color space for image processing" (Oklab), 2020; sRGB: IEC 61966-2-1.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

COLOUR_NAMES = ("black", "white", "gray", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
"""Every name there is, in the order that decides between equal shares."""

MOST_COLOURS = 3
LEAST_SHARE = 0.15
"""Part of the pixels that a second or third colour must cover."""

_STEPS = 32  # levels a channel in the table of names: 8 of the 256 have one name
_OPAQUE = 128

_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def dominant_colours(pixels: NDArray[np.uint8], opacity: NDArray[np.uint8] | None = None) -> list[str]:
    """Return one to three colour names, the one that covers most first.

    Args:
        pixels: (H, W, 3) uint8 sRGB, at least one pixel.
        opacity: (H, W) uint8, 255 where the picture is opaque. Pixels below half do not count unless all are.

    The first name is always there, the others if they cover at least `LEAST_SHARE` of the pixels that count.
    """
    flat = pixels.reshape(-1, 3)
    if opacity is not None and (kept := opacity.reshape(-1) >= _OPAQUE).any():
        flat = flat[kept]
    cells = (flat // (256 // _STEPS)).astype(np.intp)
    names = _table()[cells[:, 0], cells[:, 1], cells[:, 2]]
    counts = np.bincount(names, minlength=len(COLOUR_NAMES))
    order = np.argsort(-counts, kind="stable")[:MOST_COLOURS]
    least = LEAST_SHARE * len(flat)
    return [COLOUR_NAMES[number] for place, number in enumerate(order) if place == 0 or counts[number] >= least]


@cache
def _table() -> NDArray[np.uint8]:
    """Return the number of the name of every cell of the RGB cube, (32, 32, 32) uint8."""
    levels = np.round(np.linspace(0, 255, _STEPS))  # black and white themselves are cells
    cube = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1)
    return _numbers(cube.reshape(-1, 3)).reshape(_STEPS, _STEPS, _STEPS)


def _numbers(colours: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return the number in `COLOUR_NAMES` of each of (N, 3) sRGB colours, 0 to 255. The first rule that holds names a colour."""
    lightness, chroma, hue = _oklch(colours)
    rules = (
        ("black", (lightness < 0.22) | ((lightness < 0.30) & (chroma < 0.05))),
        ("white", (lightness > 0.92) & (chroma < 0.042)),
        ("gray", chroma < np.where(lightness < 0.5, 0.03, 0.035)),
        ("pink", ((hue >= 345) | (hue < 15)) & (lightness > 0.62)),
        ("purple", ((hue >= 345) | (hue < 15)) & (chroma < 0.07)),
        ("red", (hue >= 345) | (hue < 15)),
        ("pink", (hue < 36) & ((lightness > 0.72) | ((lightness > 0.66) & (chroma < 0.14)))),
        ("brown", (hue < 38) & (chroma < 0.1)),
        ("red", hue < 38),
        ("white", (hue < 118) & (lightness > 0.88) & (chroma < 0.052)),
        ("brown", (hue < 80) & ((lightness < 0.64) | ((lightness < 0.70) & (chroma < 0.14)) | ((lightness < 0.85) & (chroma < 0.075)))),
        ("orange", hue < 80),
        ("yellow", (hue < 118) & (lightness > 0.72) & (chroma > 0.05)),
        ("brown", hue < 98),
        ("green", hue < 190),
        ("blue", (hue < 278) | ((hue < 285) & (chroma > 0.28))),
        ("pink", (hue >= 330) & (lightness > 0.75)),
    )
    names = np.select([rule for _, rule in rules], [COLOUR_NAMES.index(name) for name, _ in rules], COLOUR_NAMES.index("purple"))
    return names.astype(np.uint8)


def _oklch(colours: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return lightness (0 to 1), chroma and hue in degrees."""
    part = colours / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    lab = np.cbrt(linear @ _TO_CONES.T) @ _TO_OKLAB.T
    return lab[:, 0], np.hypot(lab[:, 1], lab[:, 2]), np.degrees(np.arctan2(lab[:, 2], lab[:, 1])) % 360
