"""Names, widths and file names, without loading anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_server.config import DEFAULT_MODEL
from mcp_server.encoders.checkpoints import choose_published, text_tensors
from mcp_server.encoders.models import cache_paths, model_width
from mcp_server.errors import ConfigError
from tests.encoders.conftest import ROOT


@pytest.mark.parametrize(("model", "width"), [(DEFAULT_MODEL, 1152), ("ViT-B-32", 512), ("RN50-quickgelu", 1024)])
def test_the_width_of_a_built_in_model_is_known_without_loading_it(model: str, width: int, tmp_path: Path) -> None:
    assert model_width(model, tmp_path) == width


def test_the_width_of_the_demo_model_is_read_from_its_folder(demo_model: str, tmp_path: Path) -> None:
    assert model_width(demo_model, tmp_path) == 192


@pytest.mark.parametrize(
    ("model", "nearest"),
    [("ViT-SO400M-14-SigLIP-385", DEFAULT_MODEL), ("vit-b-32", "ViT-B-32"), ("ViT-L/14", "ViT-L-14")],
)
def test_an_unknown_model_is_refused_with_the_nearest_names(model: str, nearest: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"Nearest: .*\b{nearest}\b.*hf-hub:"):
        model_width(model, tmp_path)


@pytest.mark.parametrize(
    "content", [None, "{", "[]", '{"model_cfg": {"embed_dim": 5}}', '{"embed_dim": "5", "text_cfg": {}, "vision_cfg": {}}']
)
def test_a_folder_that_is_no_model_is_refused_by_name(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "open_clip_config.json").write_text(content)
    with pytest.raises(ConfigError, match=r"Model = local-dir:"):
        model_width(f"local-dir:{tmp_path}", tmp_path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"embed_dim": 192.0}, "embed_dim must be a positive whole number, not 192.0"),
        ({"text_cfg": []}, "text_cfg must be an object"),
        ({"vision_cfg": None}, "vision_cfg must be an object"),
        ({"text_cfg": {"layers": "4"}}, "layers in text_cfg must be a positive whole number, not '4'"),
        ({"text_cfg": {"context_length": None}}, "context_length in text_cfg must be"),
        ({"text_cfg": {"heads": 0}}, "heads in text_cfg must be"),
        ({"text_cfg": {"width": True}}, "width in text_cfg must be"),
        ({"text_cfg": {"tokenizer_kwargs": ["clean"]}}, "tokenizer_kwargs in text_cfg must be an object"),
        ({"text_cfg": {"norm_kwargs": 5}}, "norm_kwargs in text_cfg must be an object"),
        ({"text_cfg": {"norm_kwargs": {"eps": "x"}}}, "eps of norm_kwargs in text_cfg must be a number, not 'x'"),
        ({"text_cfg": {"act_kwargs": {"approximate": []}}}, "approximate of act_kwargs in text_cfg must be text, not []"),
        ({"text_cfg": {"eos_id": "x"}}, "eos_id in text_cfg must be a whole number, not 'x'"),
    ],
    ids=str,
)
def test_a_setting_of_the_wrong_kind_is_refused_by_name(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"embed_dim": 5, "text_cfg": {}, "vision_cfg": {}, **change}))
    with pytest.raises(ConfigError, match=r"Model = local-dir:.*open_clip_config\.json") as caught:
        model_width(f"local-dir:{tmp_path}", tmp_path)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    "content", ["{", "[]", '"x"', '{"model": "hf-hub:a/b", "embed_dim": null}', '{"model": "hf-hub:a/c", "embed_dim": 5}']
)
def test_a_cache_record_that_cannot_be_trusted_gives_no_width(content: str, tmp_path: Path) -> None:
    cache_paths("hf-hub:a/b", tmp_path).metadata.write_text(content)
    assert model_width("hf-hub:a/b", tmp_path) is None
    cache_paths("hf-hub:a/b", tmp_path).metadata.write_text(json.dumps({"model": "hf-hub:a/b", "embed_dim": 5}))
    assert model_width("hf-hub:a/b", tmp_path) == 5


def test_only_the_default_model_has_the_plain_cache_name(tmp_path: Path) -> None:
    assert cache_paths(DEFAULT_MODEL, tmp_path).weights == tmp_path / "model_text.pth"
    assert cache_paths("ViT-B-32", tmp_path).weights == tmp_path / "model_text.ViT-B-32.pth"


NAMES = st.one_of(st.from_regex(r"(hf-hub:)?[a-zA-Z0-9._/-]{1,12}", fullmatch=True), st.text(min_size=1, max_size=200))


@given(NAMES, NAMES)
def test_two_models_never_share_a_cache_file_and_none_leaves_the_folder(one: str, other: str) -> None:
    folder = Path("data")
    files = [{paths.weights, paths.tokenizer, paths.metadata} for paths in (cache_paths(one, folder), cache_paths(other, folder))]
    assert all(file.parent == folder and len(file.name) < 200 for file in files[0])
    assert one == other or not files[0] & files[1]


def test_weights_trained_with_another_activation_are_not_chosen() -> None:
    published = {"old": {"hf_hub": "a/old/", "quick_gelu": True}, "url": {"url": "x"}, "new": {"hf_hub": "a/new/sub.bin"}}
    assert choose_published("m", published, quick_gelu=False) == ("new", "a/new", ["sub.safetensors", "sub.bin"])
    assert choose_published("m", published, quick_gelu=True)[:2] == ("old", "a/old")
    assert choose_published("m", {**published, "webli": {"hf_hub": "t/w/"}}, quick_gelu=False)[0] == "webli"
    with pytest.raises(ConfigError, match="hf-hub:org/repo"):
        choose_published("m", {"url": {"url": "x"}}, quick_gelu=False)


def test_the_text_tower_is_found_in_both_layouts() -> None:
    assert text_tensors(["visual.a", "text.ln_final.bias", "logit_scale"]) == {"text.ln_final.bias": "ln_final.bias"}
    flat = ["visual.transformer.x", "transformer.x", "token_embedding.weight", "positional_embedding", "text_projection", "logit_scale"]
    assert set(text_tensors(flat)) == {"transformer.x", "token_embedding.weight", "positional_embedding", "text_projection"}


def test_importing_the_loader_and_the_names_imports_nothing_heavy() -> None:
    code = """
import sys
import mcp_server.encoders.loading, mcp_server.encoders.models
heavy = {"torch", "open_clip", "transformers", "tokenizers", "huggingface_hub", "safetensors", "PIL", "filelock"}
heavy = (heavy | {"ftfy", "regex"}) & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60)
