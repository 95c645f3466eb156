"""Durations in text form: "500ms", "60s", "5m", "24h", "28d"."""

import re
from typing import Final

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
"""Milliseconds of a minute, an hour and a day."""
UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS}
_DURATION: Final = re.compile(r"([0-9]{1,12})(ms|s|m|h|d)")


def duration_ms(text: str) -> int:
    """Return the milliseconds of a duration. Raises ValueError."""
    matched = _DURATION.fullmatch(text)
    if matched is None:
        raise ValueError(f"{text!r} is not a duration: write a whole number and ms, s, m, h or d, as in 60s")
    return int(matched[1]) * UNITS_MS[matched[2]]


def format_duration(ms: int) -> str:
    """Return the shortest text for this number of milliseconds; `duration_ms` reads it back."""
    unit = next(unit for unit, size in reversed(UNITS_MS.items()) if ms % size == 0)
    return f"{ms // UNITS_MS[unit]}{unit}"
