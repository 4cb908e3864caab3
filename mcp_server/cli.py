"""The commands: serve, search, filters, doctor; `cli_collections` makes collections, `cli_sessions` hands over what was found,
`cli_hosts` enters the server in a host's configuration.

Exit status 0: fine, 1: failed, 2: bad configuration, files or arguments.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcp_server import __version__
from mcp_server.cli_collections import add_collection_commands
from mcp_server.cli_hosts import add_host_commands
from mcp_server.cli_sessions import add_session_commands
from mcp_server.cli_words import for_a_person, say
from mcp_server.config import Settings, load_settings, too_open
from mcp_server.errors import (
    CallerError,
    CollectionError,
    ConfigError,
    IngestError,
    ModelUnavailableError,
    SearchServerError,
    SessionStoreError,
)
from mcp_server.logs import log_to_stderr, visible_lines

if TYPE_CHECKING:
    from mcp_server.engine.search import SearchEngine

SWITCH_SECONDS = 0.0005
"""How long a thread may keep the interpreter from others; Python's 5 ms would make calls crawl while the model's packages are imported."""

MOST_FILES = 8192
"""How many files a server asks to have open: each collection takes one to four."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    try:
        try:
            return _status_of(arguments)
        finally:
            if sys.stdout is not None:  # pyright: ignore[reportUnnecessaryComparison] - None where a program was started without it
                sys.stdout.flush()  # here, where it can still be said that this failed
    except BrokenPipeError:  # such as `clip-search-mcp filters | head`
        _let_go_of_stdout()
        return 1
    except OSError as error:  # a full disk, a closed folder: nothing that a traceback explains
        logging.getLogger(__name__).debug("cli.refused", exc_info=True)
        _let_go_of_stdout()
        about = f"{error.filename}: " if error.filename else ""
        _complain(f"{about}{error.strerror or error}")
        return 1


def _status_of(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    if command is not serve:  # whose stdout is the wire
        _write_everything()
    try:
        return command(options)
    except (CollectionError, ConfigError, IngestError) as error:
        _complain(str(error))
        return 2
    except CallerError as error:
        _complain(for_a_person(str(error)))
        return 2
    except (ModelUnavailableError, SessionStoreError) as error:
        _complain(error.remedy)
        return 1
    except SearchServerError as error:
        _complain(for_a_person(str(error)))
        return 1
    except KeyboardInterrupt:
        if command.__name__ == "ingest":
            _complain("stopped; the same command goes on from here.")
        return 130


def _complain(text: str) -> None:
    print(visible_lines(f"clip-search-mcp: {text}"), file=sys.stderr)


def _let_go_of_stdout() -> None:
    """Send what is not written yet nowhere, so that ending the program does not try, and complain, again."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # ValueError: it has no descriptor
        descriptor = sys.stdout.fileno()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)


def _write_everything() -> None:
    """Let a terminal that cannot write a letter, such as one in a file's name, show its number."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def serve(options: argparse.Namespace) -> int:
    """Serve MCP over stdio, or over HTTP with --http."""
    settings = _settings(options)
    host = options.host or settings.host
    if options.http and (refused := too_open(settings, host)):  # before anything is opened or fetched
        raise ConfigError(refused)
    from mcp_server.engine.opening import open_engine
    from mcp_server.server import build_server

    sys.setswitchinterval(SWITCH_SECONDS)
    _allow_many_files()
    if not settings.collections:
        logging.getLogger(__name__).warning("config.no_collection file=%s Run `clip-search-mcp doctor`.", settings.config_file)
    engine = open_engine(settings)
    server = build_server(engine, log_level=settings.log_level, list_sessions=not options.http)
    if options.http:
        from mcp_server.protocol.http import serve_http

        engine.shelf.warm_up()
        serve_http(server, settings, host, settings.port if options.port is None else options.port)
        return 0
    from mcp_server.protocol.stdio import exit_now, serve_stdio

    serve_stdio(server)
    exit_now()
    return 0


def _allow_many_files() -> None:
    """Let this process open MOST_FILES, or as many as it may; some systems start programs with 256."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def search(options: argparse.Namespace) -> int:
    """Print the pictures that look like TEXT, best first."""
    from mcp_server.protocol.answers import search_answer
    from mcp_server.protocol.arguments import search_request

    request = search_request(
        {"text": options.text, "collection": options.collection, "n": options.n, "filters": options.filters, "detail": options.detail}
    )
    with contextlib.closing(_engine(options)) as engine:
        outcome = engine.search(request, waiting=_say_waiting)
        answer = search_answer(outcome, request).body
    if options.json:
        # no session outlives this command, so none is named, nor what to do in one
        say(json.dumps({key: value for key, value in answer.items() if key not in ("session", "next")}, ensure_ascii=False))
        return 0
    for place, hit in enumerate(outcome.hits, start=1):
        say(f"{place:>3}  {hit.score:.4f}  {hit.rel or '':<6}  id {hit.item.id:<8} {hit.item.title}  {hit.item.uri}".rstrip())
        for name, values in hit.item.tags.items():
            say(f"                  {name}: {', '.join(str(value) for value in values)}")
    shown = f"{answer['returned']} of {answer['matching']:,} items in {answer['collection']}"
    say(f"{shown}, filters: {answer['filters']}" if request.filters is not None else shown)
    for warning in answer["warnings"]:
        say(f"note: {for_a_person(warning)}")
    return 0


def filters(options: argparse.Namespace) -> int:
    """Print the fields one can filter on, or the values of one field."""
    from mcp_server.protocol.arguments import filter_question
    from mcp_server.protocol.filter_answers import filter_answer

    names = ("collection", "field", "match", "n", "offset", "filters")
    question = filter_question({name: getattr(options, name) for name in names})
    with contextlib.closing(_engine(options)) as engine:
        answer = filter_answer(engine, question, _say_waiting).body
    if options.json:
        say(json.dumps(answer, ensure_ascii=False))
        return 0
    if "collections" in answer:  # how many items each has, or why it cannot be opened
        answer = answer | {"collections": {name: _said(state) for name, state in answer["collections"].items()}}
    _print_tree(answer)
    return 0


def doctor(options: argparse.Namespace) -> int:
    """Check configuration, models, catalogs, embeddings and indexes against each other, and say what to do."""
    from mcp_server.doctor import examine

    settings = _settings(options)
    say(f"configuration  {settings.config_file}")
    problems = notes = 0
    for finding in examine(settings):
        say(f"{finding.level:<8}{finding.about:<20}{finding.text}")
        problems += finding.level == "PROBLEM"
        notes += finding.level == "note"
    if problems:
        say(f"{problems} problem{'s' if problems > 1 else ''} found.")
    else:
        say("No problem found; see the notes." if notes else "Everything fits.")
    return 1 if problems else 0


def _settings(options: argparse.Namespace) -> Settings:
    settings = load_settings(options.config, options.root)
    if getattr(options, "no_cache", False):
        settings = replace(settings, side_folder=None)
    log_to_stderr("ERROR" if options.command in (search, filters, doctor) else settings.log_level)
    for warning in settings.warnings:
        logging.getLogger(__name__).warning("config.odd %s", warning)
    return settings


def _say_waiting(seconds: float) -> None:
    if seconds >= 10:
        print(f"\rloading the model ({seconds:.0f} s so far; a first download takes minutes)", end="", file=sys.stderr, flush=True)


def _engine(options: argparse.Namespace) -> SearchEngine:
    from mcp_server.engine.opening import open_engine

    return open_engine(_settings(options), Path(":memory:"), patience_seconds=math.inf)


def _said(value: int | str) -> int | str:
    return for_a_person(value) if isinstance(value, str) else value


def _print_tree(value: Any, indent: str = "") -> None:
    for key, inner in value.items():
        if key == "example":
            say(f"{indent}{key}: {json.dumps(inner, ensure_ascii=False)}")
        elif key == "next":
            say(f"{indent}{key}: {for_a_person(inner)}")
        elif isinstance(inner, list):
            say(f"{indent}{key}:")
            for each in inner:
                say(f"{indent}  {_line(each)}")
        elif isinstance(inner, dict) and any(isinstance(each, dict | list) for each in inner.values()):
            say(f"{indent}{key}:")
            _print_tree(inner, indent + "  ")
        else:
            say(f"{indent}{key}: {_line(inner)}")


def _line(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{key}={json.dumps(inner, ensure_ascii=False)}" for key, inner in value.items())
    return str(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="clip-search-mcp", description="Search images with words, for agents (MCP) and for people.")
    parser.add_argument("--version", action="version", version=f"clip-search-mcp {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", type=Path, help="configuration file; default: $CLIP_SEARCH_CONFIG, ./data/config.ini, the bundled demo")
    common.add_argument("--root", type=Path, help="where relative paths in the configuration start")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    cached = argparse.ArgumentParser(add_help=False)
    cached.add_argument("--no-cache", action="store_true", help="neither use nor write the files that make starting and searching faster")

    one = commands.add_parser("serve", parents=[common, cached], help="serve MCP over stdio (default) or HTTP")
    one.add_argument("--http", action="store_true", help="serve Streamable HTTP instead of stdio")
    one.add_argument("--host", help="address to listen on; default: [SERVER] Host, 127.0.0.1")
    one.add_argument("--port", type=int, help="port to listen on; default: [SERVER] Port, 8000; 0 picks a free one")
    one.set_defaults(command=serve)

    one = commands.add_parser("search", parents=[common, cached], help="search from the command line")
    one.add_argument("text", metavar="TEXT", help="what the picture shows")
    one.add_argument("--collection")
    one.add_argument("-n", default="10", help="how many, 1 to 100 (default 10)")
    one.add_argument("--filters", help='as JSON, such as \'{"color": "red"}\'')
    one.add_argument("--detail", default="concise", help="ids, concise or full")
    one.add_argument("--json", action="store_true", help="print the answer an agent gets, but for its session, which ends with the command")
    one.set_defaults(command=search)

    one = commands.add_parser("filters", parents=[common, cached], help="list the fields and values one can filter on")
    one.add_argument("field", nargs="?", metavar="FIELD", help="one field's values")
    one.add_argument("--collection")
    one.add_argument("--match", help="only values containing this")
    one.add_argument("-n", default="20", help="how many values, 1 to 100 (default 20)")
    one.add_argument("--offset", default="0")
    one.add_argument("--filters", help="count only items that pass, as JSON")
    one.add_argument("--json", action="store_true", help="print the answer an agent gets")
    one.set_defaults(command=filters)

    one = commands.add_parser("doctor", parents=[common], help="check configuration, model, catalog, embeddings and index")
    one.set_defaults(command=doctor)

    add_collection_commands(commands, common)
    add_session_commands(commands, common)
    add_host_commands(commands, common)
    return parser
