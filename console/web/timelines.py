"""What happened to cases, as it is shown: those that were looked at last are kept, since the table is slow to ask."""

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from projections.case_table import CaseTable
from projections.case_view import Item

MAX_CASES: Final = 5_000
MAX_ENTRIES: Final = 300
"""A longer timeline is read each time: it would take the room of many others."""
SETTLED_S: Final = 3.0
"""How long after a change a timeline is read each time: the view worker may not have written all of it yet."""
AT_ONCE: Final = 4
"""Reads at once: more of them only wait for each other in the table and for this process's lock."""


class Entry(NamedTuple):
    """Something that happened, as JSON, with what it is sorted by."""

    known_at_ms: int
    happened_at_ms: int
    is_answer: bool
    place: str
    text: str


class Kept(NamedTuple):
    """A case's items as the table has them, and what happened, from them."""

    items: list[Item]
    entries: list[Entry]


class Timelines:
    """Those of all cases; `changed` must be called with each change of one."""

    def __init__(self, table: CaseTable, clock: Callable[[], float] = time.monotonic) -> None:
        self._table = table
        self._clock = clock
        self._lock = threading.Lock()
        self._reads = threading.BoundedSemaphore(AT_ONCE)
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._changed: OrderedDict[str, float] = OrderedDict()

    def changed(self, case_id: str) -> None:
        """What is kept of a case no longer holds."""
        with self._lock:
            self._kept.pop(case_id, None)
            self._changed[case_id] = now = self._clock()
            self._changed.move_to_end(case_id)
            while self._changed and next(iter(self._changed.values())) < now - SETTLED_S:
                self._changed.popitem(last=False)

    def kept(self, case_id: str) -> list[Entry] | None:
        """What happened, if it is kept: asks nobody."""
        found = self._find(case_id)
        return None if found is None else found.entries

    def kept_items(self, case_id: str) -> list[Item] | None:
        """The items of a case, if they are kept: asks nobody."""
        found = self._find(case_id)
        return None if found is None else found.items

    def _find(self, case_id: str) -> Kept | None:
        with self._lock:
            found = self._kept.get(case_id)
            if found is not None:
                self._kept.move_to_end(case_id)
            return found

    def read(self, case_id: str) -> list[Entry]:
        """What happened, from the table."""
        return self._read(case_id).entries

    def read_items(self, case_id: str) -> list[Item]:
        """The items of a case, from the table."""
        return self._read(case_id).items

    def _read(self, case_id: str) -> Kept:
        with self._reads:
            asked_at = self._clock()
            items = self._table.items_of(case_id)
        found = Kept(items, entries_of(items))
        with self._lock:
            is_settled = self._changed.get(case_id, -SETTLED_S) <= asked_at - SETTLED_S
            if is_settled and len(found.entries) <= MAX_ENTRIES:
                self._kept[case_id] = found
                if len(self._kept) > MAX_CASES:
                    self._kept.popitem(last=False)
        return found


def ordered(entries: Iterable[Entry], order: str) -> list[str]:
    """As they became known, or as they happened."""
    if order == "known":
        return [entry.text for entry in sorted(entries)]
    return [entry.text for entry in sorted(entries, key=lambda entry: (entry.happened_at_ms, *entry))]


def entries_of(items: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """From the items of a case; the text of an event is not taken apart."""
    return [_entry(item) for item in items if item["sk"] != "view"]


def _entry(item: Mapping[str, Any]) -> Entry:
    place, _, number = item["sk"].partition("#")
    known, happened = item.get("known_at_ms"), item.get("happened_at_ms")
    said = {
        "sequence": int(number) if place == "event" else None,
        "kind": item["kind"],
        "happened_at_ms": happened,
        "known_at_ms": known,
    }
    text = f'{json.dumps(said)[:-1]}, "event": {item["body"]}}}'
    return Entry(known or 0, happened or 0, place == "answer", item["sk"], text)
