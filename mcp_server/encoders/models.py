"""Model names, the width each stands for, and where its text tower is cached. Loads nothing: no torch, no open_clip, no network."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from mcp_server.config import DEFAULT_MODEL, LOCAL_DIR
from mcp_server.errors import ConfigError

HF_HUB = "hf-hub:"
CONFIG_FILE = "open_clip_config.json"

_SIZES = ("context_length", "vocab_size", "width", "heads", "layers")
"""Settings in `text_cfg` that are positive whole numbers."""
_SETTINGS = ("tokenizer_kwargs", "norm_kwargs", "act_kwargs")
"""Settings in `text_cfg` that are objects, or null."""


@dataclass(frozen=True)
class CachePaths:
    """Files of one model's cached text tower. Present together or not at all: the metadata is written last."""

    weights: Path
    """Plain state dict, float32."""
    tokenizer: Path
    """`tokenizers` file; absent for models that use CLIP's own tokenizer."""
    metadata: Path
    lock: Path
    """Held by the one process that is making the cache."""


def cache_paths(model: str, data_folder: Path) -> CachePaths:
    """Return the cache files of `model`: `model_text.*` for the default model, `model_text.<model>.*` for any other.

    Those of `paths_beside` once they are there and these are not. Two different models never share a file.
    """
    usual, beside = _paths(model, data_folder, ""), paths_beside(model, data_folder)
    return beside if beside.metadata.exists() and not usual.metadata.exists() else usual


def paths_beside(model: str, data_folder: Path) -> CachePaths:
    """Return the cache files of `model` where the usual name is another tool's: `clip-search.model_text.*`. Touches no disk."""
    return _paths(model, data_folder, "clip-search.")


def _paths(model: str, data_folder: Path, prefix: str) -> CachePaths:
    stem = prefix + ("model_text" if model == DEFAULT_MODEL else f"model_text.{_safe_name(model)}")
    return CachePaths(
        weights=data_folder / f"{stem}.pth",
        tokenizer=data_folder / f"{stem}.tokenizer.json",
        metadata=data_folder / f"{stem}.json",
        lock=data_folder / f".{stem}.lock",
    )


def model_width(model: str, data_folder: Path) -> int | None:
    """Return D, the length of the model's vectors, without loading it.

    Args:
        model: open_clip name, `hf-hub:org/repo`, or `local-dir:` and an absolute folder.
        data_folder: where the text tower is cached.

    Returns:
        None for an `hf-hub:` model that has not been loaded here yet.

    Raises:
        ConfigError: no such model or folder, or its configuration cannot be read or has something in it that no model has.
    """
    if model.startswith(HF_HUB):
        return _cached_width(model, data_folder)
    config = folder_config(model) if model.startswith(LOCAL_DIR) else built_in_config(model)
    return int(config["embed_dim"])


def folder_of(model: str) -> Path:
    """Return the folder that a `local-dir:` model names.

    Raises:
        ConfigError: it does not exist, cannot be reached, or holds no `open_clip_config.json`.
    """
    folder = Path(model.removeprefix(LOCAL_DIR))
    try:
        is_there = (folder / CONFIG_FILE).is_file()
    except OSError as error:
        raise ConfigError(f"Model = {model}: that folder cannot be reached ({error.strerror}).") from error
    if not is_there:
        raise ConfigError(
            f"Model = {model}: there is no {CONFIG_FILE} in that folder. It must hold {CONFIG_FILE} and open_clip_model.safetensors "
            f"(and the tokenizer's files, unless the model uses CLIP's own)."
        )
    return folder


def folder_config(model: str) -> dict[str, Any]:
    """Return the `model_cfg` of a `local-dir:` model. Raises ConfigError when it is missing or unreadable."""
    return model_cfg_in(folder_of(model) / CONFIG_FILE, model)


def built_in_config(model: str) -> dict[str, Any]:
    """Return open_clip's own configuration of `model`.

    Raises:
        ConfigError: open_clip knows no such model; the message names the nearest.
    """
    configs = _built_in_configs()
    found = configs.get(model)
    if found is None:
        raise ConfigError(_unknown_model(model, sorted(configs)))
    return model_cfg_in(found, model)


def model_cfg_in(config_file: Path, model: str) -> dict[str, Any]:
    """Return the model configuration in `config_file`, bare or under `model_cfg`: its width and the sizes of its text tower are numbers.

    Raises:
        ConfigError: there is none, or a setting is of the wrong kind.
    """
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"Model = {model}: {config_file} cannot be read as JSON ({error}).") from error
    if isinstance(config, dict):
        config = cast("dict[str, Any]", config).get("model_cfg", config)
    if not (isinstance(config, dict) and {"embed_dim", "text_cfg", "vision_cfg"} <= set(cast("dict[str, Any]", config))):
        raise ConfigError(f"Model = {model}: {config_file} is not an open_clip configuration: it needs embed_dim, text_cfg and vision_cfg.")
    settings = cast("dict[str, Any]", config)
    if wrong := wrong_setting(settings):
        raise ConfigError(f"Model = {model}: in {config_file}, {wrong}.")
    return settings


def wrong_setting(config: dict[str, Any]) -> str | None:
    """Return which setting of a model's configuration is of the wrong kind, and what it must be; None when none is."""
    return next(_wrong_settings(config), None)


def _wrong_settings(config: dict[str, Any]) -> Iterator[str]:
    if not _is_size(config["embed_dim"]):
        yield f"embed_dim must be a positive whole number, not {config['embed_dim']!r}"
    for name in ("text_cfg", "vision_cfg"):
        if not isinstance(config[name], dict):
            yield f"{name} must be an object"
    text = cast("dict[str, Any]", config["text_cfg"])
    for name in _SIZES:
        if name in text and not _is_size(text[name]):
            yield f"{name} in text_cfg must be a positive whole number, not {text[name]!r}"
    for name in _SETTINGS:
        if not isinstance(text.get(name), dict | None):
            yield f"{name} in text_cfg must be an object"
    if not isinstance(text.get("eos_id", 0), int):
        yield f"eos_id in text_cfg must be a whole number, not {text['eos_id']!r}"
    eps, approximate = (text.get("norm_kwargs") or {}).get("eps", 1.0), (text.get("act_kwargs") or {}).get("approximate")
    if not isinstance(eps, int | float):
        yield f"eps of norm_kwargs in text_cfg must be a number, not {eps!r}"
    if not isinstance(approximate, str | None):
        yield f"approximate of act_kwargs in text_cfg must be text, not {approximate!r}"


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _cached_width(model: str, data_folder: Path) -> int | None:
    try:
        known = json.loads(cache_paths(model, data_folder).metadata.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(known, dict):
        return None
    fields = cast("dict[str, Any]", known)
    width = fields.get("embed_dim")
    return width if fields.get("model") == model and isinstance(width, int) else None


def _built_in_configs() -> dict[str, Path]:
    package = importlib.util.find_spec("open_clip")  # finds the package's folder without running the package
    folders = list(package.submodule_search_locations or ()) if package else []
    return {file.stem: file for folder in folders for file in Path(folder, "model_configs").glob("*.json")}


def _unknown_model(model: str, names: list[str]) -> str:
    folded = {name.casefold(): name for name in names}
    nearest = [folded[name] for name in difflib.get_close_matches(model.casefold().replace("/", "-"), list(folded), n=3, cutoff=0.5)]
    hint = f" Nearest: {', '.join(nearest)}." if nearest else ""
    return (
        f"Model = {model!r} is not a model that open_clip knows.{hint} "
        f"Use an open_clip name such as {DEFAULT_MODEL}, or hf-hub:org/repo, or local-dir:FOLDER."
    )


def _safe_name(model: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", model):
        return model
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", model)[:80].strip("-.")
    return f"{readable}-{hashlib.sha256(model.encode()).hexdigest()[:8]}"  # the hash keeps a/b-c and a-b/c apart
