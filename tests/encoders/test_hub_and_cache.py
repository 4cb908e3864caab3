"""The first start fetches from a hub and caches; later starts need neither hub nor vision tower; nothing half-made, nothing mistaken."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mcp_server.encoders.cache import read_record
from mcp_server.encoders.loading import BackgroundText, text_loader
from mcp_server.encoders.models import cache_paths, model_width, paths_beside
from mcp_server.encoders.open_clip import load_text_encoder
from mcp_server.encoders.towers import own_paths
from mcp_server.errors import MESSAGE_LIMIT, ModelUnavailableError
from tests.encoders.conftest import CLIP, ROOT, SIGLIP, TEXTS, FirstStart, Process
from tests.encoders.standin_hub import StandInHub

WEIGHTS = "open_clip_model.safetensors"
NOWHERE = "http://127.0.0.1:9"


def worst_cosine(one: Any, other: Any) -> float:
    return float((np.asarray(one, dtype=np.float64) * np.asarray(other, dtype=np.float64)).sum(axis=-1).min())


def visible(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir() if not file.name.endswith(".lock")} if folder.exists() else set()


@pytest.mark.parametrize("model", [SIGLIP, CLIP])
def test_the_first_start_gives_open_clips_own_vectors(model: str, first_start: FirstStart, references: dict[str, Any]) -> None:
    assert worst_cosine(first_start.outcomes[model]["vectors"], references[model]) >= 0.999999


def test_the_first_start_fetches_the_safetensors_once_and_no_pickle(first_start: FirstStart) -> None:
    fetched = [asked for asked in first_start.asked if asked.startswith("GET") and WEIGHTS in asked]
    assert len(fetched) == 2
    assert not [asked for asked in first_start.asked if asked.endswith((".bin", ".pth", ".pt"))]


def test_the_cache_is_whole_and_describes_itself(first_start: FirstStart) -> None:
    paths = cache_paths(SIGLIP, first_start.data)
    expected = {paths.weights.name, paths.metadata.name, paths.tokenizer.name}
    assert {name for name in visible(first_start.data) if "siglip" in name} == expected
    record = read_record(paths, SIGLIP)
    assert record is not None
    assert (record.model, record.source, record.embed_dim, record.context_length) == (SIGLIP, "tiny/siglip", 48, 16)
    assert record.logit_scale == pytest.approx(1 / 0.07, rel=1e-5)
    assert record.logit_bias == -10
    assert set(json.loads(paths.metadata.read_text())["sha256"]) == {paths.weights.name, paths.tokenizer.name}
    state = torch.load(paths.weights, weights_only=True)
    assert len(state) == record.tensors
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert not [name for name in state if "visual" in name]


def test_the_width_of_a_hub_model_is_known_once_it_is_cached(first_start: FirstStart, tmp_path: Path) -> None:
    assert model_width(SIGLIP, tmp_path) is None
    assert model_width(SIGLIP, first_start.data) == 48


def test_the_second_start_needs_no_hub_no_network_and_no_vision_tower(
    first_start: FirstStart, tiny: dict[str, Path], tmp_path: Path
) -> None:
    folder = f"local-dir:{tiny['tiny/siglip']}"
    outcomes = Process(NOWHERE, tmp_path).load((SIGLIP, first_start.data), (CLIP, first_start.data), (folder, tmp_path / "unused"))
    for outcome, model in zip(outcomes, (SIGLIP, CLIP, SIGLIP), strict=True):
        assert worst_cosine(outcome["vectors"], first_start.outcomes[model]["vectors"]) >= 0.999999
        assert outcome["connections"] == []
        assert not [kind for kind in outcome["built"] if kind.startswith(("Timm", "Vision")) or kind.endswith("VisionTransformer")]
        assert outcome["logit_bias"] == first_start.outcomes[model]["logit_bias"]
    assert not (tmp_path / "unused").exists()


def test_a_causal_model_from_the_cache_masks_what_comes_later(first_start: FirstStart, references: dict[str, Any]) -> None:
    encoder = load_text_encoder(CLIP, "cpu", first_start.data)
    assert worst_cosine([encoder.encode_text(text).vector for text in TEXTS], references[CLIP]) >= 0.999999


def test_the_background_loader_reads_the_same_cache(first_start: FirstStart) -> None:
    background = BackgroundText(text_loader(SIGLIP, "cpu", first_start.data), SIGLIP, 48, patience_seconds=120)
    assert worst_cosine([background.encode_text(text).vector for text in TEXTS], first_start.outcomes[SIGLIP]["vectors"]) >= 0.999999


@pytest.mark.parametrize("model", [SIGLIP, CLIP])
def test_a_text_beyond_the_context_is_flagged_and_one_that_just_fits_is_not(model: str, first_start: FirstStart) -> None:
    encoder = load_text_encoder(model, "cpu", first_start.data)
    limit = encoder.encode_text("dog").token_limit
    room = limit - (1 if model == SIGLIP else 2)  # one end mark, and for CLIP a start mark
    assert not encoder.encode_text(" ".join(["dog"] * room)).truncated
    assert encoder.encode_text(" ".join(["dog"] * (room + 1))).truncated


def test_texts_that_look_the_same_to_the_model_share_a_key(first_start: FirstStart) -> None:
    encoder = load_text_encoder(SIGLIP, "cpu", first_start.data)
    assert encoder.cache_key("A photo, of a DOG!") == encoder.cache_key("a  photo of a_dog")
    assert encoder.cache_key("a photo of a dog") != encoder.cache_key("a photo of a cat")
    full = " ".join(["dog"] * 15)
    assert encoder.cache_key(full).ids == encoder.cache_key(full + " dog").ids
    assert encoder.cache_key(full) != encoder.cache_key(full + " dog")


def test_a_download_that_breaks_off_leaves_nothing_and_says_what_to_do(hub: StandInHub, tmp_path: Path, references: dict[str, Any]) -> None:
    data, process = tmp_path / "data", Process(hub.endpoint, tmp_path / "hub")
    hub.cut.add(WEIGHTS)
    (outcome,) = process.load((SIGLIP, data))
    assert outcome["error"] == "ModelUnavailableError"
    assert len(outcome["message"]) <= MESSAGE_LIMIT
    assert "could not be downloaded" in outcome["message"]
    assert str(tmp_path) not in outcome["message"]
    assert "http" not in outcome["message"]
    for word in ("HF_ENDPOINT", "local-dir:", "again", hub.endpoint):
        assert word in outcome["remedy"]
    assert visible(data) == set()
    assert not list((tmp_path / "hub").rglob(f"snapshots/*/{WEIGHTS}"))
    hub.cut.clear()
    (outcome,) = process.load((SIGLIP, data))
    assert worst_cosine(outcome["vectors"], references[SIGLIP]) >= 0.999999


@pytest.mark.slow
def test_a_hub_out_of_order_leaves_nothing_and_says_what_to_do(hub: StandInHub, tmp_path: Path) -> None:
    hub.failing.add(WEIGHTS)
    (outcome,) = Process(hub.endpoint, tmp_path / "hub").load((SIGLIP, tmp_path / "data"))
    assert outcome["error"] == "ModelUnavailableError"
    assert "500" in outcome["remedy"]
    assert visible(tmp_path / "data") == set()
    assert not [asked for asked in hub.asked if asked.endswith(".bin")], "a fault of the hub must not lead to the pickled weights"


def test_a_damaged_cache_is_made_again_and_without_a_hub_the_error_says_so(
    hub: StandInHub, first_start: FirstStart, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(first_start.data, data)
    weights = cache_paths(SIGLIP, data).weights
    weights.write_bytes(weights.read_bytes()[:-1000])
    clip = cache_paths(CLIP, data).weights
    flipped = bytearray(clip.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    clip.write_bytes(flipped)
    outcomes = Process(NOWHERE, tmp_path / "empty").load((SIGLIP, data), (CLIP, data), HF_HUB_OFFLINE="1")
    for outcome in outcomes:
        assert outcome["error"] == "ModelUnavailableError"
        assert "damaged" in outcome["remedy"]
        assert "HF_HUB_OFFLINE" in outcome["remedy"]
    outcomes = Process(hub.endpoint, first_start.hub_cache).load((SIGLIP, data), (CLIP, data))
    for outcome, model in zip(outcomes, (SIGLIP, CLIP), strict=True):
        assert worst_cosine(outcome["vectors"], first_start.outcomes[model]["vectors"]) >= 0.999999
        assert read_record(cache_paths(model, data), model) is not None


def test_another_models_cache_is_never_used(first_start: FirstStart, tmp_path: Path) -> None:
    ours, theirs = cache_paths(CLIP, tmp_path), cache_paths(SIGLIP, first_start.data)
    shutil.copy(theirs.weights, ours.weights)
    shutil.copy(theirs.tokenizer, ours.tokenizer)
    record = theirs.metadata.read_text().replace(theirs.weights.name, ours.weights.name).replace(theirs.tokenizer.name, ours.tokenizer.name)
    ours.metadata.write_text(record)
    assert model_width(CLIP, tmp_path) is None
    (outcome,) = Process(NOWHERE, tmp_path / "hub").load((CLIP, tmp_path), HF_HUB_OFFLINE="1")
    assert outcome["error"] == "ModelUnavailableError"


def pickle_a_module(kind: str, file: Path) -> bytes:
    """Write what other tools leave; return its bytes."""
    module = torch.nn.Linear(2, 2)
    if kind == "script":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer PyTorch deprecates making such files; older tools have made them all the same
            torch.jit.script(module).save(str(file))
    else:
        torch.save(module, file, _use_new_zipfile_serialization=kind == "module")
    return file.read_bytes()


@pytest.mark.parametrize("kind", ["module", "old module", "script"])
def test_the_cache_lies_beside_a_pickled_module_in_its_place(kind: str, hub: StandInHub, first_start: FirstStart, tmp_path: Path) -> None:
    theirs = cache_paths(SIGLIP, tmp_path).weights
    before = pickle_a_module(kind, theirs)
    (first,) = Process(hub.endpoint, first_start.hub_cache).load((SIGLIP, tmp_path))
    assert worst_cosine(first["vectors"], first_start.outcomes[SIGLIP]["vectors"]) >= 0.999999
    assert cache_paths(SIGLIP, tmp_path) == paths_beside(SIGLIP, tmp_path)
    (later,) = Process(NOWHERE, tmp_path / "empty").load((SIGLIP, tmp_path))
    assert worst_cosine(later["vectors"], first_start.outcomes[SIGLIP]["vectors"]) >= 0.999999
    assert later["connections"] == []
    assert theirs.read_bytes() == before


@pytest.mark.parametrize("kind", ["module", "old module", "script"])
def test_a_pickled_module_in_both_places_is_refused_and_left_alone(kind: str, tmp_path: Path) -> None:
    files = [cache_paths(SIGLIP, tmp_path).weights, paths_beside(SIGLIP, tmp_path).weights]
    before = [pickle_a_module(kind, file) for file in files]
    with pytest.raises(ModelUnavailableError, match="refused") as caught:
        load_text_encoder(SIGLIP, "cpu", tmp_path)
    assert len(str(caught.value)) <= MESSAGE_LIMIT
    assert str(files[1]) in caught.value.remedy
    assert "Move or delete it" in caught.value.remedy
    assert [file.read_bytes() for file in files] == before


@pytest.mark.parametrize("damage", ["name", "first byte", "end", "all"])
def test_damage_to_what_lists_the_cached_weights_is_not_taken_for_a_program(damage: str, tmp_path: Path) -> None:
    weights = cache_paths(SIGLIP, tmp_path).weights
    torch.save({"ln_final.weight": torch.zeros(4)}, weights)
    content = weights.read_bytes()
    listed = content.index(b"\x80\x02}")  # how a pickled dictionary begins
    where = {"name": content.rindex(b"/data.pkl"), "first byte": listed + 1, "end": content.index(b"s.", listed), "all": 4}[damage]
    weights.write_bytes(content[:where] + (b"garbage" * 1000 if damage == "all" else b"\xff\xff" + content[where + 2 :]))
    assert own_paths(SIGLIP, tmp_path) == cache_paths(SIGLIP, tmp_path)
    assert read_record(cache_paths(SIGLIP, tmp_path), SIGLIP) is None


def test_two_processes_that_start_at_once_make_one_cache(hub: StandInHub, tmp_path: Path, references: dict[str, Any]) -> None:
    process, data = Process(hub.endpoint, tmp_path / "hub"), tmp_path / "data"
    command, environment = process.command((SIGLIP, data)), process.environment()
    both = [subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for _ in range(2)]
    for running in both:
        answer, _ = running.communicate(timeout=240)
        assert worst_cosine(json.loads(answer)[0]["vectors"], references[SIGLIP]) >= 0.999999
    assert len([asked for asked in hub.asked if asked.startswith("GET") and WEIGHTS in asked]) == 1
    assert read_record(cache_paths(SIGLIP, data), SIGLIP) is not None
    assert not list(data.glob("*.tmp"))
    assert not list(data.glob(".*.tmp"))


def test_where_the_data_folder_cannot_be_made_the_model_still_works(hub: StandInHub, tmp_path: Path, references: dict[str, Any]) -> None:
    (tmp_path / "file").write_text("in the way")
    (outcome,) = Process(hub.endpoint, tmp_path / "hub").load((CLIP, tmp_path / "file" / "data"))
    assert worst_cosine(outcome["vectors"], references[CLIP]) >= 0.999999


@pytest.mark.skipif(os.name != "posix", reason="the system has no limit on the size of files")
def test_where_the_cache_does_not_fit_on_the_disk_the_model_still_works(
    hub: StandInHub, first_start: FirstStart, tmp_path: Path, references: dict[str, Any]
) -> None:
    process, data = Process(hub.endpoint, first_start.hub_cache), tmp_path / "data"
    python, *_, order = process.command((CLIP, data))
    code = (
        "import resource, runpy\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "runpy.run_module('tests.encoders.load_once', run_name='__main__')"
    )
    done = subprocess.run(
        [python, "-c", code, order], cwd=ROOT, env=process.environment(), capture_output=True, text=True, check=True, timeout=240
    )
    assert "cache.not_written" in done.stderr
    assert worst_cosine(json.loads(done.stdout)[0]["vectors"], references[CLIP]) >= 0.999999
    assert visible(data) == set()
