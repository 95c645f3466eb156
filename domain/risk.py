"""The risk fold of one partition: payments in log order become decisions, and late ones restate earlier decisions."""

import pickle
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from functools import reduce
from math import isqrt
from typing import Any, Final, NamedTuple

from domain.events import (
    DuplicateSeen,
    Reason,
    RiskFlagged,
    RiskOutput,
    RiskRestated,
    RiskScored,
    RulesActivated,
    flag_id,
)
from domain.geo import METRES_PER_MICRODEGREE, distance_m
from domain.history import HORIZON_MS, NOTHING, Decision, History
from domain.payment import CARD_PRESENT_CHANNELS, Payment, Refusal, admit
from domain.rules import AmountSpike, BadRulePack, ImpossibleTravel, Rule, RulePack, Velocity, parse_pack

MAX_CONTRIBUTING: Final = 100
"""Payments named as the ground of one reason; the value counts them all."""
MAX_SPEED_KMH: Final = 1_000_000
PACKS_KEY: Final = "\x1fpacks"
"""The state entry of the packs of a partition: no account's key, since U+001F is refused in ids."""

Evaluator = Callable[[History, int], Reason | None]


class Conflict(NamedTuple):
    """Other content under a transaction id that the account has used: decided like any payment, and reported."""

    detail: str


class ActivePack(NamedTuple):
    """A rule pack made ready: one function per rule, and how far back they look."""

    pack_id: str
    pack: RulePack
    evaluators: tuple[Evaluator, ...]
    window_ms: int
    rows: int


class RiskFold:
    """The state of one partition of payments.inbound.

    `load` reads a state entry by key. Histories in use are kept in memory, `hot_accounts` of them; the least
    recently used leave and are read back when needed. With `hot_accounts=None` nothing leaves, and nothing needs
    to be written: for replays and backtests that hold all in memory.
    """

    def __init__(
        self, partition: int, load: Callable[[str], bytes | None] = lambda _: None, hot_accounts: int | None = None
    ) -> None:
        self._partition = partition
        self._load = load
        self._hot_accounts = hot_accounts
        self._histories: dict[str, History] = {}
        self._dirty: dict[str, History] = {}
        packs = load(PACKS_KEY)
        canonical: list[str] = pickle.loads(packs) if packs else []  # noqa: S301 - our own bytes
        self._packs = [activate(text) for text in canonical]
        self._packs_changed = False

    def read(
        self, name: str, data: Mapping[str, Any], offset: int, received_ms: int | None
    ) -> list[RiskOutput | Conflict] | Refusal:
        """What a decoded record of the log leads to: the one door that the live job, replays and tests come in by.

        `received_ms` is the record's Kafka timestamp, None where there is none (a file).
        """
        if name == "Transaction":
            try:
                admitted = admit(data, received_ms)
            except (KeyError, TypeError) as error:
                return Refusal("bad_fields", f"not the fields of a Transaction: {error!r}")
            return admitted if isinstance(admitted, Refusal) else self.step(admitted, offset)
        if name == "RulesActivated":
            return self._activated(data)
        if name == "IntakeRefused":
            return Refusal(str(data["reason"]), f"{data['source']}: {data['detail']}")
        return Refusal("unexpected_type", f"a {name} has no meaning in this topic")

    def _activated(self, data: Mapping[str, Any]) -> list[RiskOutput | Conflict] | Refusal:
        try:
            self.activate(RulesActivated(**data))
        except (BadRulePack, TypeError) as error:
            return Refusal("bad_rule_pack", str(error))
        return []

    def activate(self, record: RulesActivated) -> None:
        """Decide by this pack from here on; a pack that is in force already changes nothing. Raises BadRulePack."""
        if self._packs and self._packs[-1].pack_id == record.pack_id:
            return
        self._packs.append(activate(record.pack))
        self._packs_changed = True

    def step(self, payment: Payment, offset: int) -> list[RiskOutput | Conflict] | Refusal:
        """Decide on a payment: its score, a flag where rules fired, and what it changes about later ones."""
        if not self._packs:
            return Refusal("no_rules_active", "no rule pack has been activated in this partition: run fraudcase up")
        account_id = payment.account_id
        history = self._histories.get(account_id) or self._read(account_id)
        known = payment.transaction_id in history.ids
        if payment.event_time_ms <= history.latest_ms:  # otherwise it is neither late nor a duplicate
            if history.is_beyond_horizon(payment):
                return _beyond_horizon(history, payment)
            if history.is_beyond_bound(payment):
                return Refusal("beyond_bound", "older than all payments that are kept of this account")
            if known and history.holds(payment):
                return [DuplicateSeen(account_id, payment.transaction_id, payment.digest, self._partition, offset)]
        number = len(self._packs) - 1
        active = self._packs[number]
        index = history.insert(payment, number)
        if self._hot_accounts is not None:
            self._dirty[account_id] = history
        decision = decide(history, index, active)
        outputs: list[RiskOutput | Conflict] = [self._scored(payment, decision, active, offset)]
        if known:
            outputs.append(Conflict(f"transaction id {payment.transaction_id!r} came before with other content"))
        if decision.reasons:
            history.standing[payment.order] = decision
            outputs.append(_flagged(history, payment, decision, active))
        if index + 1 < len(history.payments):
            outputs += self._restate(history, index)
        history.prune(active.window_ms, active.rows)
        return outputs

    def decision(self, payment: Payment) -> Decision:
        """What stands for a payment now, after all that arrived later."""
        history = self._histories.get(payment.account_id) or self._read(payment.account_id)
        return history.standing.get(payment.order, NOTHING)

    def take_writes(self) -> dict[str, bytes | None]:
        """The state entries that changed since the last call; None removes one. Forgets what is too much to keep."""
        writes: dict[str, bytes | None] = {}
        for account_id, history in self._dirty.items():
            writes.update(history.take_writes())
            self._histories[account_id] = self._histories.pop(account_id)  # to the end: recently used
        self._dirty = {}
        if self._packs_changed:
            writes[PACKS_KEY] = pickle.dumps([active.pack.canonical for active in self._packs], 5)
            self._packs_changed = False
        if self._hot_accounts is not None:
            for account_id in list(self._histories)[: max(0, len(self._histories) - self._hot_accounts)]:
                del self._histories[account_id]
        return writes

    def _read(self, account_id: str) -> History:
        history = self._histories[account_id] = History.read(account_id, self._load)
        return history

    def _scored(self, payment: Payment, decision: Decision, active: ActivePack, offset: int) -> RiskScored:
        return RiskScored(
            payment.account_id,
            payment.transaction_id,
            payment.digest,
            payment.event_time_ms,
            payment.amount_minor,
            payment.currency,
            payment.merchant_id,
            payment.payment_method,
            payment.channel,
            payment.country,
            decision.score,
            [reason.rule for reason in decision.reasons],
            active.pack_id,
            self._partition,
            offset,
        )

    def _restate(self, history: History, index: int) -> list[RiskOutput | Conflict]:
        """The decisions after a late payment that it changes, each by the pack that it was made with."""
        cause = history.payments[index]
        packs = {number: self._packs[number] for number in set(history.packs[index + 1 :])}
        rows = max(pack.rows for pack in packs.values())
        window_ms = max(pack.window_ms for pack in packs.values())
        reach = max(index + rows, bisect_right(history.times, cause.event_time_ms + window_ms) - 1)
        restated: list[RiskOutput | Conflict] = []
        for later in range(index + 1, min(reach, len(history.payments) - 1) + 1):
            payment, pack = history.payments[later], packs[history.packs[later]]
            before = history.standing.get(payment.order, NOTHING)
            after = decide(history, later, pack)
            if after != before:
                restated.append(_restated(history, payment, before, after, pack, cause))
        return restated


def _beyond_horizon(history: History, payment: Payment) -> Refusal:
    late_days = (history.latest_ms - payment.event_time_ms) // 86_400_000
    return Refusal("beyond_horizon", f"{late_days} days late, {HORIZON_MS // 86_400_000} are allowed")


def activate(canonical: str) -> ActivePack:
    """A pack's functions, from its canonical JSON. Raises BadRulePack."""
    pack = parse_pack(canonical)
    return ActivePack(
        pack_id=pack.pack_id,
        pack=pack,
        evaluators=tuple(_evaluator(rule) for rule in pack.rules),
        window_ms=max((_window_ms(rule) for rule in pack.rules), default=0),
        rows=max((rule.history for rule in pack.rules if isinstance(rule, AmountSpike)), default=0),
    )


def _window_ms(rule: Rule) -> int:
    match rule:
        case Velocity():
            return rule.window_ms
        case ImpossibleTravel():
            return rule.within_ms
        case AmountSpike():
            return 0


def decide(history: History, index: int, active: ActivePack) -> Decision:
    """What a pack says of the payment at an index of its history, looking at what precedes it in event time."""
    reasons: tuple[Reason, ...] = ()
    for evaluate in active.evaluators:
        reason = evaluate(history, index)
        if reason is not None:
            reasons = (*reasons, reason)
    if not reasons:
        return NOTHING
    return Decision(reduce(_either, (reason.points for reason in reasons), 0), reasons)


def _either(score: int, points: int) -> int:
    """Two thousandths joined as if they were independent probabilities: 1 - (1 - a)(1 - b), in integers."""
    return score + points - score * points // 1000


def _points(points: int, value: int, threshold: int) -> int:
    """The rule's points at its threshold, more in proportion above it, at most 1000."""
    return min(1000, points * value // threshold)


def _reason(rule: Rule, measure: str, value: int, threshold: int, payments: list[Payment]) -> Reason:
    return Reason(
        rule=rule.name,
        measure=measure,
        value=value,
        threshold=threshold,
        points=_points(rule.points, value, threshold),
        contributing=tuple(payment.transaction_id for payment in payments[-MAX_CONTRIBUTING:]),
    )


def _evaluator(rule: Rule) -> Evaluator:
    match rule:
        case Velocity():
            return _velocity(rule)
        case AmountSpike():
            return _amount_spike(rule)
        case ImpossibleTravel():
            return _impossible_travel(rule)


def _velocity(rule: Velocity) -> Evaluator:
    window_ms, at_least = rule.window_ms, rule.at_least

    def evaluate(history: History, index: int) -> Reason | None:
        nearest = index + 1 - at_least  # if this payment is in the window, there are at least so many
        times = history.times
        start = times[index] - window_ms
        if nearest < 0 or times[nearest] < start:
            return None
        first = bisect_left(times, start, 0, index + 1)
        return _reason(rule, "payments", index + 1 - first, at_least, history.payments[first : index + 1])

    return evaluate


def _amount_spike(rule: AmountSpike) -> Evaluator:
    rows, least, minimum, ratio, variances = (
        rule.history, rule.minimum_history, rule.minimum_minor, rule.ratio_percent, rule.sigmas**2,
    )  # fmt: skip

    def evaluate(history: History, index: int) -> Reason | None:
        n = min(rows, index)
        amount = history.payments[index].amount_minor
        if n < least or amount < minimum:
            return None
        total = history.sums[index] - history.sums[index - n]
        excess = n * amount - total
        if excess <= 0 or 100 * n * amount < ratio * total:
            return None
        spread = variances * (n * (history.squares[index] - history.squares[index - n]) - total * total)
        if excess * excess <= spread:
            return None
        return _reason(
            rule,
            "minor units",
            amount,
            max(minimum, -(-ratio * total // (100 * n)), (total + isqrt(spread)) // n + 1),
            history.payments[index - n : index],
        )

    return evaluate


def _impossible_travel(rule: ImpossibleTravel) -> Evaluator:
    minimum_m, speed_kmh, within_ms = rule.minimum_m, rule.speed_kmh, rule.within_ms

    def evaluate(history: History, index: int) -> Reason | None:
        here = history.payments[index]
        if here.latitude is None or here.longitude is None or here.card_id is None:
            return None
        if here.channel not in CARD_PRESENT_CHANNELS:
            return None
        before = _previous_present(history, index, here.event_time_ms - within_ms)
        if before is None:
            return None
        assert before.latitude is not None
        assert before.longitude is not None
        apart = abs(before.latitude - here.latitude) + abs(before.longitude - here.longitude)
        if apart * METRES_PER_MICRODEGREE < minimum_m:
            return None
        distance = distance_m(before.latitude, before.longitude, here.latitude, here.longitude)
        elapsed_ms = here.event_time_ms - before.event_time_ms
        if distance < minimum_m or distance * 3600 <= speed_kmh * elapsed_ms:
            return None
        speed = min(MAX_SPEED_KMH, distance * 3600 // max(1, elapsed_ms))
        return _reason(rule, "km/h", speed, speed_kmh, [before])

    return evaluate


def _previous_present(history: History, index: int, oldest_ms: int) -> Payment | None:
    card_id = history.payments[index].card_id
    for position in range(index - 1, -1, -1):
        if history.times[position] < oldest_ms:
            return None
        payment = history.payments[position]
        if payment.card_id == card_id and payment.latitude is not None and payment.channel in CARD_PRESENT_CHANNELS:
            return payment
    return None


def _typology(decision: Decision, active: ActivePack) -> str:
    """That of the reason with the most points; of equals, the first in the pack."""
    strongest = max(decision.reasons, key=lambda reason: reason.points)
    return next(rule.typology for rule in active.pack.rules if rule.name == strongest.rule)


def _flagged(history: History, payment: Payment, decision: Decision, active: ActivePack) -> RiskFlagged:
    history.sequence += 1
    return RiskFlagged(
        account_id=payment.account_id,
        sequence=history.sequence,
        flag_id=flag_id(payment.account_id, payment.transaction_id, payment.digest),
        transaction_id=payment.transaction_id,
        content_digest=payment.digest.hex(),
        event_time=payment.event_time_ms,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        merchant_id=payment.merchant_id,
        card_id=payment.card_id,
        payment_method=payment.payment_method,
        channel=payment.channel,
        country=payment.country,
        latitude=payment.latitude,
        longitude=payment.longitude,
        typology=_typology(decision, active),
        score=decision.score,
        reasons=decision.reasons,
        pack_id=active.pack_id,
        terminal_id=payment.terminal_id,
        device_id=payment.device_id,
    )


def _restated(
    history: History, payment: Payment, before: Decision, after: Decision, active: ActivePack, cause: Payment
) -> RiskRestated:
    if after.reasons:
        history.standing[payment.order] = after
    else:
        history.standing.pop(payment.order, None)
    history.sequence += 1
    return RiskRestated(
        account_id=payment.account_id,
        sequence=history.sequence,
        flag_id=flag_id(payment.account_id, payment.transaction_id, payment.digest),
        transaction_id=payment.transaction_id,
        content_digest=payment.digest.hex(),
        event_time=payment.event_time_ms,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        merchant_id=payment.merchant_id,
        card_id=payment.card_id,
        payment_method=payment.payment_method,
        channel=payment.channel,
        country=payment.country,
        latitude=payment.latitude,
        longitude=payment.longitude,
        typology=_typology(after if after.reasons else before, active),
        score_before=before.score,
        rules_before=before.rules,
        score=after.score,
        reasons=after.reasons,
        pack_id=active.pack_id,
        cause_transaction_id=cause.transaction_id,
        cause_digest=cause.digest.hex(),
        terminal_id=payment.terminal_id,
        device_id=payment.device_id,
    )
