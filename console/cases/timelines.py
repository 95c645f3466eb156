"""Timelines of cases in memory, from the table and from the last records of the log.

The timelines read last are kept decoded, all others compressed, because the table is slow. Readers need not wait for
the view worker: an event is the same item here as in the table, so items that the table lacks are added to those that
it has.
"""

import json
import threading
import zlib
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from projections.views.case_table import CaseTable
from projections.views.case_view import Item

TimelineOrder: TypeAlias = Literal["known", "happened"]
"""Order of a timeline: by the time when an event became known, or when it happened."""
MAX_ENTRIES: Final = 20_000
"""Maximum number of entries in all decoded timelines, about 40 MB."""
MAX_PACKED: Final = 256 << 20
"""Maximum size of all compressed timelines, in bytes: enough for half a million short ones. Others are read from the
table."""
MAX_FRESH: Final = 10_000
"""Maximum number of items kept from the last records of the log, in case the view worker lags."""
AT_ONCE: Final = 4
"""Maximum number of concurrent reads of the table; more would only wait for each other."""


class EncodedEntry(NamedTuple):
    """One entry of a timeline as JSON text, with its sort keys."""

    known_at_ms: int
    happened_at_ms: int
    is_answer: bool
    place: str
    text: str


class CachedTimeline(NamedTuple):
    """Items of a case sorted by key, and the timeline entries made from them."""

    items: list[Item]
    entries: list[EncodedEntry]

    @property
    def size(self) -> int:
        """Return the number of items plus one, because an empty timeline takes room too."""
        return 1 + len(self.items)

    def with_item(self, item: Item) -> "CachedTimeline":
        """Return this timeline with one more item."""
        return CachedTimeline(sorted((*self.items, item), key=_place), [*self.entries, _entry(item)])


class TimelineCache:
    """Timelines of all cases. `changed` must be called with every new item.

    A timeline is either decoded or compressed. A timeline that is not in memory is read from the table.
    """

    def __init__(self, table: CaseTable) -> None:
        self._table = table
        self._lock = threading.Lock()
        self._reads = threading.BoundedSemaphore(AT_ONCE)
        self._kept: OrderedDict[str, CachedTimeline] = OrderedDict()
        self._entries = 0
        """Number of entries in all decoded timelines."""
        self._packed: dict[str, bytes] = {}
        self._packed_bytes = 0
        self._fresh: deque[str] = deque()
        """Case ids of the fresh items, oldest first."""
        self._fresh_of: dict[str, list[Item]] = {}

    def __len__(self) -> int:
        """Return the number of cases with a timeline in memory."""
        return len(self._kept) + len(self._packed)

    def stored(self, case_id: str, items: Sequence[Item]) -> None:
        """Add the items of a case that the table holds, without its view."""
        with self._lock:
            held = self._take(case_id)
            self._pack(case_id, join_items(items, held.items if held else self._fresh_of.get(case_id, ())))

    def changed(self, case_id: str, item: Item) -> None:
        """Add a new item of a case, whether or not the table has it already."""
        with self._lock:
            self._fresh.append(case_id)
            self._fresh_of.setdefault(case_id, []).append(item)
            if len(self._fresh) > MAX_FRESH:
                self._forget_first(self._fresh.popleft())
            held = self._take(case_id)
            if held is not None:
                is_news = all(each["sk"] != item["sk"] for each in held.items)
                self._keep(case_id, held.with_item(item) if is_news else held)

    def _forget_first(self, case_id: str) -> None:
        fresh = self._fresh_of[case_id]
        del fresh[0]
        if not fresh:
            del self._fresh_of[case_id]

    def kept(self, case_id: str, sequence: int = 0) -> list[EncodedEntry] | None:
        """Return the entries of a case if memory holds them up to this version. Read nothing."""
        found = self._find(case_id, sequence)
        return None if found is None else found.entries

    def kept_items(self, case_id: str, sequence: int = 0) -> list[Item] | None:
        """Return the items of a case if memory holds them up to this version. Read nothing."""
        found = self._find(case_id, sequence)
        return None if found is None else found.items

    def _find(self, case_id: str, sequence: int) -> CachedTimeline | None:
        """Return the timeline if it holds all events up to this version. Events are missing after a restart of the
        board.
        """
        with self._lock:
            found = self._take(case_id)
            if found is None:
                return None
            self._keep(case_id, found)
        return found if has_events_up_to(found.items, sequence) else None

    def read(self, case_id: str) -> list[EncodedEntry]:
        """Return the entries of a case from the table and the last records of the log."""
        return self._read(case_id).entries

    def items(self, case_id: str, sequence: int = 0) -> list[Item]:
        """Return the items of a case without its view, from memory if it holds them up to this version."""
        kept = self.kept_items(case_id, sequence)
        return self.read_items(case_id) if kept is None else kept

    def read_items(self, case_id: str) -> list[Item]:
        """Return the items of a case without its view, from the table and the last records of the log."""
        return self._read(case_id).items

    def _read(self, case_id: str) -> CachedTimeline:
        with self._reads:
            stored = [item for item in self._table.items_of(case_id) if item["sk"] != "view"]
        with self._lock:
            self._take(case_id)
            return self._keep(case_id, cache_timeline(join_items(stored, self._fresh_of.get(case_id, ()))))

    def _keep(self, case_id: str, found: CachedTimeline) -> CachedTimeline:
        self._kept[case_id] = found
        self._entries += found.size
        while self._entries > MAX_ENTRIES and len(self._kept) > 1:
            oldest, gone = self._kept.popitem(last=False)
            self._entries -= gone.size
            self._pack(oldest, gone.items)
        return found

    def _pack(self, case_id: str, items: Sequence[Item]) -> None:
        packed = zlib.compress(json.dumps(items).encode(), 1)
        if self._packed_bytes + len(packed) <= MAX_PACKED:
            self._packed[case_id] = packed
            self._packed_bytes += len(packed)

    def _take(self, case_id: str) -> CachedTimeline | None:
        """Remove a timeline from memory and return it decoded, or None if there is none."""
        found = self._kept.pop(case_id, None)
        if found is not None:
            self._entries -= found.size
            return found
        packed = self._packed.pop(case_id, None)
        if packed is None:
            return None
        self._packed_bytes -= len(packed)
        return cache_timeline(json.loads(zlib.decompress(packed)))


def cache_timeline(items: list[Item]) -> CachedTimeline:
    """Return a timeline made from items."""
    return CachedTimeline(items, [_entry(item) for item in items])


def has_events_up_to(items: Iterable[Item], sequence: int) -> bool:
    """Return True if the items hold all events of a case up to a version."""
    return sum(1 for item in items if item["sk"].startswith("event#")) >= sequence


def join_items(items: Sequence[Item], fresh: Iterable[Item]) -> list[Item]:
    """Return stored and fresh items, sorted by key. A stored item wins: a redelivered event is a later copy."""
    return sorted({item["sk"]: item for item in (*reversed(tuple(fresh)), *items)}.values(), key=_place)


def _place(item: Item) -> str:
    place: str = item["sk"]
    return place


def sorted_texts(entries: Iterable[EncodedEntry], order: TimelineOrder) -> list[str]:
    """Return the entries as JSON texts, in the order in which they became known or in which they happened."""
    if order == "known":
        return [entry.text for entry in sorted(entries)]
    return [entry.text for entry in sorted(entries, key=lambda entry: (entry.happened_at_ms, *entry))]


def _entry(item: Mapping[str, Any]) -> EncodedEntry:
    """Return the timeline entry of an item. The text of its event is not parsed."""
    place, _, number = item["sk"].partition("#")
    known, happened = item.get("known_at_ms"), item.get("happened_at_ms")
    said = {
        "sequence": int(number) if place == "event" else None,
        "kind": item["kind"],
        "happened_at_ms": happened,
        "known_at_ms": known,
    }
    text = f'{json.dumps(said)[:-1]}, "event": {item["body"]}}}'
    return EncodedEntry(known or 0, happened or 0, place == "answer", item["sk"], text)
