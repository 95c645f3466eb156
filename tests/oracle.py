"""An oracle for the three rules: slow, naive, and sharing no code with domain/.

It sees all of an account's payments at once, sorts them by event time, and looks back by scanning lists, with exact
fractions instead of sums that are kept.
"""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from math import acos, cos, radians, sin
from typing import Any

VELOCITY_WINDOW_MS = 60_000
VELOCITY_AT_LEAST = 5
SPIKE_HISTORY = 50
SPIKE_MINIMUM_HISTORY = 5
SPIKE_SIGMAS = 5
SPIKE_MINIMUM_MINOR = 10_000
SPIKE_RATIO = 3
TRAVEL_MINIMUM_M = 300_000
TRAVEL_SPEED_KMH = 900
TRAVEL_WITHIN_MS = 24 * 3_600_000


def standing_flags(payments: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str, int, int], set[str]]:
    """The rules that fire for each distinct payment, by (account, id, time, amount), whatever order they come in."""
    distinct = {_key(payment): payment for payment in payments}
    accounts: dict[str, list[Mapping[str, Any]]] = {}
    for key in sorted(distinct, key=lambda key: (key[2], key[1])):
        accounts.setdefault(key[0], []).append(distinct[key])
    return {
        _key(history[index]): fired
        for history in accounts.values()
        for index in range(len(history))
        if (fired := _fired(history[: index + 1]))
    }


def _key(payment: Mapping[str, Any]) -> tuple[str, str, int, int]:
    return payment["account_id"], payment["transaction_id"], payment["event_time"], payment["amount_minor"]


def _fired(history: list[Mapping[str, Any]]) -> set[str]:
    fired = set()
    if _is_fast(history):
        fired.add("velocity")
    if _is_spike(history[-1], history[:-1]):
        fired.add("amount_spike")
    if _is_impossible(history[-1], history[:-1]):
        fired.add("impossible_travel")
    return fired


def _is_fast(history: list[Mapping[str, Any]]) -> bool:
    now: int = history[-1]["event_time"]
    near = [payment for payment in history if now - payment["event_time"] <= VELOCITY_WINDOW_MS]
    return len(near) >= VELOCITY_AT_LEAST


def _is_spike(payment: Mapping[str, Any], earlier: list[Mapping[str, Any]]) -> bool:
    amounts = [Fraction(other["amount_minor"]) for other in earlier[-SPIKE_HISTORY:]]
    amount: int = payment["amount_minor"]
    if len(amounts) < SPIKE_MINIMUM_HISTORY or amount < SPIKE_MINIMUM_MINOR:
        return False
    mean = sum(amounts) / len(amounts)
    variance = sum((other - mean) ** 2 for other in amounts) / len(amounts)
    return amount > mean and amount >= SPIKE_RATIO * mean and (amount - mean) ** 2 > SPIKE_SIGMAS**2 * variance


def _is_impossible(payment: Mapping[str, Any], earlier: list[Mapping[str, Any]]) -> bool:
    def present(other: Mapping[str, Any]) -> bool:
        return bool(other["channel"] in {"POS", "ATM"} and other.get("latitude") is not None)

    if not present(payment) or payment.get("card_id") is None:
        return False
    before = [other for other in earlier if other.get("card_id") == payment["card_id"] and present(other)]
    if not before or payment["event_time"] - before[-1]["event_time"] > TRAVEL_WITHIN_MS:
        return False
    metres = _metres(before[-1], payment)
    hours = Fraction(payment["event_time"] - before[-1]["event_time"], 3_600_000)
    return metres >= TRAVEL_MINIMUM_M and metres > TRAVEL_SPEED_KMH * 1000 * hours


def _metres(a: Mapping[str, Any], b: Mapping[str, Any]) -> int:
    """The spherical law of cosines: another formula than the one under test."""
    phi_a, phi_b = radians(a["latitude"]), radians(b["latitude"])
    central = sin(phi_a) * sin(phi_b) + cos(phi_a) * cos(phi_b) * cos(radians(b["longitude"] - a["longitude"]))
    return round(6_371_000 * acos(max(-1.0, min(1.0, central))))
