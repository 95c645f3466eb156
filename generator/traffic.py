"""Seeded traffic: normal payments, and five kinds of unusual behaviour with known truth.

The same options give the same payments, byte for byte, on every machine.
"""

import heapq
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from math import cos, radians
from random import Random
from typing import Any, NamedTuple

START_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
CITIES = (
    ("DE", 52.52, 13.405), ("FR", 48.857, 2.352), ("ES", 40.417, -3.703), ("IT", 41.903, 12.496),
    ("PL", 52.23, 21.012), ("SE", 59.329, 18.069), ("US", 40.713, -74.006), ("BR", -23.551, -46.633),
    ("JP", 35.677, 139.65), ("AU", -33.869, 151.209), ("ZA", -33.925, 18.424), ("IN", 19.076, 72.878),
)  # fmt: skip
CURRENCIES = {"DE": "EUR", "FR": "EUR", "ES": "EUR", "IT": "EUR", "PL": "PLN", "SE": "SEK", "US": "USD"}
CURRENCIES |= {"BR": "BRL", "JP": "JPY", "AU": "AUD", "ZA": "ZAR", "IN": "INR"}
CATEGORIES = ("5411", "5812", "5541", "5732", "5999", "4111", "5912", "7011")
ONLINE_SHARE = 0.45
HOME_RADIUS_DEGREES = 0.1
"""Maximum distance of normal card-present payments from home, in degrees: about 11 km."""
_LETTERS = str.maketrans("0123456789", "ghijklmnop")


class Behaviour(StrEnum):
    """Behaviour that a payment was generated with: the truth, which rules do not see."""

    NORMAL = "normal"
    HIGH_VELOCITY = "high_velocity"
    AMOUNT_SPIKE = "amount_spike"
    GEOGRAPHIC_ANOMALY = "geographic_anomaly"
    DELAYED = "delayed"
    OUT_OF_ORDER = "out_of_order"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficOptions:
    """Options of the traffic. A share is a fraction of the moments at which a payment is due; times are in ms.

    `in_order` leaves out late payments and gives each account distinct, ascending event times.
    """

    seed: int = 1
    accounts: int = 5_000
    start_ms: int = START_MS
    per_second: float = 10.0
    """Payments per second of event time."""
    velocity_share: float = 0.0004
    spike_share: float = 0.0006
    geographic_share: float = 0.0005
    delayed_share: float = 0.002
    out_of_order_share: float = 0.01
    in_order: bool = False
    run: str = ""
    """Part of every transaction id, so that later traffic of the same accounts repeats no id. See `run_of`."""


def run_of(start_ms: int) -> str:
    """Return a name for traffic by its start time, in letters: digits could look like a card number."""
    return f"{start_ms:x}".translate(_LETTERS)


class GeneratedPayment(NamedTuple):
    """Generated payment: its arrival time in milliseconds, its fields of Transaction, and its truth."""

    arrives_ms: int
    transaction: dict[str, Any]
    behaviour: Behaviour


@dataclass(slots=True)
class _TrafficAccount:
    number: int
    country: str
    latitude: float
    longitude: float
    mean_minor: int
    payments: int = 0

    @property
    def name(self) -> str:
        return f"acct-{self.number:06d}"


class Traffic:
    """Endless stream of payments in order of arrival."""

    def __init__(self, options: TrafficOptions) -> None:
        self._options = options
        self._random = Random(options.seed)
        self._run = f"{options.run}-" if options.run else ""
        self._accounts = [self._account(number) for number in range(options.accounts)]
        self._weights = list(accumulate(1 / (rank + 20) ** 0.7 for rank in range(options.accounts)))
        self._waiting: list[tuple[int, int, GeneratedPayment]] = []
        self._made = 0
        self._last_ms: dict[str, int] = {}

    def __iter__(self) -> Iterator[GeneratedPayment]:
        step_ms = 1000 / self._options.per_second
        due = 0
        while True:
            now_ms = self._options.start_ms + int(due * step_ms)
            while self._waiting and self._waiting[0][0] <= now_ms:
                yield self._ordered(heapq.heappop(self._waiting)[2])
            yield from map(self._ordered, self._moment(now_ms))
            due += 1

    def _ordered(self, generated: GeneratedPayment) -> GeneratedPayment:
        """Return the payment on its way out, with an event time after its account's last one if `in_order` is set."""
        if self._options.in_order:
            transaction = generated.transaction
            event_ms = max(transaction["event_time"], self._last_ms.get(transaction["account_id"], -1) + 1)
            self._last_ms[transaction["account_id"]] = transaction["event_time"] = event_ms
        return generated

    def _account(self, number: int) -> _TrafficAccount:
        country, latitude, longitude = self._random.choice(CITIES)
        mean = int(self._random.lognormvariate(8.0, 0.6))
        return _TrafficAccount(number, country, latitude, longitude, mean * (100 if country == "JP" else 1))

    def _pick(self) -> _TrafficAccount:
        return self._accounts[bisect(self._weights, self._random.random() * self._weights[-1])]

    def _moment(self, now_ms: int) -> Iterator[GeneratedPayment]:
        options, draw = self._options, self._random.random()
        account = self._pick()
        for share, behaviour in (
            (options.velocity_share, self._burst),
            (options.spike_share, self._spike),
            (options.geographic_share, self._far_away),
        ):
            if draw < share:
                yield from behaviour(account, now_ms)
                return
            draw -= share
        if not options.in_order:
            if draw < options.delayed_share:
                delay_ms = int(self._random.uniform(60_000, 7_200_000))
                self._later(self._normal(account, now_ms, Behaviour.DELAYED), now_ms + delay_ms)
                return
            if draw < options.delayed_share + options.out_of_order_share:
                delay_ms = int(self._random.uniform(200, 20_000))
                self._later(self._normal(account, now_ms, Behaviour.OUT_OF_ORDER), now_ms + delay_ms)
                return
        yield self._normal(account, now_ms, Behaviour.NORMAL)

    def _later(self, generated: GeneratedPayment, arrives_ms: int) -> None:
        self._made += 1
        heapq.heappush(self._waiting, (arrives_ms, self._made, generated._replace(arrives_ms=arrives_ms)))

    def _burst(self, account: _TrafficAccount, now_ms: int) -> Iterator[GeneratedPayment]:
        """Schedule six to fourteen small online payments within less than a minute."""
        at_ms = now_ms
        for _ in range(self._random.randint(6, 14)):
            amount = max(1, int(account.mean_minor * self._random.uniform(0.05, 0.4)))
            made = self._payment(account, at_ms, amount, Behaviour.HIGH_VELOCITY, present_at=None)
            self._later(made, at_ms)
            at_ms += self._random.randint(400, 4_000)
        yield from ()

    def _spike(self, account: _TrafficAccount, now_ms: int) -> Iterator[GeneratedPayment]:
        """Yield one payment of ten to forty times the account's mean amount."""
        amount = max(20_000, int(account.mean_minor * self._random.uniform(10, 40)))
        yield self._payment(account, now_ms, amount, Behaviour.AMOUNT_SPIKE, present_at=None)

    def _far_away(self, account: _TrafficAccount, now_ms: int) -> Iterator[GeneratedPayment]:
        """Yield a payment at home, and schedule one with the same card on another continent minutes later."""
        yield self._payment(account, now_ms, self._amount(account), Behaviour.NORMAL, present_at=self._home(account))
        far = self._random.choice([city for city in CITIES if abs(city[2] - account.longitude) > 40])
        at_ms = now_ms + self._random.randint(120_000, 1_800_000)
        made = self._payment(
            account, at_ms, self._amount(account), Behaviour.GEOGRAPHIC_ANOMALY, present_at=(far[1], far[2]), at=far[0]
        )
        self._later(made, at_ms)

    def _normal(self, account: _TrafficAccount, now_ms: int, behaviour: Behaviour) -> GeneratedPayment:
        is_online = self._random.random() < ONLINE_SHARE
        place = None if is_online else self._home(account)
        return self._payment(account, now_ms, self._amount(account), behaviour, present_at=place)

    def _amount(self, account: _TrafficAccount) -> int:
        return max(1, int(account.mean_minor * self._random.lognormvariate(-0.1, 0.4)))

    def _home(self, account: _TrafficAccount) -> tuple[float, float]:
        longitude_radius = HOME_RADIUS_DEGREES / cos(radians(account.latitude))
        return (
            account.latitude + self._random.uniform(-HOME_RADIUS_DEGREES, HOME_RADIUS_DEGREES),
            account.longitude + self._random.uniform(-longitude_radius, longitude_radius),
        )

    def _payment(
        self,
        account: _TrafficAccount,
        event_ms: int,
        amount_minor: int,
        behaviour: Behaviour,
        *,
        present_at: tuple[float, float] | None,
        at: str | None = None,
    ) -> GeneratedPayment:
        account.payments += 1
        merchant = self._random.randrange(2_000)
        latitude, longitude = present_at or (None, None)
        transaction = {
            "transaction_id": f"{account.name}-{self._run}{account.payments:06d}",
            "account_id": account.name,
            "card_id": f"card-{account.number:06d}",
            "amount_minor": amount_minor,
            "currency": CURRENCIES[account.country],
            "event_time": event_ms,
            "merchant_id": f"shop-{merchant:04d}",
            "merchant_category": CATEGORIES[merchant % len(CATEGORIES)],
            "terminal_id": f"term-{merchant:04d}" if present_at else None,
            "payment_method": "CARD",
            "channel": "POS" if present_at else "ECOM",
            "country": at or account.country,
            "latitude": None if latitude is None else round(latitude, 6),
            "longitude": None if longitude is None else round(longitude, 6),
            "home_latitude": account.latitude,
            "home_longitude": account.longitude,
            "device_id": None if present_at else f"dev-{account.number:06d}",
            "counterparty_id": None,
            "attributes": {},
        }
        return GeneratedPayment(event_ms, transaction, behaviour)
