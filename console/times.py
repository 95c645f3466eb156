"""Times in UTC milliseconds: the clock, and times as users write and read them."""

import time
from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def now_ms() -> int:
    """Return the current time in UTC milliseconds."""
    return time.time_ns() // 1_000_000


def iso_time(at_ms: int) -> str:
    """Return a time in ISO 8601, in UTC, to the second."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(sep=" ", timespec="seconds")


def parse_time(text: str) -> int:
    """Return a time in UTC milliseconds from ISO 8601 (UTC where no zone is given), or from the number itself.

    Raise ValueError for any other text, with a message for the user.
    """
    if text.isdecimal():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(
            f"{text!r} is not a time. Write 2026-01-31T12:00:00Z, or milliseconds since 1970 in UTC"
        ) from error
    return ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH) // timedelta(milliseconds=1)
