"""A program that comes with a model is not run, whatever the model's configuration asks for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mcp_server.encoders.open_clip import load_image_encoder, load_text_encoder
from mcp_server.errors import ModelUnavailableError
from tests.encoders.tiny_models import SIGLIP_CONFIG

PROGRAM = """
open({mark!r}, "w").close()
from transformers import T5Config, T5Tokenizer
class Theirs(T5Tokenizer): pass
class TheirConfig(T5Config): pass
"""


def with_program(tiny: dict[str, Path], folder: Path, text_cfg: dict[str, Any]) -> str:
    """Copy the tiny SigLIP to `folder` with `text_cfg` in it, and a program as its tokenizer and its transformer; return its name."""
    shutil.copytree(tiny["tiny/siglip"], folder)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] = text_cfg
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    (folder / "theirs.py").write_text(PROGRAM.format(mark=str(folder / "has run")))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "Theirs", "auto_map": {"AutoTokenizer": [None, "theirs.Theirs"]}}
    if "hf_model_name" not in text_cfg:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps({"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.TheirConfig"}}))
    return f"local-dir:{folder}"


@pytest.mark.parametrize("asked", [{}, {"trust_remote_code": True}], ids=["not said", "asked for"])
def test_the_program_of_a_tokenizer_is_never_run(
    asked: dict[str, Any], tiny: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cfg = SIGLIP_CONFIG["text_cfg"]
    folder = tmp_path / "model"
    model = with_program(tiny, folder, {**cfg, "tokenizer_kwargs": {**cfg["tokenizer_kwargs"], **asked}})
    with pytest.raises(ModelUnavailableError) as caught:
        load_text_encoder(model, "cpu", tmp_path / "data")
    assert not (folder / "has run").exists()
    assert "such programs are never run. Choose another model." in caught.value.remedy
    assert "[y/N]" not in capfd.readouterr().out  # stdout is the protocol's


@pytest.mark.parametrize("encoder", ["text", "image"])
def test_the_program_of_a_text_tower_is_never_run(
    encoder: str, tiny: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    model = with_program(tiny, folder, {"hf_model_name": str(folder), "hf_tokenizer_name": "tiny/siglip", "context_length": 16})
    with pytest.raises(ModelUnavailableError) as caught:
        load_text_encoder(model, "cpu", tmp_path / "data") if encoder == "text" else load_image_encoder(model, "cpu")
    assert not (folder / "has run").exists()
    assert "such programs are never run. Choose another model." in caught.value.remedy
    assert "[y/N]" not in capfd.readouterr().out
