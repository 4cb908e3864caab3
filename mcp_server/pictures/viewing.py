"""From the bytes of a picture file, whoever made it, to a small upright RGB picture to look at."""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import cast

import numpy as np
from PIL import Image, UnidentifiedImageError

from mcp_server.pictures.decoder_errors import DECODER_ERRORS
from mcp_server.pictures.rgb import on_white, turned

MOST_PIXELS = 120_000_000
"""Larger pictures are not decoded."""
MOST_SCANS = 100
"""A JPEG file that goes over its pixels more often is not decoded; progressive ones do some ten times."""
MOST_DECODED = 20 * MOST_PIXELS
"""Nor is a JPEG file whose scans go over more pixels altogether: that would take longer than some seconds."""
JPEG_BYTES = 700_000
"""No picture for a model or a gallery is larger; as base64 it stays below 1 MiB."""

_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "HEIF", "JPEG2000", "ICO")
_QUALITIES = (88, 80, 70, 60, 50, 40, 30)
_ORIENTATION = 0x0112
_MARKER, _SCAN, _END = re.compile(rb"\xff[\x02-\xcf\xd9-\xfe]"), b"\xff\xda", b"\xff\xd9"
_decoding = threading.Lock()
"""One picture is decoded at a time: that bounds the memory, and warning filters are the whole process's."""


class UnviewableError(Exception):
    """The picture cannot be shown; the message says why in a few words."""


class TooLateError(UnviewableError):
    """Other pictures took so long that nobody waits for this one any more; it was not begun."""


def viewed(data: bytes, side: int, ground: int = 255, seconds: float | None = None) -> Image.Image:
    """Return the picture in `data` as RGB: first frame, upright, longest side at most `side` pixels, never enlarged.

    What is transparent lies on grey of level `ground`. Safe to call from several threads; they take turns, and some files take half a
    minute. One that has not got its turn after `seconds` leaves; None waits to the end.

    Raises:
        UnviewableError: it is no picture, damaged, or too large.
        TooLateError: its turn has not come.
    """
    if not (_decoding.acquire() if seconds is None else seconds > 0 and _decoding.acquire(timeout=seconds)):
        raise TooLateError("not there in time")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _viewed(data, side, ground)
    except UnidentifiedImageError as error:
        raise UnviewableError("no picture format known here") from error
    except Image.DecompressionBombError as error:
        raise UnviewableError("too many pixels") from error
    except DECODER_ERRORS as error:
        raise UnviewableError("damaged file") from error
    finally:
        _decoding.release()


def as_jpeg(image: Image.Image, most_bytes: int = JPEG_BYTES) -> bytes:
    """Return `image` as JPEG of at most `most_bytes`: at the best quality that fits, or else smaller."""
    while True:
        for quality in _QUALITIES:
            out = io.BytesIO()
            image.save(out, "JPEG", quality=quality, optimize=True)
            if out.tell() <= most_bytes:
                return out.getvalue()
        image = image.resize((max(1, image.width * 3 // 4), max(1, image.height * 3 // 4)), Image.Resampling.LANCZOS)


def _viewed(data: bytes, side: int, ground: int) -> Image.Image:
    scans = _scans(data) if data[:2] == b"\xff\xd8" else 1
    if scans > MOST_SCANS:
        raise UnviewableError("damaged file")
    with Image.open(io.BytesIO(data), formats=_known_formats()) as image:
        pixels = image.width * image.height
        if pixels > MOST_PIXELS or scans * pixels > MOST_DECODED:
            raise UnviewableError("too many pixels")
        image.draft("RGB", (2 * side, 2 * side))  # a JPEG decoder can skip what would be thrown away
        image.load()
        orientation = _orientation(image)
        plain, opacity = on_white(image)
        plain = plain.copy() if plain is image else plain
    plain = _fitted(plain, side)
    if opacity is not None and ground < 255:
        plain = _on_grey(plain, _fitted(opacity, side), ground)
    return turned(plain, orientation)


def _scans(data: bytes) -> int:
    """Return how often the JPEG file `data` goes over its pixels; counted to `MOST_SCANS` and one.

    A scan of no pixels takes a dozen bytes, and decoding it as long as any other.
    """
    scans, marker = 0, _MARKER.search(data, 2)
    while marker and marker[0] != _END and scans <= MOST_SCANS:
        scans += marker[0] == _SCAN
        length = int.from_bytes(data[marker.end() : marker.end() + 2], "big")
        marker = _MARKER.search(data, marker.end() + length)
    return scans


def _orientation(image: Image.Image) -> int:
    """Return how `image`, which is loaded, must be turned, 1 to 8 as in EXIF; 1 where that cannot be read, for the pixels are there."""
    if image.format == "TIFF":
        return 1  # Pillow turns these itself
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except DECODER_ERRORS:
        return 1
    return orientation if isinstance(orientation, int) else 1


def _fitted(image: Image.Image, side: int) -> Image.Image:
    scale = side / max(image.size)
    if scale >= 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _on_grey(on_white: Image.Image, opacity: Image.Image, ground: int) -> Image.Image:
    """Return a picture that was laid on white as if it had been laid on grey."""
    clear = 1 - np.asarray(opacity, np.float32)[..., None] / 255
    darker = np.asarray(on_white, np.float32) - clear * (255 - ground)
    return Image.fromarray(np.clip(np.round(darker), 0, 255).astype(np.uint8))


@cache
def _known_formats() -> tuple[str, ...]:
    """Load the decoders and return the formats that may be opened; others Pillow knows are not for pictures of strangers."""
    Image.init()
    cast("Callable[[], None]", import_module("pi_heif").register_heif_opener)()
    return tuple(name for name in _FORMATS if name in Image.OPEN)
