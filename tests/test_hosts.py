"""Entering the server in a host's configuration: right place, nothing else touched, everything can be undone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mcp_server import __version__
from mcp_server.cli import main
from mcp_server.errors import ConfigError
from mcp_server.hosts import HOSTS, check, entry_for, file_of, install, remove
from mcp_server.protocol.schemas import INPUTS

OTHERS = (
    '{\n    "theme": "dark",\n    "mcpServers": {\n        "other": {\n            "command": "x"\n        }\n    },\n    "z": [1, 2]\n}'
)
ENTRY = {"command": "/bin/clip-search-mcp", "args": ["serve"]}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("CLIP_SEARCH_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", sorted(HOSTS))
def test_each_host_is_entered_once_and_undone(name: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    host = HOSTS[name]
    file = file_of(host, "user", home)
    assert file.is_relative_to(home)
    assert main(["install", name, "--no-check"]) == 0
    entry = json.loads(file.read_text(encoding="utf-8"))[host.key]["clip-search"]
    assert Path(entry["command"]).is_absolute()
    assert entry["args"][-1] == "serve"
    assert host.then in capsys.readouterr().out
    assert main(["install", name, "--no-check"]) == 0
    assert "already" in capsys.readouterr().out
    assert not list(file.parent.glob("*.bak"))
    assert main(["install", name, "--remove"]) == 0
    assert not file.exists()
    assert main(["install", name, "--remove"]) == 0
    assert "nothing to remove" in capsys.readouterr().out


@pytest.mark.parametrize("text", [OTHERS, OTHERS.replace("    ", "\t") + "\n\n", OTHERS.replace("\n", "\r\n"), '{"mcpServers":{}}', "{}"])
def test_other_entries_stay_and_removing_brings_back_the_very_file(text: str, tmp_path: Path) -> None:
    host, file = HOSTS["cursor"], tmp_path / "mcp.json"
    file.write_bytes(text.encode())
    file.chmod(0o600)
    backup = install(host, file, "clip-search", ENTRY)
    assert backup is not None
    assert backup.read_bytes() == text.encode()
    lines = file.read_bytes().decode().split("\n")
    assert all(line.endswith("\r") == ("\r\n" in text) for line in lines[:-1])
    entered = json.loads("\n".join(lines))
    assert entered["mcpServers"].pop("clip-search") == ENTRY
    assert entered == {"mcpServers": {}, **json.loads(text)}
    assert (file.stat().st_mode & 0o777, backup.stat().st_mode & 0o777) == (0o600, 0o600)
    remove(host, file, "clip-search")
    assert file.read_bytes() == text.encode()


def test_what_was_changed_since_survives_the_removal(tmp_path: Path) -> None:
    host, file = HOSTS["cursor"], tmp_path / "mcp.json"
    file.write_text(OTHERS, encoding="utf-8")
    install(host, file, "clip-search", ENTRY)
    document = json.loads(file.read_text(encoding="utf-8"))
    document["new"] = True
    file.write_text(json.dumps(document), encoding="utf-8")
    remove(host, file, "clip-search")
    assert json.loads(file.read_text(encoding="utf-8")) == {**json.loads(OTHERS), "new": True}


@pytest.mark.parametrize("text", ["{ // a comment\n}", '{"mcpServers": {},}', "[1]", '{"mcpServers": 3}', "{"])
def test_a_file_that_is_not_plain_json_is_left_alone_with_what_to_paste(text: str, tmp_path: Path) -> None:
    file = tmp_path / "mcp.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"nothing was written(.|\n)*clip-search"):
        install(HOSTS["cursor"], file, "clip-search", ENTRY)
    assert file.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text(OTHERS, encoding="utf-8")
    link = tmp_path / "mcp.json"
    link.symlink_to("real.json")
    install(HOSTS["cursor"], link, "clip-search", ENTRY)
    assert link.is_symlink()
    assert "clip-search" in (tmp_path / "real.json").read_text(encoding="utf-8")


def test_printing_writes_nothing_and_names_the_configuration(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = home / "my config.ini"
    config.write_text("[DEFAULT]\n", encoding="utf-8")
    assert main(["install", "vscode", "--print", "--scope", "project", "--config", "my config.ini"]) == 0
    shown = capsys.readouterr().out
    assert str(home / ".vscode" / "mcp.json") in shown
    entry = json.loads(shown.split("\n", 1)[1])["servers"]["clip-search"]
    assert entry["type"] == "stdio"
    assert entry["args"][-2:] == ["--config", str(config)]
    assert [path.name for path in home.iterdir()] == ["my config.ini"]
    assert main(["install", "claude-desktop", "--scope", "project", "--print"]) == 2


@pytest.mark.parametrize(
    ("platform", "variables", "place"),
    [
        ("linux", {"HOME": "/h", "XDG_CONFIG_HOME": "/c"}, "/c/Claude/claude_desktop_config.json"),
        ("darwin", {"HOME": "/h"}, "/h/Library/Application Support/Claude/claude_desktop_config.json"),
        ("win32", {"USERPROFILE": "/u", "APPDATA": "/a"}, "/a/Claude/claude_desktop_config.json"),
    ],
)
def test_each_system_has_its_place(platform: str, variables: dict[str, str], place: str) -> None:
    assert file_of(HOSTS["claude-desktop"], "user", Path("/p"), variables, platform) == Path(place)


def test_the_entry_really_starts_the_server(tmp_path: Path) -> None:
    assert check(entry_for(HOSTS["cursor"], None, None)) == ["clip_search", "describe_filters", "view_media", "update_session"]
    with pytest.raises(ConfigError, match=r"does not start this way.*there is no configuration file|does not start"):
        check(entry_for(HOSTS["cursor"], tmp_path / "missing.ini", None))
    with pytest.raises(ConfigError, match="cannot be started"):
        check({"command": str(tmp_path / "nothing"), "args": []})
    with pytest.raises(ConfigError, match="said nothing"):
        check({"command": sys.executable, "args": ["-c", "pass"]})


def test_registry_entry_and_bundle_name_this_version_and_these_tools(repository: Path) -> None:
    registry = json.loads((repository / "server.json").read_text(encoding="utf-8"))
    bundle = json.loads((repository / "mcpb" / "manifest.json").read_text(encoding="utf-8"))
    assert {registry["version"], registry["packages"][0]["version"], bundle["version"]} == {__version__}
    assert [tool["name"] for tool in bundle["tools"]] == list(INPUTS)
    assert len(registry["description"]) <= 100
    assert (repository / bundle["server"]["entry_point"]).is_file()
