"""What the rest of the house knows of an encoder: words or pictures in, unit vectors out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from mcp_server.domain.search import EncodedText

if TYPE_CHECKING:
    from mcp_server.encoders.sizing import Sizing


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

    @property
    def sizing(self) -> Sizing:
        """How pictures are cut for it."""
        ...

    @property
    def batch(self) -> int:
        """How many pictures one call should get."""
        ...

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return (B, D) float32 unit vectors of `pixels`, (B, height, width, 3) RGB as `sizing` says, row for row.

        A picture of which the model makes no vector gets a row of zeros.

        Raises:
            EncoderError: the model failed; no picture is to blame.
        """
        ...
