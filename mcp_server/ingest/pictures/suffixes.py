"""File names that pictures end in. Imports nothing, so that looking for files stays light."""

from __future__ import annotations

_READABLE = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
        *(".avif", ".avifs", ".heic", ".heics", ".heif", ".heifs", ".hif", ".jp2", ".j2k", ".jpx"),
    }
)


def readable_suffixes() -> frozenset[str]:
    """Return the endings of files that can be decoded, lower case, with their dot.

    HEIC and AVIF are among them whether or not this machine can read them: such a file is better reported than overlooked.
    """
    return _READABLE
