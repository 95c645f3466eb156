"""Interface of the parts that seal personal texts before they enter a log."""

from typing import Protocol


class Sealer(Protocol):
    """A part that seals personal texts with the key of their subject, an account. `console.privacy.vault` has it."""

    def seal(self, subject: str, field: str, text: str) -> str:
        """Return the sealed form of a text, which may enter a log."""
