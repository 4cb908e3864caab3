"""Decodes picture files: upright, on white, 8-bit RGB, cut for the model, with a thumbnail and what the file says about itself.

Runs in processes of its own: imports neither torch nor any store. Warning filters are changed while a picture is decoded, which is for the
whole process: in several threads at once warnings of the libraries can come through, and nothing else goes wrong.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar, cast

from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError, features

from mcp_server.encoders.sizing import Sizing, fitted
from mcp_server.ingest.pictures.facts import colour_facts, embedded, file_facts, shape_facts
from mcp_server.ingest.pictures.reading import UnreadableFileError, read_file
from mcp_server.ingest.pictures.results import THUMBNAIL_SIDE, Facts, Picture, Unreadable
from mcp_server.ingest.pictures.sidecars import sidecar_facts, with_sidecars
from mcp_server.ingest.pictures.suffixes import readable_suffixes
from mcp_server.ingest.pictures.tiff_tags import claimed_bytes, tiff_block
from mcp_server.pictures.decoder_errors import DECODER_ERRORS
from mcp_server.pictures.rgb import on_white, turned

__all__ = ["THUMBNAIL_SIDE", "Facts", "Picture", "Unreadable", "decode", "examine", "readable_suffixes"]

MOST_BYTES = 512 * 2**20
MOST_PIXELS = 178_956_970
MANY_PIXELS = 89_478_485
PIXELS_A_BYTE = 100
"""Beyond `MANY_PIXELS` a file must have a byte for so many pixels: photographs have, what is made to fill the memory has not."""

_THUMBNAIL_QUALITY = 80
_OWN_THUMBNAIL_BYTES = 65536
_PROFILE_BYTES = 4096
_PLUGINS = ("Jpeg", "Mpo", "Png", "WebP", "Gif", "Tiff", "Bmp", "Avif", "Jpeg2K")
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "DIB", "AVIF", "HEIF", "JPEG2000")
_STARTS = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"RIFF": "WebP", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"BM": "BMP"}
_EXIF_WITHIN = 2**20
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_CLAIMED_TIMES = 2

_CUT = "cut short: the file ends before the picture does"
_CUT_SHORT = re.compile(
    r"truncat|end of file|expected to read|eof|not enough|buffer is not large|premature|failed to read next frame|insufficient|too short",
    re.IGNORECASE,
)


class _RefusedError(Exception):
    """The file is not decoded; the message says why in a few words."""


_Seen = TypeVar("_Seen")


def decode(folder: Path, source: str, sidecars: Sequence[str], sizing: Sizing) -> Picture | Unreadable:
    """Decode one picture: its first frame, turned as its EXIF data say.

    The file is read once. Never raises for a damaged, huge, missing or hostile file: what cannot be decoded in full is `Unreadable`.

    Args:
        folder: where all the pictures are.
        source: path below `folder`, with "/".
        sidecars: paths below `folder` of files that say something about the picture; what is wrong with them becomes a note.
        sizing: how the model wants it cut.
    """

    def finish(read: _Read) -> Picture:
        return Picture(source, fitted(read.image, sizing), read.thumbnail(), read.sha256, read.facts, read.notes)

    return _decoded(folder, source, sidecars, finish)


def examine(folder: Path, source: str, sidecars: Sequence[str]) -> Facts | Unreadable:
    """Return what `decode` would say of the same file but for pixels and thumbnail; the picture is decoded all the same.

    sha256, facts, notes and reasons are exactly equal to those of `decode`.
    """
    return _decoded(folder, source, sidecars, lambda read: Facts(source, read.sha256, read.facts, read.notes))


@dataclass(frozen=True)
class _Read:
    """A picture on its way: upright RGB, the same at thumbnail size, and what is known of it."""

    data: bytes
    image: Image.Image
    small: Image.Image
    is_thumbnail: bool
    sha256: str
    facts: dict[str, Any]
    notes: tuple[str, ...]

    def thumbnail(self) -> bytes:
        if self.is_thumbnail:
            return self.data
        target = io.BytesIO()
        profile = self.small.info.get("icc_profile") or b""
        self.small.save(target, "WEBP", quality=_THUMBNAIL_QUALITY, icc_profile=profile if len(profile) <= _PROFILE_BYTES else b"")
        return target.getvalue()


def _decoded(folder: Path, source: str, sidecars: Sequence[str], finish: Callable[[_Read], _Seen]) -> _Seen | Unreadable:
    data = b""
    again = False
    try:
        file = read_file(folder / source, MOST_BYTES)
        data = file.data
        if not data:
            raise _RefusedError("empty file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the libraries warn of what is odd in a file, and go on
            facts = file_facts(source, len(data), file.modified)
            return finish(_read(data, facts, [(name, folder / name) for name in sidecars]))
    except UnreadableFileError as error:
        reason, again = str(error), error.again
    except _RefusedError as error:
        reason = str(error)
    except UnidentifiedImageError:
        reason, again = _unknown(data)
    except MemoryError:
        reason, again = "too large for the memory of this machine", True
    except DECODER_ERRORS as error:
        reason = _reason(error)
    return Unreadable(source, reason, again)


def _read(data: bytes, facts: dict[str, Any], sidecars: Sequence[tuple[str, Path]]) -> _Read:
    _refuse_traps(data)
    with Image.open(io.BytesIO(data), formats=_formats()) as opened:
        _refuse_unreasonable(opened, len(data))
        opened.load()
        inside, orientation = embedded(opened, data)
        is_thumbnail = orientation == 1 and _is_thumbnail(opened, data)
        image, opacity = on_white(opened)
        image = turned(image, orientation)
        size = _small_size(image.size)
        small = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0) if size != image.size else image
        seen = None if opacity is None else turned(opacity, orientation).resize(size, Image.Resampling.BOX, reducing_gap=2.0)
    beside = sidecar_facts(sidecars)
    facts = with_sidecars(facts | shape_facts(*image.size) | inside | colour_facts(small, seen), beside)
    return _Read(data, image, small, is_thumbnail, hashlib.sha256(data).hexdigest(), facts, beside.notes)


@cache
def _formats() -> tuple[str, ...]:
    """Load the decoders and return the formats they read. Pillow's others, some of which start programs, stay out of reach."""
    for name in _PLUGINS:
        with suppress(ImportError):  # an older Pillow has no AVIF
            import_module(f"PIL.{name}ImagePlugin")
    with suppress(ImportError):
        import pi_heif

        pi_heif.register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _refuse_traps(data: bytes) -> None:
    """Refuse a file whose directory of tags claims many times the bytes it has: Pillow would copy all of them."""
    start = data.find(b"Exif\0\0", 0, _EXIF_WITHIN) if data[:2] == b"\xff\xd8" else 0
    block = tiff_block(data[start:] if start > 0 else data) if start >= 0 else None
    if block is not None and claimed_bytes(block) > _CLAIMED_TIMES * len(data) + 2**20:
        raise _RefusedError("damaged: its tags claim far more data than the file has")


def _refuse_unreasonable(opened: ImageFile.ImageFile, size: int) -> None:
    """Refuse a picture, opened but not decoded, that would take too much memory or is not all there."""
    pixels = opened.width * opened.height
    if pixels > MOST_PIXELS or (pixels > MANY_PIXELS and size * PIXELS_A_BYTE < pixels):
        raise Image.DecompressionBombError
    if isinstance(opened, TiffImagePlugin.TiffImageFile) and opened.tile:
        stored_height = opened.tag_v2[TiffImagePlugin.IMAGELENGTH]  # `opened.height` is that of the picture turned upright
        if max(tile.extents[3] for tile in opened.tile if tile.extents) < stored_height:
            raise _RefusedError(_CUT)  # Pillow would leave the missing strips black


def _is_thumbnail(opened: Image.Image, data: bytes) -> bool:
    """Tell whether the file itself can serve as the thumbnail: a small WebP picture of one frame that carries no metadata."""
    if opened.format != "WEBP" or max(opened.size) > THUMBNAIL_SIDE or len(data) > _OWN_THUMBNAIL_BYTES:
        return False
    return cast("int", getattr(opened, "n_frames", 1)) == 1 and not {"exif", "xmp"} & set(opened.info)


def _small_size(size: tuple[int, int]) -> tuple[int, int]:
    longest = max(size)
    if longest <= THUMBNAIL_SIDE:
        return size
    width, height = (max(1, round(side * THUMBNAIL_SIDE / longest)) for side in size)
    return width, height


def _unknown(data: bytes) -> tuple[str, bool]:
    """Return why no decoder takes it, and whether that may change without the file."""
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS and "HEIF" not in Image.OPEN:
        return "HEIC pictures need the package pi-heif: pip install pi-heif", True
    if data[4:12] in (b"ftypavif", b"ftypavis") and not features.check("avif"):
        return "AVIF pictures need Pillow 11.3 or later: pip install -U pillow", True
    kind = next((name for start, name in _STARTS.items() if data.startswith(start)), None)
    return (f"a damaged {kind} file, or of a rare kind that cannot be read" if kind else "not a picture, or of an unknown format"), False


def _reason(error: BaseException) -> str:
    """Return what an error of a decoder means to the owner of the file."""
    if isinstance(error, Image.DecompressionBombError):
        return "more pixels than is safe to decode"
    words = " ".join(str(error).split())
    if "MAX_TEXT" in words or "Decompressed data too large" in words:
        return "its texts unpack to more than is safe to read"
    if isinstance(error, EOFError) or _CUT_SHORT.search(words):
        return _CUT
    plain = 0 < len(words) <= 80 and words.isprintable() and not re.search(r"[<>/\\{}]|0x", words)
    return "damaged: the picture in it cannot be decoded" + (f" ({words})" if plain else "")
