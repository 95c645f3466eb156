"""Figures of the live monitor, counted from risk.scored and cases.inbox with bounded memory; no decision uses them.

Each record counts in the ten-second slot of its Kafka timestamp; the figures are sums of the last slots. A slot counts
at most MAX_KEYS keys of one kind: all others count as "others".
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

SERIES_S: Final = 300
SLOT_MS: Final = 10_000
SLOTS: Final = 30
"""Slots of ten seconds that are kept: five minutes."""
ACCOUNT_SLOTS: Final = 6
"""Slots that rank the accounts: the last minute."""
MAX_KEYS: Final = 5_000
"""Keys of one kind that one slot counts."""
MAX_POINTS: Final = 250
SHOWN: Final = 12
MAX_ACCOUNTS: Final = 5_000
"""Accounts whose payments are remembered: those with the latest payments."""
MAX_PAYMENTS: Final = 120
"""Payments remembered per account."""
OTHERS: Final = "others"
_AGES_MS: Final = (15_000, 60_000, 180_000)


class RecentPayment(NamedTuple):
    """A decided payment with the fields that pages show."""

    transaction_id: str
    event_time: int
    amount_minor: int
    currency: str
    merchant_id: str
    country: str | None
    channel: str
    payment_method: str


@dataclass(slots=True)
class _FigureSlot:
    """Payments and flags of ten seconds, counted by kind and key."""

    number: int
    payments: dict[str, Counter[str]] = field(default_factory=dict)
    flags: dict[str, Counter[str]] = field(default_factory=dict)


def _count(counters: dict[str, Counter[str]], kind: str, key: str) -> None:
    counter = counters.get(kind)
    if counter is None:
        counter = counters[kind] = Counter()
    counter[key if key in counter or len(counter) < MAX_KEYS else OTHERS] += 1


class LiveFigures:
    """Counters of the live monitor; `snapshot` returns their figures."""

    def __init__(self) -> None:
        self._seconds: dict[str, dict[int, int]] = {"payments": {}, "flags": {}}
        self._slots: deque[_FigureSlot] = deque()
        self._points: deque[dict[str, Any]] = deque(maxlen=MAX_POINTS)
        self._recent: OrderedDict[str, deque[RecentPayment]] = OrderedDict()
        self._last_ms = 0
        self.skipped = 0
        """Records skipped to keep up."""

    def scored(self, payments: Iterable[Mapping[str, Any]], at_ms: int) -> None:
        """Count the decided payments of one record of risk.scored."""
        slot, many = self._slot(at_ms), 0
        counters = slot.payments
        for payment in payments:
            many += 1
            account = payment["account_id"]
            _count(counters, "accounts", account)
            _count(counters, "regions", payment["country"] or "unknown")
            _count(counters, "merchants", payment["merchant_id"])
            _count(counters, "methods", payment["payment_method"])
            self._remember(account, RecentPayment(*(payment[name] for name in RecentPayment._fields)))
        seconds = self._seconds["payments"]
        seconds[at_ms // 1000] = seconds.get(at_ms // 1000, 0) + many
        self._last_ms = max(self._last_ms, at_ms)

    def flagged(self, flag: Mapping[str, Any], at_ms: int) -> None:
        """Count a flag of cases.inbox."""
        counters = self._slot(at_ms).flags
        _count(counters, "accounts", flag["account_id"])
        _count(counters, "regions", flag.get("country") or "unknown")
        _count(counters, "merchants", flag["merchant_id"])
        _count(counters, "methods", flag.get("payment_method") or "unknown")
        seconds = self._seconds["flags"]
        seconds[at_ms // 1000] = seconds.get(at_ms // 1000, 0) + 1
        names = ("latitude", "longitude", "country", "amount_minor", "currency", "score", "typology")
        self._points.append({"at_ms": at_ms, **{name: flag.get(name) for name in names}})

    def payments(self, account_id: str, wanted: Iterable[str]) -> dict[str, RecentPayment]:
        """Return the remembered payments among `wanted` of an account, by id."""
        names = set(wanted)
        return {paid.transaction_id: paid for paid in self._recent.get(account_id, ()) if paid.transaction_id in names}

    def snapshot(self, now_ms: int, health: Mapping[str, Any]) -> dict[str, Any]:
        """Return the figures that the monitor page shows at `now_ms`."""
        self._forget(now_ms)
        now_s = now_ms // 1000
        at_s = list(range(now_s - SERIES_S, now_s))
        payments, flags = ([self._seconds[name].get(second, 0) for second in at_s] for name in ("payments", "flags"))
        of_all = sum(payments)
        return {
            "at_ms": now_ms,
            "last_ms": self._last_ms,
            "series": {"at_s": at_s, "payments": payments, "flags": flags},
            "payments_per_s": sum(payments[-10:]) / 10,
            "flags_per_min": sum(flags[-60:]),
            "flagged_percent": 100 * sum(flags) / of_all if of_all else 0.0,
            "regions": self._ranking("regions", SLOTS, by="flags"),
            "merchants": self._ranking("merchants", SLOTS, by="flags"),
            "methods": self._ranking("methods", SLOTS, by="payments"),
            "accounts": self._ranking("accounts", ACCOUNT_SLOTS, by="payments"),
            "points": [{**point, "age": _age(now_ms - point["at_ms"])} for point in self._points],
            "skipped": self.skipped,
            "health": health,
        }

    def _slot(self, at_ms: int) -> _FigureSlot:
        """Return the slot of a time; a time older than all slots counts in the oldest one."""
        number = at_ms // SLOT_MS
        if not self._slots or number > self._slots[-1].number:
            self._slots.append(_FigureSlot(number))
            while len(self._slots) > SLOTS + 1:
                self._slots.popleft()
            return self._slots[-1]
        return next((slot for slot in reversed(self._slots) if slot.number <= number), self._slots[0])

    def _remember(self, account_id: str, paid: RecentPayment) -> None:
        recent = self._recent.get(account_id)
        if recent is None:
            recent = self._recent[account_id] = deque(maxlen=MAX_PAYMENTS)
            if len(self._recent) > MAX_ACCOUNTS:
                self._recent.popitem(last=False)
        else:
            self._recent.move_to_end(account_id)
        recent.append(paid)

    def _forget(self, now_ms: int) -> None:
        oldest_s = now_ms // 1000 - SERIES_S
        for name, seconds in self._seconds.items():
            self._seconds[name] = {second: many for second, many in seconds.items() if second >= oldest_s}
        while self._slots and self._slots[0].number < now_ms // SLOT_MS - SLOTS:
            self._slots.popleft()

    def _ranking(self, kind: str, slots: int, by: str) -> list[dict[str, Any]]:
        """Return the keys of a kind with the highest counts in the last slots."""
        last = list(self._slots)[-slots:]
        sums: dict[str, Counter[str]] = {"payments": Counter(), "flags": Counter()}
        for slot in last:
            sums["payments"].update(slot.payments.get(kind, {}))
            sums["flags"].update(slot.flags.get(kind, {}))
        keys = [key for key, _ in sums[by].most_common(SHOWN)]
        if len(keys) < SHOWN:
            keys += [key for key, _ in sums["payments"].most_common(SHOWN) if key not in keys]
        return [{"key": key, "payments": sums["payments"][key], "flags": sums["flags"][key]} for key in keys[:SHOWN]]


def _age(age_ms: int) -> int:
    return sum(age_ms > limit for limit in _AGES_MS)
