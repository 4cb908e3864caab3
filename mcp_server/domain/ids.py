"""The two id spaces. Only the catalog translates between them."""

from __future__ import annotations

from typing import NewType

MediaId = NewType("MediaId", int)
"""Public, stable id of a picture, frame or other medium: `medias.id` in SQLite."""

Row = NewType("Row", int)
"""0-based position of a vector in the embeddings. Never leaves the server."""
