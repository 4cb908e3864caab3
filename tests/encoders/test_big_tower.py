"""The default model at its real size, with random weights: structure, cache round trip, second start. Needs 4 GB of memory and of disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.tokenizer import HFTokenizer
from safetensors.torch import load_file, save_file

from mcp_server.config import DEFAULT_MODEL
from mcp_server.encoders.cache import read_record
from mcp_server.encoders.models import built_in_config, cache_paths, model_width
from tests.encoders.conftest import TEXTS, Process
from tests.encoders.standin_hub import running
from tests.encoders.tiny_models import write_t5_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NOWHERE = "http://127.0.0.1:9"


def text_tower() -> torch.nn.Module:
    """The text tower that open_clip builds inside the whole model, without memory."""
    config = {key: value for key, value in built_in_config(DEFAULT_MODEL).items() if key != "custom_text"}
    with torch.device("meta"):
        return open_clip.CustomTextCLIP(**config).text


@dataclass(frozen=True)
class BigStart:
    data: Path
    checkpoint: Path
    first: dict[str, Any]
    second: dict[str, Any]
    asked: list[str]


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BigStart]:
    """A hub with the default model's real shapes in float16; the first start with it, the second without."""
    repositories = {name: tmp_path_factory.mktemp("repository") for name in ("timm/ViT-SO400M-14-SigLIP-384", "timm/ViT-B-16-SigLIP")}
    weights, tokenizer = repositories.values()
    write_t5_tokenizer(tokenizer, 32_000)
    torch.manual_seed(3)
    state = {f"text.{name}": torch.empty(tensor.shape, dtype=torch.float16) for name, tensor in text_tower().state_dict().items()}
    for name, tensor in state.items():
        if "ln_" in name and name.endswith("weight"):
            tensor.fill_(1)
        elif name.endswith("bias"):
            tensor.zero_()
        else:
            tensor.uniform_(-0.04, 0.04)
    state |= {"logit_scale": torch.tensor(4.7), "logit_bias": torch.tensor(-16.5)}
    save_file(state, weights / "open_clip_model.safetensors")
    del state
    (weights / "open_clip_config.json").write_text(json.dumps({"model_cfg": built_in_config(DEFAULT_MODEL)}))
    data, hub_cache = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("hub")
    with running(repositories) as hub:
        (first,) = Process(hub.endpoint, hub_cache).load((DEFAULT_MODEL, data))
        asked = list(hub.asked)
    (second,) = Process(NOWHERE, tmp_path_factory.mktemp("empty")).load((DEFAULT_MODEL, data))
    yield BigStart(data, weights / "open_clip_model.safetensors", first, second, asked)
    for folder in (weights, hub_cache, data):  # gigabytes that are not worth keeping for a look afterwards
        shutil.rmtree(folder)


def test_the_default_name_fetches_siglips_weights_and_tokenizer_and_nothing_pickled(big: BigStart) -> None:
    assert "GET timm/ViT-SO400M-14-SigLIP-384/resolve/main/open_clip_model.safetensors" in big.asked
    assert [asked for asked in big.asked if asked.startswith("GET timm/ViT-B-16-SigLIP") and asked.endswith("tokenizer.json")]
    assert not [asked for asked in big.asked if asked.endswith((".bin", ".pth", ".pt"))]


def test_the_vectors_are_1152_wide_units_and_equal_open_clips_own(big: BigStart) -> None:
    vectors = np.asarray(big.first["vectors"])
    assert vectors.shape == (len(TEXTS), 1152)
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-6
    state = {name.removeprefix("text."): tensor.float() for name, tensor in load_file(big.checkpoint).items() if name.startswith("text.")}
    tower = text_tower()
    tower.load_state_dict(state, strict=True, assign=True)
    tokenizer = HFTokenizer(str(tokenizer_folder(big)), context_length=64, clean="canonicalize")
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(tower.eval()(tokenizer(list(TEXTS))), dim=-1).numpy()
    assert float((vectors * expected).sum(axis=1).min()) >= 0.999999


def test_the_cache_has_the_plain_name_and_describes_the_whole_tower(big: BigStart) -> None:
    assert {file.name for file in big.data.iterdir() if file.suffix != ".lock"} == {
        "model_text.pth",
        "model_text.tokenizer.json",
        "model_text.json",
    }
    record = read_record(cache_paths(DEFAULT_MODEL, big.data), DEFAULT_MODEL)
    assert record is not None
    assert (record.source, record.embed_dim, record.context_length, record.tensors) == ("webli", 1152, 64, 330)
    assert (record.tokenizer.clean, record.tokenizer.pad_id, record.tokenizer.pad_token) == ("canonicalize", 1, "</s>")
    assert record.logit_bias == -16.5
    assert model_width(DEFAULT_MODEL, big.data) == 1152
    state = torch.load(big.data / "model_text.pth", weights_only=True, mmap=True)
    assert sum(tensor.numel() for tensor in state.values()) == 449_734_896


def test_the_second_start_gives_the_same_vectors_without_hub_or_vision_tower(big: BigStart) -> None:
    assert np.array_equal(big.first["vectors"], big.second["vectors"])
    assert big.second["connections"] == []
    assert not [kind for kind in big.second["built"] if kind.startswith(("Timm", "Vision"))]


def tokenizer_folder(big: BigStart) -> Path:
    return next(folder for folder in big.checkpoint.parent.parent.iterdir() if (folder / "tokenizer.json").is_file())
