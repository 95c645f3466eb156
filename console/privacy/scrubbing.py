"""Removal of deleted bytes from the files of the control store, so that a destroyed key does not remain in an unused
page.
"""

import mmap
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from sqlalchemy import Engine, text

PIECE: Final = 16
"""Length in bytes of the pieces searched for: long enough that no other data equals one by chance."""


class ScrubbingError(RuntimeError):
    """Deleted bytes remain in a file of the store; the message names the file."""


def scrub(engine: Engine, table: str, secrets: Iterable[bytes]) -> None:
    """Make sure that deleted bytes are in no file of the store. Raises ScrubbingError.

    SQLite overwrites deleted rows (`secure_delete`), but not copies that it left when it moved rows between pages:
    if bytes remain, the file is rewritten. PostgreSQL keeps dead rows in a table's pages: the table is rewritten.
    """
    wanted = list(secrets)
    if not wanted:
        return
    if engine.dialect.name == "postgresql":
        _run(engine, f"VACUUM (FULL) {table}")
        return
    files = _files(engine)
    if _files_with_remains(files, wanted):
        _run(engine, "VACUUM")
        left = _files_with_remains(files, wanted)
        if left:
            raise ScrubbingError(
                f"deleted bytes are still in {left[0]}. Cure: run the command again while nothing else writes to it"
            )


def _run(engine: Engine, statement: str) -> None:
    """Run a statement that no transaction can contain."""
    raw = engine.raw_connection()
    try:
        if engine.dialect.name == "postgresql":
            raw.driver_connection.autocommit = True  # type: ignore[union-attr]
        cursor = raw.cursor()
        cursor.execute(text(statement).text)
        cursor.close()
        if engine.dialect.name == "postgresql":
            raw.driver_connection.autocommit = False  # type: ignore[union-attr]
    finally:
        raw.close()


def _files(engine: Engine) -> list[Path]:
    database = engine.url.database
    if not database or database == ":memory:":
        return []
    return [Path(database + suffix) for suffix in ("", "-wal", "-journal")]


def _files_with_remains(files: Iterable[Path], secrets: Iterable[bytes]) -> list[Path]:
    pieces = [secret[at : at + PIECE] for secret in secrets for at in range(0, len(secret), PIECE)]
    return [file for file in files if file.exists() and file.stat().st_size and _holds(file, pieces)]


def _holds(file: Path, pieces: Iterable[bytes]) -> bool:
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(content.find(piece) >= 0 for piece in pieces)
