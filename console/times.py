"""Times as people read them."""

from datetime import UTC, datetime


def iso_time(at_ms: int) -> str:
    """A time in UTC milliseconds as people read it, to the second."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(sep=" ", timespec="seconds")
