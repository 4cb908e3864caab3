"""The demo's vectors and catalog, written as other tools would write them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcp_server.config import demo_folder, load_settings
from mcp_server.domain.filter_syntax import parse_filter
from mcp_server.domain.search import SearchRequest, WeightedText
from mcp_server.engine.opening import open_engine
from mcp_server.indexes.embeddings import load_embeddings
from mcp_server.protocol.arguments import filter_question
from mcp_server.protocol.filter_answers import filter_answer

DEMO = demo_folder()
MODEL = f"local-dir:{DEMO / 'model'}"
KINDS = ("alphanumerical", "timestamp", "time", "date", "numerical_int", "numerical_dec", "json")


def vectors() -> NDArray[np.float32]:
    return load_embeddings(DEMO / "embeddings.zarr.zip").rows.astype(np.float32)


def query(sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"{(DEMO / 'collection.db').as_uri()}?mode=ro", uri=True)) as opened:
        return opened.execute(sql).fetchall()


def values() -> Iterator[tuple[int, str, str, Any]]:
    """Yield (media id, tagset, kind, value) of the whole demo, the rows' tagset too."""
    for kind in KINDS:
        sql = (
            f"SELECT t.media_id, s.name, v.value FROM {kind}_tags v JOIN tagsets s ON s.id = v.tagset_id "
            "JOIN taggings t ON t.tag_id = v.id ORDER BY t.media_id, s.id, v.id"
        )
        for media, name, value in query(sql):
            yield media, name, kind, json.loads(value) if kind == "json" else value


def rows() -> list[dict[str, Any]]:
    """Return one row a vector, in order: `file`, `group_id`, and fields with the list of their values."""
    medias = {media: (source, group) for media, source, group in query("SELECT id, source, group_id FROM medias")}
    found: dict[int, dict[str, Any]] = {}
    place: dict[int, int] = {}
    for media, name, _, value in values():
        source, group = medias[media]
        row = found.setdefault(media, {"file": source, "group_id": medias[group][0] if group is not None else None})
        if name == "CLIP Index ID":
            place[value] = media
        else:
            row.setdefault(name, []).append(value)
    return [found[place[row]] for row in sorted(place)]


def write_lines(file: Path, table: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")
    return file


def named_json(folder: Path) -> Path:
    """Write the four files as the Simplified-M3 loader takes them: media by source, tags by value."""
    folder.mkdir(parents=True)
    kinds = query("SELECT s.name, t.description FROM tagsets s JOIN tag_types t ON t.id = s.tagtype_id")
    names = dict(query("SELECT id, name FROM source_types"))
    sources = dict(query("SELECT id, source FROM medias"))
    medias = [
        {"source": source, "source_type": names[kind].lower(), "thumbnail": thumbnail, "group": sources.get(group)}
        for source, kind, thumbnail, group in query("SELECT source, source_type, thumbnail_uri, group_id FROM medias ORDER BY id")
    ]
    taggings: dict[int, dict[str, list[Any]]] = {}
    for media, name, _, value in values():
        taggings.setdefault(media, {}).setdefault(name, []).append(value)
    _dump(folder / "demo_tagsets.json", [{"name": name, "tagtype": kind, "tags": []} for name, kind in kinds])
    _dump(folder / "demo_medias.json", medias)
    _dump(folder / "demo_taggings.json", [{"media_source": sources[media], "tagsets": facts} for media, facts in taggings.items()])
    return folder


def dumped_json(folder: Path) -> Path:
    """Write the four files as dumps of the tables: media and tags by id."""
    folder.mkdir(parents=True)
    tagsets = query("SELECT id, name, tagtype_id FROM tagsets")
    found: list[dict[str, Any]] = []
    for kind in KINDS:
        for tag, value, tagset in query(f"SELECT id, value, tagset_id FROM {kind}_tags"):
            found.append({"id": tag, "tagset_id": tagset, "value": json.loads(value) if kind == "json" else value})
    medias = query("SELECT id, source, source_type, thumbnail_uri, group_id FROM medias ORDER BY id DESC")
    keys = ("id", "source", "source_type", "thumbnail_uri", "group_id")
    _dump(folder / "tagsets.json", [{"id": str(number), "name": name, "tagtype_id": kind} for number, name, kind in tagsets])
    _dump(folder / "tags.json", {"tags": found})
    (folder / "medias.jsonl").write_text("".join(json.dumps(dict(zip(keys, one, strict=True))) + "\n" for one in medias), encoding="utf-8")
    pairs = query("SELECT media_id, tag_id FROM taggings ORDER BY tag_id")
    _dump(folder / "taggings.json", [{"media_id": media, "tag_id": str(tag)} for media, tag in pairs])
    return folder


def answers(config: Path, name: str) -> dict[str, Any]:
    """Return what an engine over `config` says: hits of some searches, filtered and not, without the ids of groups, and fields' values."""
    settings = load_settings(config)
    said: dict[str, Any] = {}
    with closing(open_engine(settings, Path(":memory:"))) as engine:
        for text, filters in SEARCHES:
            found = engine.search(SearchRequest((WeightedText(text),), collection=name, n=20, filters=parse_filter(filters), detail="full"))
            hits = [(hit.item.id, hit.item.title, hit.item.uri, _sorted(hit.item.tags)) for hit in found.hits]
            said[f"{text} {json.dumps(filters)}"] = (hits, found.matching, [round(hit.score, 4) for hit in found.hits])
        for field in ("category", "keywords", "introduced", "width", "has_skin_tone"):
            answer = filter_answer(engine, filter_question({"collection": name, "field": field}))
            said[field] = answer.body["field"]
    return said


SEARCHES: tuple[tuple[str, Any], ...] = (
    ("a red apple", None),
    ("a flag", {"category": "flags"}),
    ("a smiling face", {"introduced": {"gte": "2015-01-01"}, "has_skin_tone": "true"}),
    ("an animal", {"any": [{"color": "red"}, {"width": {"gte": 100}}], "not": {"keywords": "cat"}}),
)


def _sorted(tags: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {name: sorted(found, key=repr) for name, found in sorted(tags.items())}


def _dump(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content), encoding="utf-8")
