"""What the model and the thumbnails see of each kind of picture file."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, features

from mcp_server.encoders.sizing import Sizing, fitted
from mcp_server.ingest.pictures.decode import THUMBNAIL_SIDE, Facts, Picture, decode, examine, readable_suffixes
from tests.ingest.pictures.picture_files import BLUE, GREEN, HEIC, RED, WHITE, cut, pixel, png, read, thumbnail, two_halves

SAVED: dict[str, Callable[[Path], Any]] = {
    "a.jpg": partial(two_halves().save, quality=95),
    "progressive.jpeg": partial(two_halves().save, quality=95, progressive=True),
    "cmyk.jpg": partial(two_halves("CMYK").save, quality=95),
    "a.jfif": partial(two_halves().save, format="JPEG", quality=95),
    "mpo.jpg": partial(two_halves().save, format="MPO", quality=95, save_all=True, append_images=[Image.new("RGB", (64, 32))]),
    "a.png": two_halves().save,
    "palette.png": two_halves("P").save,
    "alpha.png": two_halves("RGBA").save,
    "animated.apng": partial(two_halves().save, format="PNG", save_all=True, append_images=[Image.new("RGB", (64, 32))]),
    "a.webp": partial(two_halves().save, quality=95),
    "alpha.webp": partial(two_halves("RGBA").save, lossless=True),
    "animated.webp": partial(two_halves().save, save_all=True, append_images=[Image.new("RGB", (64, 32))], lossless=True),
    "a.gif": partial(two_halves().save, save_all=True, append_images=[Image.new("RGB", (64, 32))]),
    "a.bmp": two_halves().save,
    "palette.bmp": two_halves("P").save,
    "a.dib": two_halves().save,
    "a.tif": two_halves().save,
    "lzw.tiff": partial(two_halves().save, compression="tiff_lzw"),
    "jpeg.tif": partial(two_halves().save, compression="jpeg", quality=95),
    "deflate.tif": partial(two_halves().save, compression="tiff_adobe_deflate"),
    "cmyk.tif": two_halves("CMYK").save,
    "lab.tif": two_halves("LAB").save,
    "pages.tif": partial(two_halves().save, save_all=True, append_images=[Image.new("RGB", (9, 9))]),
    "palette.tif": two_halves("P").save,
    "a.jp2": two_halves().save,
    "a.avif": partial(two_halves().save, quality=95) if features.check("avif") else two_halves().save,
}


@pytest.mark.parametrize("name", sorted(SAVED))
def test_every_format_shows_its_first_picture(tmp_path: Path, name: str) -> None:
    if name.endswith(".avif") and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    SAVED[name](tmp_path / name)
    assert (tmp_path / name).suffix in readable_suffixes()
    found = read(tmp_path / name)
    assert found.pixels.shape == (32, 64, 3)
    assert found.facts["colors"] in (["blue", "red"], ["red", "blue"])
    tolerance = 8 if name != "lab.tif" else 25
    assert np.abs(found.pixels[16, 8].astype(int) - BLUE).max() <= tolerance
    assert np.abs(found.pixels[16, 56].astype(int) - RED).max() <= tolerance


def test_a_telephones_heic_is_read_and_turned(tmp_path: Path) -> None:
    pytest.importorskip("pi_heif")
    (tmp_path / "a.heic").write_bytes(HEIC)
    found = read(tmp_path / "a.heic")
    assert found.pixels.shape == (64, 32, 3)
    assert pixel(found, 16, 8)[2] > 240
    assert pixel(found, 16, 56)[0] > 240
    assert found.facts["camera_make"] == "Canon"
    assert found.facts["orientation"] == "portrait"


def test_without_its_package_a_heic_is_reported_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(HEIC)
    code = """
import sys
from pathlib import Path
sys.modules["pi_heif"] = None
from mcp_server.ingest.pictures.decode import examine
sys.stdout.write(examine(Path(sys.argv[1]), "a.heic", ()).reason)
"""
    said = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60, capture_output=True, text=True).stdout
    assert said == "HEIC pictures need the package pi-heif: pip install pi-heif"


def test_importing_the_decoder_stays_light() -> None:
    code = """
import sys
import mcp_server.ingest.pictures.decode
heavy = [name for name in ("torch", "zarr", "sqlite3", "faiss", "open_clip", "defusedxml", "pi_heif") if name in sys.modules]
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
def test_a_turned_picture_stands_upright_in_every_format(tmp_path: Path, suffix: str, orientation: int) -> None:
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    upright = Image.new("RGB", (48, 32), RED)
    upright.paste(BLUE, (0, 0, 24, 16))
    upright.paste(WHITE, (24, 16, 48, 32))
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # the Transpose that takes an upright picture to the stored one
    stored = upright if undo is None else upright.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    quality = {"quality": 95} if suffix in ("jpg", "webp", "avif") else {}
    stored.save(tmp_path / f"a.{suffix}", exif=exif, **quality)
    found = read(tmp_path / f"a.{suffix}")
    assert found.pixels.shape == (32, 48, 3)
    assert np.abs(found.pixels.astype(int) - np.asarray(upright)).mean() < 8
    assert thumbnail(found).size == (48, 32)
    assert found.facts["orientation"] == "landscape"


def test_print_colours_of_adobe_are_not_inverted(tmp_path: Path) -> None:
    two_halves("CMYK").save(tmp_path / "a.jpg", quality=100)
    data = bytearray((tmp_path / "a.jpg").read_bytes())
    assert b"Adobe" in data
    assert np.abs(read(tmp_path / "a.jpg").pixels[16, 56].astype(int) - RED).max() < 8


def test_what_is_transparent_shows_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    ImageDraw.Draw(image).ellipse((10, 10, 29, 29), fill=BLUE)
    image.save(tmp_path / "a.png")
    found = read(tmp_path / "a.png")
    assert pixel(found, 0, 0) == WHITE
    assert pixel(found, 20, 20) == BLUE
    assert found.facts["colors"] == ["blue"]


def test_a_wholly_transparent_picture_is_white(tmp_path: Path) -> None:
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png").facts["colors"] == ["white"]


def test_half_transparent_red_becomes_pink(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 128)).save(tmp_path / "a.png")
    assert pixel(read(tmp_path / "a.png"), 1, 1) == (255, 127, 127)


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "LA", "1", "I;16", "gif", "PA"])
def test_every_way_to_say_transparent_shows_white(tmp_path: Path, mode: str) -> None:
    file = tmp_path / "a.png"
    if mode in ("LA", "PA"):
        Image.new("LA", (4, 4), (0, 0)).save(file)
    elif mode in ("P", "gif"):
        image = Image.new("P", (4, 4), 0)
        image.putpalette([0, 0, 0, 255, 0, 0])
        file = file.with_suffix(".gif") if mode == "gif" else file
        image.save(file, transparency=0)
    elif mode == "I;16":
        Image.fromarray(np.full((4, 4), 7000, np.uint16)).save(file, transparency=7000)
    else:
        Image.new(mode, (4, 4), 0).save(file, transparency=(0, 0, 0) if mode == "RGB" else 0)
    assert pixel(read(file), 1, 1) == WHITE


def test_a_palette_with_degrees_of_transparency_is_blended(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.save(tmp_path / "a.png", transparency=bytes([255, 128]))
    assert pixel(read(tmp_path / "a.png"), 1, 1) == (255, 127, 127)


@pytest.mark.parametrize(
    ("samples", "grey"),
    [
        (np.full((4, 4), 65535, np.uint16), 255),
        (np.full((4, 4), 32768, np.uint16), 128),
        (np.full((4, 4), 200, np.uint16), 200),
        (np.full((4, 4), 0.5, np.float32), 128),
        (np.full((4, 4), np.nan, np.float32), 0),
        (np.full((4, 4), 40000, np.int32), 156),
        (np.array([[0.0, np.nan], [1.0, np.inf]], np.float32), 0),
        (np.array([[-3e38, 0.0], [0.0, 3e38]], np.float32), 0),
    ],
)
@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_wide_samples_are_scaled_not_clipped(tmp_path: Path, samples: np.ndarray, grey: int, suffix: str) -> None:
    if suffix == "png" and samples.dtype != np.uint16:
        pytest.skip("PNG has no such samples")
    Image.fromarray(samples).save(tmp_path / f"a.{suffix}")
    assert pixel(read(tmp_path / f"a.{suffix}"), 0, 0) == (grey, grey, grey)


def test_wide_grey_is_scaled_the_same_whatever_its_size(tmp_path: Path) -> None:
    samples = np.linspace(0, 65535, 1500 * 1000).astype(np.uint16).reshape(1000, 1500)
    Image.fromarray(samples).save(tmp_path / "a.png")
    expected = np.round(samples / 257).astype(np.uint8)
    assert np.array_equal(read(tmp_path / "a.png").pixels, np.repeat(expected[..., None], 3, axis=2))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "YCbCr", "1"])
def test_a_large_picture_becomes_the_same_as_all_at_once(tmp_path: Path, mode: str) -> None:
    random = np.random.default_rng(5)
    image = Image.fromarray(random.integers(0, 256, (1100, 1300, 3), dtype=np.uint8)).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(random.integers(0, 2, (1100, 1300), dtype=np.uint8) * 255))
    image.save(tmp_path / "a.tif")
    with Image.open(tmp_path / "a.tif") as opened:
        over = opened.convert("RGBA")
    expected = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    assert np.array_equal(read(tmp_path / "a.tif").pixels, np.asarray(expected))


def test_png_of_16_bits_a_colour_is_read(tmp_path: Path) -> None:
    raw = b"".join(b"\0" + struct.pack(">HHH", 65535, 32768, 0) * 4 for _ in range(4))
    (tmp_path / "a.png").write_bytes(png(4, 4, 16, 2, raw))
    assert pixel(read(tmp_path / "a.png"), 1, 1) == (255, 128, 0)


def test_interlaced_png_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1, 1, 8, 2, b"\0\xff\0\0", interlace=1))
    assert pixel(read(tmp_path / "a.png"), 0, 0) == RED


def test_a_run_length_coded_bmp_is_read(tmp_path: Path) -> None:
    rows = bytes([4, 1, 0, 0]) * 2 + bytes([0, 1])  # two lines of four pixels of colour 1, end
    palette = bytes([0, 0, 0, 0, 0, 0, 255, 0])
    header = struct.pack("<IiiHHIIiiII", 40, 4, 2, 1, 8, 1, len(rows), 0, 0, 2, 2)
    offset = 14 + 40 + len(palette)
    (tmp_path / "a.bmp").write_bytes(b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset) + header + palette + rows)
    assert pixel(read(tmp_path / "a.bmp"), 3, 1) == RED


def test_a_mislabelled_picture_is_a_fine_picture(tmp_path: Path) -> None:
    two_halves().save(tmp_path / "a.png", format="JPEG", quality=95)
    found = read(tmp_path / "a.png")
    assert pixel(found, 5, 5)[2] > 240
    assert found.facts["extension"] == "png"


def test_the_pixels_are_what_the_models_own_preprocessing_gets(tmp_path: Path) -> None:
    from open_clip.transform import image_transform

    random = np.random.default_rng(2)
    Image.fromarray(random.integers(0, 256, (410, 333, 3), dtype=np.uint8)).save(tmp_path / "a.jpg", quality=80)
    with Image.open(tmp_path / "a.jpg") as opened:
        expected = image_transform(224, is_train=False, mean=(0.0,) * 3, std=(1.0,) * 3)(opened.convert("RGB"))
        whole = fitted(opened.convert("RGB"), Sizing(224, 224))
    pixels = read(tmp_path / "a.jpg", Sizing(224, 224)).pixels
    assert np.array_equal(pixels, whole)
    assert np.array_equal(pixels, np.round(expected.numpy().transpose(1, 2, 0) * 255).astype(np.uint8))


def test_a_small_webp_is_its_own_thumbnail_unless_it_carries_metadata(tmp_path: Path) -> None:
    two_halves().save(tmp_path / "a.webp")
    assert read(tmp_path / "a.webp").thumbnail == (tmp_path / "a.webp").read_bytes()
    exif = Image.Exif()
    exif[0x010F] = "Somebody's camera"
    two_halves().save(tmp_path / "b.webp", exif=exif)
    assert b"Somebody" not in read(tmp_path / "b.webp").thumbnail


@pytest.mark.parametrize("size", [(1000, 400), (300, 900), (257, 257), (3000, 2)])
def test_a_large_picture_gets_a_small_thumbnail_of_its_shape(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, GREEN).save(tmp_path / "a.png")
    found = thumbnail(read(tmp_path / "a.png"))
    assert found.format == "WEBP"
    assert max(found.size) == THUMBNAIL_SIDE
    assert min(found.size) == max(1, round(min(size) * THUMBNAIL_SIDE / max(size)))


def test_a_small_picture_is_not_blown_up(tmp_path: Path) -> None:
    Image.new("RGB", (9, 7), GREEN).save(tmp_path / "a.png")
    assert thumbnail(read(tmp_path / "a.png")).size == (9, 7)


def test_a_thumbnail_keeps_a_small_colour_profile_and_drops_a_large_one(tmp_path: Path) -> None:
    for name, profile in (("a.png", b"p" * 500), ("b.png", b"p" * 500_000)):
        two_halves().save(tmp_path / name, icc_profile=profile)
    assert thumbnail(read(tmp_path / "a.png")).info["icc_profile"] == b"p" * 500
    assert "icc_profile" not in thumbnail(read(tmp_path / "b.png")).info


def test_the_hash_is_that_of_the_files_bytes(tmp_path: Path) -> None:
    two_halves().save(tmp_path / "a.png")
    assert read(tmp_path / "a.png").sha256 == hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()


def test_a_picture_deep_below_with_a_strange_name_is_read(tmp_path: Path) -> None:
    name = "é日本 🎉'\"%20 " + "x" * 180 + ".png"
    (tmp_path / "a b" / "ü").mkdir(parents=True)
    two_halves().save(tmp_path / "a b" / "ü" / name)
    found = decode(tmp_path, f"a b/ü/{name}", (), cut(8, 8))
    assert isinstance(found, Picture)
    assert found.facts["folder"] == ["a b", "ü", "a b/ü"]
    assert found.facts["filename"] == name


def test_a_link_is_read_like_the_file(tmp_path: Path) -> None:
    two_halves().save(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("a.png")
    assert read(tmp_path / "b.png").sha256 == read(tmp_path / "a.png").sha256


def test_a_broken_sidecar_is_a_note_and_a_good_one_counts(tmp_path: Path) -> None:
    two_halves().save(tmp_path / "a.png")
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "a.txt").write_text("Two halves")
    found = decode(tmp_path, "a.png", ("a.json", "a.txt", "gone.xmp"), cut(8, 8))
    assert isinstance(found, Picture)
    assert found.facts["caption"] == "Two halves"
    assert found.notes == ("a.json is left out: it is not JSON text in UTF-8.", "gone.xmp is left out: the file is gone.")
    assert examine(tmp_path, "a.png", ("a.json", "a.txt", "gone.xmp")) == Facts("a.png", found.sha256, found.facts, found.notes)
