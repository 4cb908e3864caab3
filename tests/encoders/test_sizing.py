"""Pictures are cut as open_clip cuts them, pixel for pixel."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from open_clip.transform import image_transform
from PIL import Image

from mcp_server.encoders.sizing import THINNEST, Sizing, fitted

MODES = st.sampled_from(["shortest", "longest", "squash"])


def noise(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def open_clips_own(image: Image.Image, sizing: Sizing) -> np.ndarray:
    transform = image_transform(
        (sizing.height, sizing.width),
        is_train=False,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        resize_mode=sizing.mode,
        interpolation=sizing.interpolation,
        fill_color=sizing.fill,
    )
    return (transform(image).numpy().transpose(1, 2, 0) * 255).round().astype(np.uint8)


@settings(max_examples=150, deadline=None)
@given(
    size=st.tuples(st.integers(1, 260), st.integers(1, 260)).filter(lambda size: max(size) <= THINNEST * min(size)),
    model=st.one_of(st.integers(8, 96).map(lambda side: (side, side)), st.tuples(st.integers(8, 96), st.integers(8, 96))),
    mode=MODES,
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
    fill=st.sampled_from([0, 127, 255]),
)
def test_every_mode_gives_open_clips_own_pixels(
    size: tuple[int, int], model: tuple[int, int], mode: str, interpolation: str, fill: int
) -> None:
    sizing = Sizing(*model, mode, interpolation, fill)  # type: ignore[arg-type]
    image = noise(*size)
    ratio = max(size[1] / model[0], size[0] / model[1])
    assume(mode != "longest" or round(min(size) / ratio) >= 1)  # else nothing is left of one side: open_clip raises
    got = fitted(image, sizing)
    assert got.shape == (*model, 3)
    assert np.array_equal(got, open_clips_own(image, sizing))


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [(1, 5_000), (5_000, 1), (10, 3_000), (1, 1)])
def test_a_picture_thinner_than_a_pixel_of_the_model_is_laid_on_white(mode: str, size: tuple[int, int]) -> None:
    pixels = fitted(Image.new("RGB", size, "red"), Sizing(64, 64, mode, fill=255))  # type: ignore[arg-type]
    assert pixels.shape == (64, 64, 3)
    assert (pixels[:, :, 0] > 250).all()


def test_a_decoding_process_needs_no_torch() -> None:
    code = "import sys, mcp_server.encoders.sizing; assert not {'torch', 'torchvision', 'open_clip'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
