"""Picture files to decode, made by hand or drawn, and short ways to ask what became of them."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from mcp_server.encoders.sizing import Sizing
from mcp_server.ingest.pictures.decode import Facts, Picture, Unreadable, decode, examine

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
HEIC = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAchtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAADRpbG9jAAAAAERAAAIA"
    "AQAAAAAB7AABAAAAAAAAAIcAAgAAAAACcwABAAAAAAAAADYAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMxAAAAABVpbmZlAgAAAQACAABFeGlm"
    "AAAAAA5waXRtAAAAAAABAAABB2lwcnAAAADmaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroC"
    "QGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZEAcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAA"
    "AAAAQAAAAEAAAAAoY2xhcAAAAEAAAAABAAAAIAAAAAEAAAAAAAAAAv///+AAAAACAAAAEHBpeGkAAAAAAwgICAAAAAlpcm90AwAAABlpcG1hAAAAAAAAAAEA"
    "AQaBAgMFhIYAAAAaaXJlZgAAAAAAAAAOY2RzYwACAAEAAQAAAMVtZGF0AAAAgygBrwngOSMkv//9WO/e/4wGf/9oNnBOP62DP/+pLA3/yCr1FdlYVscuLkwE"
    "EXsEjsOWscloL1uLFhY/kryUD1uhWNoYD0D8dAGXqALnjb7ljBPSMiNfiG4oLlE9kKocGWsnyuJ5+XUS0Isf4Pb7kOzCIBneXqx9a8gRdwqQhS5P+xeAAAAA"
    "BkV4aWYAAE1NACoAAAAIAAIBDwACAAAABgAAACYBEgADAAAAAQAGAAAAAAAAQ2Fub24A"
)
"""64 x 32, left half blue, right half red, to be turned a quarter clockwise; camera make Canon."""


def cut(width: int, height: int) -> Sizing:
    """A sizing that takes a picture of that size as it is."""
    return Sizing(height, width, "squash")


def read(file: Path, sizing: Sizing | None = None) -> Picture:
    """Decode `file` at its own size; examine must agree."""
    seen = examine(file.parent, file.name, ())
    assert isinstance(seen, Facts), seen
    found = decode(file.parent, file.name, (), sizing or cut(seen.facts["width"], seen.facts["height"]))
    assert isinstance(found, Picture)
    assert Facts(found.source, found.sha256, found.facts, found.notes) == seen
    assert found.pixels.dtype == np.uint8
    assert found.pixels.flags.c_contiguous
    return found


def reason(file: Path) -> str:
    found = decode(file.parent, file.name, (), cut(8, 8))
    assert isinstance(found, Unreadable), found
    assert examine(file.parent, file.name, ()) == found
    assert found.source == file.name
    assert str(file.parent) not in found.reason
    assert "0x" not in found.reason
    return found.reason


def pixel(picture: Picture, x: int, y: int) -> tuple[int, ...]:
    return tuple(picture.pixels[y, x].tolist())


def thumbnail(picture: Picture) -> Image.Image:
    return Image.open(io.BytesIO(picture.thumbnail))


def two_halves(mode: str = "RGB") -> Image.Image:
    """Left blue, right red."""
    image = Image.new("RGB", (64, 32), RED)
    image.paste(BLUE, (0, 0, 32, 32))
    return image.convert(mode)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, raw: bytes, extra: bytes = b"", interlace: int = 0) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))
    return b"\x89PNG\r\n\x1a\n" + header + extra + png_chunk(b"IDAT", zlib.compress(raw)) + png_chunk(b"IEND", b"")
