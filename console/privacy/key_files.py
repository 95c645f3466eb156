"""Secret keys in files that only their owner can read."""

import os
import secrets
from contextlib import suppress
from pathlib import Path


def console_key(file: Path) -> bytes:
    """Read the key in this file, and make it first if it does not exist: 32 random bytes, readable by its owner
    only.
    """
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        mine = file.with_name(f"{file.name}.{os.getpid()}")
        with os.fdopen(os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as opened:
            opened.write(secrets.token_bytes(32))
        with suppress(FileExistsError):  # another process was faster: then its key is the key
            os.link(mine, file)
        mine.unlink()
    return file.read_bytes()
