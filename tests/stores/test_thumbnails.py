"""Pictures are read from where the configuration says, and from nowhere else."""

from __future__ import annotations

import threading
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from mcp_server.stores.thumbnails import MAX_PICTURE_BYTES, PictureStore

CLIMBING = ["../secret.png", "a/../../secret.png", "/etc/hostname", "..\\secret.png", "C:\\secret.png", "\\\\host\\share", "", "a\0b", ".."]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures/a").mkdir(parents=True)
    (tmp_path / "pictures/a/one.png").write_bytes(b"one")
    (tmp_path / "pictures/ü 100%.png").write_bytes(b"two")
    (tmp_path / "secret.png").write_bytes(b"secret")
    return tmp_path / "pictures"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as packed:
        packed.writestr("a/one.png", b"one")
        packed.writestr("ü 100%.png", b"two")
        packed.writestr("../secret.png", b"secret")
        packed.mkdir("b")
    return tmp_path / "t.zip"


def test_a_folder_and_a_zip_give_the_same_bytes(folder: Path, archive: Path) -> None:
    for base in (folder, archive):
        store = PictureStore.open(str(base))
        assert store.problem is None
        assert store.read("a/one.png") == b"one"
        assert store.read("ü 100%.png") == b"two"
        assert store.read("a/two.png") is None
        assert store.read("a") is None
        assert store.url_of("a/one.png") is None
        store.close()


@pytest.mark.parametrize("uri", CLIMBING)
def test_nothing_outside_the_base_is_read(folder: Path, archive: Path, uri: str) -> None:
    for base in (folder, archive):
        store = PictureStore.open(str(base))
        assert store.read(uri) is None
        store.close()


def test_a_link_out_of_the_folder_is_not_followed_but_one_inside_is(folder: Path) -> None:
    (folder / "out.png").symlink_to(folder.parent / "secret.png")
    (folder / "up").symlink_to(folder.parent, target_is_directory=True)
    (folder / "in.png").symlink_to(folder / "a/one.png")
    (folder / "circle.png").symlink_to(folder / "circle.png")
    store = PictureStore.open(str(folder))
    assert store.read("out.png") is None
    assert store.read("up/secret.png") is None
    assert store.read("circle.png") is None
    assert store.read("in.png") == b"one"


def test_a_folder_that_is_itself_a_link_is_read(folder: Path) -> None:
    (folder.parent / "link").symlink_to(folder, target_is_directory=True)
    assert PictureStore.open(str(folder.parent / "link")).read("a/one.png") == b"one"


def test_a_huge_file_is_not_read(folder: Path) -> None:
    with (folder / "huge.png").open("wb") as opened:
        opened.truncate(MAX_PICTURE_BYTES + 1)
    assert PictureStore.open(str(folder)).read("huge.png") is None


def test_a_zip_with_a_damaged_entry_gives_the_others(archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    data[data.index(b"one", 40)] ^= 0xFF
    archive.write_bytes(bytes(data))
    store = PictureStore.open(str(archive))
    assert store.read("a/one.png") is None
    assert store.read("ü 100%.png") == b"two"
    store.close()


@pytest.mark.parametrize("packing", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_entry_that_cannot_be_unpacked_gives_nothing(tmp_path: Path, packing: int) -> None:
    with zipfile.ZipFile(tmp_path / "t.zip", "w", packing) as packed:
        packed.writestr("one.png", bytes(range(256)) * 10)
    data = bytearray((tmp_path / "t.zip").read_bytes())
    data[50:60] = b"\xff" * 10
    (tmp_path / "t.zip").write_bytes(data)
    store = PictureStore.open(str(tmp_path / "t.zip"))
    assert store.read("one.png") is None
    store.close()


def test_a_zip_whose_names_are_in_another_encoding_than_claimed_gives_nothing(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes().replace("ü".encode(), b"\xff\xfe"))
    assert PictureStore.open(str(archive)).read("a/one.png") is None


def test_an_entry_that_unpacks_to_more_than_it_claims_does_not_fill_the_memory(tmp_path: Path) -> None:
    real, claimed = 64 * 2**20, 1000
    with zipfile.ZipFile(tmp_path / "t.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("one.png", bytes(real))
    data = (tmp_path / "t.zip").read_bytes()
    (tmp_path / "t.zip").write_bytes(data.replace(real.to_bytes(4, "little"), claimed.to_bytes(4, "little")))
    store = PictureStore.open(str(tmp_path / "t.zip"))
    tracemalloc.start()
    assert store.read("one.png") is None
    assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    tracemalloc.stop()
    store.close()


def test_an_entry_that_asks_for_more_memory_than_there_is_gives_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "t.zip", "w", zipfile.ZIP_LZMA) as packed:
        packed.writestr("one.png", b"one")

    def refused(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("lzma.LZMADecompressor", refused)  # where there is memory enough, none would refuse it
    store = PictureStore.open(str(tmp_path / "t.zip"))
    assert store.read("one.png") is None
    store.close()


def test_what_is_said_of_an_unreadable_picture_is_one_short_line_whatever_its_address(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert PictureStore.open(str(folder)).read("x" * 5000 + "/" + "y" * 300) is None
    assert PictureStore.open(str(folder)).read("\n12:00 INFO search.done \x1b[2J" + "y" * 300) is None
    first, second = [record.getMessage() for record in caplog.records if record.message.startswith("picture.unreadable")]
    assert len(first) < 500
    assert len(second) < 500
    assert second.isprintable()


def test_a_closed_zip_opens_again(archive: Path) -> None:
    store = PictureStore.open(str(archive))
    assert store.read("a/one.png") == b"one"
    store.close()
    assert store.read("a/one.png") == b"one"
    store.close()


def test_threads_that_read_at_once_get_their_own_picture(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as packed:
        for number in range(50):
            packed.writestr(f"{number}", str(number).encode() * 5000)
    store = PictureStore.open(str(tmp_path / "t.zip"))
    start = threading.Barrier(4)
    wrong: list[int] = []

    def read_all() -> None:
        start.wait()
        wrong.extend(number for number in range(50) if store.read(f"{number}") != str(number).encode() * 5000)

    threads = [threading.Thread(target=read_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()
    assert wrong == []


@pytest.mark.parametrize(
    ("base", "uri", "url"),
    [
        ("https://host/thumbs/", "a/one.png", "https://host/thumbs/a/one.png"),
        ("https://host/thumbs", "/a/one.png", "https://host/thumbs/a/one.png"),
        ("https://host/get?name=", "one.png", "https://host/get?name=one.png"),
        ("https://host/t/", "ü 100%.png", "https://host/t/%C3%BC%20100%25.png"),
        ("https://host/t/", "a%20b.png", "https://host/t/a%20b.png"),
        ("https://host/t/", "show?id=3&size=s", "https://host/t/show?id=3&size=s"),
        ("https://host/t/", "https://host/t/a.png", "https://host/t/a.png"),
        ("https://host/t", "https://host/t/a.png", "https://host/t/a.png"),
        ("https://host/t", "https://host/there/a.png", None),
        ("https://host/t/", "https://elsewhere/a.png", None),
        ("https://host/t/", "../private/a.png", None),
        ("https://host/t/", "", None),
        ("", "https://host/a.png", "https://host/a.png"),
        ("", "a.png", None),
    ],
)
def test_a_web_address_is_base_and_uri_and_never_leaves_the_base(base: str, uri: str, url: str | None) -> None:
    store = PictureStore.open(base)
    assert store.url_of(uri) == url
    assert store.read(uri) is None
    assert store.problem is None


def test_an_address_of_a_million_characters_takes_little_memory() -> None:
    store = PictureStore.open("https://host/t/")
    tracemalloc.start()
    assert store.url_of("a%20" * 250_000) == "https://host/t/" + "a%20" * 250_000
    assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    tracemalloc.stop()


def test_a_base_that_cannot_be_used_says_why_and_gives_nothing(tmp_path: Path) -> None:
    (tmp_path / "not.zip").write_text("hello")
    for base, problem in (
        (tmp_path / "gone.zip", "does not exist"),
        (tmp_path / "not.zip", "neither a folder nor a zip"),
        (tmp_path / ("x" * 300), "xxx"),  # "cannot be read", or with later Pythons "does not exist"
    ):
        store = PictureStore.open(str(base))
        assert problem in (store.problem or "")
        assert store.read("a.png") is None
        assert store.url_of("https://host/a.png") is None
