"""Why a model cannot be had, said twice: to the calling model without names of files, to the person who runs the server with the remedy."""

from __future__ import annotations

from pathlib import Path

from mcp_server.errors import ModelUnavailableError

_NO_DOWNLOAD = (
    "The text encoder's weights could not be downloaded on the server. Your arguments are fine. "
    "Tell the user: the first start needs the network once; the server's log says what to do. Then call again."
)
_NOT_LOADED = (
    "The text encoder could not be loaded on the server. Your arguments are fine. "
    "Tell the user that the server's log names the reason, then call again."
)
_PROGRAM = (
    "The text encoder cannot start: its cache on the server is a pickled program, which is refused. Your arguments are fine. "
    "Tell the user to move that file away (the server's log names it), then call again."
)


def download_failed(model: str, error: BaseException) -> ModelUnavailableError:
    """The first start could not get `model`."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        what = "HF_HUB_OFFLINE is set, and this machine's Hugging Face cache does not hold all of it. Start once without that setting."
    else:
        what = (
            f"{constants.ENDPOINT} did not give it: {_reason(error)} The first start needs the network once; later starts do not. "
            "Start again to retry: nothing half-made was kept. Behind a mirror or proxy set HF_ENDPOINT or HTTPS_PROXY."
        )
    return ModelUnavailableError(
        _NO_DOWNLOAD,
        f"Model {model} could not be downloaded. {what} Without any network, copy open_clip_config.json, open_clip_model.safetensors and "
        "the tokenizer's files to a folder and set Model = local-dir:FOLDER.",
    )


def files_missing(model: str, repo: str, names: list[str]) -> ModelUnavailableError:
    """The hub answers, but has no weights that can be read."""
    return ModelUnavailableError(
        _NO_DOWNLOAD,
        f"Model {model}: the hub's {repo} holds none of {', '.join(names)}. Choose another model, or check the spelling.",
    )


def not_loaded(model: str, error: BaseException) -> ModelUnavailableError:
    """The files are there, but cannot be turned into an encoder here."""
    return ModelUnavailableError(_NOT_LOADED, f"Model {model} could not be loaded: {_reason(error)}")


def cache_damaged(weights: Path, error: ModelUnavailableError) -> ModelUnavailableError:
    """The cache must be made again, and `error` prevents that."""
    return ModelUnavailableError(
        error.message, f"The cache {weights} is damaged or was made by another version, and making it again failed. {error.remedy}"
    )


def pickled_program(weights: Path, content: str) -> ModelUnavailableError:
    """More than tensors stands where the cache belongs."""
    return ModelUnavailableError(
        _PROGRAM,
        f"{weights} holds more than plain weights ({content}); some tools write such files. It is refused, because loading it would run "
        "whatever it contains. Move or delete it and start again: the cache is then made afresh.",
    )


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:  # libraries wrap a plain fact in long advice of their own
        error = error.__cause__
    if "trust_remote_code" in str(error):  # transformers advises to set it
        return "it works only with a program that its publisher put beside it, and such programs are never run. Choose another model."
    text = " ".join(str(error).split())[:400].rstrip(".")
    return f"{type(error).__name__}: {text}." if text else f"{type(error).__name__}."
