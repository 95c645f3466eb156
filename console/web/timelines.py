"""What happened to cases, as it is shown, from the table and from the log's last records.

The timelines that were looked at last are kept, since the table is slow to ask. And nobody waits for the view worker:
an event is the same item in the table as it is here, so what the table does not hold yet is added to what it holds.
"""

import json
import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from projections.case_table import CaseTable
from projections.case_view import Item

MAX_CASES: Final = 5_000
MAX_ENTRIES: Final = 300
"""A longer timeline is read each time: it would take the room of many others."""
MAX_FRESH: Final = 10_000
"""Items of the log's last records: so many the view worker may be behind."""
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
    """A case's items by their place, and what happened, from them."""

    items: list[Item]
    entries: list[Entry]


class Timelines:
    """Those of all cases; `changed` must be called with each change of one."""

    def __init__(self, table: CaseTable) -> None:
        self._table = table
        self._lock = threading.Lock()
        self._reads = threading.BoundedSemaphore(AT_ONCE)
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._fresh: deque[str] = deque()
        """Whose items came, oldest first."""
        self._fresh_of: dict[str, list[Item]] = {}

    def changed(self, case_id: str, item: Item) -> None:
        """A case has this item now, whether or not the table has it already."""
        with self._lock:
            self._fresh.append(case_id)
            self._fresh_of.setdefault(case_id, []).append(item)
            if len(self._fresh) > MAX_FRESH:
                self._forget_first(self._fresh.popleft())
            kept = self._kept.get(case_id)
            if kept is not None:
                self._keep(case_id, joined(kept.items, [item]))

    def _forget_first(self, case_id: str) -> None:
        fresh = self._fresh_of[case_id]
        del fresh[0]
        if not fresh:
            del self._fresh_of[case_id]

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
        """What happened, from the table and the log's last records."""
        return self._read(case_id).entries

    def items(self, case_id: str) -> list[Item]:
        """The items of a case without its view, if they are kept, else read."""
        kept = self.kept_items(case_id)
        return self.read_items(case_id) if kept is None else kept

    def read_items(self, case_id: str) -> list[Item]:
        """The items of a case without its view, from the table and the log's last records."""
        return self._read(case_id).items

    def _read(self, case_id: str) -> Kept:
        with self._reads:
            stored = [item for item in self._table.items_of(case_id) if item["sk"] != "view"]
        with self._lock:
            return self._keep(case_id, joined(stored, self._fresh_of.get(case_id, ())))

    def _keep(self, case_id: str, items: list[Item]) -> Kept:
        found = Kept(items, entries_of(items))
        self._kept.pop(case_id, None)
        if len(items) <= MAX_ENTRIES:
            self._kept[case_id] = found
            if len(self._kept) > MAX_CASES:
                self._kept.popitem(last=False)
        return found


def joined(items: Sequence[Item], fresh: Iterable[Item]) -> list[Item]:
    """Items with those of the last records, by place. What is there stays: a redelivered event came later than it."""
    return sorted({item["sk"]: item for item in (*reversed(tuple(fresh)), *items)}.values(), key=_place)


def _place(item: Item) -> str:
    place: str = item["sk"]
    return place


def ordered(entries: Iterable[Entry], order: str) -> list[str]:
    """As they became known, or as they happened."""
    if order == "known":
        return [entry.text for entry in sorted(entries)]
    return [entry.text for entry in sorted(entries, key=lambda entry: (entry.happened_at_ms, *entry))]


def entries_of(items: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """From the items of a case; the text of an event is not taken apart."""
    return [_entry(item) for item in items]


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
