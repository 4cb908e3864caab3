"""The configuration keeps everything but the section that is written."""

from __future__ import annotations

import logging
import logging.handlers
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from mcp_server.config import load_settings
from mcp_server.errors import IngestError
from mcp_server.ingest.config_section import check_name, enter_section, sections_of, value_in, with_section

OTHERS = """\
; our museum
[DEFAULT]
ModelDevice = cpu

[SERVER]
Host = 127.0.0.1        ; only here

# the paintings
[paintings]
Enabled = True
EmbeddingsFile = ./p/100%.zip
DatabaseFile = ./p/c.db
"""


def test_a_new_section_goes_to_the_end_and_nothing_else_changes(tmp_path: Path) -> None:
    file = tmp_path / "config.ini"
    file.write_text(OTHERS)
    after = with_section(file, "new", {"EmbeddingsFile": "./50%/e.zip", "DatabaseFile": "./new/c.db"})
    assert after == OTHERS + "\n[new]\nEmbeddingsFile = ./50%/e.zip\nDatabaseFile = ./new/c.db\n"
    file.write_text(after)
    assert [collection.name for collection in load_settings(file).collections] == ["paintings", "new"]
    assert load_settings(file).collections[1].embeddings_file == tmp_path / "50%/e.zip"


def test_a_section_that_is_there_keeps_its_place_its_comments_and_its_other_keys(tmp_path: Path) -> None:
    file = tmp_path / "config.ini"
    file.write_text(
        "[a]\n# first\nembeddingsfile: old.zip   ; the vectors\nLogDirectory = ./logs\nDatabaseFile =\n   one\n   two\n"
        "\n; about b\n[b]\nEnabled = False\n"
    )
    after = with_section(file, "a", {"EmbeddingsFile": "new.zip", "DatabaseFile": "new.db", "Enabled": "True"})
    assert after == (
        "[a]\n# first\nEmbeddingsFile = new.zip   ; the vectors\nLogDirectory = ./logs\nDatabaseFile = new.db\n\n; about b\n"
        "Enabled = True\n[b]\nEnabled = False\n"
    )


def test_a_missing_file_is_made_with_a_device(tmp_path: Path) -> None:
    file = tmp_path / "data" / "config.ini"
    assert sections_of(file) == []
    enter_section(file, "new", {"EmbeddingsFile": "e", "DatabaseFile": "d"})
    assert load_settings(file).model_device == "auto"
    assert sections_of(file) == ["new"]


def test_windows_line_ends_stay(tmp_path: Path) -> None:
    file = tmp_path / "config.ini"
    file.write_bytes(b"[a]\r\nx = 1\r\n")
    enter_section(file, "b", {"y": "2"})
    assert file.read_bytes() == b"[a]\r\nx = 1\r\n\r\n[b]\r\ny = 2\r\n"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("/pictures ;old", "no ' ;' may be"),
        ("/a\nb", "no line break"),
        ("/a\tb", "cannot be printed"),
        (" /a", "no blank may be at either end"),
        ("/a ", "no blank may be at either end"),
        ("/caf\udce9", "not Unicode text"),
    ],
)
def test_a_value_that_would_be_read_back_differently_is_refused(tmp_path: Path, value: str, why: str) -> None:
    with pytest.raises(IngestError, match=f"cannot hold OriginalMediaURL = .*{why}.* Rename the folder"):
        with_section(tmp_path / "config.ini", "a", {"OriginalMediaURL": value})


def test_a_file_that_is_no_ini_file_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.ini").write_text("hello\n")
    with pytest.raises(IngestError, match=r"cannot be read: .* Mend it, or name another with --config"):
        with_section(tmp_path / "config.ini", "a", {"x": "1"})


def test_a_configuration_that_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match=r"The configuration .* cannot be read: Is a directory\. Name another with --config"):
        sections_of(tmp_path)
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(IngestError, match=r"Cannot write .*config\.ini: .* name another with --config"):
        enter_section(tmp_path / "file/config.ini", "a", {"x": "1"})


@pytest.mark.parametrize("name", ["", "default", "Server", "LOGGING", "a b", "../up", "a]", "-a", "a" * 65, ".hidden"])
def test_names_that_cannot_be_section_folder_and_argument_are_refused(name: str) -> None:
    with pytest.raises(IngestError, match=r"A collection cannot be called .* Give --name"):
        check_name(name)


@pytest.mark.parametrize("name", ["demo", "my_photos-2024", "þingvellir", "7", "a" * 64])
def test_plain_names_are_accepted(name: str) -> None:
    check_name(name)


def test_sections_entered_at_the_same_moment_are_all_there(tmp_path: Path) -> None:
    config = tmp_path / "config.ini"
    start = threading.Barrier(8)

    def enter(number: int) -> None:
        start.wait()
        for turn in range(5):
            enter_section(config, f"c{number}-{turn}", {"Enabled": "True", "DatabaseFile": "./x.db"})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter, range(8)))
    assert sorted(sections_of(config)) == sorted(f"c{number}-{turn}" for number in range(8) for turn in range(5))


def test_a_process_that_waits_for_another_says_so(tmp_path: Path) -> None:
    config = tmp_path / "new" / "config.ini"
    enter_section(config, "one", {"Enabled": "True"})
    told = logging.handlers.QueueHandler(records := queue.SimpleQueue[logging.LogRecord]())
    logger = logging.getLogger("mcp_server.ingest.config_section")
    logger.addHandler(told)
    try:
        with ThreadPoolExecutor(1) as pool:
            with FileLock(config.parent / ".config.ini.lock"):  # beside it: in a folder for all, anybody could hold it
                entered = pool.submit(enter_section, config, "two", {"Enabled": "True"})
                assert "another_process_is_changing_it" in records.get(timeout=30).getMessage()
                assert sections_of(config) == ["one"]
            entered.result()
    finally:
        logger.removeHandler(told)
    assert sections_of(config) == ["one", "two"]


def test_a_collection_built_anew_goes_on_using_its_index(tmp_path: Path) -> None:
    config = tmp_path / "config.ini"
    enter_section(config, "c", {"IndexType": "faiss", "CLIPIndexFile": "./i.faiss"})
    enter_section(config, "c", {"IndexType": "zarr", "Model": "M"})
    assert (value_in(config, "c", "IndexType"), value_in(config, "c", "Model")) == ("faiss", "M")


@pytest.mark.parametrize("header", ["[ photos ]", "[photos]   ; not [other]", "[\tphotos]"])
def test_a_section_is_found_by_its_name_however_its_header_is_written(tmp_path: Path, header: str) -> None:
    file = tmp_path / "config.ini"
    file.write_text(f"[DEFAULT]\nModelDevice = cpu\n\n{header}\nEmbeddingsFile = old\n", encoding="utf-8")
    text = with_section(file, "photos", {"EmbeddingsFile": "new"})
    assert text.count("photos") == 1
    assert "EmbeddingsFile = new" in text
    assert "old" not in text
