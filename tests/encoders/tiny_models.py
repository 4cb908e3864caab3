"""Small open_clip checkpoints with random weights, laid out as on the hub. The structure is real, the vectors mean nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WORDS = [
    "a",
    "photo",
    "of",
    "the",
    "dog",
    "cat",
    "beach",
    "red",
    "apple",
    "on",
    "in",
    "car",
    "tree",
    "house",
    "small",
    "big",
    "cafe",
    "naive",
    "fish",
    "unusual",
    "words",
    "word",
]

SIGLIP_CONFIG: dict[str, Any] = {
    "embed_dim": 48,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 64,
        "timm_model_name": "test_vit",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
    },
    "text_cfg": {
        "context_length": 16,
        "vocab_size": 400,
        "hf_tokenizer_name": "tiny/siglip",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "width": 64,
        "heads": 4,
        "layers": 2,
        "mlp_ratio": 3.7362,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
        "norm_kwargs": {"eps": 1e-6},
    },
}

CLIP_CONFIG: dict[str, Any] = {
    "embed_dim": 40,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def write_checkpoint(folder: Path, config: dict[str, Any], seed: int, custom_text: bool) -> None:
    """Write config and weights as open_clip publishes them; `custom_text` false gives the older flat layout."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    kind = open_clip.CustomTextCLIP if custom_text else open_clip.CLIP
    model = kind(**{key: value for key, value in config.items() if key != "custom_text"})
    folder.mkdir(parents=True)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}), encoding="utf-8")


def write_t5_tokenizer(folder: Path, pieces: int) -> None:
    """Write a unigram tokenizer of exactly `pieces` entries in the files and with the settings of SigLIP's: padded with its end mark."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    known = ["▁", *(f"▁{word}" for word in WORDS), *letters, *(f"▁{letter}" for letter in letters)]
    syllables = (f"{first}{second}{third}" for first in letters for second in letters for third in ["", *letters])
    vocabulary = list(dict.fromkeys(known))
    vocabulary += [piece for piece, _ in zip((s for s in syllables if s not in set(vocabulary)), range(pieces), strict=False)]
    scored = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((piece, -3.0 - 0.001 * place) for place, piece in enumerate(vocabulary))]
    tokenizer = Tokenizer(models.Unigram(scored[:pieces], unk_id=2))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
    settings = {**special, "tokenizer_class": "T5Tokenizer", "extra_ids": 0, "additional_special_tokens": [], "model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special), encoding="utf-8")
