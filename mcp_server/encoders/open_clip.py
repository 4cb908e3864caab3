"""open_clip models: text and pictures to unit vectors. Importing this imports torch; open_clip itself only where it cannot be spared.

A built-in name or `hf-hub:` model is fetched once; its text tower is kept in the data folder (see `cache`) and read from there afterwards,
without the hub and without building the vision tower. A `local-dir:` model is read in place. Texts are encoded without open_clip where its
configuration is a plain one (see `lean`); first starts, other configurations and pictures need it (see `library`).
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

# Read when torch is loaded. By default its threads wait for each other in a loop, and on a computer with other work that keeps the one they
# wait for from running: the default model then takes three times as long, the demo's hundreds of milliseconds instead of two.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import nn

from mcp_server.config import LOCAL_DIR
from mcp_server.domain.search import EncodedText
from mcp_server.encoders import failures
from mcp_server.encoders.cache import TowerRecord
from mcp_server.encoders.checkpoints import locate
from mcp_server.encoders.lean import NotLeanError
from mcp_server.encoders.sizing import Sizing
from mcp_server.encoders.tokens import Tokens
from mcp_server.encoders.towers import TextTower, lean_tower
from mcp_server.errors import ConfigError, EncoderError

logger = logging.getLogger(__name__)

_BATCH = {"cuda": 128, "mps": 64, "cpu": 32}
"""Pictures in one call: enough to keep the device busy; on a CPU larger ones only take memory."""
_LOAD_FAILURES = (RuntimeError, OSError, ValueError, ImportError, SafetensorError)


class OpenClipText:
    """The text tower of an open_clip model. Safe to call from several threads: they take turns.

    Attributes:
        width: D, the length of every vector.
        device, dtype: where and in what the tower runs; float16 on CUDA, else float32. Vectors are float32 either way.
        logit_scale: factor on the cosine before softmax or sigmoid, None when the checkpoint has none.
        logit_bias: added after it (SigLIP), None when the checkpoint has none.
    """

    def __init__(self, tower: TextTower, device: torch.device) -> None:
        self.width = tower.width
        self.device = device
        self.dtype = torch.float16 if device.type == "cuda" else torch.float32
        self.logit_scale = tower.logit_scale
        self.logit_bias = tower.logit_bias
        self._tokenize = tower.tokenize
        self._vocabulary = tower.vocabulary
        tower.move(self.dtype, device)
        self._forward = tower.forward
        self._lock = threading.Lock()

    def encode_text(self, text: str) -> EncodedText:
        """Return the vector of `text`, which is not blank.

        Raises:
            EncoderError: the model failed or gave no direction; the text is fine.
        """
        tokens = self._tokenize(text)
        if self._vocabulary is not None and max(tokens.ids) >= self._vocabulary:  # on CUDA this would break the whole process
            raise EncoderError(
                "The text encoder's tokenizer does not fit its model on the server. Tell the user to check the server's log."
            )
        try:
            with self._lock, torch.inference_mode():
                output = self._forward(torch.tensor([tokens.ids], device=self.device))
                vector = output[0].to(torch.float32).cpu().numpy()
        except RuntimeError as error:
            logger.exception("encode.failed device=%s", self.device)
            raise EncoderError("The text encoder failed on the server. Your arguments are fine; try again or tell the user.") from error
        return EncodedText(_unit(vector[None])[0], tokens.truncated, len(tokens.ids))

    def cache_key(self, text: str) -> Tokens:
        """Return what the model sees of `text`: texts with equal keys have equal answers."""
        return self._tokenize(text)


class OpenClipImages:
    """The vision tower of an open_clip model with the model's own preprocessing. Safe to call from several threads: they take turns.

    Attributes:
        width: D, the length of every vector.
        sizing: how pictures are cut for it.
        device, dtype: where and in what the tower runs; float16 on CUDA, else float32.
        batch: pictures in one call that suit the device.
    """

    def __init__(self, model: nn.Module, width: int, device: torch.device) -> None:
        settings = cast("Any", model.visual).preprocess_cfg
        self.width = width
        self.sizing = _sizing(settings)
        self.device = device
        self.dtype = torch.float16 if device.type == "cuda" else torch.float32
        self.batch = _BATCH[device.type]
        self._encode = cast("Callable[[torch.Tensor], torch.Tensor]", model.encode_image)
        self._mean, self._std = (_per_channel(settings[name], device) for name in ("mean", "std"))
        self._lock = threading.Lock()

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return (B, D) float32 unit vectors of `pixels`, (B, height, width, 3) as `sizing` says, in order. B may be 0.

        A picture of which the model makes no finite vector gets a row of zeros. Too many pictures for the device's memory go in halves.

        Raises:
            EncoderError: the model failed, or one picture alone is too much for the memory.
        """
        if len(pixels) == 0:
            return np.empty((0, self.width), np.float32)
        try:
            with self._lock, torch.inference_mode():
                batch = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).to(torch.float32)
                batch = ((batch / 255 - self._mean) / self._std).to(self.dtype).contiguous()
                vectors = self._encode(batch).to(torch.float32).cpu().numpy()
        except torch.OutOfMemoryError as error:
            if len(pixels) == 1:
                raise EncoderError("The device has not enough memory for one picture. Set --device cpu, or a smaller model.") from error
            half = len(pixels) // 2
            return np.concatenate([self.encode_pixels(pixels[:half]), self.encode_pixels(pixels[half:])])
        except RuntimeError as error:
            logger.exception("encode.images_failed device=%s pictures=%d", self.device, len(pixels))
            raise EncoderError(f"The image encoder failed on {len(pixels)} pictures ({type(error).__name__}).") from error
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        good = np.isfinite(lengths) & (lengths > 0)
        return np.where(good, vectors / np.where(good, lengths, 1), 0).astype(np.float32)


def _sizing(settings: Mapping[str, Any]) -> Sizing:
    size = settings["size"]
    height, width = (size, size) if isinstance(size, int) else (int(size[0]), int(size[-1]))
    interpolation = "bilinear" if settings.get("interpolation") == "bilinear" else "bicubic"  # open_clip's "random" is bicubic here
    return Sizing(height, width, settings.get("resize_mode") or "shortest", interpolation, int(settings.get("fill_color") or 0))


def _per_channel(numbers: Any, device: torch.device) -> torch.Tensor:
    three = list(numbers) if isinstance(numbers, list | tuple) else [numbers] * 3
    return torch.tensor(three, dtype=torch.float32, device=device)[None, :, None, None]


def pick_device(setting: str) -> torch.device:
    """Return the device that `setting` (auto, cpu, cuda, cuda:N or mps) means on this machine; auto is CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: no such setting, or no such device here.
    """
    wanted = setting.strip().lower()
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", wanted):
        raise ConfigError(f"ModelDevice = {setting!r} is not a device. Use auto, cpu, cuda, cuda:N or mps.")
    cuda = torch.cuda.device_count() if wanted.startswith(("auto", "cuda")) and torch.cuda.is_available() else 0
    if wanted.startswith("cuda") and int(wanted.partition(":")[2] or 0) >= cuda:
        raise ConfigError(f"ModelDevice = {setting}: PyTorch {torch.__version__} finds {cuda} CUDA devices here. Use auto or cpu.")
    mps = wanted in ("auto", "mps") and torch.backends.mps.is_available()
    if wanted == "mps" and not mps:
        raise ConfigError(f"ModelDevice = mps: PyTorch {torch.__version__} finds no Apple GPU here. Use auto or cpu.")
    if wanted != "auto":
        return torch.device(wanted)
    return torch.device("cuda" if cuda else "mps" if mps else "cpu")


def load_text_encoder(model: str, device: str, data_folder: Path, checked: TowerRecord | None = None) -> OpenClipText:
    """Return the text encoder of `model`, from the cache in `data_folder` if it is there, else made and cached.

    Args:
        model: open_clip name, `hf-hub:org/repo`, or `local-dir:` and an absolute folder (read in place, never cached).
        device: as for `pick_device`.
        data_folder: made if missing; where it cannot be written the encoder works, uncached.
        checked: what `checked_record` just found, to spare reading the cache through twice.

    Raises:
        ConfigError: no such model or device.
        ModelUnavailableError: the model cannot be downloaded or read, or another tool's pickled module stands where the cache belongs.
    """
    place = pick_device(device)
    try:
        encoder = OpenClipText(_tower(model, data_folder, checked), place)
    except _LOAD_FAILURES as error:
        raise failures.not_loaded(model, error) from error
    logger.info("model.ready model=%s device=%s dtype=%s width=%d", model, place, encoder.dtype, encoder.width)
    return encoder


def _tower(model: str, data_folder: Path, checked: TowerRecord | None) -> TextTower:
    try:
        return lean_tower(model, data_folder, checked)
    except NotLeanError as error:
        logger.info("model.through_open_clip model=%s reason=%s", model, error)
    from mcp_server.encoders.library import tower_from_cache_or_hub, tower_from_folder

    return tower_from_folder(model) if model.startswith(LOCAL_DIR) else tower_from_cache_or_hub(model, data_folder, checked)


def load_image_encoder(model: str, device: str) -> OpenClipImages:
    """Return the image encoder of `model`: the full checkpoint, downloaded if need be. Arguments and errors as `load_text_encoder`."""
    place = pick_device(device)
    precision = "fp16" if place.type == "cuda" else "fp32"
    try:
        from mcp_server.encoders.library import create_whole, published

        source = locate(model, published)
        whole = cast("nn.Module", create_whole(source, precision=precision, device=place, return_transform=False))
        del whole.text  # half the memory of a SigLIP, and never used here
        return OpenClipImages(whole.eval().requires_grad_(False), int(source.config["embed_dim"]), place)
    except _LOAD_FAILURES as error:
        raise failures.not_loaded(model, error) from error


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(norms).all() and (norms > 0).all()):
        raise EncoderError("The encoder gave a vector without a direction; its weights on the server are unusable. Tell the user.")
    return np.asarray(vectors / norms, dtype=np.float32)
