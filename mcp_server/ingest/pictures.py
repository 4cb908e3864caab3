"""Decodes picture files: upright, on white, 8-bit RGB, with a thumbnail beside it."""

from __future__ import annotations

import io
import struct
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image, ImageOps

THUMBNAIL_SIDE = 256
"""Longest side of a thumbnail in pixels."""

_THUMBNAIL_QUALITY = 80
_ORIENTATION_TAG = 0x0112
_WORKERS = 4

_DECODER_ERRORS = (
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What Pillow's decoders raise on damaged files; each format has its own habits."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        source: its path below the folder.
        image: RGB, upright, transparency laid on white.
        thumbnail: WebP, longest side at most `THUMBNAIL_SIDE`; the file's own bytes if they are that already.
    """

    source: str
    image: Image.Image
    thumbnail: bytes


@dataclass(frozen=True)
class Unreadable:
    """A file that could not be decoded, and why, in a few words."""

    source: str
    reason: str


def decode_all(folder: Path, sources: Sequence[str]) -> Iterator[Picture | Unreadable]:
    """Decode `sources`, paths below `folder`, in order, a few ahead of the reader in threads."""
    waiting: deque[Future[Picture | Unreadable]] = deque()
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="decode") as pool:
        try:
            for source in sources:
                waiting.append(pool.submit(decode, folder, source))
                if len(waiting) > 2 * _WORKERS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def decode(folder: Path, source: str) -> Picture | Unreadable:
    """Decode one picture: its first frame, turned as its EXIF data says. Never raises for a damaged, huge or missing file."""
    data = b""
    try:
        data = (folder / source).read_bytes()
        with Image.open(io.BytesIO(data)) as opened:
            image = on_white(ImageOps.exif_transpose(opened))
            thumbnail = data if _is_thumbnail(opened) else _thumbnail(image)
    except Image.UnidentifiedImageError:
        return Unreadable(source, "not a picture, or of an unknown format" if data else "empty file")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return Unreadable(source, "more pixels than is safe to decode")
    except _DECODER_ERRORS as error:
        return Unreadable(source, _reason(error))
    return Picture(source, image, thumbnail)


def on_white(image: Image.Image) -> Image.Image:
    """Return `image` as 8-bit RGB; what is transparent shows white, wider samples are scaled down to 8 bits."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        image = _eight_bits(image)
    if image.has_transparency_data:
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, over).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit, 32-bit and float grey to 8 bits: from the narrowest of 0..1 (float), 0..255, 0..65535 and its own range."""
    samples = np.nan_to_num(np.asarray(image, dtype=np.float64))
    low, high = float(samples.min()), float(samples.max())
    if image.mode == "F" and low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 65535:
        low, high = 0.0, 255.0 if high <= 255 else 65535.0
    scaled = (samples - low) * (255 / (high - low)) if high > low else np.zeros_like(samples)
    return Image.fromarray(np.round(scaled).astype(np.uint8))


def _is_thumbnail(opened: Image.Image) -> bool:
    upright = opened.getexif().get(_ORIENTATION_TAG, 1) == 1
    frames = cast("int", getattr(opened, "n_frames", 1))
    return opened.format == "WEBP" and max(opened.size) <= THUMBNAIL_SIDE and frames == 1 and upright


def _thumbnail(image: Image.Image) -> bytes:
    small = image.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    target = io.BytesIO()
    small.save(target, "WEBP", quality=_THUMBNAIL_QUALITY)
    return target.getvalue()


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"damaged: {error}" if str(error) else f"damaged ({type(error).__name__})"
