"""The histories of a partition: which are in memory, and how those that changed are written out a part at a time.

What is written out is the state of one moment: a history that changes before its turn is written before it changes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import islice

from domain.risk.history import History, Parse

Writes = dict[str, bytes | None]
"""State entries by key; None removes one."""


class Histories:
    """The histories of one partition, by account or entity.

    `load` reads a state entry by key. `most` histories stay in memory, the least recently written leave first; with
    None all stay, and none is ever to be written. `parse` is as in History.read.
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
        """A history that is not loaded, from its state entries; a new one where there are none."""
        history = self.loaded[key] = History.read(key, self._load, self._parse)
        return history

    def change(self, key: str, history: History) -> None:
        """To be called before a history changes, where they are written at all."""
        if key in self._waiting:
            self._write(key)
        self._changed[key] = history

    def begin_writes(self, others: Writes) -> int:
        """From here on all that changed is to be written, as it is now, and `others`; returns how many histories."""
        assert not self._waiting, "what was begun before is to be written first"
        self._waiting, self._changed, self._writes = self._changed, {}, others
        return len(self._waiting)

    def go_on_writing(self, count: int | None = None) -> Writes | None:
        """Write so many more histories; all entries once nothing waits, until then None. Then some leave memory."""
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
    """A fold that keeps histories, and little beside them: how its state is written out, at once or in parts."""

    _histories: Histories

    @abstractmethod
    def _take_others(self) -> Writes:
        """The state entries beside the histories that changed since the last call."""

    def take_writes(self) -> Writes:
        """The state entries that changed since the last call, all at once. Forgets what is too much to keep."""
        self.begin_writes()
        writes = self.go_on_writing()
        assert writes is not None, "all were asked for"
        return writes

    def begin_writes(self) -> int:
        """From here on what changed is to be written, as it is now; returns how many histories that are."""
        return self._histories.begin_writes(self._take_others())

    def go_on_writing(self, histories: int | None = None) -> Writes | None:
        """Write so many histories more, between any two records; all entries once it is done, until then None."""
        return self._histories.go_on_writing(histories)
