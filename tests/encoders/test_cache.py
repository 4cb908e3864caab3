"""The record beside a cached text tower: what is wrong in it is noticed before the tower is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mcp_server.encoders.cache import TowerRecord, read_record, write_cache
from mcp_server.encoders.models import CachePaths, cache_paths
from mcp_server.encoders.tokens import TokenizerRecord

MODEL = "hf-hub:a/b"
RECORD = TowerRecord(
    model=MODEL,
    source="a/b",
    embed_dim=8,
    context_length=16,
    quick_gelu=False,
    text_cfg={"width": 8, "norm_kwargs": {"eps": 1e-6}},
    tokenizer=TokenizerRecord("saved", 16, "lower", stripped_id=7),
    tensors=3,
    logit_scale=100.0,
    logit_bias=None,
)


@pytest.fixture
def cached(tmp_path: Path) -> CachePaths:
    paths = cache_paths(MODEL, tmp_path)
    write_cache(paths, RECORD, lambda file: file.write(b"weights"), "{}")
    return paths


def test_a_record_is_read_as_it_was_written(cached: CachePaths) -> None:
    assert read_record(cached, MODEL) == RECORD


@pytest.mark.parametrize(
    "change",
    [
        {"embed_dim": "8"},
        {"embed_dim": 0},
        {"context_length": None},
        {"quick_gelu": "no"},
        {"text_cfg": [8]},
        {"text_cfg": {"width": "8"}},
        {"text_cfg": {"norm_kwargs": {"eps": "x"}}},
        {"logit_scale": "100"},
        {"lean": 1},
        {"tokenizer": {"kind": "other", "context_length": 16, "clean": "lower"}},
        {"tokenizer": {"kind": "saved", "context_length": "16", "clean": "lower"}},
        {"tokenizer": {"kind": "saved", "context_length": 16, "clean": ["lower"]}},
        {"tokenizer": []},
    ],
    ids=str,
)
def test_a_record_with_a_value_of_the_wrong_kind_is_made_again(change: dict[str, Any], cached: CachePaths) -> None:
    cached.metadata.write_text(json.dumps(json.loads(cached.metadata.read_text()) | change))
    assert read_record(cached, MODEL) is None
