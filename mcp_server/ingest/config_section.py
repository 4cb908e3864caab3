"""Writes one collection's section into a configuration file and leaves every other line as it is."""

from __future__ import annotations

import configparser
import logging
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mcp_server.config import RESERVED_SECTIONS, SECTION_HEADER, ini_parser
from mcp_server.errors import IngestError
from mcp_server.ingest.write import writing_file
from mcp_server.whole_files import write_whole

logger = logging.getLogger(__name__)

_TAKEN = ("DEFAULT", *RESERVED_SECTIONS)
_NAME = re.compile(r"\w[\w-]{0,63}")
_SILENT_SECONDS = 1
_NEW_FILE = "[DEFAULT]\nModelDevice = auto      ; auto | cpu | cuda | cuda:N | mps\n"


def check_name(name: str) -> None:
    """Refuse a collection name that cannot be a section, a folder and a tool argument at once.

    Raises:
        IngestError: it says which names are accepted.
    """
    if not _NAME.fullmatch(name) or name.upper() in _TAKEN:
        raise IngestError(
            f"A collection cannot be called {name!r}. Give --name with letters, digits, - and _, "
            f"at most 64, and none of {', '.join(_TAKEN)}."
        )


def sections_of(config_file: Path) -> list[str]:
    """Return the sections of `config_file`, [DEFAULT] left out; none if there is no such file.

    Raises:
        IngestError: the file is no INI file.
    """
    return _parsed(_text_of(config_file), config_file).sections()


def value_in(config_file: Path, name: str, key: str) -> str | None:
    """Return what section [name] of `config_file` says of `key`; None if it does not.

    Raises:
        IngestError: the file is no INI file.
    """
    return _parsed(_text_of(config_file), config_file).get(name, key, fallback=None)


def with_section(config_file: Path, name: str, values: Mapping[str, str]) -> str:
    """Return the text of `config_file` with `values` set in section [name].

    A section that is there keeps its other keys, its comments and its place; a new one goes to the end. A `%` in a value is a `%`.

    Raises:
        IngestError: the file is no INI file, or a value would not be read back as it is.
    """
    before = _text_of(config_file)
    _parsed(before, config_file)
    newline = "\r\n" if "\r\n" in before else "\n"
    lines = (before or _NEW_FILE).splitlines()
    start, end = _place(lines, name)
    if start is None:
        section = ["", f"[{name}]", *(f"{key} = {value}" for key, value in values.items())]
        lines = [*_without_blank_end(lines), *section]
    else:
        lines[start:end] = _updated(lines[start:end], values)
    after = newline.join(lines) + newline
    for key, value in values.items():
        if not value.isprintable() or _parsed(after, config_file)[name].get(key) != value:
            raise IngestError(f"A configuration cannot hold {key} = {value!r}: {_why_not(value)}. Rename the folder.")
    return after


def _why_not(value: str) -> str:
    """Return what keeps `value` from being read back as it is."""
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        return "it is not Unicode text"
    if not value.isprintable():
        return "no line break and nothing else that cannot be printed may be in it"
    if value != value.strip():
        return "no blank may be at either end of it"
    return "no ' ;' may be in it"


def enter_section(config_file: Path, name: str, values: Mapping[str, str]) -> None:
    """Set `values` in section [name] of `config_file`; other programs that do so at the same moment wait for each other.

    A collection that uses a FAISS index goes on doing so: whether the index still fits is for the server and `doctor` to say.

    Raises:
        IngestError: as from `with_section`, or the file cannot be written.
    """
    with writing_file(config_file, "--config"), _turn(config_file.resolve()):
        if values.get("IndexType") == "zarr" and value_in(config_file, name, "IndexType") is not None:
            values = {key: value for key, value in values.items() if key != "IndexType"}
        write_whole(config_file, with_section(config_file, name, values))


@contextmanager
def _turn(config_file: Path) -> Generator[None]:
    """Keep other processes from changing `config_file`. The lock is beside it, where only those who may do so can take it."""
    config_file.parent.mkdir(parents=True, exist_ok=True)
    file = config_file.with_name(f".{config_file.name[:50]}.lock")
    lock = FileLock(file)
    try:
        lock.acquire(timeout=_SILENT_SECONDS)
    except Timeout:
        logger.warning("config.wait file=%s reason=another_process_is_changing_it", config_file)
        lock.acquire()
    try:
        yield
    finally:
        with suppress(OSError):  # on Windows it goes with its release
            file.unlink()  # who waits for it then makes another
        lock.release()


def _text_of(config_file: Path) -> str:
    try:
        return config_file.read_bytes().decode("utf-8-sig") if config_file.exists() else ""
    except UnicodeDecodeError as error:
        raise IngestError(f"The configuration {config_file} is not UTF-8 text. Mend it, or name another with --config.") from error
    except OSError as error:
        raise IngestError(f"The configuration {config_file} cannot be read: {error.strerror}. Name another with --config.") from error


def _parsed(text: str, config_file: Path) -> configparser.ConfigParser:
    parser = ini_parser()
    try:
        parser.read_string(text)
    except configparser.Error as error:
        reason = " ".join(str(error).split())
        raise IngestError(f"The configuration {config_file} cannot be read: {reason}. Mend it, or name another with --config.") from error
    return parser


def _place(lines: list[str], name: str) -> tuple[int | None, int]:
    """Return the first line after the header of [name] and the end of that section; None when it is not there."""
    headers = [
        (number, found["header"])
        for number, line in enumerate(lines)
        if not line.startswith((" ", "\t")) and (found := SECTION_HEADER.match(line))
    ]
    for place, (number, title) in enumerate(headers):
        if title == name:
            return number + 1, headers[place + 1][0] if place + 1 < len(headers) else len(lines)
    return None, len(lines)


def _updated(body: list[str], values: Mapping[str, str]) -> list[str]:
    """Set `values` in the lines of one section; keys in any letter case, values over several lines, comments kept."""
    waiting = {key.lower(): (key, value) for key, value in values.items()}
    result: list[str] = []
    dropping = False
    for line in body:
        is_key_line = bool(line.strip()) and not line.startswith((" ", "\t", ";", "#"))
        if dropping and line.startswith((" ", "\t")) and line.strip():
            continue  # the rest of a value that was just replaced
        dropping = False
        key = re.split(r"[=:]", line, maxsplit=1)[0].strip().lower()
        if is_key_line and key in waiting:
            name, value = waiting.pop(key)
            comment = re.search(r"\s+;.*$", line)
            result.append(f"{name} = {value}{comment[0] if comment else ''}")
            dropping = True
        else:
            result.append(line)
    kept = _without_blank_end(result)
    return [*kept, *(f"{key} = {value}" for key, value in waiting.values()), *result[len(kept) :]]


def _without_blank_end(lines: list[str]) -> list[str]:
    end = len(lines)
    while end and not lines[end - 1].strip():
        end -= 1
    return lines[:end]
