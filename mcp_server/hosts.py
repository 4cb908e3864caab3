"""Enters the server in the configuration of the programs that talk to it, and takes it out again; other entries are never touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from mcp_server.errors import ConfigError
from mcp_server.whole_files import write_whole

Scope = Literal["user", "project"]
Entry = dict[str, Any]

CHECK_SECONDS = 60.0
"""How long the server may take to answer when it is tried out."""


@dataclass(frozen=True)
class Host:
    """A program that starts MCP servers.

    Attributes:
        title: its name for people.
        key: the object of its file that holds the servers.
        user: its file for the user by `sys.platform` ("linux" also stands for others); the first part is a name of `_bases`.
        project: its file below a project's folder; None where it has none.
        typed: whether an entry says "type": "stdio".
        then: what the user has to do.
    """

    title: str
    key: str
    user: Mapping[str, tuple[str, str]]
    project: str | None
    then: str
    typed: bool = False


def _everywhere(path: str) -> dict[str, tuple[str, str]]:
    return dict.fromkeys(("linux", "darwin", "win32"), ("home", path))


def _per_system(path: str) -> dict[str, tuple[str, str]]:
    return {"linux": ("config", path), "darwin": ("home", f"Library/Application Support/{path}"), "win32": ("appdata", path)}


HOSTS: dict[str, Host] = {
    "claude-desktop": Host(
        "Claude Desktop", "mcpServers", _per_system("Claude/claude_desktop_config.json"), None, "Quit Claude Desktop and start it again."
    ),
    "claude-code": Host(
        "Claude Code",
        "mcpServers",
        _everywhere(".claude.json"),
        ".mcp.json",
        "Start a new session of Claude Code; /mcp lists the server.",
        True,
    ),
    "cursor": Host("Cursor", "mcpServers", _everywhere(".cursor/mcp.json"), ".cursor/mcp.json", "Switch it on under Settings, MCP."),
    "vscode": Host(
        "VS Code",
        "servers",
        _per_system("Code/User/mcp.json"),
        ".vscode/mcp.json",
        'Run "MCP: List Servers" in VS Code and start it.',
        True,
    ),
    "gemini-cli": Host(
        "Gemini CLI", "mcpServers", _everywhere(".gemini/settings.json"), ".gemini/settings.json", "Start Gemini CLI again; /mcp lists it."
    ),
}
"""Sources: the documentation of each program on where it keeps its MCP servers."""


def file_of(host: Host, scope: Scope, folder: Path, environment: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """Return the file of `host` that holds servers: the user's, or that of the project in `folder`.

    Raises:
        ConfigError: the host has no file for projects.
    """
    if scope == "project":
        if host.project is None:
            raise ConfigError(f"{host.title} has no configuration for projects. Leave out --scope.")
        return folder / host.project
    base, path = host.user[platform if platform in host.user else "linux"]
    home = Path(environment.get("USERPROFILE" if platform == "win32" else "HOME") or Path.home())
    bases = {
        "home": home,
        "config": Path(environment.get("XDG_CONFIG_HOME") or home / ".config"),
        "appdata": Path(environment.get("APPDATA") or home / "AppData" / "Roaming"),
    }
    return bases[base] / path


def entry_for(host: Host, config: Path | None, root: Path | None) -> Entry:
    """Return the entry that starts this very installation, with absolute paths."""
    program = Path(sys.executable).with_name("clip-search-mcp.exe" if os.name == "nt" else "clip-search-mcp")
    command, arguments = (str(program), ["serve"]) if program.is_file() else (sys.executable, ["-m", "mcp_server", "serve"])
    for name, path in (("--config", config), ("--root", root)):
        arguments += [name, str(path.absolute())] if path is not None else []
    return {**({"type": "stdio"} if host.typed else {}), "command": command, "args": arguments}


def snippet(host: Host, name: str, entry: Entry) -> str:
    """Return what the file of `host` must hold, as JSON to paste."""
    return json.dumps({host.key: {name: entry}}, indent=2, ensure_ascii=False)


def install(host: Host, file: Path, name: str, entry: Entry) -> Path | None:
    """Enter `entry` under `name` in `file` and return the backup of what was there, None when there was nothing to change or to save.

    Raises:
        ConfigError: the file is no plain JSON object, or cannot be written; nothing was changed.
    """
    before = _read(file)
    document = _parsed(file, before, snippet(host, name, entry))
    servers = document.get(host.key)
    if servers is not None and not isinstance(servers, dict):
        raise ConfigError(
            f'"{host.key}" in {file} is not an object; nothing was written. Correct it, or paste:\n{snippet(host, name, entry)}'
        )
    if servers is not None and servers.get(name) == entry:
        return None
    return _replaced(file, before, _entered(document, host.key, name, entry, before))


def is_installed(host: Host, file: Path, name: str, entry: Entry) -> bool:
    """Tell whether `file` holds exactly `entry` under `name`."""
    try:
        document = json.loads(_read(file) or "{}")
        return bool(document[host.key][name] == entry)
    except (ValueError, KeyError, TypeError):
        return False


def remove(host: Host, file: Path, name: str) -> Path | None:
    """Take `name` out of `file` and return the backup; None when it was not there. A file as it was before `install` comes back as it was.

    Raises:
        ConfigError: as for `install`.
    """
    before = _read(file)
    document = _parsed(file, before, f'(take "{name}" out of "{host.key}")')
    servers = document.get(host.key)
    if before is None or not isinstance(servers, dict) or name not in servers:
        return None
    entry = cast("Entry", servers[name])
    for backup in _backups(file):
        original = _read(backup)
        try:
            old = json.loads(original or "")
        except ValueError:
            continue
        if isinstance(old, dict) and name not in old.get(host.key, {}) and _entered(old, host.key, name, entry, original) == before:
            return _replaced(file, before, original or "")
    rest = {other: value for other, value in servers.items() if other != name}
    document = {key: rest if key == host.key else value for key, value in document.items() if rest or key != host.key}
    if not document and not _backups(file):
        saved = _saved(file, before)
        file.unlink()
        return saved
    return _replaced(file, before, _written(document, before))


def check(entry: Entry, seconds: float = CHECK_SECONDS) -> list[str]:
    """Start the server as the host would and return the names of its tools.

    Raises:
        ConfigError: it does not start or does not answer; the message has the last lines it logged.
    """
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "install", "version": "1"}}
    lines = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
    ]
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen([entry["command"], *entry["args"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        except OSError as error:
            raise ConfigError(f"{entry['command']} cannot be started: {error.strerror}.") from error
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        try:
            names = _tool_names(process, lines)
        finally:
            timer.cancel()
        if names is None:
            log.seek(0)
            said = log.read().decode("utf-8", "replace").strip().splitlines()[-3:]
            raise ConfigError(f"The server does not start this way, so nothing was written: {' '.join(said) or 'it said nothing'}")
        return names


def _tool_names(process: subprocess.Popen[bytes], lines: list[dict[str, Any]]) -> list[str] | None:
    """Talk to the server until it has listed its tools; None when it ends before."""
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write("".join(json.dumps(line) + "\n" for line in lines).encode())
            process.stdin.flush()
        except OSError:
            return None
        for raw in process.stdout:
            answer = json.loads(raw)
            if answer.get("id") == lines[-1]["id"]:
                return [tool["name"] for tool in answer["result"]["tools"]]
    return None


def _read(file: Path) -> str | None:
    try:
        return file.read_bytes().decode("utf-8-sig")  # line ends as they are
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read ({error}); nothing was written.") from error


def _parsed(file: Path, text: str | None, paste: str) -> dict[str, Any]:
    if text is None or not text.strip():
        return {}
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{file} is not plain JSON ({error}; comments count), so nothing was written. Enter by hand:\n{paste}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{file} does not hold a JSON object, so nothing was written. Enter by hand:\n{paste}")
    return cast("dict[str, Any]", document)


def _entered(document: Mapping[str, Any], key: str, name: str, entry: Entry, before: str | None) -> str:
    servers = {**cast("dict[str, Any]", document.get(key) or {}), name: entry}
    return _written({**document, key: servers}, before)


def _written(document: Mapping[str, Any], before: str | None) -> str:
    """Return `document` as JSON, indented as the text before was and with its line ends."""
    lines = (before or "").splitlines()
    indent = next((line[: len(line) - len(line.lstrip())] for line in lines if line.lstrip() != line and line.strip()), "  ")
    text = json.dumps(document, indent=indent, ensure_ascii=False) + "\n"
    return text.replace("\n", "\r\n") if "\r\n" in (before or "") else text


def _replaced(file: Path, before: str | None, after: str) -> Path | None:
    """Write `after` in place of the file and return the backup of what was there."""
    try:
        saved = _saved(file, before) if before is not None else None
        write_whole(file, after, with_folder=True)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}. Nothing was changed.") from error
    return saved


def _saved(file: Path, text: str) -> Path:
    """Keep `text` beside the file under a name that says when."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    taken = {path.name for path in _backups(file)}
    names = [f"{file.name}.{stamp}{suffix}.bak" for suffix in ("", *(f"-{number}" for number in range(1, 100)))]
    backup = file.with_name(next(name for name in names if name not in taken))
    backup.write_text(text, encoding="utf-8", newline="")
    backup.chmod(file.stat().st_mode & 0o7777)
    return backup


def _backups(file: Path) -> list[Path]:
    """Return the backups of `file`, the newest first."""
    return sorted((path for path in file.parent.glob("*.bak") if path.name.startswith(f"{file.name}.")), reverse=True)
