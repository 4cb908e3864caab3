"""The answer of view_media: a picture and its key, and no structured content, beside which some hosts hide pictures."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from mcp.types import CallToolResult, ImageContent, TextContent

from mcp_server.engine.pictures import contact_sheet
from mcp_server.engine.shelf import Shelf

CALLS_AT_ONCE = 40
"""Calls for pictures that are worked on side by side, in threads that no other call uses: picture servers may keep silent for long."""


def view_answer(shelf: Shelf, collection: str | None, ids: Sequence[int]) -> CallToolResult:
    """Return the contact sheet of `ids` as an image, then what is on it as text. Raises what `contact_sheet` raises."""
    sheet = contact_sheet(shelf, collection, ids)
    image = ImageContent(type="image", data=base64.b64encode(sheet.data).decode(), mime_type=sheet.mime_type)
    return CallToolResult(content=[image, TextContent(type="text", text=sheet.key)])
