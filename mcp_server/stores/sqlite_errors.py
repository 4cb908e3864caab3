"""What SQLite's refusals mean, by its primary result codes. Source: https://www.sqlite.org/rescode.html."""

from __future__ import annotations

import sqlite3


def code_of(error: Exception) -> int:
    """Return the primary result code of `error`; 0 where SQLite gave none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_damage(error: Exception) -> bool:
    """Tell whether the file is damaged, or no database at all."""
    return code_of(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
