"""Functions to call when something has changed."""

import threading
from collections.abc import Callable


class Watchers:
    """Functions that are called after each change; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watchers: set[Callable[[], None]] = set()

    def add(self, watcher: Callable[[], None]) -> Callable[[], None]:
        """Call `watcher` after each change from now on. Return a function that ends this."""
        with self._lock:
            self._watchers.add(watcher)

        def remove() -> None:
            with self._lock:
                self._watchers.discard(watcher)

        return remove

    def notify(self) -> None:
        """Call every watcher, in the thread of the caller."""
        with self._lock:
            watchers = list(self._watchers)
        for watcher in watchers:
            watcher()
