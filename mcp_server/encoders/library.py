"""The door to open_clip, whose import takes seconds: first starts, models that are not plain, and whole models for pictures."""

from __future__ import annotations

import contextlib
import logging
import math
import pickle
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import open_clip
import torch
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer, get_clean_fn
from torch import nn
from torch.nn import functional
from transformers import dynamic_module_utils

from mcp_server.encoders import checkpoints, failures
from mcp_server.encoders.cache import TowerRecord, making, read_record, write_cache
from mcp_server.encoders.checkpoints import Source
from mcp_server.encoders.lean import NotLeanError
from mcp_server.encoders.models import HF_HUB, CachePaths, built_in_config
from mcp_server.encoders.tokens import (
    CLIP_CLEAN,
    PROBES,
    LibraryTokenizer,
    SavedTokenizer,
    Tokenize,
    TokenizerRecord,
    check_vocabulary,
    clip_record,
    saved_form,
)
from mcp_server.encoders.towers import (
    TextTower,
    TextWeights,
    lean_from_cache,
    lean_from_record,
    load_state,
    number_in,
    own_paths,
    text_weights,
)
from mcp_server.errors import ModelUnavailableError

logger = logging.getLogger(__name__)

dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0  # transformers would ask on stdin, which is the client's, whether a model's program may run

_MISFITS = (TypeError, AttributeError, KeyError, AssertionError, ArithmeticError)
"""How settings that open_clip does not know, or of another kind than it expects, show."""
SAME_VECTOR = 1e-6
"""Two vectors whose cosine is nearer to 1 than this are one."""


@dataclass(frozen=True)
class _Tokenizer:
    """A tokenizer and, where it can be cached, its record and its file's text (none for CLIP's own)."""

    tokenize: Tokenize
    record: TokenizerRecord | None
    text: str | None = None


def published(model: str) -> dict[str, dict[str, Any]]:
    """Return open_clip's tags of a built-in model's weights, each with where they are and how they were trained."""
    return {tag: dict(open_clip.get_pretrained_cfg(model, tag)) for tag in open_clip.list_pretrained_tags_by_model(model)}


def create_whole(source: Source, **options: Any) -> Any:
    """open_clip's own loading of the whole model; weights that cannot be had are an error, never random.

    Raises:
        ValueError, RuntimeError, OSError, ImportError, SafetensorError: its files cannot be read.
    """
    with _configuration_errors(), _no_checkpoint(source):
        return open_clip.create_model_from_pretrained(source.model, pretrained=source.tag or None, force_custom_text=True, **options)


@contextlib.contextmanager
def _configuration_errors() -> Generator[None]:
    try:
        yield
    except _MISFITS as error:
        told = f"{type(error).__name__} {error}".strip()
        raise ValueError(f"its configuration does not fit open_clip {open_clip.__version__}: {told}") from None


@contextlib.contextmanager
def _no_checkpoint(source: Source) -> Generator[None]:
    try:
        yield
    except (pickle.UnpicklingError, EOFError):
        reason = "is damaged or no file of weights, or it is a pickled program, which is refused"
        raise ValueError(f"{source.weights.name} {reason}") from None  # PyTorch's own words advise to run it


def tower_from_folder(model: str) -> TextTower:
    """Return the text tower of a `local-dir:` model, read in place; nothing is cached.

    The network is not asked, unless the text tower is one of transformers (`hf_model_name`): these look up its configuration by name.

    Raises:
        ConfigError: no such folder, or something is missing in it.
        ModelUnavailableError, ValueError, RuntimeError, OSError, SafetensorError: its files cannot be read.
    """
    source = checkpoints.in_folder(model)
    return _assembled(source, _tokenizer_of(source).tokenize)[0]


def tower_from_cache_or_hub(model: str, data_folder: Path, checked: TowerRecord | None = None) -> TextTower:
    """Return the text tower of a built-in or `hf-hub:` model: from its cache, else from the hub, and then it is cached.

    Several processes may call this at once; one makes the cache. Where the folder cannot be written the tower is returned all the same.
    `checked` is the record of a cache that was just found whole; without it the cache is read through first.

    Raises:
        ConfigError: no such model.
        ModelUnavailableError: the hub does not give it, or a pickled program stands where the cache is.
        ValueError, RuntimeError, OSError, SafetensorError: its files cannot be read.
    """
    paths = own_paths(model, data_folder)
    cached = _from_cache(paths, checked or read_record(paths, model))
    if cached is not None:
        return cached
    if not model.startswith(HF_HUB):
        built_in_config(model)  # an unknown name is found before a lock is taken
    with making(paths) as may_write:
        cached = _from_cache(paths, read_record(paths, model)) if may_write else None  # another process may have made it meanwhile
        if cached is not None:
            return cached
        try:
            return _made(model, paths, keep=may_write)
        except ModelUnavailableError as error:
            if paths.weights.exists():
                raise failures.cache_damaged(paths.weights, error) from error
            raise


def _made(model: str, paths: CachePaths, keep: bool) -> TextTower:
    """Return the tower of the full checkpoint, and with `keep` write it to the cache."""
    source = checkpoints.locate(model, published)
    tokenizer = _tokenizer_of(source)
    tower, state = _assembled(source, tokenizer.tokenize)
    if not keep or state is None or tokenizer.record is None:
        return tower
    record = TowerRecord(
        model=model,
        source=source.tag or model.removeprefix(HF_HUB),
        embed_dim=tower.width,
        context_length=tokenizer.record.context_length,
        quick_gelu=bool(source.config.get("quick_gelu")),
        text_cfg=source.config["text_cfg"],
        tokenizer=tokenizer.record,
        tensors=len(state),
        logit_scale=tower.logit_scale,
        logit_bias=tower.logit_bias,
    )
    record = replace(record, lean=_proves(tower, record, tokenizer.text, state))
    try:
        write_cache(paths, record, lambda file: _save(state, file), tokenizer.text)
    except OSError as error:
        logger.warning("cache.not_written error=%s", error)
        return tower
    return _from_cache(paths, read_record(paths, model)) or tower  # mapped from the file, so that the copy in memory can go


def _save(state: Mapping[str, torch.Tensor], file: BinaryIO) -> None:
    """Write the weights. Raises OSError where they do not fit on the disk, which PyTorch calls a RuntimeError about positions."""
    try:
        torch.save(state, file)
    except RuntimeError as error:
        raise OSError("not all of the weights could be written; the disk may be full") from error


def _proves(tower: TextTower, record: TowerRecord, tokenizer: str | None, state: Mapping[str, torch.Tensor]) -> bool:
    """Return whether a start without open_clip will give its ids and its vectors, tried on a few awkward texts."""
    try:
        lean = lean_from_record(record, tokenizer, state)
        for probe in PROBES:
            tokens = tower.tokenize(probe)
            ids = torch.tensor([tokens.ids])
            with torch.inference_mode():
                ours, theirs = (functional.normalize(forward(ids).double(), dim=-1) for forward in (lean.forward, tower.forward))
            if lean.tokenize(probe) != tokens or not float((ours * theirs).sum()) > 1 - SAME_VECTOR:
                raise NotLeanError("other vectors than open_clip's")
    except NotLeanError as error:
        logger.info("model.not_lean model=%s reason=%s", record.model, error)
        return False
    return True


def _from_cache(paths: CachePaths, record: TowerRecord | None) -> TextTower | None:
    if record is None:
        return None
    if record.lean:
        with contextlib.suppress(NotLeanError):
            return lean_from_cache(paths, record)
    try:
        state = load_state(paths)
        module = _text_tower(record.embed_dim, record.text_cfg, record.quick_gelu, state)
    except RuntimeError as error:
        logger.warning("cache.mismatch file=%s error=%s", paths.weights.name, " ".join(str(error).split())[:200])
        return None
    length = record.context_length
    if record.tokenizer.kind == "saved":
        text = paths.tokenizer.read_text(encoding="utf-8")
        tokenize: Tokenize = SavedTokenizer(text, record.tokenizer, get_clean_fn(record.tokenizer.clean))
    elif record.tokenizer.clean == CLIP_CLEAN:
        tokenize = LibraryTokenizer(open_clip.tokenize, length)
    else:
        tokenize = LibraryTokenizer(SimpleTokenizer(context_length=length, clean=record.tokenizer.clean), length)
    vocabulary = int(record.text_cfg.get("vocab_size", 49408))
    return _tower(module, module, tokenize, record.embed_dim, vocabulary, TextWeights(state, record.logit_scale, record.logit_bias))


def _assembled(source: Source, tokenize: Tokenize) -> tuple[TextTower, dict[str, torch.Tensor] | None]:
    """Return the tower and, if it can be cached, its weights in float32."""
    config, width = source.config, int(source.config["embed_dim"])
    plain = checkpoints.has_plain_text_tower(config)
    vocabulary = int(config["text_cfg"].get("vocab_size", 49408)) if plain else None
    if plain and source.weights.suffix == ".safetensors":
        weights = text_weights(source.weights)
        try:
            module = _text_tower(width, config["text_cfg"], bool(config.get("quick_gelu")), weights.state)
        except RuntimeError as error:  # weights in a layout that open_clip converts while loading
            logger.info("model.unusual_layout error=%s", " ".join(str(error).split())[:200])
        else:
            return _tower(module, module, tokenize, width, vocabulary, weights), _checked(weights.state)
    whole = cast("nn.Module", create_whole(source, return_transform=False))
    scale, bias = number_in(whole.logit_scale), number_in(getattr(whole, "logit_bias", None))
    scale = None if scale is None else math.exp(scale)
    del whole.visual
    whole.eval().requires_grad_(False)
    if plain:
        module = cast("nn.Module", whole.text)
        state = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
        return _tower(module, module, tokenize, width, vocabulary, TextWeights(state, scale, bias)), _checked(state)
    encode = cast("Callable[[torch.Tensor], torch.Tensor]", whole.encode_text)
    return _tower(whole, encode, tokenize, width, None, TextWeights({}, scale, bias)), None


def _tower(
    module: nn.Module,
    forward: Callable[[torch.Tensor], torch.Tensor],
    tokenize: Tokenize,
    width: int,
    vocabulary: int | None,
    weights: TextWeights,
) -> TextTower:
    def move(dtype: torch.dtype, device: torch.device) -> None:
        module.to(dtype).to(device)

    return TextTower(forward, move, tokenize, width, vocabulary, weights.logit_scale, weights.logit_bias)


def _text_tower(width: int, text_cfg: Mapping[str, Any], quick_gelu: bool, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Build the text tower around `state` without allocating weights of its own. Raises RuntimeError when they do not fit."""
    build = getattr(open_clip.model, "_build_text_tower", None)
    with torch.device("meta"), _configuration_errors():
        if build is not None:
            tower = build(width, dict(text_cfg), quick_gelu)
        else:  # no public name, so it may go; then a whole model around a vision tower of one small layer, on meta too
            vision = {"layers": 1, "width": 64, "image_size": 32, "patch_size": 32}
            tower = open_clip.CustomTextCLIP(width, cast("Any", vision), cast("Any", dict(text_cfg)), quick_gelu).text
    tower = cast("nn.Module", tower)
    tower.load_state_dict(state, strict=True, assign=True)
    if getattr(tower, "attn_mask", None) is not None:  # not in the checkpoint, so it would stay without data
        tower.attn_mask = cast("Any", tower).build_causal_mask()
    empty = [name for name, tensor in [*tower.named_parameters(), *tower.named_buffers()] if tensor.is_meta]
    if empty:
        raise RuntimeError(f"no data for {empty[:3]}")
    return tower.eval().requires_grad_(False)


def _tokenizer_of(source: Source) -> _Tokenizer:
    text_cfg = cast("dict[str, Any]", source.config["text_cfg"])
    settings = cast("dict[str, Any]", text_cfg.get("tokenizer_kwargs") or {})
    wants_files = bool(text_cfg.get("hf_tokenizer_name"))
    own = clip_record(source.model, text_cfg)
    if own is not None and not settings:  # the copy that open_clip holds already: another takes a second to build
        return _Tokenizer(LibraryTokenizer(open_clip.tokenize, own.context_length), own)
    # open_clip hands `tokenizer_kwargs` on to transformers: without this a configuration could ask for a program beside it to be run
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": source.in_folder} if wants_files else {}
    try:
        library = cast("Any", open_clip.get_tokenizer(source.model, **options))
    except (OSError, RuntimeError) as error:
        raise (failures.not_loaded if source.in_folder else failures.download_failed)(source.model, error) from error
    except Exception as error:  # Exception itself is what the Rust library raises for files of another version
        raise failures.not_loaded(source.model, error) from error
    length = int(library.context_length)
    if isinstance(library, SimpleTokenizer):
        return _Tokenizer(LibraryTokenizer(library, length), own)
    plain = checkpoints.has_plain_text_tower(source.config)
    check_vocabulary(library.tokenizer, int(text_cfg.get("vocab_size", 49408)) if plain else 0)
    clean = str(settings.get("clean", "whitespace"))
    kept = saved_form(library, length, clean, get_clean_fn(clean)) if isinstance(library, HFTokenizer) else None
    if kept is None:
        logger.warning("model.tokenizer_not_kept model=%s", source.model)
        return _Tokenizer(LibraryTokenizer(library, length), None)
    return _Tokenizer(*kept)


def _checked(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights as they are cached: float32, each tensor owning its memory."""
    kept = {name: tensor.to(torch.float32).contiguous() for name, tensor in state.items()}
    if not all(bool(torch.isfinite(tensor).all()) for tensor in kept.values()):
        raise ValueError("the checkpoint holds numbers that are not finite")
    return kept
