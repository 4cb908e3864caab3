"""Running again: only what is new is done, a kill costs a batch at most, and ids are for good."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from mcp_server.errors import IngestError
from mcp_server.indexes.embeddings import load_embeddings
from mcp_server.ingest.duplicates import find_duplicates
from mcp_server.ingest.imports.run import import_vectors
from mcp_server.ingest.ledger import Ledger
from mcp_server.ingest.pictures.results import Unreadable
from mcp_server.ingest.plan import make_plan
from mcp_server.ingest.report import IngestReport
from mcp_server.ingest.run import ingest_folder
from mcp_server.ingest.scan import Closed, scan
from mcp_server.ingest.wishes import Options
from mcp_server.ingest.write_archives import write_embeddings
from tests.ingest.toys import COLOURS, ColourEncoder, a_dozen, draw, write_rows

REPOSITORY = Path(__file__).resolve().parent.parent.parent
FILES = ("collection.db", "embeddings.zarr.zip", "thumbnails.zip")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return a_dozen(tmp_path / "pictures")


def ingest(pictures: Path, encoder: ColourEncoder | None = None, name: str = "toys", **wishes: Any) -> IngestReport:
    data = pictures.parent / "data"
    options = Options(**{"near": "off", **wishes})
    return ingest_folder(pictures, data / name, data / "config.ini", name, "M", options=options, encoder=encoder or ColourEncoder())


def read(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "collection.db")) as opened:
        return opened.execute(sql).fetchall()


def ids(folder: Path) -> dict[str, int]:
    return dict(read(folder, "SELECT source, id FROM medias WHERE source_type = 1"))


def vectors(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Return each picture's vector by its path, through the catalog's positions."""
    rows = read(
        folder,
        "SELECT m.source, v.value FROM numerical_int_tags v JOIN tagsets s ON s.id = v.tagset_id "
        "JOIN taggings t ON t.tag_id = v.id JOIN medias m ON m.id = t.media_id WHERE s.name = 'CLIP Index ID'",
    )
    stored = load_embeddings(folder / "embeddings.zarr.zip").rows
    return {source: stored[row].astype(np.float32) for source, row in rows}


def tags(folder: Path) -> set[tuple[str, str, str]]:
    return set(
        read(
            folder,
            "SELECT m.source, s.name, CAST(v.value AS TEXT) FROM taggings t JOIN medias m ON m.id = t.media_id "
            "JOIN tags g ON g.id = t.tag_id JOIN tagsets s ON s.id = g.tagset_id JOIN (SELECT id, value FROM alphanumerical_tags "
            "UNION ALL SELECT id, value FROM numerical_int_tags UNION ALL SELECT id, value FROM numerical_dec_tags "
            "UNION ALL SELECT id, value FROM date_tags) v ON v.id = g.id WHERE s.name <> 'CLIP Index ID'",
        )
    )


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {name: ((folder / name).stat().st_ino, (folder / name).stat().st_mtime_ns) for name in FILES}


def fingerprint(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}


def test_a_second_run_over_the_same_files_reads_and_writes_nothing(pictures: Path) -> None:
    (pictures / "broken.png").write_text("no picture")
    first = ingest(pictures)
    assert (first.counts.added, first.counts.unchanged, first.counts.failed) == (12, 0, 1)
    before = stamps(pictures.parent / "data/toys")
    again = ingest(pictures, encoder=(encoder := ColourEncoder()))
    assert (again.counts.added, again.counts.unchanged, again.counts.failed, again.embedded) == (0, 12, 1, 0)
    assert again.catalog is None
    assert encoder.seen == 0
    assert stamps(pictures.parent / "data/toys") == before
    ledger = pictures.parent / "data/toys/.ingest/ledger.db"
    written = ledger.stat().st_mtime_ns
    ingest(pictures)
    assert ledger.stat().st_mtime_ns == written


def test_wishes_of_a_run_that_failed_are_not_remembered(pictures: Path) -> None:
    ingest(pictures)
    with pytest.raises(IngestError, match="Cannot read the metadata file"):
        ingest(pictures, metadata="nowhere.csv")
    file = write_rows(pictures.parent / "m.jsonl", [{"file": "disc.png", "mood": "calm"}])
    with pytest.raises(IngestError, match="nosuch"):
        ingest(pictures, metadata=str(file), column="nosuch")
    assert ingest(pictures).counts.unchanged == 12
    ingest(pictures, metadata=str(file))
    assert ("disc.png", "mood", "calm") in tags(pictures.parent / "data/toys")


REPLACED = """
import sys
from pathlib import Path
from mcp_server.ingest.run import ingest_folder
from tests.ingest.toys import ColourEncoder
import os

pictures, after = Path(sys.argv[1]), int(sys.argv[2])
data = pictures.parent / "data"
moves = 0

def count(event, arguments):  # the system's own report of each rename and removal
    global moves
    if event in ("os.rename", "os.remove") and str(data / "toys") in str(arguments[1] if event == "os.rename" else arguments[0]):
        if not str(arguments[0]).startswith(str(data / ".toys.replace" / ".ingest" / "staging")):
            moves += 1
            if moves > after:
                os.kill(os.getpid(), 9)

sys.addaudithook(count)
ingest_folder(pictures, data / "toys", data / "config.ini", "toys", "M", replace=True, encoder=ColourEncoder())
"""


@pytest.mark.parametrize("after", range(6))
def test_replacing_that_is_killed_between_any_two_files_is_completed_by_the_next_run(pictures: Path, after: int) -> None:
    folder = pictures.parent / "data/toys"
    ingest(pictures)
    for number in range(5):
        draw(pictures / f"aa{number}.png", "yellow")  # other ids and rows than before
    command = [sys.executable, "-c", REPLACED, str(pictures), str(after)]
    assert subprocess.run(command, check=False, timeout=120, cwd=REPOSITORY).returncode == -signal.SIGKILL
    report = ingest(pictures, encoder=(encoder := ColourEncoder()))
    assert (report.pictures, encoder.seen) == (17, 0)
    for source, vector in vectors(folder).items():
        if source.endswith((".png", ".webp")) and source != "disc.png":
            colour = np.array(Image.open(pictures / source).convert("RGB").getpixel((0, 0)), float)
            assert vector == pytest.approx(colour / np.linalg.norm(colour), abs=0.02)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["config.ini", "toys"]


def test_only_what_is_new_or_changed_goes_through_the_model_and_ids_stay(pictures: Path) -> None:
    folder = pictures.parent / "data/toys"
    ingest(pictures)
    before = ids(folder)
    draw(pictures / "aaa.png", "yellow")
    draw(pictures / "large.jpg", "green", (901, 600))
    (pictures / "plain/0-red.png").unlink()
    (pictures / "plain/1-green.png").rename(pictures / "moved.png")
    report = ingest(pictures, encoder=(encoder := ColourEncoder()))
    counts = report.counts
    assert (counts.added, counts.changed, counts.removed, counts.moved, counts.unchanged) == (2, 1, 2, 1, 9)
    assert encoder.seen == 2
    after = ids(folder)
    assert set(after) == set(before) - {"plain/0-red.png", "plain/1-green.png"} | {"aaa.png", "moved.png"}
    assert after["moved.png"] == before["plain/1-green.png"]
    assert after["aaa.png"] == max(before.values()) + 1
    assert {source: number for source, number in after.items() if source in before}.items() <= before.items()
    assert vectors(folder)["large.jpg"] == pytest.approx([0, 1, 0], abs=0.02)
    assert vectors(folder)["moved.png"] == pytest.approx([0, 1, 0], abs=0.02)
    assert ("moved.png", "filename", "moved.png") in tags(folder)
    with zipfile.ZipFile(folder / "thumbnails.zip") as archive:
        assert sorted(archive.namelist()) == sorted(uri for (uri,) in read(folder, "SELECT thumbnail_uri FROM medias"))
        assert Image.open(archive.open("moved.png.webp")).getpixel((5, 5)) == pytest.approx((0, 255, 0), abs=8)


def test_a_file_that_was_only_touched_keeps_its_vector_and_gets_its_new_date(pictures: Path) -> None:
    folder = pictures.parent / "data/toys"
    ingest(pictures)
    before = (folder / "embeddings.zarr.zip").stat().st_ino
    os.utime(pictures / "disc.png", (86_400 * 366, 86_400 * 366))
    report = ingest(pictures, encoder=(encoder := ColourEncoder()))
    assert (report.counts.unchanged, report.counts.changed, encoder.seen) == (12, 0, 0)
    assert ("disc.png", "file_date", "1971-01-02") in tags(folder)
    assert (folder / "embeddings.zarr.zip").stat().st_ino == before


def test_a_file_changed_without_a_change_of_size_is_found_by_its_bytes(pictures: Path) -> None:
    draw(pictures / "one.bmp", "red")
    ingest(pictures)
    size = (pictures / "one.bmp").stat().st_size
    draw(pictures / "one.bmp", "blue")
    assert (pictures / "one.bmp").stat().st_size == size
    os.utime(pictures / "one.bmp", (1, 1))
    report = ingest(pictures, encoder=(encoder := ColourEncoder()))
    assert (report.counts.changed, encoder.seen) == (1, 1)
    assert vectors(pictures.parent / "data/toys")["one.bmp"] == pytest.approx([0, 0, 1], abs=0.02)


def test_a_failed_file_is_tried_again_once_it_changed(pictures: Path) -> None:
    (pictures / "late.png").write_text("half a pict")
    assert ingest(pictures).counts.failed == 1
    draw(pictures / "late.png", "red")
    report = ingest(pictures)
    assert (report.counts.failed, report.counts.added, report.failed) == (0, 1, ())


def test_a_picture_that_comes_back_has_its_old_id(pictures: Path) -> None:
    folder = pictures.parent / "data/toys"
    ingest(pictures)
    before = ids(folder)
    shutil.move(pictures / "disc.png", pictures.parent / "disc.png")
    assert ingest(pictures).counts.removed == 1
    assert "disc.png" not in ids(folder)
    draw(pictures / "zzz.png", "red")
    ingest(pictures)
    shutil.move(pictures.parent / "disc.png", pictures / "disc.png")
    ingest(pictures)
    assert ids(folder)["disc.png"] == before["disc.png"]
    assert vectors(folder)["disc.png"] == pytest.approx(vectors(folder)["plain/2-blue.png"], abs=0.8)


def test_a_picture_renamed_to_a_name_that_was_there_before_keeps_its_id(tmp_path: Path) -> None:
    pictures, folder = tmp_path / "pictures", tmp_path / "data/toys"
    for name, colour in (("a.png", "red"), ("b.png", "green"), ("c.png", "blue")):
        draw(pictures / name, colour)
    ingest(pictures)
    (pictures / "a.png").unlink()
    ingest(pictures)
    (pictures / "b.png").rename(pictures / "a.png")
    report = ingest(pictures, encoder=(encoder := ColourEncoder()))
    assert (report.counts.moved, report.counts.added, report.counts.removed, encoder.seen) == (1, 1, 1, 0)
    assert ids(folder) == {"a.png": 2, "c.png": 3}
    assert vectors(folder)["a.png"] == pytest.approx([0, 1, 0], abs=0.02)
    draw(pictures / "b.png", "white")
    ingest(pictures)
    assert ids(folder) == {"a.png": 2, "b.png": 4, "c.png": 3}


def thumbnail_colours(folder: Path) -> dict[str, str]:
    """Return the colour of each picture's thumbnail by its path, as the catalog names it."""
    found: dict[str, str] = {}
    with zipfile.ZipFile(folder / "thumbnails.zip") as archive:
        for source, name in read(folder, "SELECT source, thumbnail_uri FROM medias WHERE source_type = 1"):
            pixel = np.array(Image.open(archive.open(name)).convert("RGB").getpixel((5, 5)))
            found[source] = min(COLOURS, key=lambda colour: int(np.abs(pixel - COLOURS[colour]).sum()))
    return found


@pytest.mark.parametrize(
    ("renames", "left", "added", "changed", "removed", "moved"),
    [
        ("a>t b>a t>b", {"a.bmp": ("green", 2), "b.bmp": ("red", 1), "c.bmp": ("blue", 3)}, 0, 2, 0, 2),
        ("a>t c>a b>c t>b", {"a.bmp": ("blue", 3), "b.bmp": ("red", 1), "c.bmp": ("green", 2)}, 0, 3, 0, 3),
        ("c>d b>c a>b", {"b.bmp": ("red", 1), "c.bmp": ("green", 2), "d.bmp": ("blue", 3)}, 1, 2, 1, 3),
        ("b>a", {"a.bmp": ("green", 2), "c.bmp": ("blue", 3)}, 0, 1, 1, 1),
        ("b>d a>b white>a", {"a.bmp": ("white", 4), "b.bmp": ("red", 1), "c.bmp": ("blue", 3), "d.bmp": ("green", 2)}, 1, 2, 0, 2),
    ],
)
def test_pictures_whose_names_were_swapped_keep_their_ids(
    tmp_path: Path, renames: str, left: dict[str, tuple[str, int]], added: int, changed: int, removed: int, moved: int
) -> None:
    pictures, folder = tmp_path / "pictures", tmp_path / "data/toys"
    for name, colour in (("a.bmp", "red"), ("b.bmp", "green"), ("c.bmp", "blue")):
        draw(pictures / name, colour)
    file = write_rows(tmp_path / "m.jsonl", [{"file": name, "said_of": name} for name in ("a.bmp", "b.bmp", "c.bmp", "d.bmp")])
    for path in pictures.iterdir():
        os.utime(path, (1, 1))  # nothing but the names and the bytes tells them apart
    ingest(pictures, metadata=str(file))
    draw(pictures.parent / "white.bmp", "white").rename(pictures / "white.bmp")
    os.utime(pictures / "white.bmp", (1, 1))
    for rename in renames.split():
        old, _, new = rename.partition(">")
        (pictures / f"{old}.bmp").replace(pictures / f"{new}.bmp")
    (pictures / "white.bmp").unlink(missing_ok=True)
    report = ingest(pictures, encoder=(encoder := ColourEncoder()))
    assert ids(folder) == {source: media_id for source, (_, media_id) in left.items()}
    for source, (colour, _) in left.items():
        assert vectors(folder)[source] == pytest.approx(np.array(COLOURS[colour]) / np.linalg.norm(COLOURS[colour]))
        assert {(source, "filename", source), (source, "colors", colour), (source, "said_of", source)} <= tags(folder)
    assert thumbnail_colours(folder) == {source: colour for source, (colour, _) in left.items()}
    counts = report.counts
    assert (counts.added, counts.changed, counts.removed, counts.moved) == (added, changed, removed, moved)
    assert encoder.seen == renames.count("white")
    assert ingest(pictures).catalog is None


def test_a_picture_whose_copies_were_touched_and_renamed_is_where_its_bytes_are(tmp_path: Path) -> None:
    pictures, folder = tmp_path / "pictures", tmp_path / "data/toys"
    for name in ("a.bmp", "b.bmp"):
        draw(pictures / name, "red")
    draw(pictures / "c.bmp", "blue")
    ingest(pictures)
    (pictures / "b.bmp").rename(pictures / "d.bmp")
    os.utime(pictures / "a.bmp", (1, 1))
    draw(pictures / "c.bmp", "green")
    ingest(pictures, encoder=(encoder := ColourEncoder()))
    assert (ids(folder), encoder.seen) == ({"a.bmp": 1, "d.bmp": 2, "c.bmp": 3}, 1)
    assert thumbnail_colours(folder) == {"a.bmp": "red", "d.bmp": "red", "c.bmp": "green"}


def test_what_keeps_its_size_and_date_is_read_again_all_the_same(pictures: Path) -> None:
    draw(pictures / "one.bmp", "red")
    (pictures / "one.txt").write_text("a red thing")
    os.utime(pictures / "one.bmp", (1, 1))
    os.utime(pictures / "one.txt", (1, 1))
    ingest(pictures)
    draw(pictures / "one.bmp", "blue")
    (pictures / "one.txt").write_text("one in blue")
    os.utime(pictures / "one.bmp", (1, 1))
    os.utime(pictures / "one.txt", (1, 1))
    assert ingest(pictures).counts.changed == 1
    assert vectors(pictures.parent / "data/toys")["one.bmp"] == pytest.approx([0, 0, 1], abs=0.02)
    assert ("one.bmp", "caption", "one in blue") in tags(pictures.parent / "data/toys")


def test_a_picture_renamed_over_one_that_could_not_be_read_keeps_its_id(pictures: Path) -> None:
    folder = pictures.parent / "data/toys"
    (pictures / "broken.png").write_text("no picture")
    ingest(pictures)
    before = ids(folder)
    (pictures / "disc.png").replace(pictures / "broken.png")
    report = ingest(pictures, encoder=(encoder := ColourEncoder()))
    assert (report.counts.moved, report.failed, encoder.seen) == (1, (), 0)
    assert ids(folder)["broken.png"] == before["disc.png"]


@pytest.mark.parametrize("colour", ["green", "white"])
def test_the_id_of_a_picture_that_is_gone_is_never_given_to_another(pictures: Path, colour: str) -> None:
    folder = pictures.parent / "data/toys"
    draw(pictures / "one.bmp", "red")
    ingest(pictures, near="0.99")
    before = ids(folder)
    (pictures / "one.bmp").unlink()
    ingest(pictures)
    size = (40, 30) if colour == "green" else (50, 30)  # as large as the one that is gone, or not
    draw(pictures / "one.bmp", colour, size)
    assert ingest(pictures).counts.added == 1
    assert ids(folder)["one.bmp"] == max(before.values()) + 1
    assert {source: number for source, number in ids(folder).items() if source != "one.bmp"}.items() <= before.items()


def test_a_picture_that_is_gone_is_nobodys_original(pictures: Path) -> None:
    draw(pictures / "aaa.bmp", "red")
    shutil.copy(pictures / "aaa.bmp", pictures / "bbb.bmp")
    ingest(pictures)
    (pictures / "aaa.bmp").unlink()
    ingest(pictures)
    shutil.copy(pictures / "bbb.bmp", pictures / "ccc.bmp")
    ingest(pictures)
    found = tags(pictures.parent / "data/toys")
    assert {(source, value) for source, name, value in found if name == "duplicate_of"} == {
        ("bbb.bmp", "bbb.bmp"),
        ("ccc.bmp", "bbb.bmp"),
    }
    assert {(source, value) for source, name, value in found if name == "duplicate_role"} == {("bbb.bmp", "original"), ("ccc.bmp", "exact")}


def test_a_sidecar_that_changes_changes_the_tags_and_no_vector(pictures: Path) -> None:
    folder = pictures.parent / "data/toys"
    ingest(pictures)
    (pictures / "large.txt").write_text("a large red thing")
    report = ingest(pictures, encoder=(encoder := ColourEncoder()))
    assert encoder.seen == 0
    assert report.catalog is not None
    assert ("large.jpg", "caption", "a large red thing") in tags(folder)
    (pictures / "large.txt").unlink()
    ingest(pictures)
    assert "caption" not in {name for _, name, _ in tags(folder)}


def test_metadata_that_changes_changes_the_tags_and_no_vector_and_is_remembered(pictures: Path) -> None:
    folder = pictures.parent / "data/toys"
    file = write_rows(pictures.parent / "m.jsonl", [{"file": "large.jpg", "mood": "calm", "Width": "wide"}])
    ingest(pictures, metadata=str(file))
    assert {("large.jpg", "mood", "calm"), ("large.jpg", "width", "wide")} <= tags(folder)
    assert ("large.jpg", "width", "900") not in tags(folder)
    write_rows(file, [{"file": "large.jpg", "mood": "loud"}, {"file": "disc.png", "mood": "calm"}])
    report = ingest(pictures, encoder=(encoder := ColourEncoder()))
    assert encoder.seen == 0
    assert report.metadata is not None
    assert report.metadata.report.matched == 2
    assert {("large.jpg", "mood", "loud"), ("disc.png", "mood", "calm"), ("large.jpg", "width", "900")} <= tags(folder)
    assert ingest(pictures).catalog is None
    ingest(pictures, metadata="")
    assert "mood" not in {name for _, name, _ in tags(folder)}


def test_a_date_of_the_metadata_takes_the_year_of_the_files_date_away(pictures: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2019:08:17 10:00:00"
    for name in ("one.jpg", "two.jpg", "three.jpg"):
        Image.new("RGB", (40, 30), "red").save(pictures / name, exif=exif)
    rows = [{"file": "one.jpg", "Date_Taken": "1950-01-02"}, {"file": "two.jpg", "date_taken": "1950-01-02", "year": 1950}]
    ingest(pictures, metadata=str(write_rows(pictures.parent / "m.jsonl", rows)))
    found = {(source, name, value) for source, name, value in tags(pictures.parent / "data/toys") if name in ("year", "month", "hour")}
    assert found == {("two.jpg", "year", "1950"), ("three.jpg", "year", "2019"), ("three.jpg", "month", "8"), ("three.jpg", "hour", "10")}


def test_wishes_can_change_without_embedding_anew(pictures: Path) -> None:
    folder = pictures.parent / "data/toys"
    ingest(pictures, group_by="folder")
    assert {name for (name,) in read(folder, "SELECT source FROM medias WHERE source_type = 5")} == {"plain", "web"}
    report = ingest(pictures, encoder=(encoder := ColourEncoder()), group_by="", near="0.99", types="width=text")
    assert encoder.seen == 0
    assert report.groups == 0
    found = tags(folder)
    assert ("web/0-red.webp", "duplicate_of", "large.jpg") in found
    assert ("large.jpg", "duplicate_role", "original") in found
    assert ("web/0-red.webp", "duplicate_role", "near") in found
    assert ("large.jpg", "width", "900") in found


def test_equal_files_share_a_tag_and_the_first_one_by_id_is_the_original(pictures: Path) -> None:
    folder = pictures.parent / "data/toys"
    shutil.copy(pictures / "large.jpg", pictures / "web/copy.jpg")
    ingest(pictures)
    found = tags(folder)
    assert {(source, value) for source, name, value in found if name == "duplicate_of"} == {
        ("large.jpg", "large.jpg"),
        ("web/copy.jpg", "large.jpg"),
    }
    assert ("web/copy.jpg", "duplicate_role", "exact") in found
    (pictures / "large.jpg").unlink()
    ingest(pictures)
    assert "duplicate_of" not in {name for _, name, _ in tags(folder)}


def test_equal_files_share_a_tag_where_only_equal_vectors_are_near(tmp_path: Path) -> None:
    pictures, folder = tmp_path / "pictures", tmp_path / "data/toys"
    pictures.mkdir()
    for number in range(20):
        Image.new("RGB", (40, 30), (10 * number, 7, 250 - number * number % 200)).save(pictures / f"{number}.png")
        shutil.copy(pictures / f"{number}.png", pictures / f"{number}-copy.png")
    ingest(pictures, near="1")
    assert {source for source, name, _ in tags(folder) if name == "duplicate_of"} == set(ids(folder))
    shutil.copy(pictures / "7.png", pictures / "z.png")
    ingest(pictures)
    assert {source for source, name, _ in tags(folder) if name == "duplicate_of"} == set(ids(folder))


def test_folders_called_after_days_are_text_and_none_is_lost(tmp_path: Path) -> None:
    pictures, folder = tmp_path / "pictures", tmp_path / "data/toys"
    days = ("2023-05-01", "2023-05-02", "2023-05-03", "2023-00-00")
    for day in days:
        draw(pictures / day / "a.png", "red")
    catalog = ingest(pictures, types="nothing=date").catalog
    assert catalog is not None
    assert catalog.unused_kinds == ("nothing",)
    assert {value for _, name, value in tags(folder) if name == "folder"} == set(days)


def test_what_lies_below_a_folder_that_cannot_be_read_is_kept(pictures: Path, tmp_path: Path) -> None:
    ingest(pictures)
    shutil.rmtree(pictures / "web")
    with Ledger.open(tmp_path / "data/toys") as ledger:
        plan = make_plan(ledger, pictures, [*scan(pictures), Closed("web/", "Permission denied")])
        assert [one.prefix for one in plan.closed] == ["web/"]
        assert (ledger.counts().removed, ledger.pictures()) == (0, 12)


def test_a_folder_that_is_suddenly_empty_takes_nothing_away(pictures: Path) -> None:
    ingest(pictures)
    before = stamps(pictures.parent / "data/toys")
    shutil.rmtree(pictures)
    pictures.mkdir()
    with pytest.raises(IngestError, match="No picture is below"):
        ingest(pictures)
    assert stamps(pictures.parent / "data/toys") == before


def test_files_that_were_deleted_are_made_again(pictures: Path) -> None:
    folder = pictures.parent / "data/toys"
    ingest(pictures)
    before = fingerprint(folder)
    (folder / "collection.db").unlink()
    ingest(pictures, encoder=(encoder := ColourEncoder()))
    (folder / "embeddings.zarr.zip").unlink()
    ingest(pictures)
    assert {source: vector.tolist() for source, vector in vectors(folder).items()}.keys() == ids(folder).keys()
    assert fingerprint(folder)["thumbnails.zip"] == before["thumbnails.zip"]
    assert encoder.seen <= 12
    for name in FILES:
        (folder / name).write_bytes((folder / name).read_bytes()[:200])
    assert ingest(pictures).pictures == 12
    assert len(vectors(folder)) == 12
    assert fingerprint(folder)["thumbnails.zip"] == before["thumbnails.zip"]


IS_DAMAGED = "ledger.db, where .* is damaged: .* Nothing was deleted. Put a copy of it back"


@pytest.mark.parametrize(("damage", "says"), [("overwritten", IS_DAMAGED), ("emptied", IS_DAMAGED), ("closed", "Check space and rights")])
def test_a_ledger_that_cannot_be_used_is_not_deleted(pictures: Path, damage: str, says: str) -> None:
    ingest(pictures)
    folder = pictures.parent / "data/toys"
    ledger = folder / ".ingest/ledger.db"
    before = stamps(folder)
    whole = ledger.read_bytes()
    if damage == "closed":
        ledger.with_name("ledger.db-wal").mkdir()
    else:
        ledger.write_bytes(b"garbage" + whole[7:] if damage == "overwritten" else b"")
    with pytest.raises(IngestError, match=says):
        ingest(pictures)
    assert ledger.exists()
    assert stamps(folder) == before
    if damage == "closed":
        ledger.with_name("ledger.db-wal").rmdir()
    ledger.write_bytes(whole)
    assert ingest(pictures).counts.unchanged == 12


def test_a_damaged_ledger_is_replaced_as_its_message_says(pictures: Path) -> None:
    ingest(pictures)
    data = pictures.parent / "data"
    (data / "toys/.ingest/ledger.db").write_bytes(b"garbage")
    shutil.rmtree(data / "toys/.ingest")
    report = ingest_folder(pictures, data / "toys", data / "config.ini", "toys", "M", replace=True, encoder=ColourEncoder())
    assert report.pictures == 12
    assert ingest(pictures).counts.unchanged == 12


@pytest.mark.parametrize("content", [b"", b"not a database"])
def test_a_catalog_that_cannot_be_read_is_made_again_without_the_model(pictures: Path, content: bytes) -> None:
    folder = pictures.parent / "data/toys"
    ingest(pictures)
    before, found = ids(folder), fingerprint(folder)
    (folder / "collection.db").write_bytes(content)
    ingest(pictures, encoder=(encoder := ColourEncoder()))
    assert ids(folder) == before
    assert fingerprint(folder) == found
    assert encoder.seen == 0


def test_embeddings_of_somebody_else_beside_a_lost_catalog_are_refused(pictures: Path) -> None:
    folder = pictures.parent / "data/toys"
    ingest(pictures)
    file = folder / "embeddings.zarr.zip"
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(folder / "other.zip", "w") as other:
        for name in old.namelist():
            other.writestr(name, old.read(name) + b"\n")
    (folder / "other.zip").replace(file)
    (folder / "collection.db").unlink()
    with pytest.raises(IngestError, match="is not what the last ingest wrote"):
        ingest(pictures)
    assert not (folder / "collection.db").exists()


def test_two_at_once_are_refused_whatever_they_want(pictures: Path) -> None:
    ingest(pictures)
    data = pictures.parent / "data"
    np.save(data / "v.npy", np.ones((3, 3), np.float32))
    with Ledger.open(data / "toys"):
        with pytest.raises(IngestError, match="Another ingest is at work"):
            ingest(pictures)
        with pytest.raises(IngestError, match="Another ingest is at work"):
            ingest_folder(pictures, data / "toys", data / "config.ini", "toys", "M", replace=True, encoder=ColourEncoder())
        with pytest.raises(IngestError, match="Another ingest is at work"):
            import_vectors(data / "v.npy", None, data / "toys", data / "config.ini", "toys", "hf-hub:a/b", replace=True)
    assert len(vectors(data / "toys")) == 12


def test_files_of_somebody_else_are_never_mixed_with_what_ingest_remembers(pictures: Path) -> None:
    ingest(pictures)
    folder = pictures.parent / "data/toys"
    write_embeddings(folder / "embeddings.zarr.zip", [np.ones((12, 3), np.float32)], 12, 3, np.float32)
    draw(pictures / "new.png", "red")
    with pytest.raises(IngestError, match=r"not what the last ingest wrote. Use --replace"):
        ingest(pictures)


def steps_for(place: Path, count: int) -> int:
    """Return how many steps SQLite takes to find the duplicates among `count` equal files, and to see that all of them moved."""
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    for number in range(count):
        (place / "old").mkdir(parents=True, exist_ok=True)
        (place / f"old/{number}.png").write_bytes(b"black frame")
    with Ledger.open(place / "data") as ledger:
        make_plan(ledger, place, scan(place))
        sha256 = hashlib.sha256(b"black frame").hexdigest()
        ledger.database.execute('UPDATE files SET todo = 0, "row" = id, sha256 = ?', (sha256,))
        ledger.database.set_progress_handler(step, 100)
        find_duplicates(ledger, None, None)
        assert ledger.database.execute("SELECT min(original), max(original) FROM files").fetchone() == (1, 1)
        (place / "old").rename(place / "new")
        make_plan(ledger, place, scan(place))
        assert ledger.counts().moved == count
    return steps


def test_many_equal_files_cost_no_more_each_than_few(tmp_path: Path) -> None:
    assert steps_for(tmp_path / "many", 3000) < 15 * steps_for(tmp_path / "few", 300)


def test_a_link_to_a_folder_that_is_not_there_takes_nothing_away(pictures: Path, tmp_path: Path) -> None:
    shutil.move(pictures / "web", tmp_path / "disk")
    (pictures / "web").symlink_to(tmp_path / "disk", target_is_directory=True)
    assert ingest(pictures).pictures == 12
    (tmp_path / "disk").rename(tmp_path / "elsewhere")
    report = ingest(pictures, encoder=(encoder := ColourEncoder()))
    assert (report.pictures, report.counts.removed, encoder.seen) == (12, 0, 0)
    assert [one.prefix for one in report.closed] == ["web/"]


def test_another_folder_of_the_same_name_is_not_taken_for_one_that_moved(pictures: Path, tmp_path: Path) -> None:
    ingest(pictures)
    pictures.rename(tmp_path / "ejected")
    other = a_dozen(tmp_path / "cardB")
    for file in list(other.rglob("*.png")) + list(other.rglob("*.webp")):
        file.rename(file.with_name("other-" + file.name))
    data = tmp_path / "data"
    with pytest.raises(IngestError, match="holds the pictures of"):
        ingest_folder(other, data / "toys", data / "config.ini", "toys", "M", encoder=ColourEncoder())
    moved = tmp_path / "ejected"
    report = ingest_folder(moved, data / "toys", data / "config.ini", "toys", "M", encoder=(encoder := ColourEncoder()))
    assert (report.counts.unchanged, encoder.seen) == (12, 0)
    assert "OriginalMediaURL = ./ejected\n" in (data / "config.ini").read_text()


def test_a_folder_spelt_in_another_way_is_the_same(pictures: Path, tmp_path: Path) -> None:
    ingest(pictures)
    data = tmp_path / "data"
    (tmp_path / "link").symlink_to(pictures, target_is_directory=True)
    for spelt in (data / ".." / "pictures", tmp_path / "link"):
        report = ingest_folder(spelt, data / "toys", data / "config.ini", "toys", "M", encoder=(encoder := ColourEncoder()))
        assert (report.counts.unchanged, report.moved_from, encoder.seen) == (12, None, 0)


def test_a_reason_that_may_pass_is_tried_again_and_costs_no_vector(pictures: Path) -> None:
    data = pictures.parent / "data"
    ingest(pictures)
    draw(pictures / "new.png", "red")
    with Ledger.open(data / "toys") as ledger:
        make_plan(ledger, pictures, scan(pictures))
        ledger.commit([], np.empty((0, 3), np.float32), [Unreadable("new.png", "the decoder crashed on it", again=True)])
        ledger.database.execute("UPDATE files SET todo = 2 WHERE source = 'disc.png'")
        ledger.commit_facts([Unreadable("disc.png", "the disk reports an error where it lies", again=True)])
    report = ingest(pictures, encoder=(encoder := ColourEncoder()))
    assert (report.pictures, report.failed, encoder.seen) == (13, (), 1)


def test_trying_again_in_vain_rewrites_nothing(pictures: Path) -> None:
    (pictures / "broken.png").write_text("no picture")
    ingest(pictures)
    folder = pictures.parent / "data/toys"
    before = stamps(folder)
    with Ledger.open(folder) as ledger:
        ledger.database.execute("UPDATE files SET again = 1 WHERE source = 'broken.png'")
    report = ingest(pictures)
    assert (report.counts.failed, report.catalog) == (1, None)
    assert stamps(folder) == before


def test_metadata_that_was_away_for_a_run_is_matched_with_what_came_meanwhile(pictures: Path) -> None:
    file = write_rows(pictures.parent / "m.jsonl", [{"file": "late.png", "mood": "calm"}, {"file": "disc.png", "mood": "loud"}])
    ingest(pictures, metadata=str(file))
    file.rename(file.with_suffix(".away"))
    draw(pictures / "late.png", "red")
    with pytest.raises(IngestError, match="Cannot read the metadata file"):
        ingest(pictures)
    file.with_suffix(".away").rename(file)
    ingest(pictures)
    assert ("late.png", "mood", "calm") in tags(pictures.parent / "data/toys")


def test_text_that_is_no_unicode_stops_nothing(pictures: Path) -> None:
    (pictures / "disc.json").write_text('{"mood": "half \\ud800 a pair"}')
    file = write_rows(pictures.parent / "m.jsonl", ['{"file": "large.jpg", "mood": "\\udfff"}'])
    ingest(pictures, metadata=str(file))
    assert {("disc.png", "mood", "half ? a pair"), ("large.jpg", "mood", "?")} <= tags(pictures.parent / "data/toys")


def test_a_picture_overwritten_by_a_later_one_is_its_duplicate(pictures: Path) -> None:
    draw(pictures / "aaa.png", "green")
    ingest(pictures, near="0.99")
    shutil.copy(pictures / "plain/3-yellow.png", pictures / "aaa.png")
    ingest(pictures, near="0.99")
    assert ("aaa.png", "duplicate_of", "plain/3-yellow.png") in tags(pictures.parent / "data/toys")
    assert ("aaa.png", "duplicate_role", "exact") in tags(pictures.parent / "data/toys")


def test_another_model_is_refused_with_a_way_out(pictures: Path) -> None:
    ingest(pictures)
    data = pictures.parent / "data"
    with pytest.raises(IngestError, match=r"made with the model M; vectors of N do not fit to them. Leave --model out, or use --replace"):
        ingest_folder(pictures, data / "toys", data / "config.ini", "toys", "N", encoder=ColourEncoder())


KILLED = """
import os, signal, sys, threading
from pathlib import Path
from mcp_server.ingest import run
from mcp_server.ingest.wishes import Options
from mcp_server.ingest.write_archives import write_embeddings
from tests.ingest.toys import ColourEncoder

pictures, seconds = Path(sys.argv[1]), float(sys.argv[2])
data = pictures.parent / sys.argv[3]
run.FIRST_LOOK_SECONDS = run.LOOK_EVERY_SECONDS = 0.2  # publish often, so that kills fall into that too
if seconds:
    killer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL))
    killer.daemon = True
    killer.start()
options = Options(near="0.99", group_by="folder", metadata=str(pictures.parent / "m.jsonl"))
run.ingest_folder(pictures, data / "toys", data / "config.ini", "toys", "M", options=options, encoder=ColourEncoder(batch=4))
"""


def run(pictures: Path, seconds: float, data: str) -> int:
    command = [sys.executable, "-c", KILLED, str(pictures), str(seconds), data]
    return subprocess.run(command, check=False, timeout=120, cwd=REPOSITORY).returncode


def many(pictures: Path) -> None:
    rng = random.Random(3)
    for number in range(60):
        draw(pictures / f"more/{number % 3}/{number}.png", rng.choice(["red", "green", "blue", "yellow"]), (rng.randint(20, 400), 60))
    (pictures / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    write_rows(pictures.parent / "m.jsonl", [{"file": f"more/{n % 3}/{n}.png", "number": n} for n in range(60)])


@pytest.mark.slow
def test_killed_at_any_moment_the_old_collection_serves_and_the_end_is_the_same_to_the_bit(pictures: Path, tmp_path: Path) -> None:
    rng = random.Random(7)
    write_rows(pictures.parent / "m.jsonl", [{"file": "large.jpg", "number": 1.5}])
    for data in ("data", "plain"):  # both begin with the same small collection
        assert run(pictures, 0, data) == 0
    many(pictures)
    draw(pictures / "large.jpg", "blue", (640, 480))
    (pictures / "plain/0-red.png").unlink()
    started = time.monotonic()
    assert run(pictures, 0, "plain") == 0
    whole = time.monotonic() - started
    expected = fingerprint(tmp_path / "plain/toys")
    kills = 0
    for share in (0.1, *(rng.uniform(0.2, 1) for _ in range(19))):  # the first kill is sure to come in time
        status = run(pictures, share * whole, "data")
        with closing(sqlite3.connect(tmp_path / "data/toys/collection.db")) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert all(np.isfinite(vector).all() and np.linalg.norm(vector) > 0.99 for vector in vectors(tmp_path / "data/toys").values())
        if status == 0:
            break
        assert status == -signal.SIGKILL
        kills += 1
    assert run(pictures, 0, "data") == 0
    assert kills > 0
    assert fingerprint(tmp_path / "data/toys") == expected


@st.composite
def histories(draw_: st.DrawFn) -> list[list[tuple[str, str, str]]]:
    names = st.sampled_from(["a.png", "b.png", "d/a.png", "d/c.png", "e/f/g.png"])
    step = st.tuples(st.sampled_from(["draw", "remove", "break", "move", "swap"]), names, st.sampled_from([*COLOURS][:4]))
    return draw_(st.lists(st.lists(step, min_size=1, max_size=4), min_size=1, max_size=5))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(history=histories())
def test_after_any_history_the_collection_is_what_lies_in_the_folder(
    tmp_path_factory: pytest.TempPathFactory, history: list[list[tuple[str, str, str]]]
) -> None:
    place = tmp_path_factory.mktemp("history")
    pictures, folder = place / "pictures", place / "data/toys"
    draw(pictures / "zero.png", "white")
    before: dict[str, int] = {}
    alone_before: dict[bytes, int] = {}  # ids of contents that only one file has
    for moment, steps in enumerate(history, start=1):
        for step in steps:
            _do(pictures, *step, moment)
        ingest(pictures)
        good = {path.relative_to(pictures).as_posix(): path for path in _files(pictures) if path.read_bytes()[:4] == b"\x89PNG"}
        now = ids(folder)
        assert set(now) == set(good)
        for source, vector in vectors(folder).items():
            colour = np.array(Image.open(good[source]).getpixel((0, 0)), float)
            assert vector == pytest.approx(colour / np.linalg.norm(colour), abs=0.02)
        assert len(set(now.values())) == len(good)
        if not any(kind == "swap" for kind, _, _ in steps):
            moved = {name for kind, name, _ in steps if kind == "move"}
            assert all(now[source] == number for source, number in before.items() if source in now and source not in moved)
        contents = [path.read_bytes() for path in good.values()]
        alone = {content: now[source] for source, content in zip(good, contents, strict=True) if contents.count(content) == 1}
        assert all(alone[content] == number for content, number in alone_before.items() if content in alone)
        before, alone_before = now, alone


def _do(pictures: Path, kind: str, name: str, colour: str, moment: int) -> None:
    file = pictures / name
    if kind == "draw":
        draw(file, colour, (20 + moment, 30))
    elif kind == "break":
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"broken {moment}")
    elif kind == "remove":
        file.unlink(missing_ok=True)
    elif kind == "swap" and file.is_file():
        other = min(path for path in _files(pictures) if path != file)
        content, theirs = file.read_bytes(), other.read_bytes()
        for path, data in ((file, theirs), (other, content)):
            path.write_bytes(data)
            os.utime(path, (1, 1))
    elif file.is_file():
        target = pictures / f"moved/{moment}-{file.name}"
        target.parent.mkdir(exist_ok=True)
        file.rename(target)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*.png") if path.is_file())
