"""An oracle for all rules on an account's own payments: slow, naive, and without code of domain/.

It reads the log as a list: payments and labels in the order of arrival. The labels known for a payment are fixed when
it first arrives; everything else is decided at the end, on each account's payments sorted by event time, by scanning
lists and with exact fractions. Rules are plain dictionaries, as in a pack's JSON. The oracle does not parse
expressions: the test gives the same computation in Python.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from math import acos, cos, floor, radians, sin
from typing import Any, NamedTuple, TypeAlias

Raw: TypeAlias = Mapping[str, Any]
Meaning: TypeAlias = Callable[["Past"], int]
"""The value of an expression, computed in Python."""
KEYS = {
    "account": "account_id", "card": "card_id", "device": "device_id", "merchant": "merchant_id",
    "terminal": "terminal_id", "counterparty": "counterparty_id", "country": "country",
    "category": "merchant_category", "channel": "channel",
}  # fmt: skip
DAY_MS = 24 * 3_600_000


class Past(NamedTuple):
    """A payment, the earlier payments of its account in event time, and the labels that were known when it arrived."""

    payment: Raw
    earlier: Sequence[Raw]
    labels: Sequence[Raw]

    def within(self, ms: int) -> list[Raw]:
        """Return the earlier payments of at most this age, and the payment itself."""
        now = self.payment["event_time"]
        return [other for other in (*self.earlier, self.payment) if now - other["event_time"] <= ms]

    def of_key(self, others: Iterable[Raw], key: str) -> list[Raw]:
        """Return the payments that share a key with the payment, if it has one."""
        value = self.payment.get(KEYS[key])
        return [other for other in others if value and other.get(KEYS[key]) == value]

    def of_currency(self, others: Iterable[Raw]) -> list[Raw]:
        """Return the payments in the payment's currency."""
        return [other for other in others if other["currency"] == self.payment["currency"]]

    def confirmed(self, key: str, ms: int) -> int:
        """Return the labels that share a key with the payment, on payments of at most this age and none after it."""
        return len(self._known(key, ms))

    def confirmed_accounts(self, key: str, ms: int) -> int:
        """Return the accounts of those labels."""
        return len({label["account_id"] for label in self._known(key, ms)})

    def confirmed_only_here(self, key: str, ms: int) -> int:
        """Return the accounts among them that have no such label elsewhere."""
        now, here = self.payment["event_time"], self._known(key, ms)
        near = [label for label in self.labels if 0 <= now - label["event_time"] <= ms]
        return sum(all(other in here for other in near if other["account_id"] == label["account_id"]) for label in here)

    def _known(self, key: str, ms: int) -> list[Raw]:
        now = self.payment["event_time"]
        return self.of_key([label for label in self.labels if 0 <= now - label["event_time"] <= ms], key)


class Standing(NamedTuple):
    """The expected final decision on a payment."""

    score: int
    rules: tuple[str, ...]


def standing(log: Iterable[Raw], pack: Raw, meanings: Mapping[str, Meaning]) -> dict[int, Standing]:
    """Return the final decisions after the whole log, by the number of the record in which each payment first
    arrived.
    """
    first: dict[str, int] = {}
    payments: list[Raw] = []
    labels: list[Raw] = []
    known: list[list[Raw]] = []
    for number, record in enumerate(log):
        if "label_id" in record:
            if record["label_id"] not in [label["label_id"] for label in labels]:
                labels = [*labels, record]
        elif repr(sorted(record.items())) not in first:
            first[repr(sorted(record.items()))] = number
        payments.append(record)
        known.append(labels)
    found: dict[int, Standing] = {}
    for number in first.values():
        payment = payments[number]
        earlier = [
            payments[other]
            for other in first.values()
            if payments[other]["account_id"] == payment["account_id"] and _place(payments[other]) < _place(payment)
        ]
        found[number] = _decided(Past(payment, sorted(earlier, key=_place), known[number]), pack, meanings)
    return found


def _place(payment: Raw) -> tuple[int, str]:
    return payment["event_time"], payment["transaction_id"]


def _decided(past: Past, pack: Raw, meanings: Mapping[str, Meaning]) -> Standing:
    points: dict[str, int] = {}
    for rule in pack["rules"]:
        excess = _excess(past, rule, pack, meanings)
        guard = meanings.get(f"{rule['name']}.when")
        if excess is None or (guard and not guard(past)):
            continue
        if rule["family"] == "allowlist":
            return Standing(0, ())
        given = meanings.get(f"{rule['name']}.points")
        points[rule["name"]] = max(0, min(1000, given(past) if given else min(1000, floor(rule["points"] * excess))))
    score = 0
    for each in points.values():
        score = score + each - score * each // 1000
    rules = tuple(name for name, each in points.items() if each > 0)
    return Standing(score, rules) if score >= pack["flag_at"] and rules else Standing(score, ())


def _excess(past: Past, rule: Raw, pack: Raw, meanings: Mapping[str, Meaning]) -> Fraction | None:
    """Return the measured multiple of a rule's threshold, 1 for rules without one, or None if the rule does not
    fire.
    """
    match rule["family"]:
        case "velocity":
            return _velocity(past, rule)
        case "card_testing":
            return _card_testing(past, rule)
        case "amount_spike":
            return _amount_spike(past, rule)
        case "account_emptying":
            return _account_emptying(past, rule)
        case "impossible_travel":
            return _impossible_travel(past, rule)
        case "entity_risk":
            is_common = past.confirmed_accounts(rule["by"], rule["window_ms"]) >= rule.get("minimum_accounts", 1)
            return _times(past.confirmed(rule["by"], rule["window_ms"]), rule["at_least"]) if is_common else None
        case "expression":
            value = int(meanings[rule["name"]](past))
            return Fraction(1) if value >= rule.get("at_least", 1) else None
        case "new_device":
            return _once(_is_new(past, rule, "device"))
        case "new_country":
            return _once(_is_new(past, rule, "country"))
        case "far_from_home":
            return _once(_is_far(past.payment, rule))
        case "unusual_hour":
            return _once(_is_unusual(past, rule))
        case "blocklist" | "allowlist":
            return _once(past.payment.get(KEYS[rule["field"]]) in pack["lists"][rule["list"]])
    raise AssertionError(rule)


def _once(fires: bool) -> Fraction | None:
    return Fraction(1) if fires else None


def _times(value: int, threshold: int) -> Fraction | None:
    return Fraction(value, threshold) if value >= threshold else None


def _velocity(past: Past, rule: Raw) -> Fraction | None:
    near = past.of_key(past.within(rule["window_ms"]), rule.get("by", "account").removeprefix("account_"))
    if rule.get("measure") == "sum":
        return _times(sum(other["amount_minor"] for other in past.of_currency(near)), rule["at_least"])
    return _times(len(near), rule["at_least"])


def _card_testing(past: Past, rule: Raw) -> Fraction | None:
    near = past.of_key(past.within(rule["window_ms"]), rule.get("by", "card").removeprefix("account_"))
    small = [other for other in past.of_currency(near) if other["amount_minor"] <= rule["at_most_minor"]]
    return _times(len(small), rule["at_least"]) if past.payment in small else None


def _amount_spike(past: Past, rule: Raw) -> Fraction | None:
    before = past.of_currency(past.earlier[-rule["history"] :])
    amounts = [Fraction(other["amount_minor"]) for other in before]
    amount: int = past.payment["amount_minor"]
    if len(amounts) < rule["minimum_history"] or amount < rule["minimum_minor"]:
        return None
    mean = sum(amounts) / len(amounts)
    variance = sum((other - mean) ** 2 for other in amounts) / len(amounts)

    def is_spike(x: int) -> bool:
        return (
            x >= rule["minimum_minor"]
            and x > mean
            and 100 * x >= rule["ratio_percent"] * mean
            and (x - mean) ** 2 > rule["sigmas"] ** 2 * variance
        )

    return Fraction(amount, _least(is_spike, amount)) if is_spike(amount) else None


def _least(holds: Callable[[int], bool], most: int) -> int:
    """Return the least integer for which a condition holds that holds for all greater ones."""
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _account_emptying(past: Past, rule: Raw) -> Fraction | None:
    now, window = past.payment["event_time"], rule["window_ms"]
    near = past.of_currency(past.within(window))
    usual = [
        other for other in past.of_currency(past.earlier) if window < now - other["event_time"] <= rule["lookback_ms"]
    ]
    total = sum(other["amount_minor"] for other in near)
    if len(usual) < rule["minimum_history"]:
        return None
    if now - window - usual[0]["event_time"] < rule.get("minimum_span_ms", 0):
        return None
    span = max(window, now - window - usual[0]["event_time"])
    in_such_a_time = Fraction(sum(other["amount_minor"] for other in usual) * window, span)
    least = max(Fraction(rule["minimum_minor"]), in_such_a_time * rule["ratio_percent"] / 100)
    whole = -(-least.numerator // least.denominator)
    return _times(total, whole)


def _impossible_travel(past: Past, rule: Raw) -> Fraction | None:
    def present(other: Raw) -> bool:
        return bool(other["channel"] in {"POS", "ATM"} and other.get("latitude") is not None)

    payment = past.payment
    if not present(payment) or payment.get("card_id") is None:
        return None
    before = [other for other in past.of_key(past.earlier, "card") if present(other)]
    if not before or payment["event_time"] - before[-1]["event_time"] > rule["within_ms"]:
        return None
    metres = _metres(before[-1], payment)
    elapsed = payment["event_time"] - before[-1]["event_time"]
    if metres < rule["minimum_m"] or metres <= rule["speed_kmh"] * 1000 * Fraction(elapsed, 3_600_000):
        return None
    speed = min(1_000_000, floor(Fraction(metres * 3600, max(1, elapsed))))
    return Fraction(speed, rule["speed_kmh"])


def _is_new(past: Past, rule: Raw, key: str) -> bool:
    here = past.payment.get(KEYS[key])
    near = [other.get(KEYS[key]) for other in past.within(rule["lookback_ms"])[:-1]]
    elsewhere = [there for there in near if there is not None]
    return here is not None and here not in near and len(elsewhere) >= rule["minimum_history"]


def _is_far(payment: Raw, rule: Raw) -> bool:
    if payment.get("latitude") is None or payment.get("home_latitude") is None:
        return False
    if rule.get("channels") and payment["channel"] not in rule["channels"]:
        return False
    home = {"latitude": payment["home_latitude"], "longitude": payment["home_longitude"]}
    return bool(_metres(home, payment) >= rule["minimum_m"])


def _is_unusual(past: Past, rule: Raw) -> bool:
    habit = past.earlier[-rule["history"] :]
    if len(habit) < rule["minimum_history"]:
        return False
    now = past.payment["event_time"] % DAY_MS
    others = 0
    for other in habit:
        then = other["event_time"] % DAY_MS
        apart = min((now - then) % DAY_MS, (then - now) % DAY_MS)
        others += apart > rule["radius_ms"]
    return Fraction(others, len(habit)) >= Fraction(rule["at_least_permille"], 1000)


def _metres(a: Raw, b: Raw) -> int:
    """Compute the distance by the spherical law of cosines, another formula than that of the code under test."""
    phi_a, phi_b = radians(a["latitude"]), radians(b["latitude"])
    central = sin(phi_a) * sin(phi_b) + cos(phi_a) * cos(phi_b) * cos(radians(b["longitude"] - a["longitude"]))
    return round(6_371_000 * acos(max(-1.0, min(1.0, central))))
