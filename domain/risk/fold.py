"""The risk fold of one partition: payments in log order become decisions, and late ones restate earlier decisions."""

import pickle
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, Final, NamedTuple, TypeAlias

from domain.engines import ActiveEngine
from domain.payment import FUTURE_TOLERANCE_MS, Payment, Refusal, admit, admit_row
from domain.reason import Reason
from domain.risk.compiled_rules import CompiledRule, combine_permille, compile_rule
from domain.risk.entity_fold import entity_keys, entity_payments
from domain.risk.events import (
    NO_SHADOW,
    DuplicateSeen,
    FraudConfirmed,
    RiskFlagged,
    RiskOutput,
    RiskRestated,
    RiskScored,
    RulesActivated,
    ShadowScore,
    flag_id,
)
from domain.risk.families.measurement import Check, Measurement
from domain.risk.histories import Histories, HistoriesFold, Writes
from domain.risk.history import HORIZON_MS, NOTHING, Decision, History, Parse, Spec
from domain.risk.labels import FraudLabel, LabelIndex, by_key
from domain.risk.packs import BadRulePack, RulePack, parse_pack
from domain.state_pickles import read_pickle

MAX_SHADOWS: Final = 4
"""Packs that may look on at a time: each is evaluated for every payment."""
MAX_PACKS: Final = 1_000
"""Distinct packs that a partition may ever have been decided by: old decisions are restated by their own."""
MAX_LANE: Final = 64
"""Earlier payments up to which rules wait their turn unasked; a rule that needs more is asked from there on."""
ELSEWHERE: Final = ""
"""The lane of channels that no rule names; no payment's own channel is empty."""
_new_tuple: Final = tuple.__new__  # as in payment.py: one for every payment
PACKS_KEY: Final = "\x1fpacks"
"""The state entry of the packs of a partition: no account's key, since U+001F is refused in ids."""


class ContentConflict(NamedTuple):
    """Other content under a transaction id that the account has used: decided like any payment, and reported."""

    detail: str


Lane: TypeAlias = tuple[tuple[tuple[Check, CompiledRule], ...], ...]


class ActivePack(NamedTuple):
    """A rule pack made ready: what its rules are, and how far back they look.

    `rules` are those that the account's fold decides; those by labels alone, and those that forbid a flag, stand apart.
    `lanes` are the checks of those rules that can hold in a channel, by the number of earlier payments; what stands
    under no channel's name is for all others.
    `entity_keys` is what payments have to be grouped by, across accounts, for the rest.
    """

    pack_id: str
    pack: RulePack
    rules: tuple[CompiledRule, ...]
    lanes: dict[str, Lane]
    by_labels: tuple[CompiledRule, ...]
    allowing: tuple[CompiledRule, ...]
    window_ms: int
    rows: int
    confirmed: tuple[Spec, ...]
    entity_keys: tuple[str, ...]

    def place(self, reason: Reason) -> int:
        """Where the reason's rule stands in the pack."""
        return next(number for number, rule in enumerate(self.pack.rules) if rule.name == reason.rule)


class RuleFinding(NamedTuple):
    """What one rule of a pack makes of a payment: for `fraudcase explain`."""

    ready: CompiledRule
    measured: Measurement
    is_open: bool
    points: int


class RiskFold(HistoriesFold):
    """The state of one partition of payments.inbound.

    `load` reads a state entry by key. Histories in use are kept in memory, `hot_accounts` of them; the least
    recently used leave and are read back when needed. With `hot_accounts=None` nothing leaves, and nothing needs
    to be written: for replays and backtests that hold all in memory. With `parse` the state keeps the records that
    payments came in (where `read` is given them), and reads them again.
    """

    def __init__(
        self,
        partition: int,
        load: Callable[[str], bytes | None] = lambda _: None,
        hot_accounts: int | None = None,
        parse: Parse | None = None,
    ) -> None:
        self._partition = partition
        self._histories = Histories(load, hot_accounts, parse)
        self._loaded = self._histories.loaded
        self._labels = LabelIndex(load)
        packs = load(PACKS_KEY)
        canonical, number, shadows = read_pickle(packs) if packs else ([], -1, [])
        self._packs = [activate(text) for text in canonical]
        self._shadows = [activate(text) for text in shadows]
        self._packs_changed = False
        self._engine = ActiveEngine(load)
        self._decide_by(number)

    def _decide_by(self, number: int) -> None:
        """From here on by the pack of that number; -1 is none. Histories are kept for it and for who looks on."""
        self._number = number
        active = [*self._packs[number : number + 1], *self._shadows]
        self._window_ms = max((pack.window_ms for pack in active), default=0)
        self._rows = max((pack.rows for pack in active), default=0)
        self._specs = by_key(spec for pack in active for spec in pack.confirmed)

    def read(
        self, name: str, data: Any, offset: int, received_ms: int | None, raw: bytes | None = None
    ) -> list[RiskOutput | ContentConflict] | Refusal:
        """What a decoded record of the log leads to: the one door that the live job, replays and tests come in by.

        `data` are the fields by name, or of a Transaction the tuple of `payment.FIELDS`. `received_ms` is the record's
        Kafka timestamp, None where there is none (a file); `raw` is what was decoded.
        """
        if name == "Transaction":
            try:
                admitted = admit_row(data, received_ms) if type(data) is tuple else admit(data, received_ms)
            except (KeyError, TypeError) as error:
                return Refusal("bad_fields", f"not the fields of a Transaction: {error!r}")
            return admitted if isinstance(admitted, Refusal) else self.step(admitted, offset, raw)
        if name == "RulesActivated":
            return self._activated(data)
        if name == "FraudConfirmed":
            return self._confirmed(data, received_ms)
        if name == "EngineActivated":
            return self._engine.read(data) or []
        if name == "IntakeRefused":
            return Refusal(str(data["reason"]), f"{data['source']}: {data['detail']}")
        return Refusal("unexpected_type", f"a {name} has no meaning in this topic")

    def _activated(self, data: Mapping[str, Any]) -> list[RiskOutput | ContentConflict] | Refusal:
        try:
            self.activate(RulesActivated(**data))
        except (BadRulePack, TypeError) as error:
            return Refusal("bad_rule_pack", str(error))
        return []

    def activate(self, record: RulesActivated) -> None:
        """Decide by this pack from here on, or let it look on, or no longer. Raises BadRulePack.

        A pack that is in force already changes nothing.
        """
        shadows = [pack for pack in self._shadows if pack.pack_id != record.pack_id]
        number = self._number
        if record.mode == "active":
            number = self._number_of(record)
        elif record.mode == "shadow":
            if len(shadows) >= MAX_SHADOWS:
                raise BadRulePack(f"{MAX_SHADOWS} packs look on already: retire one first")
            if number < 0 or self._packs[number].pack_id != record.pack_id:
                shadows.append(_pack_from_record(record))
        elif record.mode != "retired-shadow":
            raise BadRulePack(f"mode {record.mode!r} is none of active, shadow, retired-shadow")
        self._shadows = shadows
        self._packs_changed = True
        self._decide_by(number)

    def _number_of(self, record: RulesActivated) -> int:
        for number, pack in enumerate(self._packs):
            if pack.pack_id == record.pack_id:
                return number
        if len(self._packs) >= MAX_PACKS:
            raise BadRulePack(f"{MAX_PACKS} packs have been active in this partition: no more fit")
        self._packs.append(_pack_from_record(record))
        return len(self._packs) - 1

    def _confirmed(
        self, data: Mapping[str, Any], received_ms: int | None
    ) -> list[RiskOutput | ContentConflict] | Refusal:
        try:
            record = FraudConfirmed(**data)
        except TypeError as error:
            return Refusal("bad_fields", f"not the fields of a FraudConfirmed: {error}")
        if received_ms is not None and record.event_time > received_ms + FUTURE_TOLERANCE_MS:
            return Refusal("future_dated", "a fraud cannot be confirmed before it is paid")
        self.confirm(record)
        return []

    def confirm(self, record: FraudConfirmed) -> None:
        """Hold what this fraud touched riskier from here on; the same label again adds nothing."""
        self._labels.add(
            FraudLabel(
                record.label_id,
                record.transaction_id,
                record.event_time,
                record.merchant_id,
                record.terminal_id,
                record.device_id,
                record.card_id,
                record.account_id,
            )
        )

    def step(
        self, payment: Payment, offset: int, raw: bytes | None = None
    ) -> list[RiskOutput | ContentConflict] | Refusal:
        """Decide on a payment: its score, a flag where that is high enough, and what it changes about later ones."""
        number = self._number
        if number < 0:
            return Refusal("no_rules_active", "no rule pack has been activated in this partition: run fraudcase up")
        account_id = payment.account_id
        history = self._loaded.get(account_id) or self._histories.read(account_id)
        known = payment.transaction_id in history.ids
        if payment.event_time_ms <= history.latest_ms:  # otherwise it is neither late nor a duplicate
            if history.is_beyond_horizon(payment):
                return _horizon_refusal(history, payment)
            if history.is_beyond_bound(payment):
                return Refusal("beyond_bound", "older than all payments that are kept of this account")
            if known and history.holds(payment):
                return [DuplicateSeen(account_id, payment.transaction_id, payment.digest, self._partition, offset)]
        active = self._packs[number]
        labels = self._labels
        facts = labels.facts(payment, self._specs) if labels.known else None
        if self._histories.are_written:
            self._histories.change(account_id, history)
            history.remember(payment, number, facts, raw)
        index = history.insert(payment, number, facts)
        score, reasons = decision = decide(history, index, active)
        scored = (
            account_id,
            payment.transaction_id,
            payment.digest,
            payment.event_time_ms,
            payment.amount_minor,
            payment.currency,
            payment.merchant_id,
            payment.payment_method,
            payment.channel,
            payment.country,
            score,
            [reason.rule for reason in reasons] if reasons else [],
            active.pack_id,
            self._partition,
            offset,
            self._shadow_scores(history, index) if self._shadows else NO_SHADOW,
        )
        outputs: list[RiskOutput | ContentConflict] = [_new_tuple(RiskScored, scored)]
        if known:
            outputs.append(ContentConflict(f"transaction id {payment.transaction_id!r} came before with other content"))
        if reasons:
            history.standing[payment.order] = decision
            outputs.append(_risk_flagged(history, payment, decision, active))
        if active.entity_keys:
            outputs += entity_payments(
                payment,
                active.entity_keys,
                active.pack_id,
                is_allowed=_is_allowed(history, index, active),
                partition=self._partition,
                offset=offset,
            )
        if index + 1 < len(history.payments):
            outputs += self._restate(history, index)
        history.prune(self._window_ms, self._rows)
        return outputs

    def decision(self, payment: Payment) -> Decision:
        """What stands for a payment now, after all that arrived later; a score without reasons is no flag."""
        history = self._loaded.get(payment.account_id) or self._histories.read(payment.account_id)
        standing = history.standing.get(payment.order)
        if standing is not None:
            return standing
        index = history.index_of(payment)
        return NOTHING if index is None else decide(history, index, self._packs[history.packs[index]])

    def findings(self, payment: Payment) -> list[RuleFinding]:
        """What each rule of the pack that decided a payment makes of it now; none if it is not there any more."""
        history = self._loaded.get(payment.account_id) or self._histories.read(payment.account_id)
        index = history.index_of(payment)
        return [] if index is None else findings(history, index, self._packs[history.packs[index]])

    def paid(self, account_id: str, transaction_id: str, event_time_ms: int) -> Payment | None:
        """A payment that is kept in memory, by what a label says of it."""
        history = self._loaded.get(account_id)
        if history is None or transaction_id not in history.ids:
            return None
        first = bisect_left(history.times, event_time_ms)
        same = history.payments[first : bisect_right(history.times, event_time_ms, first)]
        return next((payment for payment in same if payment.transaction_id == transaction_id), None)

    @property
    def active(self) -> ActivePack | None:
        """The pack that the next payment will be decided by."""
        return self._packs[self._number] if self._number >= 0 else None

    @property
    def engine(self) -> int:
        """The number of the engine that the next payment will be decided by."""
        return self._engine.now.number

    def _shadow_scores(self, history: History, index: int) -> list[ShadowScore]:
        scores: list[ShadowScore] = []
        for pack in self._shadows:
            score, reasons = decide(history, index, pack)
            scores.append({"pack_id": pack.pack_id, "score": score, "rules": [reason.rule for reason in reasons]})
        return scores

    def _take_others(self) -> Writes:
        writes: Writes = {**self._labels.take_writes(), **self._engine.take_writes()}
        if self._packs_changed:
            canonical = [[active.pack.canonical for active in packs] for packs in (self._packs, self._shadows)]
            writes[PACKS_KEY] = pickle.dumps((canonical[0], self._number, canonical[1]), 5)
            self._packs_changed = False
        return writes

    def _restate(self, history: History, index: int) -> list[RiskOutput | ContentConflict]:
        """The decisions after a late payment that it changes, each by the pack that it was made with."""
        cause = history.payments[index]
        packs = {number: self._packs[number] for number in set(history.packs[index + 1 :])}
        rows = max(pack.rows for pack in packs.values())
        window_ms = max(pack.window_ms for pack in packs.values())
        reach = max(index + rows, bisect_right(history.times, cause.event_time_ms + window_ms) - 1)
        restated: list[RiskOutput | ContentConflict] = []
        for later in range(index + 1, min(reach, len(history.payments) - 1) + 1):
            payment, pack = history.payments[later], packs[history.packs[later]]
            before = history.standing.get(payment.order, NOTHING)
            after = decide(history, later, pack)
            if after != before and (after.reasons or before.reasons):
                restated.append(_risk_restated(history, payment, before, after, pack, cause))
        return restated


def _horizon_refusal(history: History, payment: Payment) -> Refusal:
    late_days = (history.latest_ms - payment.event_time_ms) // 86_400_000
    return Refusal("beyond_horizon", f"{late_days} days late, {HORIZON_MS // 86_400_000} are allowed")


def _pack_from_record(record: RulesActivated) -> ActivePack:
    made = activate(record.pack)
    if made.pack_id != record.pack_id:
        raise BadRulePack(f"the pack's address is {made.pack_id}, the record says {record.pack_id[:64]!r}")
    return made


def activate(canonical: str) -> ActivePack:
    """A pack's functions, from its canonical JSON. Raises BadRulePack."""
    pack = parse_pack(canonical)
    made = tuple(compile_rule(rule, pack.lists) for rule in pack.rules if not rule.entity_key)
    rules = tuple(each for each in made if not each.rule.is_allowing and not each.rule.is_by_labels)
    return ActivePack(
        pack_id=pack.pack_id,
        pack=pack,
        rules=rules,
        lanes=_lanes(rules),
        by_labels=tuple(each for each in made if each.rule.is_by_labels),
        allowing=tuple(each for each in made if each.rule.is_allowing),
        window_ms=max((each.needs.window_ms for each in made), default=0),
        rows=max((each.needs.rows for each in made), default=0),
        confirmed=tuple(dict.fromkeys(spec for each in made for spec in each.needs.confirmed)),
        entity_keys=entity_keys(pack.rules),
    )


def _lanes(rules: tuple[CompiledRule, ...]) -> dict[str, Lane]:
    channels = {channel for each in rules for channel in each.gate.channels or ()}
    longest = min(MAX_LANE, max((each.gate.least_index for each in rules), default=0))
    return {
        channel: tuple(
            tuple(
                (each.check, each)
                for each in rules
                if min(MAX_LANE, each.gate.least_index) <= index
                and (each.gate.channels is None or channel in each.gate.channels)
            )
            for index in range(longest + 1)
        )
        for channel in sorted({ELSEWHERE, *channels})
    }


def decide(history: History, index: int, active: ActivePack) -> Decision:
    """What a pack says of the payment at an index of its history, looking at what precedes it in event time."""
    payment = history.payments[index]
    lanes = active.lanes
    lane = lanes.get(payment.channel) or lanes[ELSEWHERE]
    found: list[CompiledRule] = []
    for check, each in lane[index] if index < len(lane) else lane[-1]:
        if check(history, index, payment):
            found.append(each)
    if history.facts and payment.order in history.facts:
        found += active.by_labels
    if not found:
        return NOTHING
    reasons = [reason for each in found if (reason := each.reason(history, index)) is not None]
    if not reasons:
        return NOTHING
    if active.by_labels:
        reasons.sort(key=active.place)
    if active.allowing and _is_allowed(history, index, active):
        return NOTHING
    score = reduce(combine_permille, (reason.points for reason in reasons), 0)
    return Decision(score, tuple(reasons) if score >= active.pack.flag_at else ())


def _is_allowed(history: History, index: int, active: ActivePack) -> bool:
    """Whether an allowlist of the pack lets the payment pass, whatever fires."""
    payment = history.payments[index]
    return any(each.check(history, index, payment) and each.is_open(history, index) for each in active.allowing)


def findings(history: History, index: int, active: ActivePack) -> list[RuleFinding]:
    """What each rule makes of the payment at an index, in the pack's order, whether it fires or not."""
    made = []
    for each in sorted(
        (*active.rules, *active.by_labels, *active.allowing), key=lambda each: active.pack.rules.index(each.rule)
    ):
        measured = each.measure(history, index)
        is_open = each.is_open(history, index)
        fires = measured.holds and is_open
        made.append(RuleFinding(each, measured, is_open, each.points_for(measured, history, index) if fires else 0))
    return made


def _typology(decision: Decision, active: ActivePack) -> str:
    """That of the reason with the most points; of equals, the first in the pack."""
    strongest = max(decision.reasons, key=lambda reason: reason.points)
    return next(rule.typology for rule in active.pack.rules if rule.name == strongest.rule)


def _risk_flagged(history: History, payment: Payment, decision: Decision, active: ActivePack) -> RiskFlagged:
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


def _risk_restated(
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
