"""The audit log: one line a search in the collection's own folder, and never a failed search."""

from __future__ import annotations

import json
from pathlib import Path

from mcp_server.stores.audit import AuditLog


def test_each_search_is_one_line_of_json_in_its_collections_own_file(tmp_path: Path) -> None:
    for name in ("one", "two/../three"):
        log = AuditLog(tmp_path / "logs", name)
        log.write(text="a cat\nand a dog", ids=[1, 2], milliseconds={"index": 0.4})
        log.write(text="ünïcode")
    files = sorted(path.name for path in (tmp_path / "logs").iterdir())
    assert files == ["one.searches.jsonl", "two_.._three.searches.jsonl"]
    lines = (tmp_path / "logs" / files[0]).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["a cat\nand a dog", "ünïcode"]
    assert json.loads(lines[0])["milliseconds"] == {"index": 0.4}


def test_a_folder_that_cannot_be_written_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file, not a folder", encoding="utf-8")
    log = AuditLog(tmp_path / "logs", "one")
    log.write(text="a")
    log.write(text="b")
    assert (tmp_path / "logs").read_text(encoding="utf-8") == "a file, not a folder"
