"""The histories of a partition: which are in memory, and how those that changed are written out a part at a time.

What is written out is the state of one moment: a history that changes before its turn is written before it changes.
"""

from collections.abc import Callable
from itertools import islice

from domain.history import History, Parse

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

    def begin_writes(self) -> int:
        """From here on all that changed is to be written, as it is now; returns how many histories that are."""
        assert not self._waiting, "what was begun before is to be written first"
        self._waiting, self._changed = self._changed, {}
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
