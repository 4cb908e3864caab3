"""Logging of the commands: to stderr, since stdout belongs to the protocol."""

from __future__ import annotations

import logging
import sys

_WEB = ("httpcore", "httpcore2", "httpx", "httpx2", "huggingface_hub", "mcp", "sse_starlette", "urllib3", "uvicorn.access")
QUIET = ("asyncio", "faiss", "filelock", "numcodecs", "open_clip", "PIL", *_WEB)
"""Other packages' loggers, kept to warnings so that one line a search stays readable, at level DEBUG too."""


def log_to_stderr(level: str) -> None:
    """Log from `level` on."""
    logging.basicConfig(level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("huggingface_hub").propagate = False  # it has a handler of its own
