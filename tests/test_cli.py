"""The command line, as a person uses it: answers, exit statuses, and never a traceback."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from mcp_server.cli import main
from mcp_server.cli_words import as_typed
from mcp_server.config import demo_folder, load_settings
from mcp_server.doctor import examine
from mcp_server.domain.search import SearchRequest, WeightedText
from mcp_server.encoders.models import cache_paths, paths_beside
from mcp_server.engine.opening import open_engine
from mcp_server.indexes.embeddings import load_embeddings
from mcp_server.indexes.side_vectors import SideVectors, exact_index
from mcp_server.logs import log_to_stderr
from mcp_server.side_files import SideFiles
from tests.engine.toys import videos, write_collection

MODEL = f"local-dir:{demo_folder() / 'model'}"


def run(capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> tuple[int, str, str]:
    status = main(arguments)
    captured = capsys.readouterr()
    assert "Traceback" not in captured.out + captured.err
    return status, captured.out, captured.err


def test_search_prints_hits_with_score_id_and_title(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, ["search", "a yellow banana", "-n", "3", "--filters", '{"color": "yellow"}'])
    assert status == 0
    assert "banana" in out
    assert "filters: color is yellow" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["search", "cat", "-n", "0"], "1 to 100"),
        (["search", " "], "blank"),
        (["search", "cat", "--filters", '{"colour": "red"}'], "color"),
        (["search", "cat", "--filters", "{"], "filters"),
        (["filters", "colr"], "color"),
        (["search", "cat", "--collection", "demos"], "demo"),
    ],
)
def test_a_wrong_argument_is_one_sentence_and_status_2(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    status, _, err = run(capsys, arguments)
    assert status == 2
    assert words in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["search", "cat", "--filters", '{"colr": "red"}'], "Run `clip-search-mcp filters` for all 23 fields."),
        (["search", "cat", "--filters", '{"category": "fod"}'], "Run `clip-search-mcp filters category` for all 18."),
        (["search", "cat", "--filters", '{"category": {"contains": "zzz"}}'], "`clip-search-mcp filters` shows the values"),
        (["search", "cat", "-n", "0"], 'whole number from 1 to 100; got "0".\n'),
        (["filters", "--match", "x"], "--match and --offset look through the values of one field: name it as FIELD."),
        (["filters", "category", "--match", "zzz"], "No value here; leave out --match.\n"),
        (["filters", "category", "--match", "zzz", "--filters", '{"category": "food-drink"}'], "leave out --match or --filters.\n"),
        (["filters", "category", "-n", "2"], "16 more: --offset 2, or narrow with --match."),
        (["export", "s_unknown"], "30 days with a shortlist).\n"),
    ],
)
def test_what_to_do_next_is_said_in_words_of_the_command_line(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    _, out, err = run(capsys, arguments)
    assert words in out + err
    assert "describe_filters" not in out + err


@pytest.mark.parametrize(
    ("argument", "system", "typed"),
    [
        (r"C:\photos\config.ini", "nt", r"C:\photos\config.ini"),
        (r"C:\My photos\config.ini", "nt", r'"C:\My photos\config.ini"'),
        ("/photos/config.ini", "posix", "/photos/config.ini"),
        ("/my photos/config.ini", "posix", "'/my photos/config.ini'"),
    ],
)
def test_a_path_in_a_suggestion_is_quoted_as_the_shell_takes_it(argument: str, system: str, typed: str) -> None:
    assert as_typed(argument, system) == typed


def test_a_model_that_does_not_start_is_said_to_a_person() -> None:
    from mcp_server.cli_words import for_a_person
    from mcp_server.encoders.loading import _NOT_STARTED

    assert for_a_person(_NOT_STARTED).endswith("The line above says why; `clip-search-mcp filters` works meanwhile.")


def test_several_collections_are_told_apart_with_an_option(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = collection(tmp_path)
    text = config.read_text(encoding="utf-8").replace(MODEL, "hf-hub:toy/toy")
    config.write_text(text + text.replace("[small]", "[other]"), encoding="utf-8")
    _, out, _ = run(capsys, ["filters", "--config", str(config)])
    assert "next: Name one of these with --collection" in out
    _, _, err = run(capsys, ["filters", "Year", "--config", str(config)])
    assert "say which with --collection:" in err


def test_no_session_is_named_that_ends_with_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, ["search", "cat", "-n", "100", "--filters", '{"skin_tone": "dark"}', "--json"])
    answer = json.loads(out)
    assert answer["returned"] == 55
    assert not {"session", "next"} & set(answer)


def test_sessions_that_cannot_be_kept_are_named_with_their_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = collection(tmp_path)
    (tmp_path / "sessions.db").mkdir()
    status, _, err = run(capsys, ["export", "s_any", "--config", str(config)])
    assert status == 1
    assert f"Sessions cannot be kept in {tmp_path / 'sessions.db'}: unable to open database file." in err


def test_a_missing_configuration_is_status_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    status, _, err = run(capsys, ["search", "cat", "--config", str(tmp_path / "none.ini")])
    assert status == 2
    assert "none.ini" in err


def test_doctor_finds_the_demo_in_good_health(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, ["doctor"])
    assert status == 0
    assert "3,513 indexed items" in out
    assert "PROBLEM" not in out


def collection(folder: Path, model: str = MODEL, **keys: str) -> Path:
    """Write a small collection and its configuration, with `keys` changed."""
    folder.mkdir(exist_ok=True)
    write_collection(folder, videos(3, 3, 2), {"Year": "numerical_int"})
    values = {"IndexType": "zarr", "EmbeddingsFile": "embeddings.zarr.zip", "DatabaseFile": "collection.db", "Model": model, **keys}
    file = folder / "config.ini"
    file.write_text("[small]\n" + "".join(f"{key} = {value}\n" for key, value in values.items()), encoding="utf-8")
    return file


def problems(capsys: pytest.CaptureFixture[str], config: Path) -> str:
    status, out, _ = run(capsys, ["doctor", "--config", str(config)])
    assert status == 1
    return "\n".join(line for line in out.splitlines() if line.startswith("PROBLEM"))


def test_doctor_holds_width_of_embeddings_and_model_against_each_other(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = problems(capsys, collection(tmp_path))
    assert "8 wide" in found
    assert "192 wide" in found


def test_doctor_names_missing_files_a_damaged_archive_a_wrong_database_and_a_missing_model(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "EmbeddingsFile does not exist" in problems(capsys, collection(tmp_path / "a", EmbeddingsFile="gone.zip"))
    damaged = collection(tmp_path / "b")
    damaged.with_name("embeddings.zarr.zip").write_bytes(b"not a zip at all")
    assert "embeddings.zarr.zip" in problems(capsys, damaged)
    wrong = collection(tmp_path / "c")
    wrong.with_name("collection.db").write_bytes(b"just text" * 200)
    assert "collection.db" in problems(capsys, wrong)
    assert "open_clip_config.json" in problems(capsys, collection(tmp_path / "d", model="local-dir:./nothing"))


def test_doctor_tells_whether_side_files_are_there_can_be_made_and_are_whole(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = collection(tmp_path, model="hf-hub:nobody/words")
    settings = load_settings(config)

    def told() -> str:
        status, out, _ = run(capsys, ["doctor", "--config", str(config)])
        assert status == ("PROBLEM" in out)
        return next(line for line in out.splitlines() if "side files:" in line)

    assert "the next start of the server makes them" in told()
    side = tmp_path / "search-cache"
    side.write_text("a file where the folder should be")
    assert "cannot be made, so searches are slower" in told()
    assert "is no folder" in told()
    side.unlink()
    SideVectors(SideFiles.of(side, "small"), settings.collections[0].embeddings_file).open()
    assert told().startswith("ok")
    (rows,) = side.rglob("rows.npy")
    rows.write_bytes(rows.read_bytes()[:-1] + b"\1")
    assert "PROBLEM" in told()
    assert f"Delete {side / 'small'}" in told()


def test_doctor_tells_that_sessions_cannot_be_kept(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = collection(tmp_path, model="hf-hub:nobody/words")
    (tmp_path / "sessions.db").touch()
    status, out, _ = run(capsys, ["doctor", "--config", str(config)])
    assert status == 0
    assert f"kept in {tmp_path / 'sessions.db'}" in out
    with monkeypatch.context() as system:
        system.setattr("mcp_server.doctor.os.access", lambda *_: False)
        assert "sessions.db: this user may not write to it" in problems(capsys, config)
    monkeypatch.setattr("mcp_server.doctor.shutil.disk_usage", lambda _: SimpleNamespace(free=4096))
    assert "the disk is full" in problems(capsys, config)


def test_doctor_tells_of_a_text_encoder_that_is_left_alone_or_refused_and_of_one_that_is_made_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = "hf-hub:nobody/words"
    config = collection(tmp_path, model=model)
    paths, beside = cache_paths(model, tmp_path), paths_beside(model, tmp_path)
    torch.save(torch.nn.Linear(2, 2), paths.weights)
    status, out, _ = run(capsys, ["doctor", "--config", str(config)])
    assert status == 0
    assert f"{paths.weights} is a program that another tool has pickled" in out
    assert f"not cached yet: the first search downloads it and writes {beside.weights}" in out
    torch.save(torch.nn.Linear(2, 2), beside.weights)
    found = problems(capsys, config)
    assert f"{beside.weights} holds more than plain weights" in found
    assert "Move or delete it" in found
    beside.weights.unlink()
    torch.save({"a": torch.zeros(2)}, paths.weights)
    paths.metadata.write_text("{}")
    _, out, _ = run(capsys, ["doctor", "--config", str(config)])
    assert "its cache is damaged or was made by another version: the first search downloads it" in out


@pytest.mark.parametrize("missing", ["Token", "AllowedHosts"])
def test_doctor_tells_that_the_server_does_not_start_on_an_address_open_to_others(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, missing: str
) -> None:
    config = collection(tmp_path, model="hf-hub:nobody/words")
    config.write_text(config.read_text() + "[SERVER]\nHost = 0.0.0.0\nToken = a-long-secret\nAllowedHosts = search.example.org\n")
    assert "0.0.0.0" not in run(capsys, ["doctor", "--config", str(config)])[1]
    config.write_text(config.read_text().replace(missing, f"# {missing}"))
    status, out, _ = run(capsys, ["doctor", "--config", str(config)])
    assert status == 0
    assert "serve --http` does not start: 0.0.0.0 can be reached by other machines. In [SERVER], set AllowedHosts" in out
    _, _, err = run(capsys, ["serve", "--http", "--config", str(config)])
    assert "0.0.0.0 can be reached by other machines" in err


def test_doctor_tells_of_stored_values_that_are_not_of_their_kind(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = collection(tmp_path, model="hf-hub:nobody/words")
    assert "field Year:" not in run(capsys, ["doctor", "--config", str(config)])[1]
    with closing(sqlite3.connect(tmp_path / "collection.db")) as db, db:
        (year,) = db.execute("SELECT id FROM tagsets WHERE name = 'Year'").fetchone()
        (tag,) = db.execute("SELECT min(id) FROM tags WHERE tagset_id = ?", (year,)).fetchone()
        db.execute("UPDATE numerical_int_tags SET value = '2021:03:15' WHERE id = ?", (tag,))
        (count,) = db.execute("SELECT count(*) FROM tags WHERE tagset_id = ?", (year,)).fetchone()
    status, out, _ = run(capsys, ["doctor", "--config", str(config)])
    assert status == 0
    words = f'field Year: 1 of {count} stored values cannot be filtered by, such as "2021:03:15"; what is read: whole numbers such as 2021.'
    assert words in out


def test_doctor_names_side_files_of_collections_that_are_not_served_any_more(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = collection(tmp_path, model="hf-hub:nobody/words")
    exact_index(tmp_path / "embeddings.zarr.zip", SideFiles.of(tmp_path / "search-cache", "small"))
    assert "no collection" not in run(capsys, ["doctor", "--config", str(config)])[1]
    config.write_text(config.read_text().replace("[small]", "[Renamed]"))
    status, out, _ = run(capsys, ["doctor", "--config", str(config)])
    assert status == 0
    assert f"{tmp_path / 'search-cache' / 'small'} (0.0 MiB) is of no collection that is enabled here. Delete it" in out


def test_doctor_tells_that_no_search_is_logged(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = collection(tmp_path, model="hf-hub:nobody/words", LogDirectory="./logs")
    _, out, _ = run(capsys, ["doctor", "--config", str(config)])
    assert "LogDirectory" not in out
    assert not (tmp_path / "logs").exists()
    (tmp_path / "logs").touch()
    assert f"LogDirectory cannot be written; no search is logged: {tmp_path / 'logs'} is no folder" in problems(capsys, config)


def test_doctor_reports_what_the_catalog_says_twice(tmp_path: Path) -> None:
    config = collection(tmp_path)
    with closing(sqlite3.connect(tmp_path / "collection.db")) as db, db:
        (tagset,) = db.execute("SELECT id FROM tagsets WHERE name = 'CLIP Index ID'").fetchone()
        (media, tag) = db.execute(
            "SELECT media_id, tag_id FROM taggings JOIN tags ON tags.id = tag_id WHERE tagset_id = ? LIMIT 1", (tagset,)
        ).fetchone()
        (other,) = db.execute("SELECT MAX(id) FROM medias").fetchone()
        assert media != other
        db.execute("INSERT INTO taggings VALUES (?, ?)", (other, tag))
    notes = [finding.text for finding in examine(load_settings(config)) if finding.level == "note"]
    assert any("row" in note for note in notes)


def test_ingest_makes_a_folder_searchable_with_one_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name, color in (("red", (220, 20, 20)), ("green", (20, 160, 40)), ("blue", (20, 40, 220))):
        Image.new("RGB", (80, 60), color).save(pictures / f"{name}.png")
    (pictures / "broken.jpg").write_bytes(b"no picture")
    rows = [{"file": f"{name}.png", "shade": name, "year": 2020 + place} for place, name in enumerate(("red", "green", "blue"))]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    config = tmp_path / "data" / "config.ini"
    command = ["ingest", str(pictures), "--metadata", str(tmp_path / "rows.jsonl"), "--name", "mine", "--model", MODEL]
    status, out, _ = run(capsys, [*command, "--config", str(config)])
    assert status == 0
    assert "added 3, unchanged 0, changed 0, removed 0, failed 1" in out
    assert "collection mine: 3 pictures" in out
    assert "not read: broken.jpg" in out
    assert "1 file without a metadata row" in out
    status, out, _ = run(
        capsys, ["search", "green", "--config", str(config), "--filters", '{"year": {"gte": 2021}}', "--json", "--detail", "full"]
    )
    assert status == 0
    assert {hit["uri"] for hit in json.loads(out)["hits"]} == {"green.png", "blue.png"}
    status, out, _ = run(capsys, [*command, "--config", str(config)])
    assert status == 0
    assert "added 0, unchanged 3, changed 0, removed 0, failed 1" in out
    status, _, err = run(capsys, ["ingest", str(tmp_path), "--name", "mine", "--config", str(config)])
    assert status == 2
    assert "--replace" in err


@pytest.fixture
def imported(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Path:
    """A collection of 300 vectors of the demo, made by the import command; returns its configuration."""
    vectors = load_embeddings(demo_folder() / "embeddings.zarr.zip").rows[:300]
    np.save(tmp_path / "v.npy", vectors * 2)
    (tmp_path / "about.csv").write_text("path,year\n" + "".join(f"p{n}.png,{2000 + n % 5}\n" for n in range(300)), encoding="utf-8")
    config = tmp_path / "config.ini"
    command = ["import", "--embeddings", str(tmp_path / "v.npy"), "--metadata", str(tmp_path / "about.csv"), "--name", "vectors"]
    status, out, err = run(capsys, [*command, "--model", MODEL, "--config", str(config)])
    assert status == 0, err
    assert "collection vectors: 300 items; 300 vectors 192 wide, stored as float32" in out
    assert "300 vectors of another length than 1, stored with length 1" in out
    assert "fields: year (integer)" in out
    return config


def test_import_makes_a_collection_of_vectors_that_were_there(capsys: pytest.CaptureFixture[str], imported: Path) -> None:
    status, out, _ = run(capsys, ["search", "a red apple", "--config", str(imported), "--filters", '{"year": 2003}', "--json"])
    assert status == 0
    answer = json.loads(out)
    assert answer["matching"] == 60
    assert {hit["id"] % 5 for hit in answer["hits"]} == {4}
    status, _, err = run(capsys, ["import", "--embeddings", str(imported), "--name", "no", "--config", str(imported)])
    assert status == 2
    assert ".npy" in err


@pytest.mark.parametrize("named", [[], ["--collection", "vectors"]])
def test_a_setting_that_is_refused_is_what_index_check_and_build_speak_of(
    capsys: pytest.CaptureFixture[str], imported: Path, named: list[str]
) -> None:
    imported.write_text(imported.read_text(encoding="utf-8") + "TargetRecall = 1.5\n", encoding="utf-8")
    for action in ("build", "check"):
        status, _, err = run(capsys, ["index", action, "--config", str(imported), *named])
        assert status == 2
        assert '[vectors] TargetRecall is "1.5"; it takes a number from 0.5 to 1' in err


def test_index_build_writes_measures_and_advises_and_check_agrees(capsys: pytest.CaptureFixture[str], imported: Path) -> None:
    status, out, err = run(capsys, ["index", "build", "--type", "hnsw", "--use", "--config", str(imported)])
    assert status == 0, err
    assert "recall@10" in out
    assert "Keep IndexType = zarr" in out
    assert "IndexType = faiss" in imported.read_text(encoding="utf-8")
    status, out, _ = run(capsys, ["index", "check", "--config", str(imported)])
    assert status == 0
    assert "IndexHNSWFlat, inner product; the embeddings have 300 rows, 192 wide" in out
    assert "note: It " not in out
    (imported.parent / "vectors").mkdir(exist_ok=True)
    index = next(imported.parent.rglob("index.faiss"))
    index.with_name("index.faiss.json").unlink()
    os.utime(index, (0, next(imported.parent.rglob("embeddings.zarr*")).stat().st_mtime - 3600))
    status, out, _ = run(capsys, ["index", "check", "--config", str(imported)])
    assert status == 0
    assert "note: It has no note of what it was built from" in out
    assert "note: It is older than the embeddings, by 1:00:00." in out
    status, _, err = run(capsys, ["index", "build", "--config", str(imported)])
    assert status == 2
    assert "--replace" in err
    index.write_bytes(b"no index")
    status, out, _ = run(capsys, ["index", "check", "--config", str(imported)])
    assert status == 1
    assert "PROBLEM" in out


def test_import_offers_only_what_it_does(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["import", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "--device" not in shown
    assert "--metadata FILE|FOLDER row i for vector i: JSON Lines, JSON, CSV, Parquet, or a folder" in shown
    assert "Exquisitor's JSON" in shown
    with pytest.raises(SystemExit):
        main(["import", "--embeddings", str(tmp_path), "--device", "cpu"])
    assert "unrecognized arguments: --device" in capsys.readouterr().err


def test_ingest_says_what_became_of_each_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (80, 60), "red").save(pictures / "red.png")
    (pictures / "broken.jpg").write_bytes(b"no picture")
    command = ["ingest", str(pictures), "--name", "mine", "--model", MODEL, "--config", str(tmp_path / "config.ini")]
    status, out, _ = run(capsys, [*command, "--report", str(tmp_path / "report.jsonl")])
    assert status == 0
    assert "pictures/s; loading the model" in out
    summary, *files = [json.loads(line) for line in (tmp_path / "report.jsonl").read_text(encoding="utf-8").splitlines()]
    counts = {"added": 1, "unchanged": 0, "changed": 0, "removed": 0, "failed": 1, "moved": 0, "pictures": 1}
    assert summary == {"summary": counts}
    assert [(one["file"], one["status"]) for one in files] == [("broken.jpg", "failed"), ("red.png", "added")]
    assert "not a picture" in files[0]["reason"]
    for wrong, word in ((["--near", "2"], "--near"), (["--types", "a=b"], "text"), (["--group-by", "("], "group-by")):
        status, _, err = run(capsys, [*command, *wrong])
        assert (status, word in err) == (2, True), err


def test_a_terminal_that_cannot_write_a_name_shows_it_all_the_same(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (80, 60), "red").save(pictures / "gru\u0308n \U0001f34e.png")
    (pictures / "\U0001f34f.jpg").write_bytes(b"no picture")
    config = ["--config", str(tmp_path / "config.ini")]
    for command, words in (
        (["ingest", str(pictures), "--name", "mine", "--model", MODEL], "not read: \\U0001f34f.jpg"),
        (["search", "red"], "gru\\u0308n \\U0001f34e.png"),
        (["filters", "filename"], "gru\\u0308n \\U0001f34e.png"),
    ):
        environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
        line = [sys.executable, "-m", "mcp_server", *command, *config]
        done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False, env=environment, encoding="cp1252")
        assert (done.returncode, words in done.stdout) == (0, True), done.stdout + done.stderr


def test_an_ingest_without_news_loads_no_heavy_library(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (80, 60), "red").save(pictures / "red.png")
    command = ["ingest", str(pictures), "--name", "mine", "--model", MODEL, "--config", str(tmp_path / "config.ini")]
    assert run(capsys, command)[0] == 0
    code = f"""
import sys
from mcp_server.cli import main
assert main({command!r}) == 0
heavy = [name for name in ("numpy", "PIL", "torch", "zarr", "pyarrow", "faiss", "mcp") if name in sys.modules]
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "unchanged 1" in done.stdout


def test_the_environment_names_the_configuration_for_ingest_too(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (20, 20), "red").save(tmp_path / "pictures" / "red.png")
    config = tmp_path / "my configuration" / "mine.ini"
    monkeypatch.setenv("CLIP_SEARCH_CONFIG", str(config))
    status, out, _ = run(capsys, ["ingest", "pictures", "--model", MODEL])
    assert status == 0
    assert not (tmp_path / "data").exists()
    command = shlex.split(out.splitlines()[-1].removeprefix("Try: clip-search-mcp "))
    assert str(config) in command
    status, out, _ = run(capsys, command)
    assert (status, "red.png" in out) == (0, True)
    shutil.rmtree(config.parent / "pictures" / ".ingest")
    status, _, err = run(capsys, ["ingest", "pictures", "--model", MODEL])
    assert status == 2
    assert "--replace to build the collection anew" in err


def test_the_bundled_demo_gets_no_index(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLIP_SEARCH_CONFIG", raising=False)
    status, _, err = run(capsys, ["index", "build", "--out", str(tmp_path / "index.faiss")])
    assert status == 2
    assert "--config" in err
    assert list(tmp_path.iterdir()) == []


def test_the_example_among_the_fields_can_be_pasted(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, ["filters"])
    example = next(line for line in out.splitlines() if line.startswith("example: ")).removeprefix("example: ")
    status, out, _ = run(capsys, ["search", "cat", "--filters", example])
    assert status == 0
    assert "filters: " in out


def test_a_collection_that_cannot_be_reached_is_named_and_the_others_are_served(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    config = collection(tmp_path)
    beyond = tmp_path / ("n" * 300) / "x"  # as with a folder that is closed to this user, looking there fails
    text = config.read_text(encoding="utf-8").replace(f"Model = {MODEL}\n", "")
    model = tmp_path / "toy-model"
    model.mkdir()
    (model / "open_clip_config.json").write_text('{"embed_dim": 8, "text_cfg": {}, "vision_cfg": {}}', encoding="utf-8")
    text = f"[DEFAULT]\nModel = local-dir:{model}\n{text}ThumbnailMediaURL = {beyond}\n"
    text += f"[shut]\nEmbeddingsFile = {beyond}\nDatabaseFile = {beyond}\n"
    text += f"[far]\nEmbeddingsFile = embeddings.zarr.zip\nDatabaseFile = collection.db\nModel = local-dir:{beyond}\n"
    config.write_text(text + "[nul]\nEmbeddingsFile = a\0b\nDatabaseFile = c\n", encoding="utf-8")
    found = problems(capsys, config)
    for words in ("DatabaseFile cannot be reached", "EmbeddingsFile cannot be reached", "that folder cannot be reached", "is no path"):
        assert words in found
    status, out, _ = run(capsys, ["filters", "--config", str(config)])
    assert status == 0
    assert "small" in out
    assert 'shut="cannot be opened; run clip-search-mcp doctor"' in out
    status, out, _ = run(capsys, ["filters", "Year", "--collection", "small", "--config", str(config)])
    assert (status, "2020" in out) == (0, True)
    status, _, err = run(capsys, ["filters", "--collection", "shut", "--config", str(config)])
    assert (status, "cannot be reached" in err) == (2, True)


@pytest.mark.skipif(os.name != "posix", reason="pipes and /dev/full as Unix has them")
@pytest.mark.parametrize("command", [["filters", "title"], ["doctor"], ["--help"]])
def test_output_that_nobody_reads_or_has_room_for_ends_a_command_quietly(command: list[str]) -> None:
    line = [sys.executable, "-m", "mcp_server", *command]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(line, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120, check=False, env=buffered)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")
    if Path("/dev/full").exists():
        with Path("/dev/full").open("w", encoding="utf-8") as full:
            done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120, check=False, env=buffered)
        assert (done.returncode, done.stderr) == (1, "clip-search-mcp: No space left on device\n")


STEERING = "\x1b]0;theirs\x07\x9b2J\nnote: nothing is wrong\r\u2028all"


@pytest.fixture
def steering(tmp_path: Path) -> Path:
    """The configuration of a copy of the demo whose titles, colours and name of a field would steer a terminal."""
    demo = demo_folder()
    shutil.copy(demo / "collection.db", tmp_path / "collection.db")
    with closing(sqlite3.connect(tmp_path / "collection.db")) as db, db:
        db.execute(
            "UPDATE alphanumerical_tags SET value = value || ? WHERE tagset_id IN (SELECT id FROM tagsets WHERE name = 'title')",
            (STEERING,),
        )
        db.execute("UPDATE alphanumerical_tags SET value = 'red' || ? WHERE value = 'red'", (STEERING,))
        db.execute("UPDATE tagsets SET name = name || ? WHERE name = 'color'", (STEERING,))
    config = tmp_path / "config.ini"
    text = (demo / "config.ini").read_text(encoding="utf-8").replace("./", f"{demo.as_posix()}/")
    config.write_text(text.replace(f"{demo.as_posix()}/collection.db", "./collection.db"), encoding="utf-8")
    return config


@pytest.mark.parametrize("command", [["search", "cat", "--detail", "full"], ["filters"], ["filters", "color" + STEERING], ["doctor"]])
def test_a_catalog_does_not_steer_the_terminal(command: list[str], capsys: pytest.CaptureFixture[str], steering: Path) -> None:
    status, out, err = run(capsys, [*command, "--config", str(steering)])
    assert status == 0, err
    assert re.findall("[\\x00-\\x09\\x0b-\\x1f\\x7f-\\x9f\u2028]", out) == []
    assert not {"note: nothing is wrong", "all"} & set(out.splitlines())
    assert command == ["doctor"] or r"\u001b]0;theirs\u0007" in out


def test_json_for_a_terminal_says_the_same(capsys: pytest.CaptureFixture[str], steering: Path) -> None:
    _, out, _ = run(capsys, ["search", "cat", "--json", "--config", str(steering)])
    assert any("\x1b]0;theirs\x07\x9b2J\n" in hit["title"] for hit in json.loads(out)["hits"])
    assert re.findall("[\\x00-\\x09\\x0b-\\x1f\\x7f-\\x9f\u2028]", out) == []


@pytest.mark.skipif(os.name != "posix", reason="Windows has no pseudo-terminal here")
def test_an_export_to_a_terminal_does_not_steer_it_and_one_to_a_file_has_all(capsys: pytest.CaptureFixture[str], steering: Path) -> None:
    with closing(open_engine(load_settings(steering), patience_seconds=math.inf)) as engine:
        session = engine.search(SearchRequest((WeightedText("cat"),), n=3)).session
    command = ["export", session, "--list", "shown", "--config", str(steering)]
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w", encoding="utf-8") as terminal, contextlib.redirect_stdout(terminal):
        assert main(command) == 0
        written = os.read(ours, 100_000).decode()
    os.close(ours)
    assert r"\u001b]0;theirs\u0007" in written
    assert "\x1b" not in written
    _, out, _ = run(capsys, command)
    assert out.count(STEERING) == 3


def test_a_line_of_the_log_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("INFO")
    logger = logging.getLogger("tests.lines")
    logger.info("picture.unreadable uri=%s", STEERING)
    try:
        raise ValueError(STEERING)
    except ValueError:
        logger.exception("picture.failed")
    first, second, *traceback = capsys.readouterr().err.splitlines()
    assert first.endswith(r"uri=\u001b]0;theirs\u0007\u009b2J\nnote: nothing is wrong\r\u2028all")
    assert second.endswith("picture.failed")
    assert traceback[0] == "  Traceback (most recent call last):"
    assert all(line.startswith("  ") and line.isprintable() for line in traceback)
