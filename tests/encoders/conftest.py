"""Tiny checkpoints, a stand-in hub that serves them, and the demo's model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.encoders.standin_hub import StandInHub, running
from tests.encoders.tiny_models import CLIP_CONFIG, SIGLIP_CONFIG, write_checkpoint, write_t5_tokenizer

ROOT = Path(__file__).resolve().parents[2]
SIGLIP = "hf-hub:tiny/siglip"
CLIP = "hf-hub:tiny/clip"
TEXTS = ("a photo of a dog", "Red_Apple, on the beach!", "café naïve ﬁsh 12 & <b>3</b>", "the cat in the tree house " * 40)


@dataclass(frozen=True)
class Process:
    """Runs `load_once` against one hub with one Hugging Face cache."""

    endpoint: str
    hub_cache: Path

    def command(self, *loads: tuple[str, Path]) -> list[str]:
        order = {"loads": [[model, str(data)] for model, data in loads], "texts": TEXTS}
        return [sys.executable, "-W", "error", "-m", "tests.encoders.load_once", json.dumps(order)]

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        return {**kept, "HF_ENDPOINT": self.endpoint, "HF_HOME": str(self.hub_cache), "HF_HUB_DISABLE_TELEMETRY": "1", **more}

    def load(self, *loads: tuple[str, Path], **environment: str) -> list[dict[str, Any]]:
        """Load in turn; what the process writes to stdout must be its answer and nothing else."""
        done = subprocess.run(
            self.command(*loads), cwd=ROOT, env=self.environment(**environment), capture_output=True, text=True, check=False, timeout=240
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)


@dataclass(frozen=True)
class FirstStart:
    """Both tiny models fetched and cached by one process."""

    data: Path
    hub_cache: Path
    outcomes: dict[str, dict[str, Any]]
    asked: list[str]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Repository name to folder."""
    folder = tmp_path_factory.mktemp("checkpoints")
    write_checkpoint(folder / "siglip", SIGLIP_CONFIG, seed=1, custom_text=True)
    write_t5_tokenizer(folder / "siglip", 400)
    write_checkpoint(folder / "clip", CLIP_CONFIG, seed=2, custom_text=False)
    return {"tiny/siglip": folder / "siglip", "tiny/clip": folder / "clip"}


@pytest.fixture(scope="session")
def references(tiny: dict[str, Path]) -> dict[str, list[list[float]]]:
    """What open_clip's own pipeline makes of TEXTS."""
    import open_clip
    import torch

    answers: dict[str, list[list[float]]] = {}
    for name, folder in tiny.items():
        model = open_clip.create_model(f"local-dir:{folder}", force_custom_text=True).eval()
        tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(list(TEXTS))
        with torch.inference_mode():
            answers[f"hf-hub:{name}"] = torch.nn.functional.normalize(model.encode_text(tokens), dim=-1).tolist()
    return answers


@pytest.fixture
def hub(tiny: dict[str, Path]) -> Iterator[StandInHub]:
    """A hub that serves the tiny models, gone after the test."""
    with running(tiny) as served:
        yield served


@pytest.fixture(scope="session")
def first_start(tiny: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> FirstStart:
    """The first start of both models; the hub is gone afterwards."""
    data, hub_cache = tmp_path_factory.mktemp("state") / "data", tmp_path_factory.mktemp("hub")
    with running(tiny) as served:
        siglip, clip = Process(served.endpoint, hub_cache).load((SIGLIP, data), (CLIP, data))
        return FirstStart(data, hub_cache, {SIGLIP: siglip, CLIP: clip}, list(served.asked))


@pytest.fixture(scope="session")
def demo_model() -> str:
    """The bundled model."""
    return f"local-dir:{ROOT / 'data' / 'demo' / 'model'}"
