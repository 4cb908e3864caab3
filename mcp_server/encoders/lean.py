"""The text transformer of open_clip's plain models in torch alone, so that a start need not import open_clip: same weights, same vectors.

Source of the structure: `open_clip.transformer.TextTransformer`. Tests compare; so does the first start before it leaves a cache to it.
A configuration with anything in it that is not known here is refused; open_clip then builds the tower.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, cast

import torch
from torch.nn import functional

_NOT_THE_TOWERS = {
    "hf_tokenizer_name",
    "tokenizer_mode",
    "tokenizer_kwargs",
    "pad_id",
    "hf_model_pretrained",
    "hf_proj_type",
    "hf_pooler_type",
}
"""Settings of the tokenizer, or of towers that are not open_clip's own."""
_LAYER = "transformer.resblocks.{}."


class NotLeanError(Exception):
    """Why open_clip must do it; the text goes to the log."""


@dataclass(frozen=True)
class Shape:
    """A text transformer as its configuration describes it."""

    context_length: int = 77
    vocab_size: int = 49408
    width: int = 512
    heads: int = 8
    layers: int = 12
    mlp_ratio: float = 4.0
    ls_init_value: float | None = None
    eos_id: int = 2
    no_causal_mask: bool = False
    pool_type: Literal["first", "last", "argmax", "eos"] = "argmax"
    proj_type: Literal["linear", "none"] = "linear"
    proj_bias: bool = False
    eps: float = 1e-5
    activation: Literal["gelu", "gelu tanh", "quick gelu"] = "gelu"
    output: int = 512


def shape_of(config: Mapping[str, Any]) -> Shape:
    """Return the text tower that an open_clip model configuration describes.

    Raises:
        NotLeanError: something in it is not known here.
    """
    settings = {name: value for name, value in cast("dict[str, Any]", config["text_cfg"]).items() if name not in _NOT_THE_TOWERS}
    norm, activation = dict(settings.pop("norm_kwargs", None) or {}), dict(settings.pop("act_kwargs", None) or {})
    eps, approximate = norm.pop("eps", 1e-5), activation.pop("approximate", None)
    known = {field.name for field in fields(Shape)} - {"eps", "activation", "output"}
    unknown = [name for name, value in settings.items() if name not in known and value not in (None, False, "")] + [*norm, *activation]
    quick = bool(config.get("quick_gelu"))
    if unknown or approximate not in (None, "none", "tanh") or (quick and approximate is not None) or "multimodal_cfg" in config:
        raise NotLeanError(f"configuration {unknown or 'of the activation'}")
    used = {name: value for name, value in settings.items() if name in known}
    kind = "quick gelu" if quick else "gelu tanh" if approximate == "tanh" else "gelu"
    shape = Shape(**used, eps=eps, activation=kind, output=int(config["embed_dim"]))
    if shape.pool_type not in ("first", "last", "argmax", "eos") or shape.proj_type not in ("linear", "none"):
        raise NotLeanError(f"configuration pool_type={shape.pool_type} proj_type={shape.proj_type}")
    sized = isinstance(shape.mlp_ratio, int | float) and shape.width % shape.heads == 0  # pyright: ignore[reportUnnecessaryIsInstance] - as read
    if not sized or (shape.proj_type == "none" and shape.width != shape.output):
        raise NotLeanError("configuration of the widths")
    return shape


class LeanTower:
    """Ids to vectors. Holds no state beside the weights; one call at a time is up to the caller."""

    def __init__(self, shape: Shape, weights: Mapping[str, torch.Tensor]) -> None:
        """Take `weights` as they are, named as in open_clip's text tower, without a copy.

        Raises:
            NotLeanError: a tensor is missing, one too many, or of another size.
        """
        expected = expected_sizes(shape)
        if wrong := sorted(name for name in {*expected, *weights} if tuple(getattr(weights.get(name), "shape", ())) != expected.get(name)):
            raise NotLeanError(f"weights {wrong[:3]}")
        self._shape = shape
        self._weights = dict(weights)

    def to(self, dtype: torch.dtype, device: torch.device) -> None:
        """Move the weights; cast first, so that a smaller format has fewer bytes to move."""
        self._weights = {name: tensor.to(dtype).to(device) for name, tensor in self._weights.items()}

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        """Return (B, D) of (B, context_length) ids, not normalised, in the weights' format."""
        x = functional.embedding(ids, self._weights["token_embedding.weight"]) + self._weights["positional_embedding"][: ids.shape[1]]
        for number in range(self._shape.layers):
            layer = _LAYER.format(number)
            x = x + self._scaled(self._attention(self._normed(x, layer + "ln_1."), layer + "attn."), layer + "ls_1.gamma")
            x = x + self._scaled(self._perceptron(self._normed(x, layer + "ln_2."), layer + "mlp."), layer + "ls_2.gamma")
        return self._projected(self._normed(self._pooled(x, ids), "ln_final."))

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.linear(x, self._weights[name + "weight"], self._weights[name + "bias"])

    def _normed(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.layer_norm(x, x.shape[-1:], self._weights[name + "weight"], self._weights[name + "bias"], self._shape.eps)

    def _scaled(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return x if self._shape.ls_init_value is None else x * self._weights[name]

    def _attention(self, x: torch.Tensor, name: str) -> torch.Tensor:
        batch, length, width = x.shape
        joint = functional.linear(x, self._weights[name + "in_proj_weight"], self._weights[name + "in_proj_bias"])
        query, key, value = joint.view(batch, length, 3, self._shape.heads, -1).permute(2, 0, 3, 1, 4).unbind()
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=not self._shape.no_causal_mask)
        return self._linear(mixed.transpose(1, 2).reshape(batch, length, width), name + "out_proj.")

    def _perceptron(self, x: torch.Tensor, name: str) -> torch.Tensor:
        inner = self._linear(x, name + "c_fc.")
        if self._shape.activation == "quick gelu":
            inner = inner * torch.sigmoid(1.702 * inner)
        else:
            inner = functional.gelu(inner, approximate="tanh" if self._shape.activation == "gelu tanh" else "none")
        return self._linear(inner, name + "c_proj.")

    def _pooled(self, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Return the one position of each text that stands for all of it."""
        pool = self._shape.pool_type
        if pool in ("first", "last"):
            return x[:, 0 if pool == "first" else -1]
        place = ids.argmax(dim=-1) if pool == "argmax" else (ids == self._shape.eos_id).int().argmax(dim=-1)
        return x[torch.arange(len(x), device=x.device), place]

    def _projected(self, x: torch.Tensor) -> torch.Tensor:
        if self._shape.proj_type == "none":
            return x
        return self._linear(x, "text_projection.") if self._shape.proj_bias else x @ self._weights["text_projection"]


def expected_sizes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Return the name and the size of every tensor of the tower."""
    width, inner = shape.width, int(shape.width * shape.mlp_ratio)
    layer: dict[str, tuple[int, ...]] = {
        "ln_1.weight": (width,),
        "ln_1.bias": (width,),
        "attn.in_proj_weight": (3 * width, width),
        "attn.in_proj_bias": (3 * width,),
        "attn.out_proj.weight": (width, width),
        "attn.out_proj.bias": (width,),
        "ln_2.weight": (width,),
        "ln_2.bias": (width,),
        "mlp.c_fc.weight": (inner, width),
        "mlp.c_fc.bias": (inner,),
        "mlp.c_proj.weight": (width, inner),
        "mlp.c_proj.bias": (width,),
    }
    if shape.ls_init_value is not None:
        layer |= {"ls_1.gamma": (width,), "ls_2.gamma": (width,)}
    sizes = {_LAYER.format(number) + name: size for number in range(shape.layers) for name, size in layer.items()}
    sizes |= {"token_embedding.weight": (shape.vocab_size, width), "positional_embedding": (shape.context_length, width)}
    sizes |= {"ln_final.weight": (width,), "ln_final.bias": (width,)}
    if shape.proj_type == "linear":
        if shape.proj_bias:
            sizes |= {"text_projection.weight": (shape.output, width), "text_projection.bias": (shape.output,)}
        else:
            sizes["text_projection"] = (width, shape.output)
    return sizes
