"""The histories of a partition: those in memory, and writing the changed ones to state in parts.

A snapshot is the state of one moment: a history that changes before its turn is written before it changes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import islice

from domain.risk.history import History, Parse

Writes = dict[str, bytes | None]
"""State entries by key; None removes one."""


class Histories:
    """The histories of one partition, by account or entity.

    `load` reads a state entry by key. At most `most` histories stay in memory, and the least recently written leave
    first. With `most=None` all stay, and none is ever written. `parse` is as in History.read.
    """

    def __init__(self, load: Callable[[str], bytes | None], most: int | None, parse: Parse | None = None) -> None:
        self._load = load
        self._most = most
        self._parse = parse
        self.loaded: dict[str, History] = {}
        self.are_written = most is not None
        self._changed: dict[str, History] = {}
        self._waiting: dict[str, History] = {}
        self._writes: Writes = {}

    def read(self, key: str) -> History:
        """Read a history that is not loaded from its state entries, or start an empty one if there are none."""
        history = self.loaded[key] = History.read(key, self._load, self._parse)
        return history

    def change(self, key: str, history: History) -> None:
        """Note that a history is about to change; must be called before each change if histories are written."""
        if key in self._waiting:
            self._write(key)
        self._changed[key] = history

    def begin_writes(self, others: Writes) -> int:
        """Begin a snapshot of the histories changed so far, and of the entries in `others`. Return how many
        histories.
        """
        assert not self._waiting, "the snapshot that was begun before must be written first"
        self._waiting, self._changed, self._writes = self._changed, {}, others
        return len(self._waiting)

    def continue_writes(self, count: int | None = None) -> Writes | None:
        """Write up to `count` more histories of the snapshot, or all if None.

        Return the entries of the snapshot once it is complete, until then None. Histories above the limit then leave
        memory.
        """
        for key in list(islice(self._waiting, count)):
            self._write(key)
        if self._waiting:
            return None
        writes, self._writes = self._writes, {}
        self._forget()
        return writes

    def _write(self, key: str) -> None:
        self._writes.update(self._waiting.pop(key).take_writes())
        self.loaded[key] = self.loaded.pop(key)  # to the end: recently used

    def _forget(self) -> None:
        if self._most is None:
            return
        for key in list(islice(self.loaded, max(0, len(self.loaded) - self._most))):
            if key not in self._changed:
                del self.loaded[key]


class HistoriesFold(ABC):
    """A fold whose state is histories and a few other entries, written at once or in parts."""

    _histories: Histories

    @abstractmethod
    def _take_others(self) -> Writes:
        """Return the entries, other than histories, that changed since the last call."""

    def take_writes(self) -> Writes:
        """Return all state entries that changed since the last call. Histories above the limit then leave memory."""
        self.begin_writes()
        writes = self.continue_writes()
        assert writes is not None, "without a count, all histories are written"
        return writes

    def begin_writes(self) -> int:
        """Begin a snapshot of all that changed so far. Return how many histories it holds."""
        return self._histories.begin_writes(self._take_others())

    def continue_writes(self, count: int | None = None) -> Writes | None:
        """Write up to `count` more histories of the snapshot, or all if None; callable between any two records.

        Return the entries of the snapshot once it is complete, until then None.
        """
        return self._histories.continue_writes(count)
