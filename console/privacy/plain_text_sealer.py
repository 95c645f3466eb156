"""The sealer of a machine that has no keys."""


class PlainTextSealer:
    """Stands in for a vault where no system exists: texts stay readable, which changes no decision of the rules."""

    def seal(self, subject: str, field: str, text: str) -> str:  # noqa: ARG002 - as a Sealer has them
        """Return the text unchanged."""
        return text
