"""Rate limits: one token bucket per key."""

import time
from collections import OrderedDict
from collections.abc import Callable

MAX_KEYS = 100_000
"""Maximum number of buckets in memory."""
MAX_STREAMS = 500
"""Maximum number of open event streams of the API, and of the pages."""


class TokenBuckets:
    """Token buckets, one per key: `burst` requests at once, and `per_s` more each second. Past MAX_KEYS keys, the
    least recently used leave.
    """

    def __init__(self, burst: float, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._burst = burst
        self._per_s = per_s
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> float:
        """Take one token. Return 0.0 if there was one, else the seconds until there is one."""
        now = self._clock()
        left, since = self._left.pop(key, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._per_s)
        wait_s = 0.0 if left >= 1 else (1 - left) / self._per_s
        self._left[key] = (left - 1 if left >= 1 else left, now)
        if len(self._left) > MAX_KEYS:
            self._left.popitem(last=False)
        return wait_s
