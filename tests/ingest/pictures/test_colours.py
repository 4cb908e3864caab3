"""Colours get the names people give them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageColor

from mcp_server.ingest.pictures.colours import COLOUR_NAMES, LEAST_SHARE, MOST_COLOURS, dominant_colours

BEYOND_DISPUTE = {
    "black": ["black", "#0a0a0a", "#101018"],
    "white": ["white", "snow", "ivory", "whitesmoke", "#f4f4f0"],
    "gray": ["gray", "silver", "dimgray", "lightgray", "slategray", "#404040"],
    "red": ["red", "darkred", "crimson", "firebrick", "#e01010"],
    "orange": ["orange", "darkorange", "sandybrown", "#ff7f00"],
    "yellow": ["yellow", "gold", "khaki", "lemonchiffon", "#e6c800"],
    "green": ["green", "lime", "darkgreen", "olive", "seagreen", "palegreen", "yellowgreen", "forestgreen"],
    "blue": ["blue", "navy", "skyblue", "royalblue", "steelblue", "lightblue", "deepskyblue", "cyan"],
    "purple": ["purple", "indigo", "violet", "orchid", "rebeccapurple", "mediumpurple", "darkviolet"],
    "pink": ["pink", "hotpink", "deeppink", "lightpink", "salmon"],
    "brown": ["saddlebrown", "sienna", "tan", "peru", "#5c4033"],
}


def flat(*colours: tuple[str, int]) -> np.ndarray:
    """One line of pixels, so many of each colour."""
    return np.array([[ImageColor.getrgb(name) for name, count in colours for _ in range(count)]], np.uint8)


@pytest.mark.parametrize(("name", "shades"), BEYOND_DISPUTE.items())
def test_a_shade_has_the_name_people_give_it(name: str, shades: list[str]) -> None:
    assert {shade: dominant_colours(flat((shade, 1))) for shade in shades} == {shade: [name] for shade in shades}


def test_what_covers_most_comes_first_and_little_is_not_named() -> None:
    assert dominant_colours(flat(("red", 30), ("blue", 60), ("lime", 10))) == ["blue", "red"]
    assert dominant_colours(flat(("red", 30), ("blue", 55), ("lime", 15))) == ["blue", "red", "green"]


def test_never_more_than_three_names() -> None:
    assert dominant_colours(flat(("red", 30), ("blue", 25), ("lime", 24), ("yellow", 21))) == ["red", "blue", "green"]


def test_the_first_is_there_however_little_it_covers() -> None:
    everything = flat(*((shades[0], 1) for shades in BEYOND_DISPUTE.values()))
    assert dominant_colours(everything) == ["black"]


def test_what_is_transparent_does_not_count_unless_all_is() -> None:
    pixels = flat(("white", 90), ("red", 10))
    opacity = np.array([[0] * 90 + [255] * 10], np.uint8)
    assert dominant_colours(pixels, opacity) == ["red"]
    assert dominant_colours(pixels, np.zeros_like(opacity)) == ["white"]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9))
def test_every_picture_has_one_to_three_different_names(seed: int, height: int, width: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    names = dominant_colours(pixels)
    assert 1 <= len(names) <= MOST_COLOURS
    assert len(set(names)) == len(names)
    assert set(names) <= set(COLOUR_NAMES)
    singles = [dominant_colours(pixel[None, None])[0] for pixel in pixels.reshape(-1, 3)]
    shares = {name: singles.count(name) / len(singles) for name in COLOUR_NAMES}
    assert shares[names[0]] == max(shares.values())
    assert all(shares[name] >= LEAST_SHARE for name in names[1:])
