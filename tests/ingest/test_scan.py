"""Which files of a folder are pictures."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mcp_server.errors import IngestError
from mcp_server.ingest.scan import Closed, Found, scan


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def sources(folder: Path) -> list[str]:
    return sorted(one.source for one in scan(folder) if isinstance(one, Found))


def test_pictures_of_all_depths_and_kinds_are_found(tmp_path: Path) -> None:
    names = ["b/z.png", "b/a/x.JPG", "a.webp", "B.tiff", "b.gif", "b-c.bmp", "ä.jpeg", "c.tif", "d.heic", "e.AVIF"]
    touch(tmp_path, *names)
    assert sources(tmp_path) == sorted(names)


def test_other_files_and_hidden_ones_and_small_copies_of_systems_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "notes.txt", "png", ".hidden.png", ".cache/b.png", "c.png.part", "movie.mp4", "@eaDir/a.png/thumb.jpg")
    touch(tmp_path, "#recycle/thrown-away.png", "b/@Recycle/thrown-away.png", "#snapshot/yesterday/a.png")
    (tmp_path / "folder.png").mkdir()
    assert sources(tmp_path) == ["a.png"]


def test_links_that_run_in_circles_end_and_links_to_nothing_are_told(tmp_path: Path) -> None:
    touch(tmp_path, "pictures/a.png", "elsewhere/b.png")
    pictures = tmp_path / "pictures"
    (pictures / "up").symlink_to(tmp_path / "pictures", target_is_directory=True)
    (pictures / "elsewhere").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (pictures / "twice").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (pictures / "self.png").symlink_to(pictures / "self.png")
    (pictures / "gone.png").symlink_to(pictures / "nowhere.png")
    assert sources(pictures) == ["a.png", "elsewhere/b.png", "gone.png", "self.png"]
    assert {one.source: one.size for one in scan(pictures) if isinstance(one, Found)}["gone.png"] == -1


def test_a_folder_is_known_by_its_real_place_rather_than_by_a_link_to_it(tmp_path: Path) -> None:
    touch(tmp_path, "z/real/a.png")
    (tmp_path / "a_link").symlink_to(tmp_path / "z/real", target_is_directory=True)
    assert sources(tmp_path) == ["z/real/a.png"]


def test_a_pipe_called_like_a_picture_does_not_stop_the_scan(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (found,) = scan(tmp_path)
    assert isinstance(found, Found)
    assert found.size == -1


def test_sidecars_belong_to_their_pictures_and_their_changes_show(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.jpg", "a/y.jpg", "a/x.jpg.json", "a/y.xmp")
    before = {one.source: one for one in scan(tmp_path) if isinstance(one, Found)}
    assert before["a/x.jpg"].sidecars == ("a/x.jpg.json",)
    assert before["a/y.jpg"].sidecars == ("a/y.xmp",)
    (tmp_path / "a/x.jpg.json").write_text("{}")
    after = {one.source: one for one in scan(tmp_path) if isinstance(one, Found)}
    assert after["a/x.jpg"].sidecar_stamp != before["a/x.jpg"].sidecar_stamp
    assert after["a/y.jpg"].sidecar_stamp == before["a/y.jpg"].sidecar_stamp


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser reads everything")
def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "shut/b.png")
    (tmp_path / "shut").chmod(0)
    try:
        found = list(scan(tmp_path))
    finally:
        (tmp_path / "shut").chmod(0o755)
    assert [one.prefix for one in found if isinstance(one, Closed)] == ["shut/"]


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match="There is no folder"):
        list(scan(tmp_path / "nowhere"))
