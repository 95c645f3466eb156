"""What happened to cases, as it is shown, from the table and from the log's last records.

Those that were looked at last are kept as they are, and all others packed, since the table is slow to ask. And nobody
waits for the view worker: an event is the same item in the table as it is here, so what the table does not hold yet is
added to what it holds.
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
"""Of all timelines that are kept as they are: some 40 MB."""
MAX_PACKED: Final = 256 << 20
"""Bytes of the packed ones: half a million cases of a few events each. The table is asked for what has no room."""
MAX_FRESH: Final = 10_000
"""Items of the log's last records: so many the view worker may be behind."""
AT_ONCE: Final = 4
"""Reads at once: more of them only wait for each other in the table and for this process's lock."""


class EncodedEntry(NamedTuple):
    """Something that happened, as JSON, with what it is sorted by."""

    known_at_ms: int
    happened_at_ms: int
    is_answer: bool
    place: str
    text: str


class CachedTimeline(NamedTuple):
    """A case's items by their place, and what happened, from them."""

    items: list[Item]
    entries: list[EncodedEntry]

    @property
    def size(self) -> int:
        """Of what is kept, in entries; a case without any takes room too."""
        return 1 + len(self.items)

    def with_item(self, item: Item) -> "CachedTimeline":
        """The same with another one."""
        return CachedTimeline(sorted((*self.items, item), key=_place), [*self.entries, _entry(item)])


class TimelineCache:
    """Those of all cases; `changed` must be called with each change of one.

    A timeline is kept or packed, never both. One that is not here yet, or has no room, is read from the table.
    """

    def __init__(self, table: CaseTable) -> None:
        self._table = table
        self._lock = threading.Lock()
        self._reads = threading.BoundedSemaphore(AT_ONCE)
        self._kept: OrderedDict[str, CachedTimeline] = OrderedDict()
        self._entries = 0
        """In all that are kept."""
        self._packed: dict[str, bytes] = {}
        self._packed_bytes = 0
        self._fresh: deque[str] = deque()
        """Whose items came, oldest first."""
        self._fresh_of: dict[str, list[Item]] = {}

    def __len__(self) -> int:
        """Of how many cases there is one here."""
        return len(self._kept) + len(self._packed)

    def stored(self, case_id: str, items: Sequence[Item]) -> None:
        """What the table holds of a case besides its view."""
        with self._lock:
            held = self._take(case_id)
            self._pack(case_id, join_items(items, held.items if held else self._fresh_of.get(case_id, ())))

    def changed(self, case_id: str, item: Item) -> None:
        """A case has this item now, whether or not the table has it already."""
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
        """What happened, if it is kept as far as this version of the case: asks nobody."""
        found = self._find(case_id, sequence)
        return None if found is None else found.entries

    def kept_items(self, case_id: str, sequence: int = 0) -> list[Item] | None:
        """The items of a case, if they are kept as far as this version of it: asks nobody."""
        found = self._find(case_id, sequence)
        return None if found is None else found.items

    def _find(self, case_id: str, sequence: int) -> CachedTimeline | None:
        """An event is missed where the log goes on from behind it, as when the board had to begin anew."""
        with self._lock:
            found = self._take(case_id)
            if found is None:
                return None
            self._keep(case_id, found)
        return found if has_events_up_to(found.items, sequence) else None

    def read(self, case_id: str) -> list[EncodedEntry]:
        """What happened, from the table and the log's last records."""
        return self._read(case_id).entries

    def items(self, case_id: str, sequence: int = 0) -> list[Item]:
        """The items of a case without its view, if they are kept as far as this version of it, else read."""
        kept = self.kept_items(case_id, sequence)
        return self.read_items(case_id) if kept is None else kept

    def read_items(self, case_id: str) -> list[Item]:
        """The items of a case without its view, from the table and the log's last records."""
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
        """A timeline out of where it is."""
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
    """A timeline from its items."""
    return CachedTimeline(items, [_entry(item) for item in items])


def has_events_up_to(items: Iterable[Item], sequence: int) -> bool:
    """Whether these hold all events of a case up to a version of it."""
    return sum(1 for item in items if item["sk"].startswith("event#")) >= sequence


def join_items(items: Sequence[Item], fresh: Iterable[Item]) -> list[Item]:
    """Items with those of the last records, by place. What is there stays: a redelivered event came later than it."""
    return sorted({item["sk"]: item for item in (*reversed(tuple(fresh)), *items)}.values(), key=_place)


def _place(item: Item) -> str:
    place: str = item["sk"]
    return place


def sorted_texts(entries: Iterable[EncodedEntry], order: TimelineOrder) -> list[str]:
    """As they became known, or as they happened."""
    if order == "known":
        return [entry.text for entry in sorted(entries)]
    return [entry.text for entry in sorted(entries, key=lambda entry: (entry.happened_at_ms, *entry))]


def _entry(item: Mapping[str, Any]) -> EncodedEntry:
    """From an item of a case; the text of its event is not taken apart."""
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
