"""The tower without open_clip gives open_clip's vectors, for every configuration it takes; it refuses the others."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.factory import _find_checkpoint_in_dir
from open_clip.model import _build_text_tower
from safetensors.torch import load_file, save_file

from mcp_server.encoders import models
from mcp_server.encoders.cache import read_record
from mcp_server.encoders.checkpoints import weights_in_folder
from mcp_server.encoders.lean import LeanTower, NotLeanError, expected_sizes, shape_of
from mcp_server.encoders.library import SAME_VECTOR
from mcp_server.encoders.models import cache_paths
from mcp_server.encoders.open_clip import load_text_encoder
from mcp_server.encoders.towers import lean_tower
from mcp_server.errors import ModelUnavailableError
from tests.encoders.conftest import CLIP, ROOT, TEXTS, FirstStart, Process
from tests.encoders.standin_hub import running
from tests.encoders.tiny_models import CLIP_CONFIG, SIGLIP_CONFIG, write_checkpoint

SMALL: dict[str, Any] = {"context_length": 12, "vocab_size": 90, "width": 32, "heads": 4, "layers": 3}
KINDS: dict[str, dict[str, Any]] = {
    "clip": {},
    "quick gelu": {"quick_gelu": True},
    "tanh gelu": {"act_kwargs": {"approximate": "tanh"}},
    "not causal": {"no_causal_mask": True},
    "first": {"pool_type": "first"},
    "last": {"pool_type": "last"},
    "eos": {"pool_type": "eos", "eos_id": 7},
    "first, not causal": {"pool_type": "first", "no_causal_mask": True},
    "eos, not causal": {"pool_type": "eos", "eos_id": 7, "no_causal_mask": True},
    "projection with bias": {"proj_bias": True},
    "no projection": {"proj_type": "none", "embed_dim": 32},
    "scaled layers": {"ls_init_value": 0.5},
    "siglip": {"pool_type": "last", "no_causal_mask": True, "proj_bias": True, "norm_kwargs": {"eps": 1e-6}, "mlp_ratio": 3.7362},
    "coarse eps": {"norm_kwargs": {"eps": 0.1}},
    "one head": {"heads": 1},
}


def config(**settings: Any) -> dict[str, Any]:
    top = {name: settings.pop(name) for name in ("quick_gelu", "embed_dim", "multimodal_cfg") if name in settings}
    return {"embed_dim": 24, **top, "text_cfg": {**SMALL, **settings}}


def open_clips_own(described: dict[str, Any], seed: int) -> torch.nn.Module:
    """open_clip's tower with every tensor drawn at random, those that begin as zeros or ones too."""
    torch.manual_seed(seed)
    tower = _build_text_tower(described["embed_dim"], dict(described["text_cfg"]), bool(described.get("quick_gelu")))
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim > 1 else 0.1) + (parameter if parameter.ndim == 1 else 0))
    return tower.eval()


def some_ids(described: dict[str, Any], seed: int) -> torch.Tensor:
    length, vocabulary = described["text_cfg"]["context_length"], described["text_cfg"]["vocab_size"]
    ids = torch.randint(1, vocabulary, (8, length), generator=torch.Generator().manual_seed(seed))
    ids[torch.arange(8), torch.arange(8) + 2] = 7
    ids[1, 5:] = 0
    return ids


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest 1 - cosine of any pair."""
    return float((1 - torch.nn.functional.cosine_similarity(ours.double(), theirs.double(), dim=-1)).max())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tower_gives_open_clips_vectors(kind: str) -> None:
    described = config(**KINDS[kind])
    theirs = open_clips_own(described, seed=4)
    ours = LeanTower(shape_of(described), theirs.state_dict())
    ids = some_ids(described, seed=5)
    with torch.inference_mode():
        expected, got = theirs(ids), ours(ids)
        assert apart(got, expected) < 1e-9
        assert torch.allclose(got, expected, rtol=1e-4, atol=1e-4)
        assert apart(ours(ids[3:4]), expected[3:4]) < 1e-9


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_in_float16_it_is_as_near_as_float16_is(kind: str) -> None:
    described = config(**KINDS[kind])
    theirs = open_clips_own(described, seed=6)
    ours = LeanTower(shape_of(described), theirs.state_dict())
    ours.to(torch.float16, torch.device("cpu"))
    ids = some_ids(described, seed=7)
    with torch.inference_mode():
        assert ours(ids).dtype == torch.float16
        assert apart(ours(ids), theirs(ids)) < 1e-4


def test_all_of_open_clips_plain_models_are_known_and_their_tensors_named_alike() -> None:
    taken, refused = set[str](), list[str]()
    for file in sorted(Path(open_clip.__file__).parent.glob("model_configs/*.json")):
        described = models.model_cfg_in(file, file.stem)
        if described["text_cfg"].get("hf_model_name") or "multimodal_cfg" in described:
            refused.append(file.stem)
            continue
        text = {name: value for name, value in described["text_cfg"].items() if not name.startswith(("hf_tokenizer", "tokenizer"))}
        described = {**described, "text_cfg": {**text, "layers": 1}}
        key = json.dumps([described["text_cfg"], described["embed_dim"]], sort_keys=True)
        if key in taken:
            continue
        taken.add(key)
        with torch.device("meta"):
            theirs = _build_text_tower(described["embed_dim"], dict(described["text_cfg"]), bool(described.get("quick_gelu")))
        assert expected_sizes(shape_of(described)) == {name: tuple(tensor.shape) for name, tensor in theirs.state_dict().items()}, file.stem
    assert len(taken) > 30
    assert len(refused) < 20


@pytest.mark.parametrize(
    "settings",
    [
        {"embed_cls": True},
        {"output_tokens": True},
        {"final_ln_after_pool": True},
        {"hf_model_name": "roberta-base"},
        {"block_type": "custom"},
        {"qk_norm": True},
        {"scale_fc": True},
        {"pool_type": "none"},
        {"pool_type": "mean"},
        {"proj_type": "mlp"},
        {"proj_type": "none"},
        {"norm_kwargs": {"eps": 1e-6, "bias": False}},
        {"act_kwargs": {"approximate": "sigmoid"}},
        {"act_kwargs": {"inplace": True}},
        {"quick_gelu": True, "act_kwargs": {"approximate": "tanh"}},
        {"multimodal_cfg": {}},
        {"heads": 5},
        {"from_next_year": 1},
    ],
    ids=str,
)
def test_what_is_not_known_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(NotLeanError):
        shape_of(config(**settings))


@pytest.mark.parametrize("change", ["missing", "one too many", "another size"])
def test_weights_that_do_not_fit_are_refused(change: str) -> None:
    weights = {name: torch.zeros(size) for name, size in expected_sizes(shape_of(config())).items()}
    if change == "missing":
        del weights["ln_final.bias"]
    else:
        weights["visual" if change == "one too many" else "ln_final.bias"] = torch.zeros(3)
    with pytest.raises(NotLeanError, match=r"ln_final\.bias|visual"):
        LeanTower(shape_of(config()), weights)


def test_the_demo_is_lean_and_gives_open_clips_vectors(demo_model: str, tmp_path: Path) -> None:
    tower = lean_tower(demo_model, tmp_path)
    model = open_clip.create_model(demo_model, force_custom_text=True).eval()
    tokenizer = open_clip.get_tokenizer(demo_model)
    with torch.inference_mode():
        ours = torch.cat([tower.forward(torch.tensor([tower.tokenize(text).ids])) for text in TEXTS])
        assert apart(ours, model.encode_text(tokenizer(list(TEXTS)))) < SAME_VECTOR / 1000
    assert tower.logit_scale == pytest.approx(float(model.logit_scale.detach().exp()))


def test_weights_stored_in_float16_are_read_up_to_float32(tiny: dict[str, Path], tmp_path: Path) -> None:
    whole = load_file(tiny["tiny/clip"] / "open_clip_model.safetensors")
    save_file({name: tensor.half() for name, tensor in whole.items()}, tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_text((tiny["tiny/clip"] / "open_clip_config.json").read_text())
    model = open_clip.create_model(f"local-dir:{tmp_path}", force_custom_text=True).eval()
    tower = lean_tower(f"local-dir:{tmp_path}", tmp_path)
    with torch.inference_mode():
        ours = torch.cat([tower.forward(torch.tensor([tower.tokenize(text).ids])) for text in TEXTS])
        theirs = model.encode_text(open_clip.tokenize(list(TEXTS), context_length=20))
    assert ours.dtype == torch.float32
    assert apart(ours, theirs) < SAME_VECTOR / 1000


def test_a_start_without_open_clip_imports_none_of_it(first_start: FirstStart, demo_model: str, tmp_path: Path) -> None:
    loads = [(model, first_start.data) for model in first_start.outcomes] + [(demo_model, tmp_path)]
    for outcome in Process("http://127.0.0.1:9", tmp_path).load(*loads):
        assert "error" not in outcome
        assert outcome["imported"] == []


def test_a_cache_that_is_not_vouched_for_is_read_through_open_clip(
    first_start: FirstStart, references: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = cache_paths(CLIP, tmp_path), cache_paths(CLIP, first_start.data)
    record = json.loads(theirs.metadata.read_text())
    assert record.pop("lean") is True
    ours.weights.write_bytes(theirs.weights.read_bytes())
    ours.metadata.write_text(json.dumps(record))
    caplog.set_level(logging.INFO)
    encoder = load_text_encoder(CLIP, "cpu", tmp_path)
    assert len([line for line in caplog.messages if line.startswith("model.through_open_clip")]) == 1
    vectors = np.stack([encoder.encode_text(text).vector for text in TEXTS])
    assert float((vectors * np.asarray(references[CLIP])).sum(axis=1).min()) >= 0.999999


def test_a_model_that_is_not_plain_is_cached_without_vouching_and_still_right(tmp_path: Path) -> None:
    odd = {**CLIP_CONFIG, "text_cfg": {**CLIP_CONFIG["text_cfg"], "scale_fc": True}}
    write_checkpoint(tmp_path / "odd", odd, seed=3, custom_text=True)
    with running({"tiny/odd": tmp_path / "odd"}) as hub:
        first, second = Process(hub.endpoint, tmp_path / "hub").load(("hf-hub:tiny/odd", tmp_path), ("hf-hub:tiny/odd", tmp_path))
    record = read_record(cache_paths("hf-hub:tiny/odd", tmp_path), "hf-hub:tiny/odd")
    assert record is not None
    assert not record.lean
    model = open_clip.create_model(f"local-dir:{tmp_path / 'odd'}", force_custom_text=True).eval()
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(model.encode_text(open_clip.tokenize(list(TEXTS), context_length=20)), dim=-1).numpy()
    for outcome in (first, second):
        assert float((np.asarray(outcome["vectors"]) * expected).sum(axis=1).min()) >= 0.999999


@pytest.mark.parametrize(
    "names",
    [
        ("model.safetensors", "ema.safetensors", "pytorch_model.bin"),
        ("pytorch_model.bin", "adapter.safetensors"),
        ("open_clip_pytorch_model.bin", "model.safetensors", "pytorch_model.bin"),
        ("open_clip_pytorch_model.pth", "a.bin", "pytorch_model.pth"),
        ("model.pth", "a.bin"),
        ("b.safetensors", "a.bin", "c.safetensors", "0.pth"),
        ("a.pth", "b.bin"),
    ],
    ids=" ".join,
)
def test_of_several_weights_in_a_folder_those_are_read_that_open_clip_reads(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in ("open_clip_config.json", *names):
        (tmp_path / name).touch()
    assert str(weights_in_folder(f"local-dir:{tmp_path}")) == _find_checkpoint_in_dir(tmp_path)


def test_a_folder_with_another_tokenizer_goes_through_open_clip(tiny: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(NotLeanError, match="tokenizer"):
        lean_tower(f"local-dir:{tiny['tiny/siglip']}", tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [('{"version": "1.0", "added_tokens": [], "model": {"type": "FromNextYear"}}', "Exception: "), ("[]", "Error: "), ("{}", "Error: ")],
)
def test_a_tokenizer_that_cannot_be_read_is_refused_with_a_sentence(
    content: str, reason: str, tiny: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(tiny["tiny/siglip"], tmp_path, dirs_exist_ok=True)
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelUnavailableError, match="could not be loaded") as caught:
        load_text_encoder(f"local-dir:{tmp_path}", "cpu", tmp_path)
    assert reason in caught.value.remedy


def test_every_plain_configuration_of_the_tests_is_lean() -> None:
    assert shape_of(SIGLIP_CONFIG).pool_type == "last"
    assert shape_of(CLIP_CONFIG).output == 40
    demo = models.model_cfg_in(ROOT / "data" / "demo" / "model" / "open_clip_config.json", "demo")
    assert shape_of(demo).heads == 5
