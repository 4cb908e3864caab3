"""The gallery in the chat (MCP Apps): a page for hosts that show one beside the answers of clip_search. It needs no network."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from mcp.server.apps import Apps

GALLERY_URI = "ui://clip-search/gallery.html"
GALLERY_META: dict[str, Any] = {"ui": {"resourceUri": GALLERY_URI}}
"""What a tool says whose answers the page shows."""


def gallery_html() -> str:
    """Return the page."""
    return (files("mcp_server.protocol") / "gallery.html").read_text(encoding="utf-8")


def gallery() -> Apps:
    """Return the extension that serves the page. Hosts without it lose nothing: the tools' answers stand on their own."""
    apps = Apps()
    apps.add_html_resource(
        GALLERY_URI,
        gallery_html(),
        name="gallery",
        title="Pictures found",
        description="Shows the hits of clip_search with thumbnails; keeps, excludes and pages on.",
        prefers_border=True,
    )
    return apps
