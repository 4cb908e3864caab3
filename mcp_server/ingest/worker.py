"""A process that decodes pictures for another: requests in on stdin, answers out on stdout, until stdin ends.

Nothing but JSON and bytes is exchanged, and nothing of the asking program is imported: a file that brings a decoder down takes this process
along and nothing else. See `workers.py` for the other end.

Request: one line of JSON, {"source", "sidecars", "pixels": bool}; the first line says {"folder", "sizing"}.
Answer: 4 bytes, little-endian, length of a JSON head; the head; then the pixels and the thumbnail whose lengths the head gives.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from mcp_server.encoders.sizing import Sizing
from mcp_server.ingest.pictures.decode import decode, examine
from mcp_server.ingest.pictures.results import LENGTH, Facts, Picture, Unreadable

logger = logging.getLogger(__name__)


def main() -> None:
    """Answer requests until there are none."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whatever a C library prints must not get between the answers
    start = json.loads(requests.readline() or "null")
    if start is None:
        return
    folder, sizing = Path(start["folder"]), Sizing(**start["sizing"]) if start["sizing"] else None
    try:
        _send(answers, {"kind": "Ready"}, b"", b"")
        while line := requests.readline():
            _send(answers, *_answer(folder, sizing, json.loads(line)))
    except BrokenPipeError:
        os._exit(0)  # the other end is gone; nothing to tidy up


def _answer(folder: Path, sizing: Sizing | None, request: dict[str, Any]) -> tuple[dict[str, Any], bytes, bytes]:
    started = time.process_time()
    one: Picture | Facts | Unreadable
    try:
        if sizing is not None and request["pixels"]:
            one = decode(folder, request["source"], request["sidecars"], sizing)
        else:
            one = examine(folder, request["source"], request["sidecars"])
    except Exception as error:  # noqa: BLE001 - one file in a million must not end the work on the others; it is told as what it is
        one = Unreadable(request["source"], f"the decoder failed in an unforeseen way ({type(error).__name__})", again=True)
    pixels, thumbnail = (one.pixels.tobytes(), one.thumbnail) if isinstance(one, Picture) else (b"", b"")
    head = {"kind": type(one).__name__, "seconds": time.process_time() - started, "pixels": len(pixels), "thumbnail": len(thumbnail)}
    if isinstance(one, Picture):
        head |= {"shape": one.pixels.shape, "sha256": one.sha256, "facts": one.facts, "notes": one.notes}
    else:
        head |= asdict(one)
    return head, pixels, thumbnail


def _send(answers: IO[bytes], head: dict[str, Any], pixels: bytes, thumbnail: bytes) -> None:
    data = json.dumps(head).encode()
    answers.write(LENGTH.pack(len(data)) + data)
    answers.write(pixels)
    answers.write(thumbnail)
    answers.flush()
