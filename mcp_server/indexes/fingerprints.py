"""Notes beside a FAISS file which embeddings it was built from, so that a file left behind by newer embeddings is noticed."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any, cast

from mcp_server.errors import CollectionError, clipped
from mcp_server.whole_files import write_whole

_KEY = "embeddings"
_BYTES = "bytes"
_SAMPLE = "sample"
_BLOCKS, _BLOCK_BYTES = 64, 4096
_RECALL = "recall"


def fingerprint_of(embeddings_file: Path) -> str:
    """Return what tells the content of embeddings from any other, without reading the vectors.

    Of a zip: names, sizes and checksums from its directory. Of a folder, which keeps no checksums: names, sizes and times.

    Raises:
        CollectionError: nothing is there, or it cannot be read.
    """
    try:
        if embeddings_file.is_dir():
            files = (path for path in embeddings_file.rglob("*") if path.is_file())
            parts = [(path.relative_to(embeddings_file).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        else:
            with zipfile.ZipFile(embeddings_file) as archive:
                parts = [(entry.filename, entry.file_size, entry.CRC) for entry in archive.infolist()]
    except (OSError, zipfile.BadZipFile) as error:
        raise CollectionError(f"Embeddings cannot be read: {embeddings_file} ({clipped(error, 120)}).") from error
    return hashlib.sha256(json.dumps(sorted(parts)).encode()).hexdigest()


def content_of(embeddings_file: Path) -> dict[str, Any]:
    """Return facts that are equal only while the content of the embeddings is. Raises CollectionError: they cannot be read."""
    facts: dict[str, Any] = {"embeddings": fingerprint_of(embeddings_file)}
    if embeddings_file.is_dir():  # which has no checksums, and a chunk can be given the size and the time that it had
        facts["changed"] = max((path.stat().st_ctime_ns for path in embeddings_file.rglob("*")), default=0)
    return facts


def note_file(faiss_file: Path) -> Path:
    """Return where the note about `faiss_file` is kept."""
    return faiss_file.with_name(faiss_file.name + ".json")


def write_note(faiss_file: Path, fingerprint: str, facts: dict[str, Any]) -> None:
    """Write the note: what `faiss_file` was built from, and `facts` about it for people."""
    write_json(note_file(faiss_file), {_KEY: fingerprint, **_identity(faiss_file), **facts})


def note_recall(faiss_file: Path, recall: dict[str, Any]) -> None:
    """Add to the note what was measured of `faiss_file`; nothing happens where it has no note.

    Raises:
        OSError: the note cannot be written.
    """
    if note := _note(faiss_file):
        write_json(note_file(faiss_file), {**note, _RECALL: recall})


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Write `content` to `file`, whole or not at all. Raises OSError."""
    write_whole(file, json.dumps(content, indent=1) + "\n")


def noted(faiss_file: Path) -> str | None:
    """Return the fingerprint noted for `faiss_file`; None when there is no note, as beside files of other makers, or another file's."""
    fingerprint = _note(faiss_file).get(_KEY)
    return fingerprint if isinstance(fingerprint, str) else None


def noted_recall(faiss_file: Path) -> object:
    """Return what the note says was measured of `faiss_file`; None when it says nothing."""
    return _note(faiss_file).get(_RECALL)


def is_of_other_embeddings(faiss_file: Path, embeddings_file: Path) -> bool:
    """Tell whether a note says that `faiss_file` was built from something else than `embeddings_file` holds now.

    Raises:
        CollectionError: the embeddings cannot be read.
    """
    fingerprint = noted(faiss_file)
    return fingerprint is not None and fingerprint != fingerprint_of(embeddings_file)


def _note(faiss_file: Path) -> dict[str, Any]:
    """Return the note; empty when there is none, or it is about another file."""
    try:
        note = json.loads(note_file(faiss_file).read_text(encoding="utf-8"))
        of_file = isinstance(note, dict) and cast("dict[str, Any]", note).items() >= _identity(faiss_file).items()
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", note) if of_file else {}


def _identity(faiss_file: Path) -> dict[str, Any]:
    """Return what tells the file from another, wherever it is copied to: its size, and a hash of some blocks of it. Raises OSError."""
    size, found = faiss_file.stat().st_size, hashlib.sha256()
    with faiss_file.open("rb") as opened:
        for number in range(_BLOCKS):
            opened.seek(max(0, size - _BLOCK_BYTES) * number // (_BLOCKS - 1))
            found.update(opened.read(_BLOCK_BYTES))
    return {_BYTES: size, _SAMPLE: found.hexdigest()}
