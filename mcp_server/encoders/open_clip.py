"""open_clip models: text and pictures to unit vectors. The only file that imports torch or open_clip.

A built-in name or `hf-hub:` model is fetched once; its text tower is kept in the data folder (see `cache`) and read from there afterwards,
without the hub and without building the vision tower. A `local-dir:` model is read in place.
"""

from __future__ import annotations

import logging
import math
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer, get_clean_fn
from PIL import Image
from safetensors import safe_open
from torch import nn

from mcp_server.domain.search import EncodedText
from mcp_server.encoders import checkpoints, hub
from mcp_server.encoders.cache import TowerRecord, making, read_record, write_cache
from mcp_server.encoders.models import FOLDER_PREFIX, HUB_PREFIX, CachePaths, built_in_config, cache_paths, folder_config, model_cfg_in
from mcp_server.encoders.tokens import LibraryTokenizer, SavedTokenizer, Tokenize, TokenizerRecord, Tokens
from mcp_server.errors import ConfigError, EncoderError, ModelUnavailableError

logger = logging.getLogger(__name__)

_PROBES = ("a photo of a dog on the beach", "Café, 2 naïve ﬁsh & <b>100%</b> un_usual-words!", "word " * 400)
_IMAGE_BATCH = 64
_LOAD_FAILURES = (RuntimeError, OSError, ValueError, TypeError, ImportError)


class OpenClipText:
    """The text tower of an open_clip model. Safe to call from several threads: they take turns.

    Attributes:
        width: D, the length of every vector.
        device, dtype: where and in what the tower runs; float16 on CUDA, else float32. Vectors are float32 either way.
        logit_scale: factor on the cosine before softmax or sigmoid, None when the checkpoint has none.
        logit_bias: added after it (SigLIP), None when the checkpoint has none.
    """

    def __init__(self, tower: _Tower, device: torch.device) -> None:
        self.width = tower.width
        self.device = device
        self.dtype = torch.float16 if device.type == "cuda" else torch.float32
        self.logit_scale = tower.logit_scale
        self.logit_bias = tower.logit_bias
        self._tokenize = tower.tokenize
        self._vocabulary = tower.vocabulary
        tower.module.to(self.dtype).to(device)  # cast first: half the bytes to move
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
    """The vision tower of an open_clip model with the model's own preprocessing. Safe to call from several threads: they take turns."""

    def __init__(self, model: nn.Module, preprocess: Callable[[Image.Image], torch.Tensor], width: int, device: torch.device) -> None:
        self.width = width
        self.device = device
        self.dtype = torch.float16 if device.type == "cuda" else torch.float32
        self._encode = cast("Callable[[torch.Tensor], torch.Tensor]", model.encode_image)
        self._preprocess = preprocess
        self._lock = threading.Lock()

    def encode_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Return (len(images), D) float32 unit vectors of pictures of any size and mode, in order. No pictures: (0, D).

        Raises:
            EncoderError: the model failed, for instance out of memory.
        """
        parts = [np.empty((0, self.width), np.float32)]
        for start in range(0, len(images), _IMAGE_BATCH):
            batch = torch.stack([self._preprocess(image.convert("RGB")) for image in images[start : start + _IMAGE_BATCH]])
            try:
                with self._lock, torch.inference_mode():
                    parts.append(self._encode(batch.to(self.device, self.dtype)).to(torch.float32).cpu().numpy())
            except RuntimeError as error:
                raise EncoderError(f"The image encoder failed on {len(batch)} pictures ({type(error).__name__}).") from error
        return _unit(np.concatenate(parts))


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


def load_text_encoder(model: str, device: str, data_folder: Path) -> OpenClipText:
    """Return the text encoder of `model`, from the cache in `data_folder` if it is there, else made and cached.

    Args:
        model: open_clip name, `hf-hub:org/repo`, or `local-dir:` and an absolute folder (read in place, never cached).
        device: as for `pick_device`.
        data_folder: made if missing; where it cannot be written the encoder works, uncached.

    Raises:
        ConfigError: no such model or device.
        ModelUnavailableError: the model cannot be downloaded or read, or another tool's pickled module stands where the cache belongs.
    """
    place = pick_device(device)
    try:
        tower = _from_folder(model) if model.startswith(FOLDER_PREFIX) else _from_cache_or_hub(model, data_folder)
        encoder = OpenClipText(tower, place)
    except _LOAD_FAILURES as error:
        raise _not_loaded(model, error) from error
    logger.info("model.ready model=%s device=%s dtype=%s width=%d", model, place, encoder.dtype, encoder.width)
    return encoder


def load_image_encoder(model: str, device: str) -> OpenClipImages:
    """Return the image encoder of `model`: the full checkpoint, downloaded if need be. Arguments and errors as `load_text_encoder`."""
    place = pick_device(device)
    precision = "fp16" if place.type == "cuda" else "fp32"
    try:
        source = _Source.of(model)
        whole, preprocess = cast(
            "tuple[nn.Module, Any]", _create(source, source.tag, precision=precision, device=place, return_transform=True)
        )
    except _LOAD_FAILURES as error:
        raise _not_loaded(model, error) from error
    del whole.text  # half the memory of a SigLIP, and never used here
    return OpenClipImages(whole.eval().requires_grad_(False), preprocess, int(source.config["embed_dim"]), place)


@dataclass(frozen=True)
class _Tower:
    """A text tower on the CPU with its tokenizer."""

    module: nn.Module
    forward: Callable[[torch.Tensor], torch.Tensor]
    tokenize: Tokenize
    width: int
    vocabulary: int | None
    logit_scale: float | None
    logit_bias: float | None


@dataclass(frozen=True)
class _Source:
    """Where a model comes from, its files already on this machine."""

    model: str
    config: dict[str, Any]
    weights: Path
    tag: str
    """open_clip's tag of a built-in model's weights; "" for a hub repository or a folder."""

    @staticmethod
    def of(model: str) -> _Source:
        if model.startswith(FOLDER_PREFIX):
            return _Source(model, folder_config(model), checkpoints.in_folder(model), "")
        if model.startswith(HUB_PREFIX):
            repo = model.removeprefix(HUB_PREFIX)
            config = model_cfg_in(hub.fetch(repo, ["open_clip_config.json"], model), model)
            return _Source(model, config, hub.fetch(repo, [hub.SAFE_WEIGHTS, hub.PLAIN_WEIGHTS], model), "")
        config = built_in_config(model)
        published = {tag: dict(open_clip.get_pretrained_cfg(model, tag)) for tag in open_clip.list_pretrained_tags_by_model(model)}
        tag, repo, names = checkpoints.published_weights(model, published, bool(config.get("quick_gelu")))
        return _Source(model, config, hub.fetch(repo, names, model), tag)


def _create(source: _Source, pretrained: str, **options: object) -> Any:
    """open_clip's own loading of the whole model; weights that cannot be had are an error, never random."""
    known = pretrained or None
    return open_clip.create_model_from_pretrained(source.model, pretrained=known, force_custom_text=True, **options)  # pyright: ignore[reportArgumentType]  # passed on by name


def _from_folder(model: str) -> _Tower:
    source = _Source.of(model)
    return _assembled(source, _tokenizer_of(source)[0])[0]


def _from_cache_or_hub(model: str, data_folder: Path) -> _Tower:
    paths = cache_paths(model, data_folder)
    _refuse_program(paths.weights)
    cached = _from_cache(paths, model)
    if cached is not None:
        return cached
    if not model.startswith(HUB_PREFIX):
        built_in_config(model)  # an unknown name is found before a lock is taken
    with making(paths) as may_write:
        cached = _from_cache(paths, model) if may_write else None  # another process may have made it meanwhile
        if cached is not None:
            return cached
        damaged = paths.weights.exists()
        try:
            source = _Source.of(model)
            tokenize, tokenizer, serialized = _tokenizer_of(source)
        except ModelUnavailableError as error:
            if damaged:
                raise ModelUnavailableError(
                    error.message, f"{paths.weights.name} is damaged or of another version and must be made again. {error.remedy}"
                ) from error
            raise
        tower, state = _assembled(source, tokenize)
        if not may_write or state is None or tokenizer is None:
            return tower
        record = TowerRecord(
            model=model,
            source=source.tag or model.removeprefix(HUB_PREFIX),
            embed_dim=tower.width,
            context_length=tokenizer.context_length,
            quick_gelu=bool(source.config.get("quick_gelu")),
            text_cfg=source.config["text_cfg"],
            tokenizer=tokenizer,
            tensors=len(state),
            logit_scale=tower.logit_scale,
            logit_bias=tower.logit_bias,
        )
        try:
            write_cache(paths, record, lambda file: torch.save(state, file), serialized)
        except OSError as error:
            logger.warning("cache.not_written error=%s", error)
            return tower
        del state
        return _from_cache(paths, model) or tower  # mapped from the file, so that the copy in memory can go


def _from_cache(paths: CachePaths, model: str) -> _Tower | None:
    record = read_record(paths, model)
    if record is None:
        return None
    state = cast("dict[str, torch.Tensor]", torch.load(paths.weights, map_location="cpu", weights_only=True, mmap=True))
    if len(state) != record.tensors:
        logger.warning("cache.mismatch tensors=%d expected=%d", len(state), record.tensors)
        return None
    module = _text_tower(record.embed_dim, record.text_cfg, record.quick_gelu, state)
    clean = cast("Callable[[str], str]", get_clean_fn(record.tokenizer.clean))
    if record.tokenizer.kind == "saved":
        tokenize: Tokenize = SavedTokenizer(paths.tokenizer.read_text(encoding="utf-8"), record.tokenizer, clean)
    else:
        clip = SimpleTokenizer(context_length=record.context_length, clean=record.tokenizer.clean)
        tokenize = LibraryTokenizer(clip, record.context_length)
    vocabulary = int(record.text_cfg.get("vocab_size", 49408))
    return _Tower(module, module, tokenize, record.embed_dim, vocabulary, record.logit_scale, record.logit_bias)


def _assembled(source: _Source, tokenize: Tokenize) -> tuple[_Tower, dict[str, torch.Tensor] | None]:
    """Return the tower and, if it can be cached, its weights in float32."""
    config, width = source.config, int(source.config["embed_dim"])
    plain = checkpoints.has_plain_text_tower(config)
    vocabulary = int(config["text_cfg"].get("vocab_size", 49408)) if plain else None
    if plain and source.weights.suffix == ".safetensors":
        state, scale, bias = _text_weights(source.weights)
        try:
            module = _text_tower(width, config["text_cfg"], bool(config.get("quick_gelu")), state)
        except RuntimeError as error:  # weights in a layout that open_clip converts while loading
            logger.info("model.unusual_layout error=%s", " ".join(str(error).split())[:200])
        else:
            return _Tower(module, module, tokenize, width, vocabulary, scale, bias), _checked(state)
    whole = cast("nn.Module", _create(source, "" if not source.tag else str(source.weights), return_transform=False))
    scale, bias = _number(whole.logit_scale), _number(getattr(whole, "logit_bias", None))
    scale = None if scale is None else math.exp(scale)
    del whole.visual
    whole.eval().requires_grad_(False)
    if plain:
        module = cast("nn.Module", whole.text)
        state = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
        return _Tower(module, module, tokenize, width, vocabulary, scale, bias), _checked(state)
    encode = cast("Callable[[torch.Tensor], torch.Tensor]", whole.encode_text)
    return _Tower(whole, encode, tokenize, width, None, scale, bias), None


def _text_weights(checkpoint: Path) -> tuple[dict[str, torch.Tensor], float | None, float | None]:
    """Read only the text tensors (float32), the scale and the bias out of a safetensors checkpoint."""
    with safe_open(checkpoint, framework="pt") as opened:
        file = cast("Any", opened)
        names = cast("list[str]", list(file.keys()))
        state = {ours: file.get_tensor(theirs).to(torch.float32) for theirs, ours in checkpoints.text_tensors(names).items()}
        scale, bias = (_number(file.get_tensor(name)) if name in names else None for name in ("logit_scale", "logit_bias"))
    return state, None if scale is None else math.exp(scale), bias


def _text_tower(width: int, text_cfg: Mapping[str, Any], quick_gelu: bool, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """Build the text tower around `state` without allocating weights of its own. Raises RuntimeError when they do not fit."""
    build = getattr(open_clip.model, "_build_text_tower", None)
    with torch.device("meta"):
        if build is not None:
            tower = build(width, dict(text_cfg), quick_gelu)
        else:  # not a public name; without it, a whole model around a vision tower of one small layer, on meta too
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


def _tokenizer_of(source: _Source) -> tuple[Tokenize, TokenizerRecord | None, str | None]:
    """Return the model's tokenizer and, where it can be cached, its record and its file's text (None for CLIP's own)."""
    text_cfg = cast("dict[str, Any]", source.config["text_cfg"])
    local = source.model.startswith(FOLDER_PREFIX) and text_cfg.get("hf_tokenizer_name")
    try:
        library = cast("Any", open_clip.get_tokenizer(source.model, **({"local_files_only": True} if local else {})))
    except (OSError, ValueError, RuntimeError) as error:
        raise _not_loaded(source.model, error) if local else hub.download_failed(source.model, error) from error
    length = int(library.context_length)
    options = cast("dict[str, Any]", text_cfg.get("tokenizer_kwargs") or {})
    if isinstance(library, SimpleTokenizer):
        record = TokenizerRecord("clip", length, str(options.get("clean", "lower"))) if set(options) <= {"clean"} else None
        return LibraryTokenizer(library, length), record, None
    fast = library.tokenizer
    _check_vocabulary(source.model, fast, int(text_cfg.get("vocab_size", 49408)) if checkpoints.has_plain_text_tower(source.config) else 0)
    plain = LibraryTokenizer(library, length)
    if not (isinstance(library, HFTokenizer) and fast.is_fast and fast.pad_token is not None and not library.tokenizer_mode):
        return plain, None, None
    record = TokenizerRecord(
        kind="saved",
        context_length=length,
        clean=str(options.get("clean", "whitespace")),
        pad_id=int(fast.pad_token_id),
        pad_token=str(fast.pad_token),
        padding_side=str(fast.padding_side),
        truncation_side=str(fast.truncation_side),
        stripped_id=int(fast.sep_token_id) if library.strip_sep_token and fast.sep_token_id is not None else None,
    )
    serialized = cast("str", fast.backend_tokenizer.to_str())  # as built: the library rebuilds parts that the files leave out
    saved = SavedTokenizer(serialized, record, cast("Callable[[str], str]", get_clean_fn(record.clean)))
    if any(saved(probe) != plain(probe) for probe in _PROBES):
        logger.warning("model.tokenizer_not_kept model=%s reason=saved_form_differs", source.model)
        return plain, None, None
    return saved, record, serialized


def _check_vocabulary(model: str, tokenizer: Any, expected: int) -> None:
    """Refuse a tokenizer that was read without its vocabulary: it would turn most words into one and the same id."""
    ids = cast("list[int]", tokenizer(_PROBES[0], add_special_tokens=False).input_ids)
    if len(tokenizer) < 0.9 * expected or 2 * ids.count(tokenizer.unk_token_id) > len(ids):
        raise ValueError(f"the tokenizer of {model} knows {len(tokenizer)} pieces and its model {expected}: its vocabulary was not read")


def _refuse_program(weights: Path) -> None:
    """Refuse weights that hold more than tensors: loading them would run whatever they contain."""
    if not weights.is_file():
        return
    try:
        unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(str(weights))
    except ValueError:  # an old-style pickle, a TorchScript program, or no checkpoint at all
        with weights.open("rb") as file:
            unsafe = [name for magic, name in ((b"\x80", "pickle"), (b"PK", "script")) if file.read(2).startswith(magic) or file.seek(0)]
    except RuntimeError:
        return  # damaged: it is made again
    if unsafe:
        raise ModelUnavailableError(
            "The text encoder cannot start: its cache on the server is a pickled program, which is refused. "
            "Your arguments are fine. Tell the user to move that file away (the server's log names it) and call again.",
            f"{weights} holds a pickled Python object ({unsafe[0]}), not plain weights; other tools write such files. It is refused, because "
            "loading it would run whatever it contains. Move or delete it and start again: the cache is then made afresh.",
        )


def _checked(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights as they are cached: float32, each tensor owning its memory."""
    kept = {name: tensor.to(torch.float32).contiguous() for name, tensor in state.items()}
    if not all(bool(torch.isfinite(tensor).all()) for tensor in kept.values()):
        raise ValueError("the checkpoint holds numbers that are not finite")
    return kept


def _number(tensor: object) -> float | None:
    return float(tensor.detach().reshape(-1)[0]) if isinstance(tensor, torch.Tensor) else None


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(norms).all() and (norms > 0).all()):
        raise EncoderError("The encoder gave a vector without a direction; its weights on the server are unusable. Tell the user.")
    return np.asarray(vectors / norms, dtype=np.float32)


def _not_loaded(model: str, error: BaseException) -> ModelUnavailableError:
    return ModelUnavailableError(
        "The text encoder could not be loaded on the server. Your arguments are fine. "
        "Tell the user that the server's log names the reason, then call again.",
        f"Model {model} could not be loaded: {' '.join(str(error).split())[:400] or type(error).__name__}",
    )
