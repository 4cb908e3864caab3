"""Files from the Hugging Face hub. Knows nothing of torch or open_clip."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from mcp_server.encoders import failures

logger = logging.getLogger(__name__)


def fetch(repo: str, names: Sequence[str], model: str) -> Path:
    """Return a local copy of the first of `names` that `repo` has, downloading it unless the hub's own cache holds it.

    A download that breaks off leaves no file under its final name. Prints nothing to stdout; progress goes to a terminal's stderr only.

    Raises:
        ModelUnavailableError: the hub cannot be reached, refuses, breaks off, or has none of `names`.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    # the hub's HTTP library differs between its versions; the bases of its own error name whichever it is
    broken = cast("tuple[type[Exception], ...]", (OSError, ValueError, *HfHubHTTPError.__bases__))
    for position, name in enumerate(names):
        logger.info("model.fetch repo=%s file=%s", repo, name)
        try:
            return Path(hf_hub_download(repo_id=repo, filename=name))
        except LocalEntryNotFoundError as error:  # no network: an older format may still be in the hub's cache
            cached = _cached(repo, names[position + 1 :])
            if cached is not None:
                return cached
            raise failures.download_failed(model, error) from error
        except EntryNotFoundError:
            logger.info("model.file_absent repo=%s file=%s", repo, name)
        except broken as error:
            raise failures.download_failed(model, error) from error
    raise failures.files_missing(model, repo, list(names))


def _cached(repo: str, names: Sequence[str]) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    for name in names:
        found = try_to_load_from_cache(repo_id=repo, filename=name)
        if isinstance(found, str):
            return Path(found)
    return None
