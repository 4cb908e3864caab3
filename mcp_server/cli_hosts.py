"""The command that enters the server in a host's configuration."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mcp_server.config import demo_config, load_settings
from mcp_server.errors import ConfigError
from mcp_server.hosts import HOSTS, check, entry_for, file_of, install, is_installed, remove, snippet


def install_host(options: argparse.Namespace) -> int:
    """Enter the server in the configuration of a host, or take it out."""
    host = HOSTS[options.host]
    file = file_of(host, options.scope, Path.cwd())
    if options.remove:
        if is_absent(file, host.key, options.name):
            print(f'"{options.name}" is not in {file}; nothing to remove.')
            return 0
        backup = remove(host, file, options.name)
        print(f'Removed "{options.name}" from {file}{f"; the file before is {backup}" if backup else ""}.')
        return 0
    settings = load_settings(options.config, options.root)
    config = settings.config_file
    shown = None if config == demo_config() and options.config is None else config
    entry = entry_for(host, shown, options.root)
    if options.print:
        print(f"# {host.title}: {file}\n{snippet(host, options.name, entry)}")
        return 0
    if is_installed(host, file, options.name, entry):
        print(f'"{options.name}" is in {file} already.')
        return 0
    if not options.no_check:
        print(f"The server starts and offers {', '.join(check(entry))}.")
    backup = install(host, file, options.name, entry)
    print(f'Entered "{options.name}" in {file}{f"; the file before is {backup}" if backup else ""}.')
    print(f"It serves {'the bundled demo' if shown is None else shown}. {host.then}")
    for _, reason in settings.refused:
        print(f"note: {reason}")
    return 0


def is_absent(file: Path, key: str, name: str) -> bool:
    """Tell whether there is nothing to remove; a file that cannot be parsed is for `remove` to refuse."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return True
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}.") from error
    return name not in text or key not in text


def add_host_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add `install` to the `commands` of the parser."""
    one = commands.add_parser("install", parents=[common], help="enter the server in the configuration of an MCP host, or take it out")
    one.add_argument("host", choices=sorted(HOSTS), metavar="HOST", help=", ".join(sorted(HOSTS)))
    one.add_argument("--name", default="clip-search", help="name of the entry (default clip-search)")
    one.add_argument("--scope", choices=("user", "project"), default="user", help="the user's configuration (default), or this folder's")
    one.add_argument("--print", action="store_true", help="show what would be entered where, and write nothing")
    one.add_argument("--remove", action="store_true", help="take the entry out again")
    one.add_argument("--no-check", action="store_true", help="do not try whether the server starts")
    one.set_defaults(command=install_host)
