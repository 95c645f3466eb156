"""The confirmed frauds known in one partition: how many a merchant, terminal, device, card or account has had.

Every partition reads every label. The labels kept are bounded in number and in time, the oldest leave first. They
depend only on what was read, so a restored state answers like the state that was written.
"""

import pickle
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, TypeAlias

from domain.payment import Payment
from domain.risk.history import HORIZON_MS, MAX_WINDOW_MS, ONLY_HERE, ConfirmedFrauds, Facts, Spec
from domain.state_pickles import read_pickle

MAX_LABELS: Final = 50_000
"""Maximum number of labels kept in a partition; above it, the page that was read first is dropped."""
KEPT_MS: Final = HORIZON_MS + MAX_WINDOW_MS
"""Maximum age of a label against the newest one: no payment that can still be decided looks farther back."""
MAX_NAMED: Final = 20
"""Maximum number of confirmed frauds named in one reason, the newest; the value counts them all."""
MAX_ACCOUNTS: Final = 20
"""Largest number of accounts with confirmed frauds that is counted: it bounds the work."""
PAGE: Final = 128
"""Labels in one state entry."""
HEAD_KEY: Final = "\x1flabels"
"""State entry with the numbers of the pages. It is no account's key, since U+001F is refused in ids."""
MAX_LOOKED_INTO: Final = 100
"""Maximum number of labels of a window, the newest, whose account is searched for labels with other keys."""


class FraudLabel(NamedTuple):
    """A confirmed fraud, with the keys (merchant, terminal, device, card, account) whose risk it raises."""

    label_id: str
    transaction_id: str
    event_time_ms: int
    merchant: str
    terminal: str | None
    device: str | None
    card: str | None
    account: str


Entry: TypeAlias = tuple[int, str, str, FraudLabel]
"""Entry of an index: event time of the payment, transaction id, label id, and the label."""
SpecsByKey: TypeAlias = tuple[tuple[str, tuple[Spec, ...]], ...]


_KEYS: Final[dict[str, tuple[Callable[[FraudLabel], str | None], Callable[[Payment], str | None]]]] = {
    "merchant": (lambda label: label.merchant, lambda payment: payment.merchant_id),
    "terminal": (lambda label: label.terminal, lambda payment: payment.terminal_id),
    "device": (lambda label: label.device, lambda payment: payment.device_id),
    "card": (lambda label: label.card, lambda payment: payment.card_id),
    "account": (lambda label: label.account, lambda payment: payment.account_id),
}


_CLASSES: Final = {("domain.labels", "Label"): FraudLabel, ("domain.risk.labels", "FraudLabel"): FraudLabel}
"""Class in the state of labels, by each module and name that it has had."""


class LabelIndex:
    """The labels of one partition by each of their keys, each list in event-time order."""

    def __init__(self, load: Callable[[str], bytes | None]) -> None:
        self._by_key: dict[str, dict[str, list[Entry]]] = {key: {} for key in _KEYS}
        self._pages: dict[int, list[FraudLabel]] = {}
        self.known: set[str] = set()
        """Ids of the labels that are kept. The set is never iterated, so its order has no effect."""
        self._newest_ms = -1
        self._dirty: dict[int, bool] = {}
        head = load(HEAD_KEY)
        if head is None:
            return
        numbers, newest_ms = read_pickle(head)
        for number in numbers:
            self._pages[number] = read_pickle(load(_page_key(number)) or b"", _CLASSES)
            for label in self._pages[number]:
                self._index(label)
        self._newest_ms = newest_ms

    def add(self, label: FraudLabel) -> bool:
        """Add a label. Return False if it was known already."""
        if label.label_id in self.known:
            return False
        number = max(self._pages, default=0)
        if number not in self._pages or len(self._pages[number]) == PAGE:
            number += 1
            self._pages[number] = []
        self._pages[number].append(label)
        self._dirty[number] = True
        self._index(label)
        self._forget()
        return True

    def facts(self, payment: Payment, specs: SpecsByKey) -> Facts | None:
        """Return the confirmed frauds with the payment's keys that are known now, by spec; None if there are none.

        A window is closed at both ends, and ends at the payment's event time.
        """
        found: Facts | None = None
        for key, own in specs:
            base = key.removesuffix(ONLY_HERE)
            name = _KEYS[base][1](payment)
            labels = self._by_key[base].get(name) if name else None
            if labels:
                found = found or {}
                if base == key:
                    _count(labels, payment.event_time_ms, own, found)
                else:
                    self._count_only_here(labels, base, payment.event_time_ms, own, found)
        return found or None

    def _count_only_here(
        self, labels: list[Entry], key: str, now_ms: int, specs: tuple[Spec, ...], found: Facts
    ) -> None:
        read = _KEYS[key][0]
        here, until = read(labels[0][3]), bisect_right(labels, now_ms, key=_time)
        for spec in specs:
            oldest_ms = now_ms - spec[1]
            first = bisect_left(labels, oldest_ms, 0, until, key=_time)
            looked_into = labels[max(first, until - MAX_LOOKED_INTO) : until]
            elsewhere: dict[str, bool] = {}
            for account in {entry[3].account: None for entry in looked_into}:
                elsewhere[account] = any(
                    oldest_ms <= entry[0] <= now_ms and read(entry[3]) != here
                    for entry in self._by_key["account"].get(
                        account, ()
                    )  # labels with an empty account are in no index
                )
            _count([entry for entry in looked_into if not elsewhere[entry[3].account]], now_ms, (spec,), found)

    def _index(self, label: FraudLabel) -> None:
        self.known.add(label.label_id)
        self._newest_ms = max(self._newest_ms, label.event_time_ms)
        entry = label.event_time_ms, label.transaction_id, label.label_id, label
        for key, (read, _) in _KEYS.items():
            name = read(label)
            if name:
                insort(self._by_key[key].setdefault(name, []), entry)

    def _forget(self) -> None:
        """Drop oldest pages while there are more than MAX_LABELS labels, or while all labels of a page are too old."""
        while len(self._pages) > 1:
            number = min(self._pages)
            newest_ms = max(label.event_time_ms for label in self._pages[number])
            if len(self.known) <= MAX_LABELS and newest_ms >= self._newest_ms - KEPT_MS:
                return
            for label in self._pages.pop(number):
                self._unindex(label)
            self._dirty[number] = False

    def _unindex(self, label: FraudLabel) -> None:
        self.known.discard(label.label_id)
        entry = label.event_time_ms, label.transaction_id, label.label_id, label
        for key, (read, _) in _KEYS.items():
            name = read(label)
            if name:
                labels = self._by_key[key][name]
                labels.remove(entry)
                if not labels:
                    del self._by_key[key][name]

    def take_writes(self) -> dict[str, bytes | None]:
        """Return the state entries that changed since the last call, by key; None removes an entry."""
        if not self._dirty:
            return {}
        writes: dict[str, bytes | None] = {
            _page_key(number): pickle.dumps(self._pages[number], 5) if is_kept else None
            for number, is_kept in self._dirty.items()
        }
        writes[HEAD_KEY] = pickle.dumps((sorted(self._pages), self._newest_ms), 5)
        self._dirty = {}
        return writes


def specs_by_key(specs: Iterable[Spec]) -> SpecsByKey:
    """Group specs by key, as `LabelIndex.facts` takes them: each key is looked up once for all its windows."""
    keys: dict[str, dict[Spec, None]] = {}
    for spec in specs:
        keys.setdefault(spec[0], {})[spec] = None
    return tuple((key, tuple(own)) for key, own in keys.items())


def _count(labels: list[Entry], now_ms: int, specs: tuple[Spec, ...], found: Facts) -> None:
    until = bisect_right(labels, now_ms, key=_time)
    for spec in specs:
        first = bisect_left(labels, now_ms - spec[1], 0, until, key=_time)
        if first < until:
            named = tuple(entry[1] for entry in labels[max(first, until - MAX_NAMED) : until])
            found[spec] = ConfirmedFrauds(until - first, labels[until - 1][0], named, _accounts(labels, first, until))


def _accounts(labels: list[Entry], first: int, until: int) -> int:
    """Return the number of accounts of a range of labels, counted up to MAX_ACCOUNTS."""
    accounts: set[str] = set()
    for number in range(first, until):
        accounts.add(labels[number][3].account)
        if len(accounts) == MAX_ACCOUNTS:
            break
    return len(accounts)


def _time(entry: Entry) -> int:
    return entry[0]


def _page_key(number: int) -> str:
    return f"{HEAD_KEY}\x1f{number}"
