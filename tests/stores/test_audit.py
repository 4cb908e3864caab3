"""The audit log: one line a search in the collection's own folder, and never a failed search."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mcp_server.stores.audit import AuditLog


def test_each_search_is_one_line_of_json_in_its_collections_own_file(tmp_path: Path) -> None:
    for name in ("one", "two/../three"):
        log = AuditLog(tmp_path / "logs", name)
        log.write(text="a cat\nand a dog", ids=[1, 2], milliseconds={"index": 0.4})
        log.write(text="ünïcode")
    files = sorted(path.name for path in (tmp_path / "logs").iterdir())
    assert len(files) == 2
    assert files[0] == "one.searches.jsonl"
    assert files[1].startswith("two____three.")
    lines = (tmp_path / "logs" / files[0]).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["a cat\nand a dog", "ünïcode"]
    assert json.loads(lines[0])["milliseconds"] == {"index": 0.4}


@pytest.mark.skipif(os.name != "posix", reason="Windows gives a user's files no rights for others")
def test_what_was_searched_is_for_the_owner_alone_unless_the_file_was_there(tmp_path: Path) -> None:
    (tmp_path / "two.searches.jsonl").touch(0o640)
    for name in ("one", "two"):
        AuditLog(tmp_path, name).write(text="a")
    assert [file.stat().st_mode & 0o777 for file in sorted(tmp_path.iterdir())] == [0o600, 0o640]


@pytest.mark.parametrize(("one", "other"), [("a b", "a_b"), ("Photos", "photos"), ("写" * 100, "写" * 101)])
def test_collections_of_different_names_have_logs_of_their_own(one: str, other: str, tmp_path: Path) -> None:
    for name in (one, other):
        AuditLog(tmp_path, name).write(text=name)
    files = list(tmp_path.iterdir())
    assert len({file.name.lower() for file in files}) == 2
    assert {json.loads(file.read_text(encoding="utf-8"))["text"] for file in files} == {one, other}


def test_a_write_that_failed_is_not_the_end_of_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "logs").touch()
    log = AuditLog(tmp_path / "logs", "one")
    log.write(text="a")
    log.write(text="b")
    (tmp_path / "logs").unlink()
    log.write(text="c")
    log.write(text="d")
    lines = (tmp_path / "logs" / "one.searches.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["c", "d"]
    told = [record.getMessage().partition(" ") for record in caplog.records]
    assert [event for event, _, _ in told] == ["audit.off", "audit.on"]
    assert told[1][2].endswith("missed=2")


def test_a_folder_that_cannot_be_written_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file, not a folder", encoding="utf-8")
    log = AuditLog(tmp_path / "logs", "one")
    log.write(text="a")
    log.write(text="b")
    assert (tmp_path / "logs").read_text(encoding="utf-8") == "a file, not a folder"
