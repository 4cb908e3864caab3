"""Which files of a folder are pictures, and in what order."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_server.errors import IngestError
from mcp_server.ingest.scan import scan


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_pictures_of_all_depths_come_sorted_by_path(tmp_path: Path) -> None:
    touch(tmp_path, "b/z.png", "b/a/x.JPG", "a.webp", "B.tiff", "b.gif", "b-c.bmp", "ä.jpeg", "c.tif")
    assert scan(tmp_path) == ["B.tiff", "a.webp", "b-c.bmp", "b.gif", "b/a/x.JPG", "b/z.png", "c.tif", "ä.jpeg"]


def test_other_files_and_hidden_ones_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "notes.txt", "png", ".hidden.png", ".cache/b.png", "c.png.part", "movie.mp4")
    (tmp_path / "folder.png").mkdir()
    assert scan(tmp_path) == ["a.png"]


def test_links_that_run_in_circles_end(tmp_path: Path) -> None:
    touch(tmp_path, "pictures/a.png", "elsewhere/b.png")
    pictures = tmp_path / "pictures"
    (pictures / "up").symlink_to(tmp_path / "pictures", target_is_directory=True)
    (pictures / "elsewhere").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (pictures / "twice").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (pictures / "self.png").symlink_to(pictures / "self.png")
    (pictures / "gone.png").symlink_to(pictures / "nowhere.png")
    assert scan(pictures) == ["a.png", "elsewhere/b.png"]


def test_a_folder_without_pictures_is_refused_with_what_is_read(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    with pytest.raises(IngestError, match=r"No picture is below .* jpeg, jpg, png"):
        scan(tmp_path)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match="There is no folder"):
        scan(tmp_path / "nowhere")
