"""Logging of the commands: to stderr, since stdout belongs to the protocol. And how text of strangers is written in lines."""

from __future__ import annotations

import json
import logging
import sys
import textwrap
from typing import Any

_WEB = ("httpcore", "httpcore2", "httpx", "httpx2", "huggingface_hub", "mcp", "sse_starlette", "urllib3", "uvicorn.access")
QUIET = ("asyncio", "faiss", "filelock", "numcodecs", "open_clip", "PIL", *_WEB)
"""Other packages' loggers, kept to warnings so that one line a search stays readable, at level DEBUG too."""

_CONTROLS = {code: json.dumps(chr(code))[1:-1] for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}


def visible(text: str) -> str:
    """Return `text` on one line: what breaks lines or steers a terminal is written as in JSON, so that JSON stays the same JSON."""
    return text.translate(_CONTROLS)


def visible_lines(text: str) -> str:
    """Return `text` as `visible` does, with its line breaks."""
    return "\n".join(map(visible, text.split("\n")))


class _Lines(logging.Formatter):
    """One line a message, whatever a catalog or a client has put into it; those of a traceback are indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return visible(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return textwrap.indent(visible_lines(super().formatException(ei)), "  ")


def log_to_stderr(level: str) -> None:
    """Log from `level` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").propagate = False  # it has a handler of its own
