"""Which files make up a model, and which tensors in them are the text tower's. Fetches what is missing; loads nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcp_server.config import LOCAL_DIR
from mcp_server.encoders import hub
from mcp_server.encoders.models import CONFIG_FILE, HF_HUB, built_in_config, folder_config, folder_of, model_cfg_in
from mcp_server.errors import ConfigError

SAFE_WEIGHTS = "open_clip_model.safetensors"
PLAIN_WEIGHTS = "open_clip_pytorch_model.bin"
Published = Mapping[str, Mapping[str, Any]]
"""open_clip's tags of a built-in model's weights, each with where they are and how they were trained."""

_IN_FOLDERS = (
    SAFE_WEIGHTS,
    "open_clip_pytorch_model.safetensors",
    PLAIN_WEIGHTS,
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
"""Names of weights in a folder, the preferred one first. Source: open_clip's factory, which reads the vision tower; a test compares."""
_FLAT_TEXT_TENSORS = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.", "text_projection")


@dataclass(frozen=True)
class Source:
    """A model whose files are on this machine."""

    model: str
    config: dict[str, Any]
    weights: Path
    tag: str
    """open_clip's tag of a built-in model's weights; "" for a hub repository or a folder."""

    @property
    def in_folder(self) -> bool:
        return self.model.startswith(LOCAL_DIR)


def locate(model: str, published: Callable[[str], Published]) -> Source:
    """Return the files of `model`, fetched from the hub where they are missing; `published` gives a built-in model's weights.

    Raises:
        ConfigError: no such model, or no weights for it.
        ModelUnavailableError: the hub does not give them.
    """
    if model.startswith(LOCAL_DIR):
        return in_folder(model)
    if model.startswith(HF_HUB):
        repo = model.removeprefix(HF_HUB)
        config = model_cfg_in(hub.fetch(repo, [CONFIG_FILE], model), model)
        return Source(model, config, hub.fetch(repo, [SAFE_WEIGHTS, PLAIN_WEIGHTS], model), "")
    config = built_in_config(model)
    tag, repo, names = choose_published(model, published(model), bool(config.get("quick_gelu")))
    return Source(model, config, hub.fetch(repo, names, model), tag)


def in_folder(model: str) -> Source:
    """Return the files of a `local-dir:` model. Raises ConfigError when something is missing."""
    return Source(model, folder_config(model), weights_in_folder(model), "")


def weights_in_folder(model: str) -> Path:
    """Return the weights of a `local-dir:` model, those that open_clip takes. Raises ConfigError when there are none."""
    folder = folder_of(model)
    others = sorted(file for pattern in ("*.safetensors", "*.bin", "*.pth") for file in folder.glob(pattern))
    others.sort(key=lambda file: file.suffix != ".safetensors")
    for file in [*(folder / name for name in _IN_FOLDERS), *others]:
        if file.is_file():
            return file
    raise ConfigError(f"Model = {model}: there are no weights in that folder. Put {SAFE_WEIGHTS} beside open_clip_config.json.")


def choose_published(model: str, published: Published, quick_gelu: bool) -> tuple[str, str, list[str]]:
    """Choose which of a built-in model's published weights to use.

    Args:
        quick_gelu: whether the model's own configuration uses QuickGELU; weights trained otherwise give wrong vectors.

    Returns:
        The tag (`webli` where there is one, else the first that fits), the hub repository, and file names in order of preference.

    Raises:
        ConfigError: there is none on the hub that fits.
    """
    fitting = [tag for tag, entry in published.items() if entry.get("hf_hub") and bool(entry.get("quick_gelu")) == quick_gelu]
    if not fitting:
        raise ConfigError(f"Model = {model}: open_clip names no weights for it on the hub. Use hf-hub:org/repo or local-dir:FOLDER.")
    tag = "webli" if "webli" in fitting else fitting[0]
    repo, _, name = str(published[tag]["hf_hub"]).rpartition("/")
    if not name:
        return tag, repo, [SAFE_WEIGHTS, PLAIN_WEIGHTS]
    stem, dot, ending = name.rpartition(".")
    return tag, repo, [f"{stem}.safetensors", name] if dot and ending in ("bin", "pth") else [name]


def has_plain_text_tower(config: Mapping[str, Any]) -> bool:
    """Return whether the text tower is open_clip's own transformer, which can be built and kept without the rest of the model."""
    return not config["text_cfg"].get("hf_model_name") and "multimodal_cfg" not in config


def text_tensors(names: Iterable[str]) -> dict[str, str]:
    """Map the names of a checkpoint's text tensors to their names in the text tower, for both of open_clip's layouts."""
    listed = list(names)
    inside = {name: name.removeprefix("text.") for name in listed if name.startswith("text.")}
    return inside or {name: name for name in listed if name.startswith(_FLAT_TEXT_TENSORS)}
