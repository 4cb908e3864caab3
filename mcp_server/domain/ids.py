"""The public id space. Rows, 0-based positions in the embeddings, stay inside arrays; only the catalog translates between the two."""

from __future__ import annotations

from typing import NewType

MediaId = NewType("MediaId", int)
"""Public, stable id of a picture, frame or other medium: `medias.id` in SQLite."""
