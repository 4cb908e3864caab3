"""What the agent looks at: every label readable, every picture upright and whole, never too many bytes, never a crash."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mcp_server.domain.search import SearchRequest, WeightedText
from mcp_server.engine.pictures import contact_sheet, picture
from mcp_server.engine.search import SearchEngine
from mcp_server.errors import UnknownMediaError
from mcp_server.pictures import viewing
from mcp_server.pictures.contact_sheet import SHEET_SIDE, Tile, draw_sheet, grid_for
from mcp_server.pictures.viewing import JPEG_BYTES, UnviewableError, as_jpeg, viewed
from mcp_server.protocol.view import view_answer

ID_19 = "12: id 9223372036854775807"


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)  # pyright: ignore[reportArgumentType]
    return out.getvalue()


def scanned_again(times: int, side: int = 64) -> bytes:
    """Return a progressive JPEG, said to be `side` wide and high, whose last scan comes once more, so many times."""
    data = encoded(Image.new("L", (64, 64), 128), "JPEG", progressive=True)
    size = data.index(b"\xff\xc2") + 5
    data = data[:size] + 2 * side.to_bytes(2, "big") + data[size + 4 :]
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * times + data[-2:]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 3000)), min_size=1, max_size=12))
def test_every_picture_fits_its_cell_and_the_sheet_its_limits(sizes: list[tuple[int, int]]) -> None:
    grid = grid_for(sizes)
    assert grid.columns * grid.rows >= len(sizes) > (grid.rows - 1) * grid.columns
    tiles = [
        Tile(f"{place}: id {place}", Image.new("RGB", (min(width, 400), min(height, 400)))) for place, (width, height) in enumerate(sizes)
    ]
    sheet = draw_sheet(tiles)
    assert max(sheet.size) <= SHEET_SIDE


def test_twelve_worst_case_pictures_stay_below_every_message_limit() -> None:
    sheet = draw_sheet([Tile(f"{place}: id {10**18 + place}", noise(384, 384)) for place in range(1, 13)])
    data = as_jpeg(sheet)
    assert len(data) <= JPEG_BYTES == 700_000
    message = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"content": [{"type": "image", "data": base64.b64encode(data).decode()}]}})
    assert len(message) + 2_000 < 2**20
    shown = Image.open(io.BytesIO(data))
    assert shown.size == sheet.size


def test_pictures_keep_their_proportions_and_lie_under_their_label() -> None:
    red, blue = Image.new("RGB", (400, 100), (200, 0, 0)), Image.new("RGB", (100, 400), (0, 0, 200))
    sheet = np.asarray(draw_sheet([Tile("1: id 5", red), Tile("2: id 6", blue), Tile("3: id 7", None, "no picture")]))
    for colour, ratio in (((200, 0, 0), 4.0), ((0, 0, 200), 0.25)):
        rows, columns = np.nonzero((np.abs(sheet.astype(int) - colour) < 30).all(axis=2))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert width / height == pytest.approx(ratio, rel=0.03)
    label = sheet[8:42]
    assert (label == 0).all(axis=2).mean() > 0.5  # a black strip
    assert (label > 240).all(axis=2).any()  # with white on it


@pytest.mark.parametrize("size", [(200, 200), (5, 384), (384, 5)], ids=["square", "tall", "wide"])
@pytest.mark.parametrize(("label", "least"), [("12: id 100012", 100), (ID_19, 210)], ids=["short", "long"])
def test_a_label_stays_readable_and_inside_its_strip_whatever_the_pictures(label: str, least: int, size: tuple[int, int]) -> None:
    sheet = np.asarray(draw_sheet([Tile(label, Image.new("RGB", size, (90, 90, 90))) for _ in range(12)]))
    black = (sheet[8:42] == 0).all(axis=2).all(axis=0)
    strip = sheet[8:42, 8 : 8 + int(np.argmax((sheet[8, 8:] == 255).all(axis=1)))]
    ink = np.nonzero((strip > 200).all(axis=2).any(axis=0))[0]
    assert black[8:12].all()
    assert ink[0] >= 4
    assert ink[-1] <= strip.shape[1] - 5
    assert np.ptp(ink) >= least


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(orientation: int, kind: str) -> None:
    upright = Image.new("RGB", (60, 30), (255, 255, 255))
    upright.paste((255, 0, 0), (0, 0, 20, 10))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # what a camera does, as PIL's transpositions
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = np.asarray(viewed(encoded(stored, kind, exif=exif.tobytes()), 60)).astype(int)
    assert shown.shape == (30, 60, 3)
    assert tuple(shown[2, 2]) == (255, 0, 0)
    assert tuple(shown[25, 50]) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_picture_with_unreadable_exif_is_shown_all_the_same(kind: str) -> None:
    assert viewed(encoded(Image.new("RGB", (60, 30)), kind, exif=b"neither II nor MM"), 60).size == (60, 30)


def test_a_jpeg_may_have_many_scans_and_anything_behind_its_end() -> None:
    assert viewed(scanned_again(50) + b"\xff\xda" * 1_000, 60).size == (60, 60)


def test_what_is_transparent_lies_on_the_ground_asked_for() -> None:
    clear = encoded(Image.new("RGBA", (20, 20), (0, 0, 0, 0)))
    assert viewed(clear, 20).getpixel((5, 5)) == (255, 255, 255)
    assert viewed(clear, 20, ground=232).getpixel((5, 5)) == (232, 232, 232)
    half = encoded(Image.new("RGBA", (20, 20), (0, 0, 0, 128)))
    grey = viewed(half, 20, ground=232).getpixel((5, 5))
    assert isinstance(grey, tuple)
    assert grey[0] == pytest.approx(232 * (1 - 128 / 255), abs=2)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture"),
        (b"not a picture at all" * 100, "no picture"),
        (encoded(noise(300, 300), "JPEG")[:4000], "damaged"),
        (encoded(noise(64, 64))[:600], "damaged"),
        (encoded(Image.new("1", (20_000, 20_000))), "too many pixels"),
        (scanned_again(200), "damaged"),
        (scanned_again(30, 10_000), "too many pixels"),  # in a dozen bytes a scan, which together take a processor for seconds
    ],
)
def test_what_cannot_be_shown_says_why(data: bytes, reason: str) -> None:
    with pytest.raises(UnviewableError, match=reason):
        viewed(data, 256)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_every_kind_of_pixel_becomes_rgb_and_is_never_enlarged(mode: str) -> None:
    kind = {"CMYK": "JPEG", "F": "TIFF"}.get(mode, "PNG")
    shown = viewed(encoded(Image.new(mode, (50, 20)), kind), 256)
    assert (shown.mode, shown.size) == ("RGB", (50, 20))
    assert viewed(encoded(Image.new(mode, (50, 20)), kind), 25).size == (25, 10)


def test_a_sheet_of_the_demo_names_every_tile(demo: SearchEngine) -> None:
    result = view_answer(demo.shelf, None, [1221, 323, 1221, 999_999])
    assert result.structured_content is None
    image, key = result.content
    assert image.type == "image"
    assert key.type == "text"
    assert key.text.splitlines() == [
        "1 = id 1221: red apple (group 3880)",
        "2 = id 323: red apple (group 3880)",
        "3 = id 999999: not in this collection",
        "Ids given twice are shown once.",
    ]
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(image.data)))).astype(int)
    assert ((shown[..., 0] > 180) & (shown[..., 1] < 90)).mean() > 0.05  # the apples are there, and red


def test_pictures_that_nobody_waits_for_any_more_are_not_decoded(demo: SearchEngine) -> None:
    def looking() -> int:
        return sum(thread.name.startswith("picture") for thread in threading.enumerate())

    ids = [int(hit.item.id) for hit in demo.search(SearchRequest((WeightedText("a cat"),), n=12)).hits]
    before = looking()
    with viewing._decoding:  # pyright: ignore[reportPrivateUsage] - as if a picture took very long
        sheet = contact_sheet(demo.shelf, None, ids, seconds=0.05)
        assert sheet.key.count("not there in time") == 12
        until = time.monotonic() + 20
        while looking() > before + 1 and time.monotonic() < until:
            time.sleep(0.01)
        assert looking() <= before + 1  # the one that is being decoded
    assert "not there in time" not in contact_sheet(demo.shelf, None, ids).key


def test_unknown_ids_alone_are_refused(demo: SearchEngine) -> None:
    with pytest.raises(UnknownMediaError, match="Take ids"):
        contact_sheet(demo.shelf, "demo", [999_998, 999_999])
    with pytest.raises(UnknownMediaError, match="999999"):
        picture(demo.shelf, "demo", 999_999, 256)


def test_a_picture_comes_as_a_small_jpeg_whatever_it_was(demo: SearchEngine) -> None:
    found = picture(demo.shelf, "demo", 1221, 64)
    shown = Image.open(io.BytesIO(found.data))
    assert (shown.format, found.mime_type) == ("JPEG", "image/jpeg")
    assert max(shown.size) == 64


def test_the_demo_keeps_its_thumbnails_where_the_test_looks(repository: Path) -> None:
    with zipfile.ZipFile(repository / "data/demo/thumbnails.zip") as archive:
        assert len(archive.namelist()) > 3_500
