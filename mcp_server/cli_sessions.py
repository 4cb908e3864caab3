"""The command that hands over what a session found."""

from __future__ import annotations

import argparse
import io
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from mcp_server.cli_words import say
from mcp_server.config import load_settings
from mcp_server.errors import ConfigError
from mcp_server.logs import log_to_stderr, visible_lines
from mcp_server.whole_files import write_whole


def export(options: argparse.Namespace) -> int:
    """Write the shortlist of a session, or all that it was shown."""
    from mcp_server.engine.export import as_csv, as_jsonl, export_rows
    from mcp_server.engine.opening import open_engine

    log_to_stderr("ERROR")
    output: Path | None = options.output
    if output is not None and output.exists() and not options.force:
        raise ConfigError(f"{output} is there already. Give --force to replace it, or another name.")
    with closing(open_engine(load_settings(options.config, options.root))) as engine:
        rows = export_rows(engine.shelf, engine.sessions, options.session, options.list)
    text = as_csv(rows) if options.format == "csv" else as_jsonl(rows)
    if output is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(newline="")  # CSV brings its own line ends
            if sys.stdout.isatty():
                text = visible_lines(text.replace("\r\n", "\n"))
            else:
                sys.stdout.reconfigure(encoding="utf-8")  # what is redirected is the file that --output writes
        print(text, end="")
        return 0
    try:
        if output.exists() and not output.is_file():  # such as /dev/stdout
            output.write_text(text, encoding="utf-8", newline="")
        else:
            write_whole(output, text)
    except OSError as error:
        raise ConfigError(f"{output} cannot be written: {error.strerror}.") from error
    say(f"{len(rows):,} items written to {output}")
    return 0


def add_session_commands(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add `export` to the `commands` of the parser."""
    one = commands.add_parser("export", parents=[common], help="hand over what a session kept or was shown, as CSV or JSON Lines")
    one.add_argument("session", metavar="SESSION", help="handle of the session, as the agent's answers give it")
    one.add_argument("--list", choices=("kept", "shown"), default="kept", help="the shortlist (default), or everything shown")
    one.add_argument("--format", choices=("csv", "jsonl"), default="csv")
    one.add_argument("--output", type=Path, metavar="FILE", help="default: standard output")
    one.add_argument("--force", action="store_true", help="replace FILE if it is there")
    one.set_defaults(command=export)
