"""A running server sees a new version of a collection at its next call, and no search fails meanwhile."""

from __future__ import annotations

import itertools
import logging
import sqlite3
import threading
import time
import weakref
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from zarr.storage import ZipStore

from mcp_server.config import CollectionConfig, Settings
from mcp_server.doctor import examine
from mcp_server.domain.filter_syntax import parse_filter
from mcp_server.domain.search import EncodedText, SearchRequest, WeightedText
from mcp_server.encoders.loading import BackgroundText
from mcp_server.engine.collection import Collection
from mcp_server.engine.opening import EmbeddingsReader, OpenVectors, background_encoder, open_collection, open_files, stamps
from mcp_server.engine.search import SearchEngine
from mcp_server.engine.shelf import Shelf
from mcp_server.errors import CatalogReplacedError, CollectionError
from mcp_server.indexes import side_vectors
from mcp_server.indexes.exact import ExactIndex
from mcp_server.indexes.hybrid import HybridIndex
from mcp_server.indexes.side_vectors import SideVectors
from mcp_server.protocol.arguments import filter_question
from mcp_server.protocol.filter_answers import filter_answer
from mcp_server.stores.sessions import Sessions
from tests import m3
from tests.engine.toys import WORDS, WordEncoder, vector_of
from tests.indexes.faiss_files import write_faiss

PATIENCE = 60.0
"""So long that a call under test always waits for the version being opened."""
Items = Sequence[tuple[m3.Media, NDArray[np.float32]]]


def publish(folder: Path, items: Items) -> None:
    """Write a version aside and rename it into place: embeddings first, the catalog last."""
    aside = folder / "aside"
    aside.mkdir(parents=True, exist_ok=True)
    m3.build(aside / "collection.db", [one for one, _ in items], {"Year": "numerical_int"})
    rows = {one.row: vector for one, vector in items if one.row is not None}
    width = len(next(iter(rows.values())))
    vectors = np.stack([rows.get(row, np.zeros(width, np.float32)) for row in range(max(rows) + 1)])
    with closing(ZipStore(aside / "embeddings.zarr.zip", mode="w")) as store:
        zarr.create_array(store, data=vectors)
    with zipfile.ZipFile(aside / "thumbnails.zip", "w") as archive:
        for one, _ in items:
            archive.writestr(f"{one.id}.webp", f"picture {one.id}")
    for name in ("embeddings.zarr.zip", "thumbnails.zip", "collection.db"):
        (aside / name).replace(folder / name)


def shown(id_: int, row: int, words: str, **tags: Any) -> tuple[m3.Media, NDArray[np.float32]]:
    return m3.Media(id_, row, tags=tags), vector_of(words)


def config_of(folder: Path, model: str = "words", **changes: Any) -> CollectionConfig:
    config = CollectionConfig(
        "toys", "zarr", folder / "embeddings.zarr.zip", folder / "collection.db", None, str(folder / "thumbnails.zip"), "", None, model
    )
    return replace(config, **changes)


class Opener:
    """Opens a toy collection the way the program does, and counts; `before` is called first."""

    def __init__(self, folder: Path, encoder: WordEncoder, settings: Settings, **changes: Any) -> None:
        self.config = config_of(folder, settings.model, **changes)
        self.settings = settings
        self.encoder = BackgroundText(lambda: encoder, "words", WordEncoder.width)
        self.reader = EmbeddingsReader(self.config, settings.side_folder)
        self.opened: list[weakref.ref[Collection]] = []
        self.before: Callable[[], None] = lambda: None

    def __call__(self) -> Collection:
        self.before()
        opened = open_collection(self.config, self.settings, self.encoder, self.reader)
        self.opened.append(weakref.ref(opened))
        return opened

    def engine(self, **options: Any) -> SearchEngine:
        watched = {"toys": self.reader.stamps}
        shelf = Shelf({"toys": self}, watched, **{"patience_seconds": PATIENCE, "rest": 0.0} | options)
        return SearchEngine(shelf, Sessions(Path(":memory:")))


@pytest.fixture
def plain(demo_settings: Settings) -> Settings:
    """Settings whose model's width is not known, so that eight numbers a vector will do."""
    return replace(demo_settings, model="hf-hub:nobody/words")


@pytest.fixture
def opener(tmp_path: Path, plain: Settings) -> Opener:
    publish(tmp_path, FIRST)
    return Opener(tmp_path, WordEncoder(), plain)


FIRST = [shown(1, 0, "red circle", Color=["red"]), shown(2, 1, "blue star", Color=["blue"])]
SECOND = [*FIRST, shown(3, 2, "green square", Color=["green"])]


def ids(engine: SearchEngine, text: str = "green square", **arguments: Any) -> list[int]:
    return [hit.item.id for hit in engine.search(SearchRequest((WeightedText(text),), **arguments)).hits]


def test_no_search_fails_and_every_new_item_is_found_while_versions_are_published(
    tmp_path: Path, demo_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    model = demo_settings.collections[0].model
    encoder = background_encoder(model, demo_settings, PATIENCE)
    texts = [
        f"a {color} {thing}" for thing in ("apple", "bird", "cup") for color in ("red", "green", "blue", "yellow", "black", "white", "pink")
    ]
    vectors = [encoder.encode_text(text, None).vector for text in texts]

    def items(count: int) -> Items:
        return [(m3.Media(100 + at, at, tags={"Number": [at], "Even": [str(at % 2 == 0)]}), vectors[at]) for at in range(count)]

    publish(tmp_path, items(1))
    config = config_of(tmp_path, model)
    reader = EmbeddingsReader(config, demo_settings.side_folder)
    opener = partial(open_collection, config, demo_settings, encoder, reader)
    shelf = Shelf({"toys": opener}, {"toys": partial(stamps, config.embeddings_file)}, patience_seconds=PATIENCE)
    published, ended = 1, threading.Event()
    even = parse_filter({"Even": "True"})

    def search(number: int) -> int:
        calls = 0
        session = None
        while not ended.is_set():
            calls += 1
            newest = published - 1
            outcome = engine.search(
                SearchRequest((WeightedText(texts[newest]),), filters=even if calls % 3 == 0 else None, session=session, repeats="allow")
            )
            session = outcome.session
            assert outcome.hits[0].item.id == 100 + newest or (newest % 2 and calls % 3 == 0)
            assert len(outcome.hits) == min(10, outcome.matching)
            described = filter_answer(engine, filter_question({"field": "Number", "n": 50})).body
            assert described["items"] >= newest + 1
        return calls

    with closing(SearchEngine(shelf, Sessions(tmp_path / "sessions.db"))) as engine, ThreadPoolExecutor(4) as pool:
        running = [pool.submit(search, number) for number in range(4)]
        try:
            for count in range(2, 22):
                publish(tmp_path, items(count))
                published = count
                assert ids(engine, texts[count - 1], n=1) == [100 + count - 1]
        finally:
            ended.set()
        assert all(one.result() > 0 for one in running)
    # new embeddings beside the old catalog have a row too many for a moment; a row too few would be a wrong pair
    assert not [record for record in caplog.records if "outside" in record.message or "refused" in record.message]


def test_a_session_repeats_nothing_when_rows_have_moved_and_items_were_added(tmp_path: Path, opener: Opener) -> None:
    old = [shown(id_, id_ - 1, WORDS[id_ % 8]) for id_ in range(1, 21)]
    publish(tmp_path, old)
    with closing(opener.engine()) as engine:
        first = engine.search(SearchRequest((WeightedText("red"),), n=12))
        publish(
            tmp_path, [shown(one.id, 40 - one.id, WORDS[one.id % 8]) for one, _ in old] + [shown(50 + at, at, "red") for at in range(9)]
        )
        seen = [hit.item.id for hit in first.hits]
        while hits := ids(engine, "red", n=4, session=first.session):
            seen += hits
    assert sorted(seen) == [*range(1, 21), *range(50, 59)]


def test_the_old_version_is_closed_and_freed_after_the_last_call_on_it(tmp_path: Path, opener: Opener) -> None:
    with closing(opener.engine()) as engine:
        with engine.shelf.using("toys") as old:
            assert old.media.thumbnails.read("1.webp") == b"picture 1"
            publish(tmp_path, SECOND)
            assert ids(engine)[0] == 3
            assert [item.id for item in old.catalog.items_at([1, 0], "full")] == [2, 1]
            assert old.media.thumbnails.read("3.webp") is None
            vectors = weakref.ref(old.index)
        with pytest.raises(CollectionError, match="closed"):
            old.catalog.items_at([0], "full")
        del old
        assert opener.opened[0]() is None
        assert vectors() is None
        assert engine.shelf.collection("toys").media.thumbnails.read("3.webp") == b"picture 3"
        assert [one() is not None for one in opener.opened] == [False, True]


def test_while_one_call_opens_the_new_version_others_are_answered_from_the_old_one(tmp_path: Path, opener: Opener) -> None:
    opening, go_on = threading.Event(), threading.Event()
    with closing(opener.engine(patience_seconds=0.0)) as engine, ThreadPoolExecutor(1) as pool:
        assert len(ids(engine)) == 2
        publish(tmp_path, SECOND)

        def wait() -> None:
            opening.set()
            assert go_on.wait(PATIENCE)

        opener.before = wait
        first = pool.submit(ids, engine)
        assert opening.wait(PATIENCE)
        for _ in range(3):
            assert len(ids(engine)) == 2
        go_on.set()
        assert first.result()[0] == 3
        assert len(ids(engine)) == 3
        assert len(opener.opened) == 2


def test_calls_at_once_open_a_version_once_and_all_see_it(tmp_path: Path, opener: Opener) -> None:
    with closing(opener.engine()) as engine, ThreadPoolExecutor(6) as pool:
        for version, items in enumerate((FIRST, SECOND, FIRST), 1):
            publish(tmp_path, items)
            barrier = threading.Barrier(6)
            found = list(pool.map(lambda _, barrier=barrier: barrier.wait() >= 0 and ids(engine), range(6)))
            assert {len(one) for one in found} == {len(items)}
            assert len(opener.opened) == version


class Meddling(WordEncoder):
    """Does something between two steps of a search."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], None] = lambda: None

    def encode_text(self, text: str) -> EncodedText:
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        return super().encode_text(text)


def test_a_search_whose_catalog_is_replaced_under_it_begins_anew_on_the_new_one(tmp_path: Path, plain: Settings) -> None:
    publish(tmp_path, FIRST)
    encoder = Meddling()
    with closing(Opener(tmp_path, encoder, plain).engine()) as engine:
        session = engine.search(SearchRequest((WeightedText("red"),), n=1)).session
        writer = sqlite3.connect(tmp_path / "collection.db")
        writer.execute("PRAGMA journal_mode = WAL")
        with writer:
            writer.execute("UPDATE medias SET source = 'elsewhere'")
        ids(engine, "warm", session=None)  # no connection stays open beside a writer's WAL

        def meanwhile() -> None:
            writer.close()
            publish(tmp_path, SECOND)

        encoder.meanwhile = meanwhile
        outcome = engine.search(SearchRequest((WeightedText("green square"),), session=session))
        assert [hit.item.id for hit in outcome.hits] == [3, 2]
        assert outcome.hidden.seen == 1


def test_a_catalog_replaced_over_and_over_ends_the_call(tmp_path: Path, opener: Opener) -> None:
    tries = itertools.count()
    with closing(opener.engine()) as engine:

        def work(collection: Collection) -> None:
            next(tries)
            publish(tmp_path, SECOND)
            raise CatalogReplacedError("again")

        with pytest.raises(CatalogReplacedError):
            engine.shelf.with_collection("toys", work)
        assert next(tries) == 3
        assert ids(engine)[0] == 3


def test_a_new_version_that_cannot_be_opened_leaves_the_old_one_in_service(
    tmp_path: Path, opener: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(opener.engine()) as engine, ThreadPoolExecutor(4) as pool:
        assert len(ids(engine)) == 2
        (tmp_path / "bad").write_bytes(b"SQLite format 3\0" + b"no such thing" * 100)
        (tmp_path / "bad").replace(tmp_path / "collection.db")
        assert {len(found) for found in pool.map(lambda _: ids(engine), range(20))} == {2}
        described = filter_answer(engine, filter_question({"field": "Color"})).body
        assert described["field"]["distinct"] == 2
        refusals = [record for record in caplog.records if record.message.startswith("collection.new_version_refused")]
        assert len(refusals) == 1
        settings = replace(opener.settings, collections=(opener.config,))
        assert [finding.text for finding in examine(settings) if finding.level == "PROBLEM" and "catalog" in finding.text]
        publish(tmp_path, SECOND)
        assert len(ids(engine)) == 3


def test_a_version_that_vanishes_is_served_on_from_memory(tmp_path: Path, opener: Opener) -> None:
    with closing(opener.engine()) as engine:
        assert len(ids(engine)) == 2
        (tmp_path / "embeddings.zarr.zip").rename(tmp_path / "gone")
        assert len(ids(engine)) == 2


def test_what_is_written_into_the_catalog_in_place_is_seen(tmp_path: Path, opener: Opener) -> None:
    blue = parse_filter({"Color": "blue"})
    with closing(opener.engine()) as engine:
        assert ids(engine, filters=blue) == [2]
        loaded = engine.shelf.collection("toys").index
        with closing(sqlite3.connect(tmp_path / "collection.db")) as writer, writer:
            writer.execute(
                "INSERT INTO taggings SELECT 1, tag_id FROM taggings t JOIN alphanumerical_tags a ON a.id = tag_id WHERE value = 'blue'"
            )
        assert sorted(ids(engine, filters=blue)) == [1, 2]
        assert loaded is not engine.shelf.collection("toys").index
        assert len(opener.opened) == 2


def test_a_catalog_written_to_all_the_time_is_not_read_again_at_every_call(tmp_path: Path, opener: Opener) -> None:
    with closing(opener.engine(rest=1e9)) as engine:
        for at in range(5):
            with closing(sqlite3.connect(tmp_path / "collection.db")) as writer, writer:
                writer.execute("UPDATE medias SET source = ? WHERE id = 1", (f"{at}.jpg",))
            outcome = engine.search(SearchRequest((WeightedText("red circle"),)))
            assert outcome.hits[0].item.title == f"{at}.jpg"
        assert len(opener.opened) == 1
        publish(tmp_path, SECOND)
        assert len(ids(engine)) == 3


def test_embeddings_that_are_still_in_use_are_not_read_again(tmp_path: Path, opener: Opener) -> None:
    reader = opener.reader
    first = reader.read().embeddings
    assert reader.read().embeddings is first
    publish(tmp_path, SECOND)
    second = reader.read().embeddings
    assert (first.size, second.size) == (2, 3)
    kept = weakref.ref(second)
    del second
    assert kept() is None


class Republished(EmbeddingsReader):
    """Publishes another version each time the embeddings have been read, `times` times."""

    def __init__(self, folder: Path, times: int) -> None:
        super().__init__(config_of(folder), folder / "side")
        self.folder, self.left = folder, times

    def read(self) -> OpenVectors:
        found = super().read()
        if self.left:
            self.left -= 1
            publish(self.folder, [*SECOND, shown(4 + self.left, 3, "big")] if self.left % 2 == 0 else SECOND)
        return found


def test_a_catalog_is_never_paired_with_older_embeddings(tmp_path: Path) -> None:
    publish(tmp_path, FIRST)
    opened = open_files(config_of(tmp_path), Republished(tmp_path, 3))
    with closing(opened.catalog) as catalog:
        assert opened.embeddings.size == catalog.indexed == len(catalog.media_of_row) == 4
        assert not catalog.findings
    with pytest.raises(CollectionError, match="again and again"):
        open_files(config_of(tmp_path), Republished(tmp_path, 10**6))


@pytest.mark.parametrize("damage", ["outgrown", "torn"])
def test_searches_go_on_exactly_when_the_faiss_file_is_of_no_use(
    tmp_path: Path, plain: Settings, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    publish(tmp_path, FIRST)
    file = write_faiss("Flat", np.stack([vector for _, vector in FIRST]), tmp_path / "index.faiss")
    opener = Opener(tmp_path, WordEncoder(), plain, index_type="faiss", faiss_file=file)
    settings = replace(plain, collections=(opener.config,))
    with closing(opener.engine()) as engine:
        assert len(ids(engine)) == 2
        assert isinstance(engine.shelf.collection("toys").index, HybridIndex)
        if damage == "torn":
            (tmp_path / "torn").write_bytes(file.read_bytes()[:40])
            (tmp_path / "torn").replace(file)
        publish(tmp_path, SECOND)
        assert ids(engine)[0] == 3
        assert isinstance(engine.shelf.collection("toys").index, ExactIndex)
        assert sum(record.message.startswith("faiss.unused") for record in caplog.records) == 1
        problems = [finding.text for finding in examine(settings) if finding.level == "PROBLEM" and "FAISS" in finding.text]
        assert len(problems) == 1
        assert "`clip-search-mcp index build`" in problems[0]
        write_faiss("Flat", np.stack([vector for _, vector in SECOND]), tmp_path / "new.faiss").replace(file)
        assert ids(engine)[0] == 3
        assert isinstance(engine.shelf.collection("toys").index, HybridIndex)


def test_a_faiss_file_that_is_missing_is_refused_when_opening(tmp_path: Path, plain: Settings) -> None:
    publish(tmp_path, FIRST)
    opener = Opener(tmp_path, WordEncoder(), plain, index_type="faiss", faiss_file=tmp_path / "none.faiss")
    with closing(opener.engine()) as engine, pytest.raises(CollectionError, match=r"does not exist.*build`, or set IndexType"):
        ids(engine)


def test_a_shelf_closed_during_a_call_lets_the_call_end(tmp_path: Path, opener: Opener) -> None:
    engine = opener.engine()
    with engine.shelf.using("toys") as collection:
        engine.close()
        assert len(collection.catalog.items_at([0, 1], "full")) == 2
        with pytest.raises(CollectionError, match="ending"):
            ids(engine)
    with pytest.raises(CollectionError, match="closed"):
        collection.catalog.items_at([0], "full")


def test_nothing_is_left_open_after_many_versions(tmp_path: Path, opener: Opener) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc to see open files")
    with closing(opener.engine()) as engine:
        ids(engine)
        assert engine.shelf.collection("toys").media.thumbnails.read("1.webp")
        before = open_below(tmp_path)
        for at in range(10):
            publish(tmp_path, SECOND if at % 2 else FIRST)
            ids(engine)
            assert engine.shelf.collection("toys").media.thumbnails.read("1.webp")
        assert open_below(tmp_path) == before
    assert open_below(tmp_path) == []


def open_below(folder: Path) -> list[str]:
    """Return the files below `folder` that this process has open, deleted ones too."""
    found: list[str] = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the handle that listed them
            found.append(str(link.readlink()))
    return sorted(name for name in found if name.startswith(str(folder)))


def folder_of_zarr(folder: Path, items: Items) -> Path:
    """Write the embeddings of `items` as a folder with several chunks, which keeps its own time when a chunk is written anew."""
    file = folder / "embeddings.zarr"
    vectors = np.stack([vector for _, vector in items])
    zarr.create_array(str(file), data=vectors, chunks=(1, vectors.shape[1]), overwrite=True)
    return file


def test_a_zarr_folder_written_to_in_place_is_served_anew(tmp_path: Path, plain: Settings) -> None:
    publish(tmp_path, FIRST)
    file = folder_of_zarr(tmp_path, FIRST)
    opener = Opener(tmp_path, WordEncoder(), plain, embeddings_file=file)
    with closing(opener.engine()) as engine:
        assert ids(engine, "red circle") == [1, 2]
        array = zarr.open_array(str(file), mode="r+")
        array[:] = np.asarray(array[:])[::-1]
        end = time.monotonic() + 30
        while ids(engine, "red circle") != [2, 1] and time.monotonic() < end:
            time.sleep(0.1)
        assert ids(engine, "red circle") == [2, 1]


@pytest.mark.parametrize("laid_down_by_another", [False, True])
def test_rows_in_use_are_not_taken_for_those_that_the_file_holds_now(tmp_path: Path, laid_down_by_another: bool) -> None:
    file = folder_of_zarr(tmp_path, FIRST)
    reader = EmbeddingsReader(config_of(tmp_path, embeddings_file=file), tmp_path / "side")
    first = reader.read()
    array = zarr.open_array(str(file), mode="r+")
    turned = np.asarray(array[:])[::-1].copy()
    array[:] = turned
    if laid_down_by_another:
        assert reader.side is not None
        SideVectors(reader.side, file).open()
    second = reader.read()
    assert np.array_equal(second.embeddings.rows, turned)
    assert not np.array_equal(first.embeddings.rows, turned)
    assert reader.read().embeddings is second.embeddings


def test_searches_are_right_again_when_side_files_turn_out_to_be_damaged(
    tmp_path: Path, plain: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    publish(tmp_path, FIRST)
    settings = replace(plain, side_folder=tmp_path / "side")
    with closing(Opener(tmp_path, WordEncoder(), settings).engine()) as engine:
        assert ids(engine, "red circle") == [1, 2]
    (file,) = (tmp_path / "side").rglob("rows.npy")
    whole = file.read_bytes()
    file.write_bytes(whole[:-64] + whole[-32:] + whole[-64:-32])  # the two rows change places
    with closing(Opener(tmp_path, WordEncoder(), settings).engine()) as engine:
        assert ids(engine, "red circle") == [2, 1], "nothing waits for the check"
    monkeypatch.setattr(side_vectors, "_CHECK_AFTER_SECONDS", 0.0)
    with closing(Opener(tmp_path, WordEncoder(), settings).engine()) as engine:
        ids(engine, "red circle")
        for thread in threading.enumerate():
            if thread.name == "check":
                thread.join(PATIENCE)
        assert ids(engine, "red circle") == [1, 2]
    assert "side_files.damaged" in caplog.text
    assert file.read_bytes() == whole
