"""Where a collection goes, whether it may, and what the configuration says of it."""

from __future__ import annotations

import os
from pathlib import Path

from mcp_server.config import LOCAL_DIR
from mcp_server.errors import IngestError
from mcp_server.ingest.claim import LEDGER_FOLDER
from mcp_server.ingest.config_section import check_name, sections_of
from mcp_server.ingest.ledger import Ledger
from mcp_server.ingest.write import CATALOG_FILE, EMBEDDINGS_FILE, THUMBNAILS_FILE


def check_place(destination: Path, config_file: Path, name: str, *, replace: bool, goes_on: bool = False) -> None:
    """Refuse a name or a folder that belongs to something else. `goes_on`: a collection that ingest made may be there.

    Raises:
        IngestError: with what to do.
    """
    check_name(name)
    there = sections_of(config_file)
    twin = next((section for section in there if section != name and section.casefold() == name.casefold()), None)
    if twin is not None:
        raise IngestError(f"There is already a collection {twin!r}, which differs in letter case only. Give another --name.")
    if replace or (goes_on and Ledger.exists(destination)):
        return
    if name in there and goes_on:
        raise IngestError(
            f"There is already a collection {name!r} in {config_file}, but not what ingest remembers of it, "
            f"{destination / LEDGER_FOLDER}. Put that back, give another --name, or --replace to build the collection anew."
        )
    if name in there:
        raise IngestError(f"There is already a collection {name!r} in {config_file}. Give another --name, or --replace to build it anew.")
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise IngestError(f"{destination} is there already and not empty. Give another --name or --out, or --replace to write into it.")


def absolute_model(model: str) -> str:
    """Return `model` with the folder of a `local-dir:` made absolute, from the working folder."""
    if not model.startswith(LOCAL_DIR):
        return model
    return LOCAL_DIR + os.path.normpath(Path(model.removeprefix(LOCAL_DIR)).expanduser().absolute())


def collection_section(destination: Path, root: Path, model: str, original_base: str, thumbnail_base: str | None = None) -> dict[str, str]:
    """Return the keys and values of the configuration's section for the collection in `destination`.

    Args:
        root: what relative paths of the configuration start at.
        model: as from `absolute_model`.
        original_base: URL, folder or zip of the full pictures; "" for none.
        thumbnail_base: the same for thumbnails; default: the thumbnails zip in `destination`.
    """
    if model.startswith(LOCAL_DIR):
        model = LOCAL_DIR + shown_path(model.removeprefix(LOCAL_DIR), root)
    return {
        "Enabled": "True",
        "IndexType": "zarr",
        "Model": model,
        "EmbeddingsFile": shown_path(destination / EMBEDDINGS_FILE, root),
        "DatabaseFile": shown_path(destination / CATALOG_FILE, root),
        "ThumbnailMediaURL": _base(str(destination / THUMBNAILS_FILE) if thumbnail_base is None else thumbnail_base, root),
        "OriginalMediaURL": _base(original_base, root),
    }


def _base(base: str, root: Path) -> str:
    return base if not base or base.lower().startswith(("http://", "https://")) else shown_path(base, root)


def shown_path(path: Path | str, root: Path) -> str:
    """Return `path` as the configuration says it: from `root` where it lies below it, else absolute."""
    absolute = Path(os.path.normpath(Path(path).absolute()))
    return f"./{absolute.relative_to(root).as_posix()}" if absolute.is_relative_to(root) else absolute.as_posix()
