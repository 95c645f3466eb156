"""The table of the live view version, looked up at each use, so that a switch of versions needs no restart."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from console.views.versions import ViewVersion
from projections.views.case_table import WRITERS, DynamoCaseTable
from projections.views.case_view import CaseView, Item

LOOK_EVERY_S: Final = 0.5
"""Seconds that a table name is reused. After a switch, readers may see the old version for this long."""


class LiveCaseTable:
    """The case table of the live version. Each call uses one version from its beginning to its end."""

    def __init__(
        self,
        open_table: Callable[[str], DynamoCaseTable],
        live: Callable[[], ViewVersion],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open, self._live, self._clock = open_table, live, clock
        self._lock = threading.Lock()
        self._found: tuple[ViewVersion, DynamoCaseTable] | None = None
        self._looked_s = 0.0

    def now(self) -> tuple[ViewVersion, DynamoCaseTable]:
        """Return the live version and its table; while the control store is unavailable, the last known ones."""
        with self._lock:
            now_s = self._clock()
            if self._found is None or now_s - self._looked_s >= LOOK_EVERY_S:
                self._found, self._looked_s = self._look(self._found), now_s
            return self._found

    def _look(self, held: tuple[ViewVersion, DynamoCaseTable] | None) -> tuple[ViewVersion, DynamoCaseTable]:
        try:
            live = self._live()
        except SQLAlchemyError:
            if held is None:
                raise
            return held
        return held if held is not None and held[0] == live else (live, self._open(live.table))

    def ensure(self) -> None:
        """Make the table if it is missing."""
        self.now()[1].ensure()

    def view(self, case_id: str) -> CaseView | None:
        """Return the stored view of a case, or None."""
        return self.now()[1].view(case_id)

    def sequences(self, case_ids: Sequence[str]) -> dict[str, int]:
        """Return the sequence number that each of these cases' stored views has reached."""
        return self.now()[1].sequences(case_ids)

    def items_of(self, case_id: str) -> list[Item]:
        """Return all items that are stored for a case."""
        return self.now()[1].items_of(case_id)

    def save(self, views: list[tuple[CaseView, int]], items: list[Item]) -> list[str]:
        """Store new items, and each view whose stored sequence equals the given one; return the refused cases."""
        return self.now()[1].save(views, items)

    def put(self, items: list[Item]) -> None:
        """Store items unconditionally."""
        self.now()[1].put(items)

    def fill(self, items: Sequence[Item], threads: int = WRITERS) -> None:
        """Store items in a table that has no other writer."""
        self.now()[1].fill(items, threads)

    def views(self) -> Iterator[CaseView]:
        """Yield every stored view."""
        return self.now()[1].views()

    def scan(self) -> Iterator[Item]:
        """Yield every stored item."""
        return self.now()[1].scan()

    def keys(self) -> Iterator[tuple[str, str]]:
        """Yield the key of every stored item."""
        return self.now()[1].keys()
