"""A file is replaced in one step or not at all, and keeps what is not its text: being a link, and its rights."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mcp_server.whole_files import write_whole


@pytest.mark.parametrize("name", ["a.json", "ü" * 120 + ".json", "写" * 83 + ".json"])
def test_a_text_is_there_as_it_is_under_any_name_that_the_disk_takes(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    for text in ("one\r\ntwo\n", "", "häuser 写\n"):
        write_whole(file, text)
        assert file.read_bytes().decode() == text
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_is_made_only_where_that_is_wanted(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "c.json"
    with pytest.raises(FileNotFoundError):
        write_whole(file, "text")
    assert list(tmp_path.iterdir()) == []
    write_whole(file, "text", with_folder=True)
    assert file.read_text() == "text"


@pytest.mark.skipif(os.name != "posix", reason="rights of a file are different elsewhere")
def test_a_link_stays_a_link_and_rights_stay(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    real, link = tmp_path / "there" / "real.ini", tmp_path / "link.ini"
    link.symlink_to(real)
    before = os.umask(0o027)
    try:
        write_whole(link, "first")
        assert real.stat().st_mode & 0o7777 == 0o640
        real.chmod(0o604)
        write_whole(link, "second")
    finally:
        os.umask(before)
    assert link.is_symlink()
    assert real.read_text() == "second"
    assert real.stat().st_mode & 0o7777 == 0o604
    assert list((tmp_path / "there").iterdir()) == [real]


@pytest.mark.parametrize("step", ["os.fsync", "shutil.copymode", "Path.replace"])
def test_what_was_there_is_there_still_when_it_cannot_be_replaced(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.json"
    file.write_text("before")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"mcp_server.whole_files.{step}", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(file, "after")
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]
