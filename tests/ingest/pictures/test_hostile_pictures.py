"""Files that are damaged, hostile or no pictures at all are told apart and never raise, block or fill the memory."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from mcp_server.encoders.sizing import Sizing
from mcp_server.ingest.pictures.decode import Facts, Picture, Unreadable, decode, examine
from tests.ingest.pictures.picture_files import HEIC, RED, cut, png, png_chunk, read, reason, two_halves


def test_what_is_no_file_has_a_reason_and_never_blocks(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "nowhere.png").symlink_to("gone")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("hello")
    assert reason(tmp_path / "pipe.png") == "not a regular file"
    assert reason(tmp_path / "folder.png") == "a folder, not a file"
    assert reason(tmp_path / "loop.png") == "a link that leads in a circle"
    assert reason(tmp_path / "nowhere.png") == "the file is gone"
    assert reason(tmp_path / "missing.png") == "the file is gone"
    assert reason(tmp_path / "zero.png") == "not a regular file"
    assert reason(tmp_path / "empty.png") == "empty file"
    assert reason(tmp_path / "text.jpg") == "not a picture, or of an unknown format"
    assert reason(tmp_path / ("x" * 300 + ".png")) == "its name is too long for this system"
    assert decode(tmp_path, "a\0b.png", (), cut(8, 8)) == Unreadable("a\0b.png", "its name is no name of a file")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_without_permission_has_a_reason(tmp_path: Path) -> None:
    two_halves().save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    assert reason(tmp_path / "a.png") == "no permission to read it"


def test_a_file_of_more_than_half_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as opened:
        opened.truncate(512 * 2**20 + 1)
    assert reason(tmp_path / "a.png") == "larger than 512 MiB"


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tif", "avif", "jp2"])
def test_a_picture_cut_in_half_is_reported_not_half_shown(tmp_path: Path, suffix: str) -> None:
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    random = np.random.default_rng(1)
    file = tmp_path / f"a.{suffix}"
    Image.fromarray(random.integers(0, 256, (200, 200, 3), dtype=np.uint8)).save(file)
    whole = file.read_bytes()
    for share in (0.3, 0.5, 0.9):
        file.write_bytes(whole[: int(share * len(whole))])
        assert reason(file).startswith(("cut short", "damaged", "a damaged", "not a picture")), share


def test_a_cut_heic_is_reported(tmp_path: Path) -> None:
    pytest.importorskip("pi_heif")
    for share in (0.2, 0.5, 0.8):
        (tmp_path / "a.heic").write_bytes(HEIC[: int(share * len(HEIC))])
        assert reason(tmp_path / "a.heic")


STARTS = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"GIF89a", b"RIFF\0\0\0\0WEBP", b"BM"]
SMALL = Image.fromarray(np.random.default_rng(7).integers(0, 256, (24, 24, 3), dtype=np.uint8))


def small(suffix: str) -> bytes:
    """A small picture file with EXIF data where the format has any."""
    if suffix == "heic":
        return HEIC
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif.get_ifd(0x8769)[0x9003] = "Canon", 6, "2020:01:02 03:04:05"
    target = io.BytesIO()
    extra = {"exif": exif} if suffix in ("png", "jpeg", "webp", "tiff", "avif") else {}
    if suffix == "avif" and not features.check("avif"):
        suffix = "png"
    SMALL.save(target, suffix.replace("jp2", "jpeg2000"), **extra)
    return target.getvalue()


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from(["png", "jpeg", "webp", "gif", "bmp", "tiff", "avif", "jp2", "heic"]),
    cut_at=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
)
def test_a_file_cut_or_garbled_anywhere_gives_a_picture_or_a_reason(
    tmp_path: Path, suffix: str, cut_at: float, changes: list[tuple[float, int]]
) -> None:
    whole = small(suffix)
    broken = bytearray(whole[: 1 + int(cut_at * len(whole))])
    for place, value in changes:
        broken[int(place * len(broken))] = value
    (tmp_path / "a.jpg").write_bytes(bytes(broken))
    one, other = decode(tmp_path, "a.jpg", (), cut(8, 8)), examine(tmp_path, "a.jpg", ())
    assert isinstance(one, Picture) == isinstance(other, Facts)
    if isinstance(one, Picture) and isinstance(other, Facts):
        assert one.facts == other.facts


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(STARTS),
    st.binary(max_size=200),
)
def test_any_bytes_give_a_reason_or_a_picture(tmp_path: Path, head: bytes, rest: bytes) -> None:
    (tmp_path / "a.png").write_bytes(head + rest)
    assert isinstance(decode(tmp_path, "a.png", (), cut(8, 8)), Picture | Unreadable)


def test_a_picture_that_claims_billions_of_pixels_is_not_decoded(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(png(60_000, 60_000, 8, 2, b"\0" * 1000))
    assert reason(tmp_path / "bomb.png") == "more pixels than is safe to decode"


@pytest.mark.slow
def test_a_panorama_is_read_but_a_small_file_of_as_many_pixels_is_not(tmp_path: Path) -> None:
    width, height = 20_000, 4_600
    raw = zlib.compress((b"\0" + bytes(width // 8)) * height)
    head = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    (tmp_path / "bomb.png").write_bytes(head + png_chunk(b"IDAT", raw) + png_chunk(b"IEND", b""))
    assert reason(tmp_path / "bomb.png") == "more pixels than is safe to decode"
    raw = zlib.compress((b"\0" + bytes(width // 8)) * height, level=0)
    (tmp_path / "panorama.png").write_bytes(head + png_chunk(b"IDAT", raw) + png_chunk(b"IEND", b""))
    assert read(tmp_path / "panorama.png", Sizing(32, 32)).facts["megapixels"] == 92.0


def test_a_picture_very_long_for_its_width_takes_little_memory(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1_000_000, 1, 1, 0, bytes(125_001)))  # laid on white as it is: 31 thousand million pixels
    assert read(tmp_path / "a.png", Sizing(32, 32)).facts["width"] == 1_000_000
    (tmp_path / "b.png").write_bytes(png(20_000, 1, 1, 0, bytes(2501)))
    assert read(tmp_path / "b.png", cut(8, 8)).facts["orientation"] == "landscape"


def test_a_tiff_that_lacks_strips_is_cut_short(tmp_path: Path) -> None:
    Image.new("RGB", (64, 32), RED).save(tmp_path / "a.tif")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    place = data.index(struct.pack("<HHI", 0x101, 4, 1)) + 8
    data[place : place + 4] = struct.pack("<I", 64)
    rows = data.index(struct.pack("<HHI", 0x116, 4, 1)) + 8
    data[rows : rows + 4] = struct.pack("<I", 32)
    (tmp_path / "a.tif").write_bytes(bytes(data))
    assert reason(tmp_path / "a.tif") == "cut short: the file ends before the picture does"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(48, 32), (32, 48)])
def test_a_tiff_is_whole_however_it_is_turned_and_cut_short_when_strips_are_missing(
    tmp_path: Path, size: tuple[int, int], orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, RED).save(tmp_path / "a.tif", exif=exif)
    upright = size if orientation < 5 else size[::-1]
    assert read(tmp_path / "a.tif").pixels.shape == (*upright[::-1], 3)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    for tag, value in ((0x101, 200), (0x116, size[1])):  # as high as 200 lines, in strips of which there is one
        place = data.index(struct.pack("<HHI", tag, 4, 1)) + 8
        data[place : place + 4] = struct.pack("<I", value)
    (tmp_path / "a.tif").write_bytes(bytes(data))
    assert reason(tmp_path / "a.tif") == "cut short: the file ends before the picture does"


def test_a_picture_of_a_kind_that_cannot_be_read_is_not_called_no_picture(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"II*\0" + bytes(40))
    assert reason(tmp_path / "a.tif") == "a damaged TIFF file, or of a rare kind that cannot be read"


def test_a_text_chunk_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    bomb = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(50_000_000)))
    (tmp_path / "a.png").write_bytes(png(1, 1, 8, 2, b"\0\xff\0\0", bomb))
    assert reason(tmp_path / "a.png") == "its texts unpack to more than is safe to read"


@pytest.mark.parametrize("wrap", ["tif", "jpg"])
def test_tags_that_all_point_at_the_same_megabyte_are_not_copied(tmp_path: Path, wrap: str) -> None:
    count, size = 5000, 50_000
    entries = b"".join(struct.pack("<HHII", 1000 + number, 1, size, 8) for number in range(count))
    block = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", count) + entries + b"\0\0\0\0"
    if wrap == "tif":
        (tmp_path / "a.tif").write_bytes(block)
    else:
        two_halves().save(tmp_path / "a.jpg")
        whole = (tmp_path / "a.jpg").read_bytes()
        segment = b"Exif\0\0" + block
        (tmp_path / "a.jpg").write_bytes(whole[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + whole[2:])
    assert reason(tmp_path / f"a.{wrap}") == "damaged: its tags claim far more data than the file has"


def test_a_gif_of_ten_thousand_frames_costs_one(tmp_path: Path) -> None:
    first = io.BytesIO()
    Image.new("P", (8, 8), 0).save(first, "GIF")
    body = first.getvalue()
    start = body.index(b"\x2c")
    (tmp_path / "a.gif").write_bytes(body[:-1] + body[start:-1] * 10_000 + b"\x3b")
    assert read(tmp_path / "a.gif").pixels.shape == (8, 8, 3)


def test_a_process_that_decodes_odd_files_writes_nothing_to_its_output(tmp_path: Path) -> None:
    names: list[str] = []
    for suffix in ("jpeg", "png", "webp", "tiff", "gif", "avif"):
        whole = small(suffix)
        for number, cut_at in enumerate((0.2, 0.4, 0.6, 0.8, 0.95)):
            names.append(f"{suffix}-{number}.jpg")
            (tmp_path / names[-1]).write_bytes(whole[: int(cut_at * len(whole))])
            broken = bytearray(whole)
            broken[int(cut_at * len(whole))] ^= 0xFF
            names.append(f"{suffix}-{number}b.jpg")
            (tmp_path / names[-1]).write_bytes(bytes(broken))
    code = """
import sys
from pathlib import Path
from mcp_server.ingest.pictures.decode import examine
for name in sys.argv[2:]:
    examine(Path(sys.argv[1]), name, ())
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path), *names], check=True, timeout=120, capture_output=True, text=True)
    assert done.stdout == ""
    assert done.stderr == ""
