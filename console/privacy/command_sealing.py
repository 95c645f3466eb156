"""What analysts write, sealed on its way into the log with the key of the account that their case is about."""

from typing import Any, Final

from console.privacy.sealer import Sealer
from domain.cases.commands import Command
from domain.record import replace

TEXT_FIELD, NAME_FIELD = "text", "name"
"""What sealed texts from here are of: words, the name of a file."""
_WORDS: Final = ("reason", "text")


def seal_command(command: Command, sealer: Sealer) -> Command:
    """A command as it may enter the log: its words sealed. Files are sealed where they are stored, with their names."""
    words: dict[str, Any] = {
        name: sealer.seal(command.account_id, TEXT_FIELD, getattr(command, name))
        for name in _WORDS
        if getattr(command, name, None) is not None
    }
    return replace(command, **words) if words else command
