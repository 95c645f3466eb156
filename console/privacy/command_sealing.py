"""Sealing of analysts' texts in commands, with the key of the case's account."""

from typing import Any, Final

from console.privacy.sealer import Sealer
from domain.cases.commands import Command
from domain.record import replace

TEXT_FIELD, NAME_FIELD = "text", "name"
"""Field names that sealed texts are bound to: analysts' words, and names of files."""
_WORDS: Final = ("reason", "text")


def seal_command(command: Command, sealer: Sealer) -> Command:
    """Seal the texts of a command before it enters the log. Files and their names are sealed where they are stored."""
    words: dict[str, Any] = {
        name: sealer.seal(command.account_id, TEXT_FIELD, getattr(command, name))
        for name in _WORDS
        if getattr(command, name, None) is not None
    }
    return replace(command, **words) if words else command
