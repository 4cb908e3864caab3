"""Small files that are replaced in one step, so that whoever reads one finds the old text or the new one, never a part."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path


def write_whole(file: Path, text: str, *, with_folder: bool = False) -> None:
    """Put `text`, as it is, in the place of `file`, and on the disk; when that fails, what was there is there still.

    A link stays a link, and rights stay as they are; a new file has those that the user gives new files. `with_folder` makes the folder it
    lies in as well.

    Raises:
        OSError: it cannot be written.
    """
    target = Path(os.path.realpath(file))
    if with_folder:
        target.parent.mkdir(parents=True, exist_ok=True)
    # of the name only so much that no disk finds it too long
    temporary = target.with_name(f".{target.name[:50]}.{secrets.token_hex(6)}.new")
    try:
        with temporary.open("x", encoding="utf-8", newline="") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
