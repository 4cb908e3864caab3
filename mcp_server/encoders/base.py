"""What the rest of the house knows of an encoder: words or pictures in, unit vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from mcp_server.domain.search import EncodedText

if TYPE_CHECKING:
    from PIL import Image


class TextEncoder(Protocol):
    """Turns words into unit vectors. Safe to call from several threads."""

    @property
    def width(self) -> int:
        """D, the length of every vector."""
        ...

    def encode_text(self, text: str) -> EncodedText:
        """Return the vector of `text`, which is not blank.

        Raises:
            EncoderError: the model cannot be had or failed; the text is fine.
        """
        ...


class ImageEncoder(Protocol):
    """Turns pictures into unit vectors."""

    @property
    def width(self) -> int:
        """D, the length of every vector."""
        ...

    def encode_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Return (len(images), D) float32 unit vectors of RGB pictures of any size, preprocessed as the model was trained."""
        ...
