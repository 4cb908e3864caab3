"""The bundled model through our encoders is open_clip's own pipeline."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mcp_server.encoders.open_clip import OpenClipImages, OpenClipText, load_image_encoder, load_text_encoder
from mcp_server.encoders.sizing import fitted
from mcp_server.errors import ConfigError, ModelUnavailableError

TEXTS = ["a red apple", "flag of Norway", "Straße & <i>café</i>", "🐙 octopus", "ＦＵＬＬ width", "x", "1,000 dogs… " * 30, "a_b-c's d"]


@pytest.fixture(scope="module")
def whole(demo_model: str) -> tuple[Any, Any, Any]:
    model, preprocess = open_clip.create_model_from_pretrained(demo_model, force_custom_text=True)
    return model.eval(), preprocess, open_clip.get_tokenizer(demo_model)


@pytest.fixture(scope="module")
def texts(demo_model: str, tmp_path_factory: pytest.TempPathFactory) -> OpenClipText:
    return load_text_encoder(demo_model, "cpu", tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def images(demo_model: str) -> OpenClipImages:
    return load_image_encoder(demo_model, "cpu")


def drawn(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(5)
    pictures: list[Image.Image] = []
    for position in range(count):
        picture = Image.new("RGB", tuple(int(side) for side in rng.integers(20, 300, 2)), tuple(int(c) for c in rng.integers(0, 256, 3)))
        ImageDraw.Draw(picture).ellipse((2, 2, 18, 10 + position % 9), fill=tuple(int(c) for c in rng.integers(0, 256, 3)))
        pictures.append(picture)
    return pictures


def encode(images: OpenClipImages, pictures: list[Image.Image]) -> NDArray[np.float32]:
    return images.encode_pixels(np.stack([fitted(picture, images.sizing) for picture in pictures]))


@pytest.mark.parametrize("text", TEXTS)
def test_text_vectors_equal_open_clips_own(text: str, texts: OpenClipText, whole: tuple[Any, Any, Any]) -> None:
    model, _, tokenizer = whole
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(model.encode_text(tokenizer([text])), dim=-1)[0].numpy()
    assert float(texts.encode_text(text).vector @ expected) >= 0.999999


def test_image_vectors_equal_open_clips_own_in_any_batch(images: OpenClipImages, whole: tuple[Any, Any, Any]) -> None:
    model, preprocess, _ = whole
    pictures = drawn(70)
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(model.encode_image(torch.stack([preprocess(picture) for picture in pictures])), dim=-1)
    got = encode(images, pictures)
    assert got.shape == (70, 192)
    assert got.dtype == np.float32
    assert float((got * expected.numpy()).sum(axis=1).min()) >= 0.999999
    assert float((encode(images, pictures[3:4])[0] * got[3]).sum()) >= 0.999999
    assert np.abs(np.linalg.norm(got, axis=1) - 1).max() < 1e-6


def test_no_pictures_give_no_vectors(images: OpenClipImages) -> None:
    assert images.encode_pixels(np.empty((0, 64, 64, 3), np.uint8)).shape == (0, 192)


def test_text_vectors_are_float32_units_of_the_models_width(texts: OpenClipText) -> None:
    vector = texts.encode_text("a red apple").vector
    assert (vector.shape, vector.dtype, texts.width) == ((192,), np.float32, 192)
    assert abs(float(np.linalg.norm(vector)) - 1) < 1e-6


def test_on_the_cpu_the_model_runs_in_float32(texts: OpenClipText, images: OpenClipImages) -> None:
    assert (texts.device.type, texts.dtype) == ("cpu", torch.float32)
    assert (images.device.type, images.dtype) == ("cpu", torch.float32)
    assert texts.logit_scale is not None
    assert texts.logit_scale > 1


def test_a_text_longer_than_the_model_reads_is_cut_and_flagged(texts: OpenClipText) -> None:
    short, long = texts.encode_text("apple " * 30), texts.encode_text("apple " * 31)
    assert (short.truncated, long.truncated, short.token_limit) == (False, True, 32)
    assert float(short.vector @ long.vector) >= 0.999999


def test_a_drawing_is_nearest_to_its_own_words(texts: OpenClipText, images: OpenClipImages) -> None:
    flag = Image.new("RGB", (120, 80), "white")
    draw = ImageDraw.Draw(flag)
    draw.rectangle((0, 0, 39, 79), fill=(0, 85, 164))
    draw.rectangle((80, 0, 119, 79), fill=(239, 65, 53))
    heart = Image.new("RGB", (100, 100), "white")
    draw = ImageDraw.Draw(heart)
    draw.ellipse((10, 15, 52, 55), fill="red")
    draw.ellipse((48, 15, 90, 55), fill="red")
    draw.polygon([(13, 45), (87, 45), (50, 92)], fill="red")
    pictures = encode(images, [flag, heart])
    words = np.stack([texts.encode_text(text).vector for text in ("flag of France", "red heart")])
    assert (pictures @ words.T).argmax(axis=1).tolist() == [0, 1]


def test_threads_that_encode_at_once_get_the_same_vectors(texts: OpenClipText) -> None:
    alone = {text: texts.encode_text(text).vector for text in TEXTS}
    barrier = threading.Barrier(len(TEXTS))
    together: dict[str, np.ndarray] = {}

    def encode(text: str) -> None:
        barrier.wait()
        together[text] = texts.encode_text(text).vector

    threads = [threading.Thread(target=encode, args=(text,)) for text in TEXTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.allclose(alone[text], together[text], atol=1e-6) for text in TEXTS)


def test_a_folder_without_weights_is_refused_rather_than_filled_at_random(demo_model: str, tmp_path: Path) -> None:
    config = tmp_path / "open_clip_config.json"
    config.write_text((tmp_path.__class__(demo_model.removeprefix("local-dir:")) / config.name).read_text())
    for load in (
        lambda: load_text_encoder(f"local-dir:{tmp_path}", "cpu", tmp_path),
        lambda: load_image_encoder(f"local-dir:{tmp_path}", "cpu"),
    ):
        with pytest.raises(ConfigError, match=r"no weights in that folder"):
            load()
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"cut short")
    with pytest.raises(ModelUnavailableError, match="could not be loaded") as caught:
        load_text_encoder(f"local-dir:{tmp_path}", "cpu", tmp_path)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    ("part", "change", "told"),
    [
        ("text_cfg", {"pool_type": "x"}, "does not fit open_clip"),
        ("text_cfg", {"heads": 3}, "divisible"),
        ("text_cfg", {"mlp_ratio": None}, "does not fit open_clip"),
        ("model_cfg", {"multimodal_cfg": []}, "does not fit open_clip"),
        ("vision_cfg", {"layers": "x"}, "does not fit open_clip"),
        ("preprocess_cfg", {"mean": "x"}, "could not be loaded"),
        ("preprocess_cfg", {"fill_color": "white"}, "could not be loaded"),
    ],
    ids=str,
)
def test_settings_that_no_model_has_are_refused_with_a_sentence(
    part: str, change: dict[str, Any], told: str, demo_model: str, tmp_path: Path
) -> None:
    folder = Path(demo_model.removeprefix("local-dir:"))
    config = json.loads((folder / "open_clip_config.json").read_text())
    (config if part in config else config["model_cfg"])[part].update(change)
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    shutil.copy(folder / "open_clip_model.safetensors", tmp_path)
    with pytest.raises(ModelUnavailableError, match="could not be loaded on the server") as pictures:
        load_image_encoder(f"local-dir:{tmp_path}", "cpu")
    assert told in pictures.value.remedy
    if part in ("text_cfg", "model_cfg"):
        with pytest.raises(ModelUnavailableError, match="could not be loaded on the server") as words:
            load_text_encoder(f"local-dir:{tmp_path}", "cpu", tmp_path)
        assert told in words.value.remedy


@pytest.mark.parametrize("content", ["nothing", "words", "a program"])
def test_weights_that_are_no_checkpoint_are_refused_with_a_sentence(content: str, demo_model: str, tmp_path: Path) -> None:
    shutil.copy(Path(demo_model.removeprefix("local-dir:")) / "open_clip_config.json", tmp_path)
    weights = tmp_path / "open_clip_pytorch_model.bin"
    if content == "a program":
        torch.save(torch.nn.Linear(2, 2), weights)
    else:
        weights.write_text("" if content == "nothing" else "version https://git-lfs.github.com/spec/v1")
    for load in (
        lambda: load_text_encoder(f"local-dir:{tmp_path}", "cpu", tmp_path),
        lambda: load_image_encoder(f"local-dir:{tmp_path}", "cpu"),
    ):
        with pytest.raises(ModelUnavailableError, match="could not be loaded") as caught:
            load()
        assert "open_clip_pytorch_model.bin is damaged or no file of weights" in caught.value.remedy


def test_a_picture_thinner_than_one_pixel_of_the_model_still_has_a_vector(images: OpenClipImages) -> None:
    vectors = encode(images, [Image.new("RGB", size, "red") for size in ((10, 3_000), (4_000, 1), (1, 1))])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
