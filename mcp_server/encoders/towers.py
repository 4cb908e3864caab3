"""Text towers read without open_clip: out of the cache, or out of the folder of a `local-dir:` model.

Whatever this cannot read as open_clip would ends in `NotLeanError`; `library` then does it with open_clip.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open

from mcp_server.config import LOCAL_DIR
from mcp_server.encoders import checkpoints, failures
from mcp_server.encoders.cache import TowerRecord, read_record
from mcp_server.encoders.cleaning import clean_named
from mcp_server.encoders.clip_tokenizer import ClipTokenizer, vocabulary_file
from mcp_server.encoders.lean import LeanTower, NotLeanError, shape_of
from mcp_server.encoders.models import CachePaths, cache_paths, paths_beside
from mcp_server.encoders.tokens import SavedTokenizer, Tokenize, TokenizerRecord, clip_record


@dataclass(frozen=True)
class TextTower:
    """A text tower on the CPU with its tokenizer."""

    forward: Callable[[torch.Tensor], torch.Tensor]
    move: Callable[[torch.dtype, torch.device], object]
    """Casts the weights, then moves them."""
    tokenize: Tokenize
    width: int
    vocabulary: int | None
    logit_scale: float | None
    logit_bias: float | None


@dataclass(frozen=True)
class TextWeights:
    """What a checkpoint holds for texts, in float32."""

    state: dict[str, torch.Tensor]
    logit_scale: float | None
    logit_bias: float | None


def lean_tower(model: str, data_folder: Path, checked: TowerRecord | None = None) -> TextTower:
    """Return the text tower of `model`, read from its folder or its cache.

    `checked` is the record of a cache that was just found whole; without it the cache is read through first.

    Raises:
        NotLeanError: open_clip must do it, because there is no cache or the model is not one of the plain ones.
        ConfigError: no such folder, or something is missing in it.
        ModelUnavailableError: a pickled program stands where the cache is.
        RuntimeError, OSError, SafetensorError: the files cannot be read.
    """
    if model.startswith(LOCAL_DIR):
        return _from_folder(model)
    paths = own_paths(model, data_folder)
    record = checked or read_record(paths, model)
    if record is None:
        raise NotLeanError("there is no cache yet")
    return lean_from_cache(paths, record)


def lean_from_cache(paths: CachePaths, record: TowerRecord) -> TextTower:
    """Return the tower of the cache that `record` vouches for. Raises NotLeanError, and OSError when a file cannot be read."""
    if not record.lean:
        raise NotLeanError("its cache was not proven equal without open_clip")
    text = paths.tokenizer.read_text(encoding="utf-8") if record.tokenizer.kind == "saved" else None
    try:
        state = load_state(paths)
    except RuntimeError as error:
        raise NotLeanError(" ".join(str(error).split())[:200]) from error
    return lean_from_record(record, text, state)


def lean_from_record(record: TowerRecord, tokenizer: str | None, state: Mapping[str, torch.Tensor]) -> TextTower:
    """Return the tower of `record` around `state`; `tokenizer` is the text of its file. Raises NotLeanError."""
    config = {"embed_dim": record.embed_dim, "quick_gelu": record.quick_gelu, "text_cfg": record.text_cfg}
    weights = TextWeights(dict(state), record.logit_scale, record.logit_bias)
    return _assembled(config, weights, _tokenizer(record.tokenizer, tokenizer))


def load_state(paths: CachePaths) -> dict[str, torch.Tensor]:
    """Map the cached weights into memory. Raises RuntimeError when the file is no checkpoint."""
    return cast("dict[str, torch.Tensor]", torch.load(paths.weights, map_location="cpu", weights_only=True, mmap=True))


def text_weights(checkpoint: Path) -> TextWeights:
    """Read only the text tensors, the scale and the bias out of a safetensors checkpoint."""
    with safe_open(checkpoint, framework="pt") as opened:
        file = cast("Any", opened)
        names = cast("list[str]", list(file.keys()))
        state = {ours: file.get_tensor(theirs).to(torch.float32) for theirs, ours in checkpoints.text_tensors(names).items()}
        scale, bias = (number_in(file.get_tensor(name)) if name in names else None for name in ("logit_scale", "logit_bias"))
    return TextWeights(state, None if scale is None else math.exp(scale), bias)


def number_in(tensor: object) -> float | None:
    """Return the number in a tensor of one, None for anything else."""
    return float(tensor.detach().reshape(-1)[0]) if isinstance(tensor, torch.Tensor) else None


def own_paths(model: str, data_folder: Path) -> CachePaths:
    """Return where the cache of `model` is or belongs.

    A pickled program of another tool's under the usual name, as an Exquisitor engine leaves it, is neither loaded, which would run whatever
    it contains, nor replaced: the cache is beside it.

    Raises:
        ModelUnavailableError: there is a program too.
    """
    paths = cache_paths(model, data_folder)
    if _program_in(paths.weights) is None:
        return paths
    beside = paths_beside(model, data_folder)
    if content := _program_in(beside.weights):
        raise failures.pickled_program(beside.weights, content)
    return beside


def _program_in(weights: Path) -> str | None:
    """Say what `weights` hold besides tensors, None for nothing."""
    if not weights.is_file():
        return None
    try:
        unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(str(weights))
    except (RuntimeError, OSError, EOFError, UnicodeDecodeError, pickle.UnpicklingError):
        return None  # damaged: it is made again
    except ValueError:  # no checkpoint of today's format
        with weights.open("rb") as file:
            start = file.read(2)
        unsafe = ["an old-style pickle"] if start[:1] == b"\x80" else ["a TorchScript program"] if start == b"PK" else []
    return unsafe[0] if unsafe else None


def _from_folder(model: str) -> TextTower:
    source = checkpoints.in_folder(model)
    record = clip_record(model, source.config["text_cfg"])
    if record is None:
        raise NotLeanError("its tokenizer is not CLIP's own")
    if source.weights.suffix != ".safetensors":
        raise NotLeanError(f"weights in {source.weights.suffix}")
    shape_of(source.config)  # before reading any weights
    return _assembled(source.config, text_weights(source.weights), _tokenizer(record, None))


def _assembled(config: Mapping[str, Any], weights: TextWeights, tokenize: Tokenize) -> TextTower:
    shape = shape_of(config)
    tower = LeanTower(shape, weights.state)
    return TextTower(tower, tower.to, tokenize, shape.output, shape.vocab_size, weights.logit_scale, weights.logit_bias)


def _tokenizer(record: TokenizerRecord, text: str | None) -> Tokenize:
    clean, file = clean_named(record.clean), vocabulary_file()
    if clean is None:
        raise NotLeanError(f"tokenizer cleaning {record.clean}")
    if record.kind == "saved":
        return SavedTokenizer(text or "", record, clean)
    if file is None:
        raise NotLeanError("open_clip holds no vocabulary for CLIP's tokenizer")
    try:
        return ClipTokenizer(file, record.context_length, clean)
    except (OSError, ValueError) as error:
        raise NotLeanError(f"tokenizer {error}") from error
