"""The cached text tower on disk: plain weights, tokenizer and a JSON record that vouches for both.

A cache is used only if its record names the model asked for and the hashes of the files. Every file is written under a temporary name,
flushed and renamed; the record comes last. Whatever interrupts that, the next start sees either a whole cache or one to be made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast, get_args, get_origin, get_type_hints

from mcp_server.config import LOCAL_DIR
from mcp_server.encoders.models import CachePaths, cache_paths, wrong_setting
from mcp_server.encoders.tokens import TokenizerRecord

logger = logging.getLogger(__name__)

FORMAT = 1


@dataclass(frozen=True)
class TowerRecord:
    """What the weights are and how to use them."""

    model: str
    source: str
    """open_clip's tag of the weights, or the hub repository."""
    embed_dim: int
    context_length: int
    quick_gelu: bool
    text_cfg: dict[str, Any]
    tokenizer: TokenizerRecord
    tensors: int
    logit_scale: float | None
    """Factor on the cosine before softmax or sigmoid."""
    logit_bias: float | None
    lean: bool = False
    """Whether `lean` and our tokenizers gave open_clip's own vectors when the cache was made."""


def read_record(paths: CachePaths, model: str) -> TowerRecord | None:
    """Return the record of a whole cache of `model`, its files' hashes checked; None when it must be made.

    Reads every byte of the weights: seconds for a big model.
    """
    try:
        fields = json.loads(paths.metadata.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("cache.unreadable file=%s error=%s", paths.metadata.name, error)
        return None
    record = _record_of(fields)
    if record is None or record.model != model:
        logger.warning("cache.not_ours file=%s wanted=%s", paths.metadata.name, model)
        return None
    sums = cast("dict[str, object]", fields["sha256"])
    for file in _files(paths, record):
        if sums.get(file.name) is None or _sum_of(file) != sums[file.name]:
            logger.warning("cache.damaged file=%s", file.name)
            return None
    return record


def checked_record(model: str, data_folder: Path) -> TowerRecord | None:
    """Return what `read_record` finds for `model`; None at once for a `local-dir:` model, which has no cache. Raises nothing."""
    return None if model.startswith(LOCAL_DIR) else read_record(cache_paths(model, data_folder), model)


def write_cache(paths: CachePaths, record: TowerRecord, save_weights: Callable[[BinaryIO], object], tokenizer: str | None) -> None:
    """Write weights, tokenizer and record, in that order, each in one step.

    Call it with `making(paths)` held. `tokenizer` is given exactly when the record's kind is "saved".

    Raises:
        OSError: the folder cannot be written or is full. Nothing new stands under a final name that the record vouches for.
    """
    for leftover in paths.metadata.parent.glob(f".{paths.metadata.stem}.{'[0-9a-f]' * 12}.tmp"):  # of a start that was killed
        leftover.unlink(missing_ok=True)
    _replace(paths.weights, save_weights, paths)
    if tokenizer is not None:
        text = tokenizer.encode("utf-8")
        _replace(paths.tokenizer, lambda file: file.write(text), paths)
    fields: dict[str, Any] = {
        "format": FORMAT,
        **asdict(record),
        "sha256": {file.name: _sum_of(file) for file in _files(paths, record)},
    }
    body = (json.dumps(fields, indent=1) + "\n").encode("utf-8")
    _replace(paths.metadata, lambda file: file.write(body), paths)
    if os.name == "posix":
        folder = os.open(paths.metadata.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@contextlib.contextmanager
def making(paths: CachePaths) -> Generator[bool]:
    """Let one process at a time make this cache; wait for the others.

    Yields True with the lock held, or False where the folder cannot be written, so that there is nothing to lock or keep.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(paths.lock)
    try:
        paths.lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            logger.info("cache.wait reason=another_process_is_making_it")
            lock.acquire()
    except OSError as error:
        logger.warning("cache.unwritable error=%s", error)
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _files(paths: CachePaths, record: TowerRecord) -> list[Path]:
    return [paths.weights, paths.tokenizer] if record.tokenizer.kind == "saved" else [paths.weights]


def _record_of(fields: object) -> TowerRecord | None:
    if not isinstance(fields, dict):
        return None
    values = dict(cast("dict[str, Any]", fields))
    sums: object = values.pop("sha256", None)
    if values.pop("format", None) != FORMAT or not isinstance(sums, dict):
        return None
    try:
        tokenizer = TokenizerRecord(**values.pop("tokenizer"))
        record = TowerRecord(tokenizer=tokenizer, **values)
    except (KeyError, TypeError):  # fields missing or unknown: written by another version
        return None
    if not (_is_typed(record) and _is_typed(tokenizer)):
        return None
    return None if wrong_setting({"embed_dim": record.embed_dim, "text_cfg": record.text_cfg, "vision_cfg": {}}) else record


def _is_typed(record: TowerRecord | TokenizerRecord) -> bool:
    """Tell whether every field holds what its type says."""
    return all(_fits(getattr(record, name), kind) for name, kind in get_type_hints(type(record)).items())


def _fits(value: object, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    return isinstance(value, get_origin(kind) if get_origin(kind) is dict else kind)


def _sum_of(file: Path) -> str | None:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return None


def _replace(target: Path, fill: Callable[[BinaryIO], object], paths: CachePaths) -> None:
    temporary = target.with_name(f".{paths.metadata.stem}.{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("xb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)  # never in place: a running server may have the old file mapped
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
