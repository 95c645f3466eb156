"""The live board: the view of every case in memory, so that a page of the queue needs no scan of the table.

The board is filled from the table and then follows cases.events. If an event does not follow the view that the board
holds, the board reads that case from the table again.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from console.cases.board_row import entities_of, is_done, row_of
from domain.cases.events import SequencedCaseEvent
from domain.cases.state import BrokenLog
from domain.cases.status import CaseStatus
from projections.views.case_view import CaseView, project

MAX_CASES: Final = 500_000
"""Maximum number of cases on the board. The cases closed longest ago leave it; they stay in the table."""
MAX_SHARED: Final = 1_000
"""Maximum number of cases that the board remembers for one entity, newest first."""
RESERVED_S: Final = 5.0
"""Time during which a case offered to one person is not offered to another, in seconds."""
PAGE_SIZE: Final = 50
"""Default number of cases on a page."""
_GROWTH: Final = 4_096
_TIME_BITS: Final = 42
_NEVER_DUE: Final = 2**_TIME_BITS - 1
"""Later than any time. Cases without a deadline sort after it, last changed first, so that no two share a key."""
SortOrder: TypeAlias = Literal["-score", "due", "opened", "-opened", "-changed"]
"""Sort order of the queue: highest score (then oldest), next deadline, oldest, newest, last changed."""
TakeNextOrder: TypeAlias = Literal["-score", "due", "opened"]
"""Sort order in which take-next offers cases."""
SORT_LABELS: Final[dict[SortOrder, str]] = {
    "-score": "Score",
    "due": "SLA",
    "opened": "Oldest",
    "-opened": "Newest",
    "-changed": "Last changed",
}
"""Text of each sort order, in the order in which pages offer them."""
FREE_STATUSES: Final[tuple[CaseStatus, ...]] = ("new", "open")
"""Statuses of the cases that nobody works on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFilter:
    """Filters and sort order of the queue. A filter that is None or empty does not narrow it."""

    statuses: tuple[str, ...] = ()
    typologies: tuple[str, ...] = ()
    dispositions: tuple[str, ...] = ()
    assignee: str | None = None
    """Name of the assignee; "" matches cases without one."""
    is_escalated: bool | None = None
    score_from: int | None = None
    opened_from_ms: int | None = None
    opened_until_ms: int | None = None
    due_until_ms: int | None = None
    sort: SortOrder = "-score"


class PageCursor(NamedTuple):
    """Position of the last row of a page: its sort key and its case id."""

    key: int
    case_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardPage:
    """One page of the queue, the number of cases on all pages, and the cursor of the next page."""

    rows: list[bytes]
    case_ids: list[str]
    total: int
    after: PageCursor | None


class TextDictionary:
    """Numbers that stand for texts, so that columns hold integers."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self.texts: list[str] = []

    def number(self, text: str) -> int:
        """Return the number of a text. A new text gets the next number."""
        found = self._numbers.get(text)
        if found is None:
            found = self._numbers[text] = len(self.texts)
            self.texts.append(text)
        return found

    def known(self, texts: Iterable[str]) -> list[int]:
        """Return the numbers of the texts that have one."""
        return [self._numbers[text] for text in texts if text in self._numbers]


class CaseBoard:
    """Views of all cases with the columns that queues filter and sort by. Thread-safe."""

    def __init__(self, reread: Callable[[str], CaseView | None], clock: Callable[[], float] = time.monotonic) -> None:
        self._reread = reread
        self._clock = clock
        self._reserved: dict[str, tuple[str, float]] = {}
        self._lock = threading.RLock()
        self._slots: dict[str, int] = {}
        self._free: list[int] = []
        self._views: list[CaseView | None] = []
        self._rows: list[bytes | None] = []
        self._accounts: dict[str, list[str]] = {}
        self._entities: dict[tuple[str, str], deque[str]] = {}
        self._transactions: dict[str, str] = {}
        self._statuses, self._typologies = TextDictionary(), TextDictionary()
        self._assignees, self._dispositions = TextDictionary(), TextDictionary()
        self._columns: dict[str, NDArray[np.int64]] = {name: np.zeros(0, np.int64) for name in _COLUMNS}
        self.reread = 0
        """Number of cases that were read from the table again."""

    def __len__(self) -> int:
        return len(self._slots)

    # -- changes from the log ------------------------------------------------------------------------

    def put(self, view: CaseView) -> bool:
        """Add a view from the table, unless the board holds a later version. Return True if the view was new."""
        with self._lock:
            held = self.view(view.case_id)
            is_news = held is None or held.sequence < view.sequence
            if is_news:
                self._set(view)
            return is_news

    def apply(self, event: SequencedCaseEvent) -> CaseView | None:
        """Apply an event to its case and return the view, or None if the case is not in the table yet."""
        with self._lock:
            held = self.view(event.case_id)
            if held is not None and event.sequence <= held.sequence:
                return held
            try:
                view: CaseView | None = project(held, event)
            except BrokenLog:
                self.reread += 1
                view = self._reread(event.case_id)
            if view is not None and (held is None or view.sequence > held.sequence):
                self._set(view)
            return view

    def _set(self, view: CaseView) -> None:
        slot = self._slots.get(view.case_id)
        held = None if slot is None else self._views[slot]
        if slot is None:
            slot = self._new_slot(view.case_id)
            self._accounts.setdefault(view.account_id, []).append(view.case_id)
        self._views[slot], self._rows[slot] = view, None
        for name, value in self._values(view).items():
            self._columns[name][slot] = value
        self._remember_links(view, held)

    def _values(self, view: CaseView) -> dict[str, int]:
        opened, score = view.opened_at_ms, view.score_max
        return {
            "there": 1,
            "status": self._statuses.number(view.status),
            "typology": self._typologies.number(view.typology),
            "disposition": self._dispositions.number(view.disposition or ""),
            "assignee": self._assignees.number(view.assignee or ""),
            "escalated": int(view.escalated),
            "score": score,
            "opened": opened,
            "due": 2 * _NEVER_DUE - view.last_event_ms if view.sla_due_ms is None else view.sla_due_ms,
            "-score": (-score << _TIME_BITS) + opened,
            "-opened": -opened,
            "-changed": -view.last_event_ms,
        }

    def _new_slot(self, case_id: str) -> int:
        if len(self._slots) >= MAX_CASES:
            self._drop_oldest_closed()
        if not self._free:
            size = len(self._views)
            more = max(_GROWTH, size)
            for name, column in self._columns.items():
                self._columns[name] = np.concatenate([column, np.zeros(more, np.int64)])
            self._views += [None] * more
            self._rows += [None] * more
            self._free = list(range(size + more - 1, size - 1, -1))
        slot = self._slots[case_id] = self._free.pop()
        return slot

    def _drop_oldest_closed(self) -> None:
        """Remove 1% of the cases: closed cases first, then those that changed longest ago."""
        with self._lock:
            many = max(1, MAX_CASES // 100)
            views = [self._views[slot] for slot in self._slots.values()]
            oldest = sorted((view for view in views if view), key=lambda view: (not is_done(view), view.last_event_ms))
            for view in oldest[:many]:
                self._drop(view)

    def _drop(self, view: CaseView) -> None:
        slot = self._slots.pop(view.case_id)
        self._views[slot] = self._rows[slot] = None
        self._columns["there"][slot] = 0
        self._free.append(slot)
        self._accounts[view.account_id].remove(view.case_id)
        if not self._accounts[view.account_id]:
            del self._accounts[view.account_id]
        for entity in entities_of(view):
            shared = self._entities.get(entity)
            if shared is not None and view.case_id in shared:
                shared.remove(view.case_id)
                if not shared:
                    del self._entities[entity]
        for transaction in view.transactions:
            if self._transactions.get(transaction) == view.case_id:
                del self._transactions[transaction]

    def _remember_links(self, view: CaseView, held: CaseView | None) -> None:
        known = set(entities_of(held)) if held else set()
        for entity in entities_of(view):
            if entity not in known:
                self._entities.setdefault(entity, deque(maxlen=MAX_SHARED)).appendleft(view.case_id)
        before = set(held.transactions) if held else set()
        for transaction in view.transactions:
            if transaction not in before:
                self._transactions[transaction] = view.case_id

    # -- reads ---------------------------------------------------------------------------------------

    def view(self, case_id: str) -> CaseView | None:
        """Return the view of a case, or None if the board does not hold it."""
        slot = self._slots.get(case_id)
        return None if slot is None else self._views[slot]

    def page(self, wanted: QueueFilter, limit: int, after: PageCursor | None = None) -> BoardPage:
        """Return one page of the cases that match a filter, after a cursor if one is given."""
        with self._lock:
            found = np.flatnonzero(self._mask(wanted))
            keys = self._columns[wanted.sort][found]
            total = len(found)
            if after is not None:
                later = keys >= after.key
                found, keys = found[later], keys[later]
            ties = 0 if after is None else int(np.count_nonzero(keys == after.key))
            many = limit + 1 + ties
            if len(keys) > many:
                near = keys <= np.partition(keys, many - 1)[many - 1]
                found, keys = found[near], keys[near]
            ordered = sorted(
                (PageCursor(key, self._case_id(slot)), slot)
                for key, slot in zip(keys.tolist(), found.tolist(), strict=True)
            )
            rest = [pair for pair in ordered if after is None or pair[0] > after]
            return BoardPage(
                rows=[self._row(slot) for _, slot in rest[:limit]],
                case_ids=[place.case_id for place, _ in rest[:limit]],
                total=total,
                after=rest[limit - 1][0] if len(rest) > limit else None,
            )

    def rows(self, case_ids: Iterable[str]) -> list[bytes]:
        """Return the rows of the given cases as JSON, without those that the board does not hold."""
        with self._lock:
            return [self._row(self._slots[case_id]) for case_id in case_ids if case_id in self._slots]

    def views(self, case_ids: Iterable[str]) -> list[CaseView]:
        """Return the views of the given cases, without those that the board does not hold."""
        with self._lock:
            return [view for case_id in case_ids if (view := self.view(case_id)) is not None]

    def first(self, wanted: QueueFilter, many: int, reserved_for: str) -> list[CaseView]:
        """Return up to `many` matching cases that are not reserved for another person, and reserve the first one."""
        with self._lock:
            now = self._clock()
            found: list[CaseView] = []
            self._reserved = {key: value for key, value in self._reserved.items() if value[1] > now}
            place: PageCursor | None = None
            while len(found) < many:
                page = self.page(wanted, PAGE_SIZE, place)
                for case_id in page.case_ids:
                    if self._reserved.get(case_id, (reserved_for, 0.0))[0] == reserved_for:
                        found += self.views([case_id])
                place = page.after
                if place is None:
                    break
            for view in found[:1]:
                self._reserved[view.case_id] = (reserved_for, now + RESERVED_S)
            return found[:many]

    def of_account(self, account_id: str) -> list[str]:
        """Return the ids of the cases of an account, oldest first."""
        with self._lock:
            return list(self._accounts.get(account_id, ()))

    def of_entity(self, kind: str, value: str) -> list[str]:
        """Return the ids of the newest MAX_SHARED cases with an entity, newest first."""
        with self._lock:
            return list(self._entities.get((kind, value), ()))

    def of_transaction(self, transaction_id: str) -> str | None:
        """Return the id of the case that a payment is linked to, or None."""
        return self._transactions.get(transaction_id)

    def counts(self) -> dict[str, int]:
        """Return the number of cases by status."""
        with self._lock:
            there = self._columns["there"].astype(bool)
            numbers = np.bincount(self._columns["status"][there], minlength=len(self._statuses.texts))
            return {text: int(number) for text, number in zip(self._statuses.texts, numbers.tolist(), strict=True)}

    def _mask(self, wanted: QueueFilter) -> NDArray[np.bool_]:
        columns = self._columns
        mask = columns["there"].astype(bool)
        for texts, names, column in (
            (wanted.statuses, self._statuses, "status"),
            (wanted.typologies, self._typologies, "typology"),
            (wanted.dispositions, self._dispositions, "disposition"),
            (() if wanted.assignee is None else (wanted.assignee,), self._assignees, "assignee"),
        ):
            if texts:
                mask &= _is_one_of(columns[column], names.known(texts))
        if wanted.is_escalated is not None:
            mask &= columns["escalated"] == int(wanted.is_escalated)
        if wanted.score_from is not None:
            mask &= columns["score"] >= wanted.score_from
        if wanted.opened_from_ms is not None:
            mask &= columns["opened"] >= wanted.opened_from_ms
        if wanted.opened_until_ms is not None:
            mask &= columns["opened"] < wanted.opened_until_ms
        if wanted.due_until_ms is not None:
            mask &= columns["due"] < wanted.due_until_ms
        return mask

    def _case_id(self, slot: int) -> str:
        view = self._views[slot]
        assert view is not None
        return view.case_id

    def _row(self, slot: int) -> bytes:
        row = self._rows[slot]
        if row is None:
            view = self._views[slot]
            assert view is not None
            row = self._rows[slot] = json.dumps(row_of(view)).encode()
        return row


_COLUMNS: Final = (
    "there", "status", "typology", "disposition", "assignee", "escalated", "score", "opened", "due", "-score",
    "-opened", "-changed",
)  # fmt: skip


def _is_one_of(column: NDArray[np.int64], numbers: Sequence[int]) -> NDArray[np.bool_]:
    found = np.zeros(len(column), np.bool_)
    for number in numbers:
        found |= column == number
    return found
