"""Pictures on the web: from the configured address and from nowhere else, never too much, never too long."""

from __future__ import annotations

import base64
import gzip
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mcp_server.stores import web_pictures
from mcp_server.stores.thumbnails import PictureStore
from mcp_server.stores.web_pictures import is_below

PICTURE = b"\x89PNG a picture"


class Site(BaseHTTPRequestHandler):
    """Answers by path; notes what was asked for."""

    asked: list[str]
    passwords: list[str]
    slow = threading.Event()

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if "Authorization" in self.headers:
            self.passwords.append(base64.b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode())
        where = {
            "/thumbs/moved.png": "/thumbs/a%20b.png",
            "/thumbs/full.png": f"http://{self.headers['Host']}/thumbs/a%20b.png",
            "/thumbs/loop.png": "/thumbs/loop.png",
            "/thumbs/out.png": "/private/x.png",
            "/thumbs/away.png": "http://127.0.0.1:1/thumbs/a.png",
        }.get(self.path)
        if where is not None:
            self.send_response(302)
            self.send_header("Location", where)
            self.end_headers()
        elif self.path in ("/thumbs/nowhere.png", "/thumbs/unchanged.png"):
            self.send_response(302 if "nowhere" in self.path else 304)
            self.end_headers()
        elif self.path in ("/thumbs/packed.png", "/thumbs/twice.png"):
            self.send_response(200)
            self.send_header("Content-Encoding", "gzip" if "packed" in self.path else "gzip, gzip")
            self.end_headers()
            self.wfile.write(gzip.compress(PICTURE if "packed" in self.path else gzip.compress(PICTURE)))
        elif self.path == "/thumbs/endless.png":
            self.send_response(200)
            self.end_headers()
            while not self.slow.is_set():
                try:
                    self.wfile.write(b"x" * 65536)
                except OSError:
                    return
        elif self.path == "/thumbs/headers.png":
            self.send_response(200)
            while not self.slow.wait(0.05):
                try:
                    self.wfile.write(b"X: y\r\n")
                except OSError:
                    return
        elif self.path in ("/thumbs/a%20b.png", "/private/x.png", "/thumbs/gone.png"):
            self.send_response(404 if "gone" in self.path else 200)
            self.end_headers()
            self.wfile.write(PICTURE)
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[str]:
    Site.asked = []
    Site.passwords = []
    Site.slow.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/thumbs/"
        Site.slow.set()
        server.shutdown()
        thread.join()


def test_a_picture_below_the_base_is_fetched(site: str) -> None:
    store = PictureStore.open(site)
    assert store.read("a b.png") == PICTURE
    assert store.read(f"{site}a%20b.png") == PICTURE
    assert store.read("moved.png") == PICTURE
    assert store.read("packed.png") == PICTURE


def test_trusted_certificates_are_read_for_the_first_picture_only(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PictureStore.open(site)
    assert store.read("a b.png") == PICTURE
    monkeypatch.setattr(ssl, "create_default_context", None)
    assert store.read("a b.png") == PICTURE


@pytest.mark.parametrize(
    "uri",
    [
        "gone.png",
        "loop.png",
        "out.png",
        "away.png",
        "nowhere.png",
        "unchanged.png",
        "missing.png",
        "",
        "../private/x.png",
        "%2e%2e/private/x.png",
    ],
)
def test_what_is_not_there_or_leads_away_gives_nothing(site: str, uri: str) -> None:
    assert PictureStore.open(site).read(uri) is None
    assert "/private/x.png" not in Site.asked


def test_an_address_elsewhere_is_not_even_asked(site: str) -> None:
    assert PictureStore.open(site.replace("/thumbs/", "/other/")).read(f"{site}a%20b.png") is None
    assert PictureStore.open("").read(f"{site}a%20b.png") is None
    assert Site.asked == []


def test_an_endless_picture_is_given_up(site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_pictures, "MOST_BYTES", 2**20)
    assert PictureStore.open(site).read("endless.png") is None


def test_a_picture_packed_twice_is_not_unpacked(site: str) -> None:
    """Each packing may hide a thousand times what is received: twice, a few kB fill the memory."""
    assert PictureStore.open(site).read("twice.png") is None


def test_a_picture_that_takes_too_long_is_given_up(site: str) -> None:
    assert web_pictures.fetch(f"{site}endless.png", site, seconds=0.0) is None


def test_headers_that_never_end_are_given_up(site: str) -> None:
    assert web_pictures.fetch(f"{site}headers.png", site, seconds=0.2) is None


def test_no_password_of_an_address_reaches_the_log(caplog: pytest.LogCaptureFixture) -> None:
    assert PictureStore.open("http://user:secret@127.0.0.1:1/").read("a.png") is None
    assert "127.0.0.1" in caplog.text
    assert "secret" not in caplog.text


def test_a_base_that_is_no_address_gives_nothing() -> None:
    for base in ("http://[::1/t/", "http://", "http://host:port/", "http://two words/"):
        assert PictureStore.open(base).read("a.png") is None


@pytest.mark.parametrize(
    ("url", "below"),
    [
        ("https://host/t/a.png", True),
        ("https://HOST:443/t/a.png", True),
        ("http://host/t/a.png", False),
        ("https://host:444/t/a.png", False),
        ("https://host.evil/t/a.png", False),
        ("https://host@evil/t/a.png", False),
        ("https://host/other/a.png", False),
        ("https://host/t/../other/a.png", False),
        ("https://host/t/%2e%2e/other/a.png", False),
        ("https://[/t/a.png", False),
    ],
)
def test_below_means_same_scheme_host_port_and_path(url: str, below: bool) -> None:
    assert is_below(url, "https://host/t/") is below
    assert is_below(url, "https://host/t") is below


def test_a_name_that_only_begins_alike_is_not_below() -> None:
    assert not is_below("https://host/thumbs-of-others/a.png", "https://host/thumbs")
    assert is_below("https://host/picture?file=a.png", "https://host/picture?file=")
    assert is_below("https://host/a.png", "https://host")


def test_a_password_in_the_base_goes_to_the_server_and_to_nobody_else(site: str) -> None:
    store = PictureStore.open(site.replace("://", "://user:p%40ss@"))
    assert store.read("a b.png") == PICTURE
    assert store.read(f"{site}a%20b.png") == PICTURE
    assert store.url_of("a b.png") == store.url_of(f"{site}a%20b.png") == f"{site}a%20b.png"
    assert store.read("full.png") == PICTURE
    assert Site.passwords == ["user:p@ss"] * 4
