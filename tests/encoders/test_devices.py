"""Which device and number format a setting means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mcp_server.encoders.open_clip import load_image_encoder, load_text_encoder, pick_device
from mcp_server.encoders.sizing import fitted
from mcp_server.errors import ConfigError
from tests.encoders.test_demo_model import drawn

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
needs_mps = pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no Apple GPU")


@pytest.mark.parametrize("setting", ["gpu", "cuda:", "cuda:x", "cpu:0", "", "cuda:-1", "auto cpu"])
def test_an_unknown_device_is_refused_with_those_that_exist(setting: str) -> None:
    with pytest.raises(ConfigError, match="Use auto, cpu, cuda, cuda:N or mps"):
        pick_device(setting)


@pytest.mark.parametrize("setting", ["cpu", "CPU", " cpu "])
def test_the_cpu_can_always_be_had(setting: str) -> None:
    assert pick_device(setting) == torch.device("cpu")


def test_auto_takes_cuda_then_the_apple_gpu_then_the_cpu() -> None:
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert pick_device("auto").type == expected


def test_a_cuda_device_beyond_the_last_is_refused_with_how_many_there_are() -> None:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    with pytest.raises(ConfigError, match=f"finds {count} CUDA devices"):
        pick_device(f"cuda:{count}")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_asked_for_but_absent_is_an_error_not_the_cpu() -> None:
    with pytest.raises(ConfigError, match="finds 0 CUDA devices"):
        pick_device("cuda")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is an Apple GPU")
def test_an_apple_gpu_asked_for_but_absent_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no Apple GPU"):
        pick_device("mps")


@needs_cuda
def test_on_cuda_the_model_runs_in_float16_and_answers_in_float32(demo_model: str, tmp_path: Path) -> None:
    texts, reference = (load_text_encoder(demo_model, device, tmp_path) for device in ("cuda", "cpu"))
    assert (texts.device.type, texts.dtype) == ("cuda", torch.float16)
    vector = texts.encode_text("a red apple").vector
    assert vector.dtype == np.float32
    assert float(vector @ reference.encode_text("a red apple").vector) >= 0.9999
    on_cuda, on_cpu = (load_image_encoder(demo_model, device) for device in ("cuda", "cpu"))
    pixels = np.stack([fitted(picture, on_cpu.sizing) for picture in drawn(3)])
    assert float((on_cuda.encode_pixels(pixels) * on_cpu.encode_pixels(pixels)).sum(axis=1).min()) >= 0.999


@needs_mps
def test_on_an_apple_gpu_the_model_runs_in_float32(demo_model: str, tmp_path: Path) -> None:
    texts, reference = (load_text_encoder(demo_model, device, tmp_path) for device in ("mps", "cpu"))
    assert (texts.device.type, texts.dtype) == ("mps", torch.float32)
    assert float(texts.encode_text("a red apple").vector @ reference.encode_text("a red apple").vector) >= 0.9999
