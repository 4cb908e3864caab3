"""What is written for a model, worded for a person at the command line."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable

from mcp_server.logs import visible

_FILTERS = "`clip-search-mcp filters`"

_WORDS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r'Call describe_filters with field "(.+)" for all', lambda found: f"Run `clip-search-mcp filters {as_typed(found[1])}` for all"),
    (r"Call describe_filters", f"Run {_FILTERS}"),
    (r"describe_filters", _FILTERS),
    (r" To see more, page on with the returned session\.", ""),
    (r" clip_search without session starts a new one; its seen takes ids to skip\.", ""),
    (r"Page on with offset", "Page on with --offset"),
    (r": offset=(\d+), or narrow with match\.", r": --offset \1, or narrow with --match."),
    (r"(?<=leave out )((?:match|offset|filters)(?: or )?)+", lambda found: re.sub("match|offset|filters", r"--\g<0>", found[0])),
    (r"match and offset (look .*): name it in field\. Without field,", r"--match and --offset \1: name it as FIELD. Without FIELD,"),
    (r"say which in collection:", "say which with --collection:"),
    (r"Call again with one of these as collection to see its fields", "Name one of these with --collection to see its fields"),
    (r"Ask for fewer with n\.", "Ask for fewer with -n."),
    (r"Your arguments are fine[.;] [Tt]ell the user that the server's log names the reason, then call again", "The line above says why"),
    (r" Your arguments are fine\.|; (?:try again or )?tell the user\.$| Tell the user\.$", ""),
    (r"(?<!Your arguments are fine); tell the user to (?=\w)", "; "),
    (r"(?:Your arguments are fine; )?[Tt]ell the user (?:to|that) (\w)", lambda found: found[1].upper()),
)


def say(line: str) -> None:
    """Print one line; names and values of a catalog in it cannot break it or steer the terminal."""
    print(visible(line))


def as_typed(argument: str, system: str = os.name) -> str:
    """Return `argument` as it is typed in a command; the shells of Windows have only double quotes in common."""
    if system != "nt":
        return shlex.quote(argument)
    return argument if re.fullmatch(r"[\w\\/:.-]+", argument) else f'"{argument}"'


def for_a_person(text: str) -> str:
    """Return `text` with tools and their arguments called as the command line has them."""
    for pattern, word in _WORDS:
        text = re.sub(pattern, word, text)
    return text
