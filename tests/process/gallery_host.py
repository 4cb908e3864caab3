"""A host for the gallery: the page in a sandboxed frame of a real browser, its requests passed on to a real server."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mcp import Client, MCPError

from mcp_server.engine.search import SearchEngine
from mcp_server.protocol.gallery import GALLERY_URI
from mcp_server.server import build_server

HOST_PAGE = """<!doctype html><meta charset="utf-8">
<style>html,body{margin:0}iframe{border:0;width:100vw;height:100vh;display:block}</style>
<iframe id="view" sandbox="allow-scripts"></iframe>
<script>
const frame = document.getElementById("view");
window.log = [];
window.addEventListener("message", async ({ source, data }) => {
  if (source !== frame.contentWindow) return;
  window.log.push(data);
  if (data.id === undefined || data.method === undefined) return;
  const answer = await window.serve(data.method, data.params ?? {});
  frame.contentWindow.postMessage({ jsonrpc: "2.0", id: data.id, ...answer }, "*");
});
window.tell = (method, params) => frame.contentWindow.postMessage({ jsonrpc: "2.0", method, params }, "*");
window.ask = (id, method) => frame.contentWindow.postMessage({ jsonrpc: "2.0", id, method, params: {} }, "*");
</script>"""
ARGUMENTS = [
    f"--{name}"
    for name in (
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
    )
]


def browser_path() -> str:
    """Return where Chromium is; skip the test where it or Playwright is missing."""
    pytest.importorskip("playwright.async_api", reason="Playwright is not installed: pip install playwright")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("Chromium is not installed; name one in $CHROMIUM to test the gallery")
    return found


class Host:
    """The host's side: what the frame asked for, and a way to tell it things."""

    def __init__(self, page: Any, client: Client, theme: str) -> None:
        self.page = page
        self.frame: Any = None
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.network: list[str] = []
        self.failing = False
        self.offers: dict[str, Any] = {"serverTools": {}, "serverResources": {}, "updateModelContext": {"text": {}}}
        self._client = client
        self._theme = theme

    async def serve(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Answer one request of the frame."""
        self.calls.append((method, params))
        if method == "ui/initialize":
            info = {"name": "host", "version": "1"}
            context = {"theme": self._theme}
            return {"result": {"protocolVersion": "2026-01-26", "hostInfo": info, "hostCapabilities": self.offers, "hostContext": context}}
        if self.failing:
            return {"error": {"code": -32603, "message": "The server is gone."}}
        try:
            if method == "tools/call":
                result: Any = await self._client.call_tool(params["name"], params["arguments"])
            elif method == "resources/read":
                result = await self._client.read_resource(params["uri"])
            else:
                return {"result": {}}
        except MCPError as error:
            return {"error": {"code": error.error.code, "message": error.error.message}}
        return {"result": result.model_dump(mode="json", by_alias=True, exclude_none=True)}

    async def search(self, **arguments: Any) -> dict[str, Any]:
        """Let the agent search, and show the answer in the frame; return it."""
        result = await self._client.call_tool("clip_search", arguments)
        wire = result.model_dump(mode="json", by_alias=True, exclude_none=True)
        await self.show(arguments, wire)
        return wire.get("structuredContent", {})

    async def show(self, arguments: dict[str, Any], result: dict[str, Any]) -> None:
        """Show any result in the frame."""
        await self.page.evaluate("a => window.tell('ui/notifications/tool-input', {arguments: a})", arguments)
        await self.page.evaluate("r => window.tell('ui/notifications/tool-result', r)", result)

    def tool_calls(self, name: str) -> list[dict[str, Any]]:
        """Return the arguments of the calls of one tool."""
        return [params["arguments"] for method, params in self.calls if method == "tools/call" and params["name"] == name]


@asynccontextmanager
async def gallery(
    engine: SearchEngine, *, width: int = 800, height: int = 900, theme: str = "light", offers: dict[str, Any] | None = None
) -> AsyncGenerator[Host]:
    """Open the gallery of `engine`'s server in a browser of that size; `offers` replaces what the host can do."""
    executable = browser_path()
    from playwright.async_api import async_playwright

    async with Client(build_server(engine)) as client, async_playwright() as driver:
        html = (await client.read_resource(GALLERY_URI)).contents[0].text  # pyright: ignore[reportAttributeAccessIssue]
        browser = await driver.chromium.launch(executable_path=executable, args=ARGUMENTS)
        try:
            page = await browser.new_page(viewport={"width": width, "height": height})
            page.set_default_timeout(60_000)
            host = Host(page, client, theme)
            host.offers = host.offers if offers is None else offers
            page.on("request", lambda request: host.network.append(request.url))
            await page.expose_function("serve", host.serve)
            await page.set_content(HOST_PAGE)
            await page.evaluate("html => { document.getElementById('view').srcdoc = html }", html)
            await page.wait_for_function("window.log.some(m => m.method === 'ui/notifications/initialized')")
            host.frame = page.frames[-1]
            yield host
        finally:
            await browser.close()
