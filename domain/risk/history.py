"""The history of one account: its payments in event-time order, on which the risk fold decides.

It is bounded in time and in number of payments. It packs itself into small chunks, so that a payment costs one small
state write, however long the history is.
"""

import pickle
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable
from itertools import accumulate
from typing import Any, Final, NamedTuple

from domain.durations import DAY_MS
from domain.payment import Payment
from domain.reason import Reason
from domain.record import rebuild
from domain.state_pickles import read_pickle

MAX_WINDOW_MS: Final = 35 * DAY_MS
"""Longest time that a rule may look back."""
MAX_ROWS: Final = 1_000
"""Largest number of payments that a rule may look back."""

HORIZON_MS: Final = 35 * DAY_MS
"""Maximum lateness of a payment against the latest event time of its account; later ones are refused."""
MAX_PAYMENTS: Final = 2_000
"""Maximum number of payments kept per account. The oldest are dropped; a payment that is older still is refused."""
CHUNK: Final = 32
"""Payments in a state entry. A checkpoint costs by the entry, and an entry that still grows is written each time."""
PRUNE_EVERY: Final = 16
"""A history is pruned when its number of payments is a multiple of this."""
MAX_RAW: Final = 512
"""Maximum size in bytes of a record that a history keeps instead of the payment in it."""


class Decision(NamedTuple):
    """The decision of a rule pack on a payment: a score from 0 to 1000, and its reasons.

    Without reasons it is no flag: either no rule fired, or the score is below the pack's `flag_at`.
    """

    score: int
    reasons: tuple[Reason, ...]

    @property
    def rules(self) -> tuple[str, ...]:
        """Return the names of the rules that fired."""
        return tuple(reason.rule for reason in self.reasons)


class ConfirmedFrauds(NamedTuple):
    """The confirmed frauds of one window: their number, event time of the newest, and ids of the newest ones.

    `accounts` is the number of their accounts, counted up to `labels.MAX_ACCOUNTS`; it is 1 in facts from an older
    state.
    """

    number: int
    newest_ms: int
    transactions: tuple[str, ...]
    accounts: int = 1


NOTHING: Final = Decision(0, ())
"""Decision on a payment that fires no rule."""
Order = tuple[int, str, bytes]
"""Sort key of a payment: event time, transaction id, content digest."""
Spec = tuple[str, int]
"""Labels that a rule needs: the key that they share with the payment, and the window in milliseconds.

With a key that ends in ONLY_HERE, only labels count whose account has no label with another value of the key in that
window.
"""
ONLY_HERE: Final = " only here"
Facts = dict[Spec, ConfirmedFrauds]
"""Confirmed frauds by spec, where there were any when a payment arrived. Restatements use them again, unchanged."""
Entry = tuple[int, int, Facts | None, bytes | tuple[Any, ...]]
"""Packed form of a payment: its event time, the number of the pack that decided it, its facts, and the payment itself,
either as the record that it came in, which costs nothing to keep, or as its fields."""
Parse = Callable[[bytes], Payment]
"""Function that reads the payment in a record that was admitted before."""


class History:
    """The payments of one account, sorted by event time, with running sums for windows over them.

    `sums[i]` and `squares[i]` are the sums of the amounts, and of their squares, of the payments before payment i. They
    are only meaningful if all amounts are in one currency; otherwise `is_mixed` is true.
    """

    __slots__ = (
        "account_id",
        "chunk",
        "chunk_number",
        "currency",
        "dirty_chunks",
        "facts",
        "floor",
        "ids",
        "is_mixed",
        "latest_ms",
        "old_chunks",
        "packs",
        "payments",
        "removed_chunks",
        "sequence",
        "squares",
        "standing",
        "sums",
        "times",
        "unpacked",
    )  # fmt: skip

    def __init__(self, account_id: str) -> None:
        self.account_id = account_id
        self.payments: list[Payment] = []
        self.packs: list[int] = []
        self.times: list[int] = []
        self.sums: list[int] = [0]
        self.squares: list[int] = [0]
        self.currency = ""
        self.is_mixed = False
        self.facts: dict[Order, Facts] = {}
        self.ids: dict[str, int] = {}
        self.standing: dict[Order, Decision] = {}
        self.sequence = 0
        self.latest_ms = -1
        self.floor: Order | None = None
        self.unpacked: list[Entry] = []
        self.chunk: list[Entry] = []
        self.chunk_number = 0
        self.old_chunks: list[tuple[int, int]] = []
        self.dirty_chunks: dict[int, list[Entry]] = {}
        self.removed_chunks: list[int] = []

    def is_beyond_horizon(self, payment: Payment) -> bool:
        """Return whether a payment is too late to be decided, compared with this account's latest payment."""
        return payment.event_time_ms < self.latest_ms - HORIZON_MS

    def is_beyond_bound(self, payment: Payment) -> bool:
        """Return whether a payment belongs to the part of the history that was dropped."""
        return self.floor is not None and payment.order <= self.floor

    def holds(self, payment: Payment) -> bool:
        """Return whether the history has a payment of the same content; it would have the same event time."""
        if payment.transaction_id not in self.ids:
            return False
        first = bisect_left(self.times, payment.event_time_ms)
        last = bisect_right(self.times, payment.event_time_ms, first)
        return any(other.digest == payment.digest for other in self.payments[first:last])

    def index_of(self, payment: Payment) -> int | None:
        """Return the index of a payment, or None if the history does not have it."""
        index = bisect_left(self.payments, payment.order, key=_order)
        if index < len(self.payments) and self.payments[index].order == payment.order:
            return index
        return None

    def fact(self, index: int, spec: Spec) -> ConfirmedFrauds | None:
        """Return the confirmed frauds that a payment had under a spec when it arrived, or None if there were none."""
        if not self.facts:
            return None
        facts = self.facts.get(self.payments[index].order)
        return facts.get(spec) if facts else None

    def insert(self, payment: Payment, pack: int, facts: Facts | None = None) -> int:
        """Insert a payment in event-time order, and return its index."""
        time = payment.event_time_ms
        if time > self.latest_ms:
            index = len(self.payments)
            self.latest_ms = time
            amount = payment.amount_minor
            self.payments.append(payment)
            self.packs.append(pack)
            self.times.append(time)
            self.sums.append(self.sums[-1] + amount)
            self.squares.append(self.squares[-1] + amount * amount)
        else:
            index = self._insert_late(payment, pack)
        if payment.currency != self.currency:
            self._note_currency(payment.currency)
        if facts:
            self.facts[payment.order] = facts
        ids = self.ids
        ids[payment.transaction_id] = ids.get(payment.transaction_id, 0) + 1
        return index

    def remember(self, payment: Payment, pack: int, facts: Facts | None = None, raw: bytes | None = None) -> None:
        """Add an inserted payment to the next writes; `raw` is the record that it came in."""
        held = raw if raw is not None and len(raw) <= MAX_RAW else tuple(payment)
        self.unpacked.append((payment.event_time_ms, pack, facts, held))

    def _note_currency(self, currency: str) -> None:
        self.is_mixed = self.currency != ""
        self.currency = currency

    def _insert_late(self, payment: Payment, pack: int) -> int:
        index = bisect_left(self.payments, payment.order, key=_order)
        self.payments.insert(index, payment)
        self.packs.insert(index, pack)
        insort(self.times, payment.event_time_ms)
        self._sum_from(index)
        return index

    def _sum_from(self, index: int) -> None:
        amounts = [payment.amount_minor for payment in self.payments[index:]]
        self.sums[index:] = accumulate(amounts, initial=self.sums[index])
        self.squares[index:] = accumulate((a * a for a in amounts), initial=self.squares[index])

    def prune(self, window_ms: int, rows: int) -> None:
        """Drop payments that no decision within the horizon can look back to, and those above MAX_PAYMENTS.

        `window_ms` and `rows` are how far back the rules look. It acts at every PRUNE_EVERY-th payment in the history.
        So a history that was read back from its chunks is pruned at the same moments.
        """
        count = len(self.payments)
        if count % PRUNE_EVERY:
            return
        horizon = self.latest_ms - HORIZON_MS
        drop = 0
        if self.times[0] < horizon - window_ms:
            drop = max(0, min(bisect_left(self.times, horizon - window_ms), bisect_left(self.times, horizon) - rows))
        drop = max(drop, count - MAX_PAYMENTS)
        if drop <= 0:
            return
        self.floor = self.payments[drop - 1].order
        for payment in self.payments[:drop]:
            self.standing.pop(payment.order, None)
            self.facts.pop(payment.order, None)
            left = self.ids[payment.transaction_id] - 1
            if left:
                self.ids[payment.transaction_id] = left
            else:
                del self.ids[payment.transaction_id]
        for column in (self.payments, self.packs, self.times, self.sums, self.squares):
            del column[:drop]

    def _forget_chunks(self) -> None:
        """Remove the chunks of which every payment was dropped."""
        if self.floor is None:
            return
        floor_ms = self.floor[0]
        for number in [number for number, newest_ms in self.old_chunks if newest_ms < floor_ms]:
            self.removed_chunks.append(number)
            self.dirty_chunks.pop(number, None)
        self.old_chunks = [pair for pair in self.old_chunks if pair[1] >= floor_ms]

    # -- packing: chunks in order of arrival; a full chunk is not written again ---------------------

    def _pack(self) -> None:
        if not self.unpacked:
            return
        waiting, self.unpacked = self.chunk + self.unpacked, []
        while len(waiting) >= CHUNK:
            full, waiting = waiting[:CHUNK], waiting[CHUNK:]
            self.dirty_chunks[self.chunk_number] = full
            self.old_chunks.append((self.chunk_number, max(entry[0] for entry in full)))
            self.chunk_number += 1
        if waiting:
            self.dirty_chunks[self.chunk_number] = waiting
        self.chunk = waiting

    def take_writes(self) -> dict[str, bytes | None]:
        """Return the state entries that changed since the last call, by key; None removes an entry."""
        self._pack()
        self._forget_chunks()
        writes: dict[str, bytes | None] = {self._key(number): None for number in self.removed_chunks}
        for number, chunk in self.dirty_chunks.items():
            writes[self._key(number)] = pickle.dumps(chunk, 5)
        head = (self.sequence, self.latest_ms, self.floor, self.chunk_number, self.old_chunks, self.standing)
        writes[self.account_id] = pickle.dumps(head, 5)
        self.dirty_chunks, self.removed_chunks = {}, []
        return writes

    def _key(self, chunk_number: int) -> str:
        return f"{self.account_id}\x1f{chunk_number}"

    @classmethod
    def read(cls, account_id: str, load: Callable[[str], bytes | None], parse: Parse | None = None) -> "History":
        """Read the history of an account from its state entries, or return an empty one if there are none."""
        history = cls(account_id)
        head = load(account_id)
        if head is None:
            return history
        (
            history.sequence, history.latest_ms, history.floor, history.chunk_number, history.old_chunks,
            history.standing,
        ) = _head(head)  # fmt: skip
        entries: list[Entry] = []
        for number in [number for number, _ in history.old_chunks]:
            entries += _unpickled(load(history._key(number)))
        history.chunk = _unpickled(load(history._key(history.chunk_number)))
        history._fill([(_payment(held, parse), pack, facts) for _, pack, facts, held in entries + history.chunk])
        return history

    def _fill(self, entries: list[tuple[Payment, int, Facts | None]]) -> None:
        kept = [entry for entry in entries if self.floor is None or entry[0].order > self.floor]
        kept.sort(key=lambda entry: entry[0].order)
        self.packs = [pack for _, pack, _ in kept]
        self.payments = [payment for payment, _, _ in kept]
        self.facts = {payment.order: facts for payment, _, facts in kept if facts}
        self.times = [payment.event_time_ms for payment in self.payments]
        for payment in self.payments:
            self.ids[payment.transaction_id] = self.ids.get(payment.transaction_id, 0) + 1
            if payment.currency != self.currency:
                self._note_currency(payment.currency)
        self._sum_from(0)


_CLASSES: Final = {
    ("domain.history", "Decision"): Decision,
    ("domain.risk.history", "Decision"): Decision,
    ("domain.history", "Confirmed"): ConfirmedFrauds,
    ("domain.risk.history", "ConfirmedFrauds"): ConfirmedFrauds,
    ("domain.reason", "Reason"): Reason,
    ("msgspec._utils", "rebuild"): rebuild,
}
"""Classes in the state of histories, by each module and name that they have had."""


def _head(packed: bytes) -> tuple[Any, ...]:
    try:
        return tuple(read_pickle(packed, _CLASSES))
    except pickle.UnpicklingError:  # an older state, whose reasons were made empty and filled by __setstate__
        *rest, standing = read_pickle(packed, {**_CLASSES, ("domain.reason", "Reason"): _EarlierReason})
        return *rest, {
            order: Decision(score, tuple(each.now for each in by)) for order, (score, by) in standing.items()
        }


class _EarlierReason:
    def __setstate__(self, values: list[Any]) -> None:
        self.now = Reason(**dict(zip(Reason.__struct_fields__, values, strict=False)))


def _payment(held: bytes | tuple[Any, ...], parse: Parse | None) -> Payment:
    if not isinstance(held, bytes):
        return Payment(*held)
    assert parse is not None, "a state that keeps records needs `parse` to read them"
    return parse(held)


def _unpickled(packed: bytes | None) -> list[Entry]:
    entries: list[Entry] = read_pickle(packed, _CLASSES) if packed else []
    return entries


def _order(payment: Payment) -> Order:
    return payment.order
