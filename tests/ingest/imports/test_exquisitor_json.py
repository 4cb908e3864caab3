"""Exquisitor's JSON files say what they say, by name or by id, whole or in pieces; what does not fit is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_server.errors import IngestError
from mcp_server.ingest.catalog.write_catalog import MediaRow
from mcp_server.ingest.imports.exquisitor_json import find_exquisitor, read_exquisitor_json
from mcp_server.ingest.imports.json_stream import elements
from mcp_server.ingest.imports.run import import_vectors

# As in the published example: a video, its keyframe and a transcript; names with "_" for blanks; a tagset nobody declared.
TAGSETS = [
    {"name": "Start (ms)", "tagtype": "numerical_int", "tags": []},
    {"name": "CLIP Index ID", "tagtype": "numerical_int", "tags": []},
    {"name": "Caption", "type": "alphanumerical", "tags": ["never used"]},
    {"name": "Closest Keyframe", "tagtype": 1, "tags": []},
    {"name": "At", "tagtype": "TIME", "tags": []},
]
TAGS = [{"tagset_name": "Start (ms)", "tags": [0, 5000]}]
MEDIAS = [
    {"source": "frame.jpg", "source_type": "image", "thumbnail": "frame.webp", "group": "video.mp4", "comment": "before its group"},
    {"source": "video.mp4", "source_type": "video", "thumbnail": None, "group": None},
    {"source": "words", "source_type": "text", "group": "gone.mp4"},
]
TAGGINGS = [
    {"media_source": "words", "tagsets": {"Closest_Keyframe": ["frame.jpg"]}},
    {"media_source": "frame.jpg", "tagsets": {"Clip_Index_Id": [1], "caption": ["A ramp"], "Start (ms)": [5000], "Mood": ["odd", "calm"]}},
    {"media_src": "video.mp4", "Caption": ["Stunts"], "At": "00:01:30", "comment": ["older files had it flat"]},
    {"media_source": "nobody", "tagsets": {"Caption": ["lost"]}},
]
EXPECTED = [
    MediaRow(1, "frame.jpg", 1, "frame.webp", 2, 1, {"Caption": ["A ramp"], "Start (ms)": [5000]}),
    MediaRow(2, "video.mp4", 2, None, None, None, {"Caption": ["Stunts"], "At": ["00:01:30"]}),
    MediaRow(3, "words", 4, None, None, None, {"Closest Keyframe": ["frame.jpg"]}),
]


def write(folder: Path, **files: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def read(path: Path, count: int = 5, unusable: tuple[int, ...] = ()) -> tuple[list[MediaRow], list[str]]:
    """Return the media, and what did not fit."""
    mask = np.zeros(count, np.bool_)
    mask[list(unusable)] = True
    with read_exquisitor_json(path, path if path.is_dir() else path.parent) as found:
        medias = list(found.medias(mask))
        assert found.count == len(medias)
        return medias, list(found.tally.sentences())


def test_the_four_files_by_name_give_media_groups_rows_and_facts(tmp_path: Path) -> None:
    folder = write(tmp_path / "m3", example_tagsets=TAGSETS, example_tags=TAGS, example_medias=MEDIAS, example_taggings=TAGGINGS)
    medias, said = read(folder)
    assert medias == EXPECTED
    assert said == [
        "1 taggings are about a medium that is not in medias",
        "1 media name a group that is not in medias; they have none now",
        "2 values belong to tagsets that are not in tagsets and were left out: Mood",
    ]
    with read_exquisitor_json(folder, folder) as found:
        kinds = {"Start (ms)": "numerical_int", "Caption": "alphanumerical", "Closest Keyframe": "alphanumerical", "At": "time"}
        assert (found.kinds, found.images, found.has_rows) == (kinds, 1, True)
    assert sorted(file.suffix for file in folder.iterdir()) == [".json"] * 4


def test_one_file_with_all_four_and_json_lines_say_the_same(tmp_path: Path) -> None:
    whole = {"tagsets": TAGSETS, "tags": TAGS, "medias": MEDIAS, "taggings": TAGGINGS}
    (tmp_path / "all.json").write_text(json.dumps(whole), encoding="utf-8")
    assert read(tmp_path / "all.json")[0] == EXPECTED
    lines = tmp_path / "lines"
    lines.mkdir()
    for name, content in whole.items():
        (lines / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in content), encoding="utf-8")
    assert read(lines)[0] == EXPECTED
    wrapped = write(tmp_path / "wrapped", **{name: {name: content} for name, content in whole.items()})
    assert read(wrapped)[0] == EXPECTED


def test_ids_of_tables_are_kept_as_numbers_or_text_and_come_out_in_order(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        tagsets=[{"id": 3, "name": "clip index id", "tagtype_id": 5}, {"id": "9", "description": "Year", "tagtype_id": "5"}],
        tags=[
            {"id": 1, "tagset_id": 3, "value": 0},
            {"id": "2", "tagset_id": "9", "value": 2020},
            {"id": 3, "tagset_id": 77, "value": 1},
            {"id": 4, "tagset_id": 3, "value": 2},
        ],
        medias=[
            {"id": "40", "uri": "b.jpg", "source_type": 1, "thumbnail_uri": "b.webp", "group_id": 7},
            {"id": 7, "path": "v.mp4", "source_type": "2"},
            {"id": 8, "uri": "c.jpg"},
            {"id": "x-1", "uri": "d.jpg"},
            {"nothing": 1},
        ],
        taggings=[{"media_id": 40, "tag_id": "1"}, {"media_id": "7", "tag_ids": [2, 3]}, {"media_id": "x-1", "tag_id": 4}, "no object"],
    )
    medias, said = read(folder)
    assert medias == [
        MediaRow(7, "v.mp4", 2, None, None, None, {"Year": [2020]}),
        MediaRow(8, "c.jpg", 1, None, None, None, {}),
        MediaRow(40, "b.jpg", 1, "b.webp", 7, 0, {}),
        MediaRow(41, "d.jpg", 1, None, None, 2, {}),
    ]
    assert said == [
        "3 entries of the JSON files are no tagset, tag, medium or tagging",
        "1 taggings name a tag that is not in tags",
        "1 media have an id that cannot be kept; they were numbered after the others",
    ]


def test_rows_are_claimed_once_inside_the_vectors_and_only_when_usable(tmp_path: Path) -> None:
    rows = {"a": [3, 1], "b": [1], "c": [9], "d": [2], "e": [0], "f": ["4"], "g": [-1, 1.5, True, float("inf"), "9" * 5000]}
    folder = write(
        tmp_path,
        medias=[{"source": name} for name in rows],
        taggings=[{"media_source": name, "tagsets": {"CLIP Index ID": found}} for name, found in rows.items()],
    )
    medias, said = read(folder, 5, unusable=(2,))
    assert {one.source: one.row for one in medias} == {"a": 1, "b": None, "c": None, "d": None, "e": 0, "f": 4, "g": None}
    assert said == [
        "2 media claim a CLIP Index ID that another has, or a second one; the first counts",
        "1 media have a CLIP Index ID beyond the last vector; they are not searchable",
    ]


def test_without_rows_images_follow_the_order_of_the_file_when_the_counts_agree(tmp_path: Path) -> None:
    medias = [{"id": 5, "source": "b"}, {"id": 9, "source": "v", "source_type": "video"}, {"id": 2, "source": "a"}]
    folder = write(tmp_path / "m3", medias=medias, tagsets=[])
    assert {one.id: one.row for one in read(folder, 2)[0]} == {5: 0, 9: None, 2: 1}
    np.save(tmp_path / "v.npy", np.eye(3, dtype=np.float32))
    with pytest.raises(IngestError, match=r"2 images and no CLIP Index ID .* 3 vectors"):
        import_vectors(tmp_path / "v.npy", folder, tmp_path / "data/x", tmp_path / "data/config.ini", "x", "hf-hub:some/model")
    assert not (tmp_path / "data").exists() or not list((tmp_path / "data").iterdir())


def test_other_folders_and_files_are_not_taken_for_exquisitors(tmp_path: Path) -> None:
    assert find_exquisitor(write(tmp_path / "one", medias=[])) is None
    assert find_exquisitor(write(tmp_path / "two", metadata_0=[], tags=[])) is None
    (tmp_path / "rows.json").write_text('[{"medias": [], "tags": []}]', encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text('{"medias": [], "tags": []}', encoding="utf-8")
    assert find_exquisitor(tmp_path / "rows.json") is None
    assert find_exquisitor(tmp_path / "rows.jsonl") is None
    with pytest.raises(IngestError, match=r"has no medias\.json"):
        read(tmp_path / "one")
    with pytest.raises(IngestError, match="no medium that can be used"):
        read(write(tmp_path / "empty", medias=[{}], taggings=[]))


def test_an_id_that_leaves_no_room_for_media_without_one_is_not_kept(tmp_path: Path) -> None:
    medias = [{"id": 2**63 - 1, "source": "a"}, {"source": "b"}, {"id": 2**62, "source": "c"}, {"id": -1, "source": "d"}]
    found, said = read(write(tmp_path / "m3", tagsets=TAGSETS, medias=medias))
    assert [(one.id - 2**62, one.source) for one in found] == [(0, "c"), (1, "a"), (2, "b"), (3, "d")]
    assert said == ["3 media have an id that cannot be kept; they were numbered after the others"]


@pytest.mark.parametrize("text", ["[1, 2", "[1 2]", '[{"a": ]', "[1] 2", '{"a": 1', "[" * 100_000, "nonsense"])
def test_broken_json_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text, encoding="utf-8")
    with pytest.raises(IngestError, match=r"x\.json is not JSON that can be read"):
        list(elements(tmp_path / "x.json", "x"))


def test_an_array_longer_than_the_pieces_it_is_read_in_comes_out_whole(tmp_path: Path) -> None:
    content = [{"number": number, "text": 'é\\"],' * (number % 50)} for number in range(20_000)]
    (tmp_path / "x.json").write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    assert (tmp_path / "x.json").stat().st_size > 2 * 2**20
    assert list(elements(tmp_path / "x.json", "x")) == content


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "name", "tags", "value"]), inner, max_size=3),
    max_leaves=8,
)
KEYS = [
    "id",
    "name",
    "source",
    "uri",
    "media_id",
    "media_source",
    "tag_id",
    "tag_ids",
    "tagset_id",
    "tagtype",
    "value",
    "group_id",
    "group",
]
ENTRY = st.dictionaries(st.sampled_from([*KEYS, "source_type", "tagsets", "tags"]), JSON, max_size=6) | JSON
MANY = st.lists(ENTRY, max_size=5)


@settings(max_examples=200, deadline=None)
@given(
    tagsets=st.lists(ENTRY, max_size=4),
    tags=st.lists(ENTRY, max_size=4),
    medias=st.lists(ENTRY, max_size=5),
    taggings=st.lists(ENTRY, max_size=5),
)
def test_whatever_the_files_hold_ids_ascend_and_no_row_is_claimed_twice(
    tagsets: list[Any], tags: list[Any], medias: list[Any], taggings: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    medias = [*medias, {"source": "one"}]
    folder = write(tmp_path_factory.mktemp("any"), tagsets=tagsets, tags=tags, medias=medias, taggings=taggings)
    found, _ = read(folder)
    ids = [one.id for one in found]
    rows = [one.row for one in found if one.row is not None]
    assert ids == sorted(set(ids))
    assert ids[0] >= 1
    assert len(rows) == len(set(rows))
    assert all(0 <= row < 5 for row in rows)
