"""What the model and the thumbnails see of each kind of picture file."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mcp_server.ingest.pictures import THUMBNAIL_SIDE, Picture, Unreadable, decode, decode_all
from tests.ingest.toys import COLOURS, draw, draw_disc

WHITE = (255, 255, 255)


def read(file: Path) -> Picture:
    found = decode(file.parent, file.name)
    assert isinstance(found, Picture)
    assert found.image.mode == "RGB"
    return found


def reason(file: Path) -> str:
    found = decode(file.parent, file.name)
    assert isinstance(found, Unreadable)
    assert found.source == file.name
    return found.reason


def thumbnail(picture: Picture) -> Image.Image:
    return Image.open(io.BytesIO(picture.thumbnail))


def test_what_is_transparent_shows_white(tmp_path: Path) -> None:
    image = read(draw_disc(tmp_path / "disc.png", "blue")).image
    assert image.getpixel((0, 0)) == WHITE
    assert image.getpixel((20, 20)) == COLOURS["blue"]


def test_half_transparent_red_becomes_pink(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 128)).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png").image.getpixel((1, 1)) == (255, 127, 127)


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "LA"])
def test_every_way_to_say_transparent_shows_white(tmp_path: Path, mode: str) -> None:
    file = tmp_path / "a.png"
    if mode == "LA":
        Image.new("LA", (4, 4), (0, 0)).save(file)
    elif mode == "P":
        image = Image.new("P", (4, 4), 0)
        image.putpalette([0, 0, 0, 255, 0, 0])
        image.save(file, transparency=0)
    else:
        Image.new(mode, (4, 4), 0).save(file, transparency=0 if mode == "L" else (0, 0, 0))
    assert read(file).image.getpixel((1, 1)) == WHITE


def test_a_photograph_is_turned_upright_and_so_is_its_thumbnail(tmp_path: Path) -> None:
    image = Image.new("RGB", (60, 20), COLOURS["red"])
    image.paste(COLOURS["blue"], (0, 0, 30, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise
    image.save(tmp_path / "a.webp", lossless=True, exif=exif)
    found = read(tmp_path / "a.webp")
    assert found.image.size == thumbnail(found).size == (20, 60)
    assert found.image.getpixel((10, 5)) == COLOURS["blue"]
    assert found.image.getpixel((10, 55)) == COLOURS["red"]


def test_print_colours_are_turned_into_screen_colours(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.tif")
    assert read(tmp_path / "a.tif").image.getpixel((1, 1)) == COLOURS["red"]


@pytest.mark.parametrize(
    ("samples", "grey"),
    [
        (np.full((4, 4), 65535, np.uint16), 255),
        (np.full((4, 4), 32768, np.uint16), 128),
        (np.full((4, 4), 200, np.uint16), 200),
        (np.full((4, 4), 0.5, np.float32), 128),
        (np.full((4, 4), 40000, np.int32), 156),
    ],
)
def test_wide_samples_are_scaled_not_clipped(tmp_path: Path, samples: np.ndarray, grey: int) -> None:
    Image.fromarray(samples).save(tmp_path / "a.tif")
    assert read(tmp_path / "a.tif").image.getpixel((1, 1)) == (grey, grey, grey)


def test_only_the_first_frame_of_a_film_counts(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (30, 30), COLOURS["red"]), Image.new("RGB", (30, 30), COLOURS["blue"])
    first.save(tmp_path / "a.webp", save_all=True, append_images=[second], lossless=True)
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    for name in ("a.webp", "a.gif"):
        found = read(tmp_path / name)
        assert found.image.getpixel((1, 1)) == COLOURS["red"]
        assert getattr(thumbnail(found), "n_frames", 1) == 1


def test_a_small_webp_is_its_own_thumbnail(tmp_path: Path) -> None:
    file = draw(tmp_path / "a.webp", "green")
    assert read(file).thumbnail == file.read_bytes()


@pytest.mark.parametrize("size", [(1000, 400), (300, 900), (257, 257)])
def test_a_large_picture_gets_a_small_thumbnail_of_its_shape(tmp_path: Path, size: tuple[int, int]) -> None:
    found = thumbnail(read(draw(tmp_path / "a.webp", "green", size)))
    assert found.format == "WEBP"
    assert max(found.size) == THUMBNAIL_SIDE
    assert found.width / found.height == pytest.approx(size[0] / size[1], rel=0.02)


def test_a_small_picture_is_not_blown_up(tmp_path: Path) -> None:
    assert thumbnail(read(draw(tmp_path / "a.png", "green", (9, 7)))).size == (9, 7)


def test_damaged_files_are_told_apart_and_never_raise(tmp_path: Path) -> None:
    whole = draw(tmp_path / "whole.png", "red", (200, 200)).read_bytes()
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    assert reason(tmp_path / "empty.png") == "empty file"
    assert reason(tmp_path / "text.png") == "not a picture, or of an unknown format"
    assert reason(tmp_path / "cut.png")
    assert reason(tmp_path / "missing.png") == "No such file or directory"


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow warns about some damage and goes on
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tif"])
def test_a_file_cut_or_garbled_anywhere_gives_a_picture_or_a_reason(tmp_path: Path, suffix: str) -> None:
    random = np.random.default_rng(7)
    file = tmp_path / f"a.{suffix}"
    Image.fromarray(random.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(file)
    whole = file.read_bytes()
    for _ in range(60):
        broken = bytearray(whole[: random.integers(1, len(whole) + 1)])
        for place in random.integers(0, len(broken), 4):
            broken[place] = random.integers(0, 256)
        file.write_bytes(bytes(broken))
        assert isinstance(decode(tmp_path, file.name), Picture | Unreadable)


def test_a_picture_that_claims_billions_of_pixels_is_not_decoded(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    packed = b"".join(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks)
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + packed)
    assert reason(tmp_path / "bomb.png") == "more pixels than is safe to decode"


def test_many_pictures_come_back_in_order(tmp_path: Path) -> None:
    names = [draw(tmp_path / f"{number:03}.png", "red", (1 + number, 5)).name for number in range(40)]
    assert [found.source for found in decode_all(tmp_path, names)] == names
    assert [found.image.width for found in decode_all(tmp_path, names) if isinstance(found, Picture)] == list(range(1, 41))
