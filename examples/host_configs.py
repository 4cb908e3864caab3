"""Host configurations: print what to paste into Claude Desktop, Claude Code, Cursor, VS Code and MCP Inspector, and prove that it starts.

Run from the repository: python examples/host_configs.py [--config FILE]
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

import anyio
from mcp import Client, StdioServerParameters


def command(config: Path | None) -> list[str]:
    """Return the command that starts the server from any working directory."""
    return [sys.executable, "-m", "mcp_server", "serve", *(["--config", str(config.absolute())] if config else [])]


def host_configs(config: Path | None) -> dict[str, str]:
    """Return, for each host, what to paste or run."""
    program, *arguments = command(config)
    entry = {"command": program, "args": arguments}
    return {
        "Claude Desktop: claude_desktop_config.json": json.dumps({"mcpServers": {"clip-search": entry}}, indent=2),
        "Claude Code: run": shlex.join(["claude", "mcp", "add", "clip-search", "--", program, *arguments]),
        "Cursor: .cursor/mcp.json": json.dumps({"mcpServers": {"clip-search": entry}}, indent=2),
        "VS Code: .vscode/mcp.json": json.dumps({"servers": {"clip-search": {"type": "stdio", **entry}}}, indent=2),
        "MCP Inspector: run": shlex.join(["npx", "@modelcontextprotocol/inspector", program, *arguments]),
    }


async def prove(config: Path | None) -> None:
    """Start the server with the very command that the hosts get, from another folder."""
    program, *arguments = command(config)
    async with Client(StdioServerParameters(command=program, args=arguments, cwd=Path.home())) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
    assert names == ["clip_search", "describe_filters", "view_media", "update_session"], names
    print("It starts and lists:", ", ".join(names))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path)
    options = parser.parse_args()
    for host, text in host_configs(options.config).items():
        print(f"--- {host}\n{text}\n")
    anyio.run(prove, options.config)
