"""A small Hugging Face hub on loopback: serves folders as repositories, and breaks on demand."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class StandInHub(ThreadingHTTPServer):
    """Attributes: `repositories` name to folder; `cut` and `failing` file names to break off half-way or to answer with 500; `asked`."""

    daemon_threads = True

    def __init__(self, repositories: dict[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.cut: set[str] = set()
        self.failing: set[str] = set()
        self.asked: list[str] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def running(repositories: dict[str, Path]) -> Iterator[StandInHub]:
    hub = StandInHub(repositories)
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: StandInHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *args: object) -> None:
        pass

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.server.asked.append(f"{self.command} {path}")
        if path.startswith("api/models/"):
            self._list(path.removeprefix("api/models/"))
            return
        repository, _, rest = path.partition("/resolve/")
        folder = self.server.repositories.get(repository)
        name = rest.partition("/")[2]
        if folder is None or not (folder / name).is_file():
            code = "RepoNotFound" if folder is None else "EntryNotFound"
            self._send(404, b"", {"X-Error-Code": code, "X-Repo-Commit": COMMIT}, body)
        elif name in self.server.failing:
            self._send(500, b"out of order", {}, body)
        else:
            self._file(folder / name, body, cut=name in self.server.cut)

    def _list(self, path: str) -> None:
        for name, folder in self.server.repositories.items():
            if path == name or path.startswith(f"{name}/"):
                files = sorted(file.name for file in folder.iterdir())
                if path.removeprefix(name).startswith("/tree/"):
                    sizes = {file: (folder / file).stat().st_size for file in files}
                    answer: object = [{"type": "file", "path": file, "size": size, "oid": COMMIT} for file, size in sizes.items()]
                else:
                    answer = {"id": name, "modelId": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files], "tags": []}
                self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"}, True)
                return
        self._send(404, b"", {"X-Error-Code": "RepoNotFound"}, True)

    def _file(self, file: Path, body: bool, cut: bool) -> None:
        size = file.stat().st_size
        start = 0
        wanted = self.headers.get("Range", "")
        if wanted.startswith("bytes="):
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
        etag = hashlib.sha256(f"{file}{size}".encode()).hexdigest()
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(size - start))
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.end_headers()
        if not body:
            return
        left = (size - start) // 2 if cut else size - start
        with file.open("rb") as stream:
            stream.seek(start)
            while left:
                block = stream.read(min(left, 1 << 20))
                self.wfile.write(block)
                left -= len(block)
        self.close_connection = self.close_connection or cut

    def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)
