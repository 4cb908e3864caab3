"""Files from the Hugging Face hub, and what to tell people when they cannot be had. Knows nothing of torch or open_clip."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from mcp_server.errors import ModelUnavailableError

logger = logging.getLogger(__name__)

SAFE_WEIGHTS = "open_clip_model.safetensors"
PLAIN_WEIGHTS = "open_clip_pytorch_model.bin"

_FOR_A_MODEL = (
    "The text encoder's weights could not be downloaded on the server. Your arguments are fine. "
    "Tell the user: the first start needs the network once; the server's log says what to do. Then call again."
)


def fetch(repo: str, names: Sequence[str], model: str) -> Path:
    """Return a local copy of the first of `names` that `repo` has, downloading it unless the hub's own cache holds it.

    A download that breaks off leaves no file under its final name. Prints nothing to stdout.

    Raises:
        ModelUnavailableError: the hub cannot be reached, refuses, breaks off, or has none of `names`.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    # the hub's HTTP library changes with its version; the base classes of its own error name whichever it is
    failures = (OSError, ValueError, *HfHubHTTPError.__bases__)
    for position, name in enumerate(names):
        logger.info("model.fetch repo=%s file=%s", repo, name)
        try:
            return Path(hf_hub_download(repo_id=repo, filename=name))
        except LocalEntryNotFoundError as error:  # no network: an older format may still be in the hub's cache
            cached = _cached(repo, names[position + 1 :])
            if cached is not None:
                return cached
            raise download_failed(model, error) from error
        except EntryNotFoundError:
            logger.info("model.file_absent repo=%s file=%s", repo, name)
        except failures as error:
            raise download_failed(model, error) from error
    raise ModelUnavailableError(
        _FOR_A_MODEL, f"The hub's {repo} holds none of {', '.join(names)}, so Model = {model} cannot be loaded. Choose another model."
    )


def download_failed(model: str, error: BaseException) -> ModelUnavailableError:
    """Return the error for a first start that could not get `model` because of `error`."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return ModelUnavailableError(
        _FOR_A_MODEL,
        f"Model {model} could not be downloaded: {reason[:400]} "
        "The first start needs the network once; later starts do not. Nothing half-made was kept: start again to retry. "
        "Behind a mirror or proxy set HF_ENDPOINT or HTTPS_PROXY. If the model is already in this machine's Hugging Face cache, set "
        f"HF_HUB_OFFLINE=1. Without any network, copy open_clip_config.json, {SAFE_WEIGHTS} and the tokenizer's files to a folder and "
        "set Model = local-dir:FOLDER.",
    )


def _cached(repo: str, names: Sequence[str]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for name in names:
        found = try_to_load_from_cache(repo_id=repo, filename=name)
        if isinstance(found, str):
            return Path(found)
    return None
