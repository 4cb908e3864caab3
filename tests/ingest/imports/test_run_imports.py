"""A collection of vectors that were made elsewhere answers like the one they come from."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from mcp_server.config import load_settings
from mcp_server.doctor import examine
from mcp_server.errors import ConfigError, IngestError
from mcp_server.indexes.embeddings import load_embeddings
from mcp_server.ingest.catalog.fields import parse_types
from mcp_server.ingest.imports.run import ImportReport, import_vectors
from mcp_server.stores.catalog import Catalog
from tests.ingest.imports import demo_exports as demo

COUNT = len(demo.vectors())
RNG = np.random.default_rng(11)


def bring(folder: Path, embeddings: Path, metadata: Path | None = None, name: str = "mine", **options: Any) -> ImportReport:
    """Import into data/NAME below `folder`."""
    data = folder / "data"
    return import_vectors(embeddings, metadata, data / name, data / "config.ini", name, **{"model": demo.MODEL, **options})


def some_vectors(folder: Path, count: int = 6) -> Path:
    found = RNG.standard_normal((count, 192)).astype(np.float32)
    np.save(folder / "some.npy", found / np.linalg.norm(found, axis=1, keepdims=True))
    return folder / "some.npy"


def medias(folder: Path, name: str = "mine") -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / f"data/{name}/collection.db")) as opened:
        return opened.execute("SELECT id, source, source_type, thumbnail_uri, group_id FROM medias ORDER BY id").fetchall()


def claims(folder: Path, name: str = "mine") -> dict[int, int]:
    """Return row to media id, as the server reads it."""
    size = load_embeddings(folder / f"data/{name}/embeddings.zarr.zip").size
    with closing(Catalog.open(folder / f"data/{name}/collection.db", size)) as catalog:
        return {row: int(media) for row, media in enumerate(catalog.media_of_row) if media > 0}


@pytest.fixture(scope="module")
def truth() -> dict[str, Any]:
    return demo.answers(demo.DEMO / "config.ini", "demo")


def as_npy(folder: Path) -> tuple[Path, Path | None]:
    np.save(folder / "v.npy", demo.vectors())
    return folder / "v.npy", demo.write_lines(folder / "m.jsonl", demo.rows())


def flat_table() -> Any:
    """Return the demo's rows as a table, objects as JSON text: a Parquet struct would give each the keys of all."""
    rows = [{**row, "names": [json.dumps(one) for one in row.get("names", [])]} for row in demo.rows()]
    return pa.table({name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)})


def as_parquet(folder: Path) -> tuple[Path, Path | None]:
    table = flat_table()
    flat = pa.array(demo.vectors().reshape(-1))
    table = table.append_column("embedding", pa.FixedSizeListArray.from_arrays(flat, 192))
    pq.write_table(table, folder / "all.parquet", row_group_size=1000)
    return folder / "all.parquet", None


def as_clip_retrieval(folder: Path) -> tuple[Path, Path | None]:
    """Twelve parts, so that part 10 must come after part 9, with texts' vectors beside them."""
    table, found = flat_table().rename_columns({"file": "image_path"}), demo.vectors()
    for inner in ("img_emb", "text_emb", "metadata"):
        (folder / "out" / inner).mkdir(parents=True)
    for number, part in enumerate(np.array_split(np.arange(COUNT), 12)):
        np.save(folder / f"out/img_emb/img_emb_{number}.npy", found[part])
        np.save(folder / f"out/text_emb/text_emb_{number}.npy", found[part][::-1])
        pq.write_table(table.slice(int(part[0]), len(part)), folder / f"out/metadata/metadata_{number}.parquet")
    return folder / "out", None


def as_zarr(folder: Path) -> tuple[Path, Path | None]:
    (folder / "m.json").write_text(json.dumps(demo.rows()), encoding="utf-8")
    return demo.DEMO / "embeddings.zarr.zip", folder / "m.json"


def as_named_json(folder: Path) -> tuple[Path, Path | None]:
    np.save(folder / "v.npy", demo.vectors())
    return folder / "v.npy", demo.named_json(folder / "m3")


def as_dumped_json(folder: Path) -> tuple[Path, Path | None]:
    np.save(folder / "v.npy", demo.vectors())
    return folder / "v.npy", demo.dumped_json(folder / "m3")


@pytest.mark.parametrize("layout", [as_npy, as_parquet, as_clip_retrieval, as_zarr, as_named_json, as_dumped_json])
def test_the_demo_brought_in_another_layout_answers_like_the_demo(
    layout: Callable[[Path], tuple[Path, Path | None]], truth: dict[str, Any], tmp_path: Path
) -> None:
    embeddings, metadata = layout(tmp_path)
    report = bring(tmp_path, embeddings, metadata, types=parse_types("names=json"))
    assert (report.items, report.rows, report.width, report.dtype) == (COUNT, COUNT, 192, "float32")
    assert report.refused == ()
    assert report.notes == ()
    assert demo.answers(tmp_path / "data/config.ini", "mine") == truth
    assert not [finding for finding in examine(load_settings(tmp_path / "data/config.ini")) if finding.level == "PROBLEM"]


def test_dumped_tables_keep_ids_groups_and_source_types(tmp_path: Path) -> None:
    bring(tmp_path, *as_dumped_json(tmp_path))
    assert medias(tmp_path) == demo.query("SELECT id, source, source_type, thumbnail_uri, group_id FROM medias ORDER BY id")


def test_rows_that_no_search_can_find_are_listed_and_have_no_medium(tmp_path: Path) -> None:
    found = np.load(some_vectors(tmp_path))
    found[1], found[2, 5], found[4, 0], found[5] = 0, np.nan, np.inf, 3 * found[5]
    np.save(tmp_path / "v.npy", found)
    report = bring(tmp_path, tmp_path / "v.npy", demo.write_lines(tmp_path / "m.jsonl", [{"title": str(row)} for row in range(6)]))
    assert (report.unusable, report.unusable_count, report.not_unit, report.items) == ((1, 2, 4), 3, 1, 3)
    assert claims(tmp_path) == {0: 1, 3: 4, 5: 6}
    assert [source for _, source, *_ in medias(tmp_path)] == ["item-0", "item-3", "item-5"]
    stored = load_embeddings(tmp_path / "data/mine/embeddings.zarr.zip")
    assert stored.normalised
    assert stored.unusable.tolist() == [False, True, True, False, True, False]


def test_vectors_of_other_lengths_are_kept_when_asked(tmp_path: Path) -> None:
    found = np.load(some_vectors(tmp_path)) * 7
    np.save(tmp_path / "v.npy", found)
    report = bring(tmp_path, tmp_path / "v.npy", normalise=False)
    assert (report.not_unit, report.normalised) == (6, False)
    np.testing.assert_array_equal(load_embeddings(tmp_path / "data/mine/embeddings.zarr.zip").rows, found)


def test_sources_come_from_the_first_column_that_names_one(tmp_path: Path) -> None:
    table = [
        {"URL": "https://x.org/a.jpg", "key": "k0", "title": "A"},
        {"url": "https://x.org/b.jpg", "Image_Path": "b.jpg"},
        {"url": " ", "key": 7},
        {"title": "nothing"},
        {"url": "https://x.org/b.jpg"},
        {"path": None, "thumbnail_url": "https://x.org/t.webp"},
    ]
    bring(tmp_path, some_vectors(tmp_path), demo.write_lines(tmp_path / "m.jsonl", table))
    sources = ["https://x.org/a.jpg", "b.jpg", "7", "item-3", "https://x.org/b.jpg", "item-5"]
    assert [source for _, source, *_ in medias(tmp_path)] == sources
    assert [thumbnail for *_, thumbnail, _ in medias(tmp_path)] == [None] * 5 + ["https://x.org/t.webp"]
    with closing(sqlite3.connect(tmp_path / "data/mine/collection.db")) as opened:
        assert opened.execute(
            "SELECT value FROM alphanumerical_tags v JOIN tagsets s ON s.id = tagset_id WHERE name = 'url'"
        ).fetchall() == [("https://x.org/b.jpg",)]


def test_a_named_column_is_the_source_and_one_that_is_not_there_is_refused(tmp_path: Path) -> None:
    table = [{"file": "a", "Photo": f"p{row}"} for row in range(6)]
    lines = demo.write_lines(tmp_path / "m.jsonl", table)
    with pytest.raises(IngestError, match=r"No row of the metadata has a column 'foto'. There are file, Photo: give"):
        bring(tmp_path, some_vectors(tmp_path), lines, column="foto")
    assert not (tmp_path / "data").exists() or not list((tmp_path / "data").iterdir())
    bring(tmp_path, some_vectors(tmp_path), lines, column="photo")
    assert [source for _, source, *_ in medias(tmp_path)] == [f"p{row}" for row in range(6)]


@pytest.mark.parametrize("spelt", ["pictures", "other/../pictures"])
def test_absolute_paths_below_the_originals_become_relative_to_them(spelt: str, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (tmp_path / "other").mkdir()
    table = [{"path": str(pictures / f"{row}.jpg")} for row in range(5)] + [{"path": "/elsewhere/5.jpg"}]
    bring(tmp_path, some_vectors(tmp_path), demo.write_lines(tmp_path / "m.jsonl", table), original_base=str(tmp_path / spelt))
    assert [source for _, source, *_ in medias(tmp_path)] == [*(f"{row}.jpg" for row in range(5)), "/elsewhere/5.jpg"]
    (collection,) = load_settings(tmp_path / "data/config.ini").collections
    assert (collection.original_base, collection.thumbnail_base) == (str(pictures), "")


@pytest.mark.parametrize("given", [{}, {"original_base": "", "thumbnail_base": ""}])
def test_importing_again_leaves_the_pictures_where_they_are_unless_told_otherwise(given: dict[str, str], tmp_path: Path) -> None:
    pictures, config = tmp_path / "pictures", tmp_path / "data/config.ini"
    pictures.mkdir()
    lines = demo.write_lines(tmp_path / "m.jsonl", [{"path": str(pictures / f"{row}.jpg")} for row in range(6)])
    bring(tmp_path, some_vectors(tmp_path), lines, original_base=str(pictures))
    config.write_text(config.read_text().replace("ThumbnailMediaURL =", "thumbnailmediaurl = https://x.org/small/ ; ours"))
    bring(tmp_path, some_vectors(tmp_path), lines, replace=True, **given)
    (collection,) = load_settings(config).collections
    kept = (str(pictures), "https://x.org/small/")
    assert (collection.original_base, collection.thumbnail_base) == (("", "") if given else kept)
    assert [source for _, source, *_ in medias(tmp_path)] == [f"{pictures / f'{row}.jpg' if given else f'{row}.jpg'}" for row in range(6)]


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_vectors_that_the_metadata_holds_as_well_make_no_field(ending: str, tmp_path: Path) -> None:
    vectors = np.load(some_vectors(tmp_path))
    rows = [{"path": f"{row}.png", "embedding": vector.tolist(), "box": [0.5, 0.25]} for row, vector in enumerate(vectors)]
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    else:
        demo.write_lines(tmp_path / "m.jsonl", rows)
    report = bring(tmp_path, tmp_path / "some.npy", tmp_path / f"m.{ending}")
    assert [field.name for field in report.fields] == ["box"]
    assert report.notes == ("vectors make no field: embedding",)


def test_types_say_what_a_field_is_and_a_group_is_a_medium_of_its_own(tmp_path: Path) -> None:
    table = [{"code": f"{row}", "group_id": "g" if row < 2 else None} for row in range(6)]
    report = bring(
        tmp_path, some_vectors(tmp_path), demo.write_lines(tmp_path / "m.jsonl", table), types=parse_types("code=integer,absent=date")
    )
    assert [(field.name, field.kind) for field in report.fields] == [("code", "numerical_int")]
    assert report.groups == 1
    assert medias(tmp_path)[-1] == (7, "g", 5, None, None)
    assert [group for *_, group in medias(tmp_path)] == [7, 7, None, None, None, None, None]
    assert report.notes == ("--types names a field 'absent' that no item has",)


def test_whole_numbers_that_gaps_made_decimal_name_groups_and_pictures(tmp_path: Path) -> None:
    table = pa.table({"key": pa.array([7.0, None, 9.0, 1e3, 2.0, 3.0]), "group_id": pa.array([1.0, None, 1.0, 2.0, 2.5, 1.0])})
    pq.write_table(table, tmp_path / "m.parquet")
    report = bring(tmp_path, some_vectors(tmp_path), tmp_path / "m.parquet")
    assert [source for _, source, *_ in medias(tmp_path)] == ["7", "item-1", "9", "1000", "2", "3", "1", "2"]
    assert [group for *_, group in medias(tmp_path)][:6] == [7, None, 7, 8, None, 7]
    assert (report.groups, report.fields) == (2, ())
    (note,) = report.notes
    assert "row 5: its group_id is neither text nor a whole number" in note


def test_a_tagset_of_exquisitors_that_no_medium_has_is_not_put_down_to_types(tmp_path: Path) -> None:
    tagsets = [{"name": "Day", "tagtype": "numerical_int", "tags": []}, {"name": "Month", "tagtype": "numerical_int", "tags": []}]
    whole = {"tagsets": tagsets, "medias": [{"source": f"{row}.jpg"} for row in range(6)]}
    (tmp_path / "m3.json").write_text(json.dumps(whole), encoding="utf-8")
    assert bring(tmp_path, some_vectors(tmp_path), tmp_path / "m3.json").notes == ()
    report = bring(tmp_path, some_vectors(tmp_path), tmp_path / "m3.json", name="other", types=parse_types("month=text"))
    assert report.notes == ("--types names a field 'month' that no item has",)


def test_counts_that_differ_are_refused_with_both_numbers_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match=r"6 vectors, m\.jsonl 5 rows"):
        bring(tmp_path, some_vectors(tmp_path), demo.write_lines(tmp_path / "m.jsonl", [{"a": 1}] * 5))
    out, _ = as_clip_retrieval(tmp_path)
    np.save(out / "img_emb/img_emb_10.npy", demo.vectors()[:7])
    with pytest.raises(IngestError, match=r"Part 10: img_emb_10\.npy has 7 vectors, metadata_10\.parquet 29\d rows"):
        bring(tmp_path, out)
    (out / "metadata/metadata_3.parquet").unlink()
    with pytest.raises(IngestError, match=r"img_emb_3\.npy has vectors but no metadata: there is no table numbered 3 beside"):
        bring(tmp_path, out)
    assert not (tmp_path / "data").exists()


def parts_of(folder: Path, names: list[str], tables: list[str]) -> Path:
    """Write vectors and tables of one row each, as clip-retrieval does, under these names; the titles tell which is which."""
    for inner in ("img_emb", "metadata"):
        (folder / "out" / inner).mkdir(parents=True)
    for row, name in enumerate(names):
        np.save(folder / f"out/img_emb/{name}.npy", np.load(some_vectors(folder))[row : row + 1])
    for row, name in enumerate(tables):
        demo.write_lines(folder / f"out/metadata/{name}.jsonl", [{"path": f"{row}.png"}])
    return folder / "out"


def test_parts_that_say_of_how_many_they_are_go_with_their_tables(tmp_path: Path) -> None:
    out = parts_of(tmp_path, [f"img_emb_{row}-of-3" for row in range(3)], [f"metadata_{row:05d}-of-00003" for row in range(3)])
    bring(tmp_path, out)
    bring(tmp_path, out / "img_emb", out / "metadata", name="other")
    for name in ("mine", "other"):
        assert [source for _, source, *_ in medias(tmp_path, name)] == ["0.png", "1.png", "2.png"]


@pytest.mark.parametrize(
    ("names", "tables", "words"),
    [
        (["a_0", "b_1"], ["train_0", "train_1", "val_1"], r"train_1\.jsonl and val_1\.jsonl both have the number 1"),
        (["a_0", "b_0"], ["all_0"], r"a_0\.npy and b_0\.npy both have the number 0"),
        (["a_0", "last"], ["all_0"], r"last\.npy has vectors but no metadata: it has no number"),
    ],
)
def test_parts_that_do_not_pair_with_tables_are_refused_and_one_table_for_all_is_taken(
    names: list[str], tables: list[str], words: str, tmp_path: Path
) -> None:
    out = parts_of(tmp_path, names, tables)
    with pytest.raises(IngestError, match=words):
        bring(tmp_path, out)
    bring(tmp_path, out, demo.write_lines(tmp_path / "m.jsonl", [{"path": "x.png"}, {"path": "y.png"}]))
    assert [source for _, source, *_ in medias(tmp_path)] == ["x.png", "y.png"]


def test_a_csv_row_whose_cells_are_all_empty_is_the_row_of_a_vector(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,color\n\na.png,red\n,\nc.png,\n\nd.png,blue\ne.png,red\n,\n", encoding="utf-8")
    bring(tmp_path, some_vectors(tmp_path), tmp_path / "m.csv")
    assert [source for _, source, *_ in medias(tmp_path)] == ["a.png", "item-1", "c.png", "d.png", "e.png", "item-5"]


@pytest.mark.parametrize("names", [("embedding", "n", "n"), ("embedding", "n", "embedding")])
def test_two_columns_of_one_name_beside_the_vectors_are_refused_before_the_work(names: tuple[str, ...], tmp_path: Path) -> None:
    lists = pa.array(np.load(some_vectors(tmp_path)).tolist(), pa.list_(pa.float32()))
    columns = [lists if name == "embedding" else pa.array(range(6)) for name in names]
    pq.write_table(pa.Table.from_arrays(columns, list(names)), tmp_path / "all.parquet")
    with pytest.raises(IngestError, match=rf"all\.parquet has two columns called '{names[2]}'"):
        bring(tmp_path, tmp_path / "all.parquet")
    assert not (tmp_path / "data").exists()


def test_a_line_that_cannot_be_read_is_refused_as_every_later_row_would_be_wrong(tmp_path: Path) -> None:
    lines = tmp_path / "m.jsonl"
    lines.write_text('{"a": 1}\n{"a": \n' + '{"a": 1}\n' * 5, encoding="utf-8")
    with pytest.raises(IngestError, match=r"Line 2 of .*m\.jsonl cannot be used"):
        bring(tmp_path, some_vectors(tmp_path), lines)


def test_a_model_of_another_width_is_refused_and_an_unknown_width_accepted(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match=r"192 wide, those of ViT-B-32 512.*--model"):
        bring(tmp_path, some_vectors(tmp_path), model="ViT-B-32")
    with pytest.raises(ConfigError, match="not a model that open_clip knows"):
        bring(tmp_path, some_vectors(tmp_path), model="ViT-nonsense")
    report = bring(tmp_path, some_vectors(tmp_path), model="hf-hub:some/model")
    assert report.notes == ("how wide the vectors of hf-hub:some/model are is not known before it is loaded; these are 192 wide",)


@pytest.mark.parametrize(
    ("found", "words"),
    [(np.zeros((0, 192), np.float32), "0 rows"), (np.zeros((3, 192), np.float32), "None of the 3 vectors can be used")],
)
def test_nothing_to_import_is_said(found: np.ndarray, words: str, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", found)
    with pytest.raises(IngestError, match=words):
        bring(tmp_path, tmp_path / "v.npy")
    assert not (tmp_path / "data/mine").exists()
    assert not (tmp_path / "data/config.ini").exists()


def test_an_import_that_fails_late_leaves_the_old_collection_as_it_was(tmp_path: Path) -> None:
    bring(tmp_path, some_vectors(tmp_path))
    data = tmp_path / "data"
    before = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in data.rglob("*") if path.is_file()}
    with pytest.raises(IngestError, match="--replace"):
        bring(tmp_path, some_vectors(tmp_path, 3))
    lines = demo.write_lines(tmp_path / "m.jsonl", [{"file": "x"}] * 3)
    with pytest.raises(IngestError, match="column 'photo'"):
        bring(tmp_path, some_vectors(tmp_path, 3), lines, column="photo", replace=True)
    assert {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in data.rglob("*") if path.is_file()} == before
    bring(tmp_path, some_vectors(tmp_path, 3), lines, replace=True)
    assert len(medias(tmp_path)) == 3
    assert sorted(path.name for path in data.rglob("*")) == ["collection.db", "config.ini", "embeddings.zarr.zip", "mine"]


def test_an_import_that_fails_leaves_an_empty_folder_empty_also_where_locks_remove_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class LockOfWindows(FileLock):
        def _release(self) -> None:
            super()._release()
            Path(self.lock_file).unlink()

    monkeypatch.setattr("mcp_server.ingest.claim.FileLock", LockOfWindows)
    (tmp_path / "data/mine").mkdir(parents=True)
    lines = demo.write_lines(tmp_path / "m.jsonl", [{"file": "x"}] * 3)
    with pytest.raises(IngestError, match="column 'photo'"):
        bring(tmp_path, some_vectors(tmp_path, 3), lines, column="photo")
    assert list((tmp_path / "data/mine").iterdir()) == []
    bring(tmp_path, some_vectors(tmp_path, 3), lines)
    assert sorted(path.name for path in (tmp_path / "data/mine").iterdir()) == ["collection.db", "embeddings.zarr.zip"]


def test_replacing_an_ingested_collection_takes_its_ledger_and_thumbnails_away(tmp_path: Path) -> None:
    place = tmp_path / "data/mine"
    (place / ".ingest").mkdir(parents=True)
    for name in (".ingest/ledger.db", "thumbnails.zip", "collection.db", "notes.txt"):
        (place / name).write_text("old", encoding="utf-8")
    (tmp_path / "data/config.ini").write_text("[mine]\nThumbnailMediaURL = ./data/mine/thumbnails.zip\nOriginalMediaURL = ./pictures\n")
    bring(tmp_path, some_vectors(tmp_path), replace=True)
    assert sorted(path.name for path in place.iterdir()) == ["collection.db", "embeddings.zarr.zip", "notes.txt"]
    (collection,) = load_settings(tmp_path / "data/config.ini").collections
    assert (collection.original_base, collection.thumbnail_base) == (str(tmp_path / "pictures"), "")


def test_from_a_hundred_thousand_rows_on_vectors_are_stored_in_half_precision(tmp_path: Path) -> None:
    found = RNG.standard_normal((100_000, 4)).astype(np.float64)
    np.save(tmp_path / "v.npy", found)
    done: list[tuple[int, int]] = []
    options: dict[str, Any] = {"model": "hf-hub:some/model", "progress": lambda *step: done.append(step)}
    report = bring(tmp_path, tmp_path / "v.npy", **options)
    assert (report.dtype, report.not_unit > 99_000, done[-1]) == ("float16", True, (100_000, 100_000))
    stored = load_embeddings(tmp_path / "data/mine/embeddings.zarr.zip")
    np.testing.assert_allclose(stored.rows, found / np.linalg.norm(found, axis=1, keepdims=True), atol=1e-3)
    report = bring(tmp_path, tmp_path / "v.npy", name="raw", normalise=False, **options)
    assert report.dtype == "float32"
