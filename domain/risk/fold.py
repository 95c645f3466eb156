"""The risk fold of one partition: it decides payments in log order, and restates decisions after late payments.

This file is long because the path of a record through the fold stays in one place.
"""

import pickle
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, Final, NamedTuple, TypeAlias

from domain.durations import DAY_MS
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
from domain.risk.labels import FraudLabel, LabelIndex, specs_by_key
from domain.risk.packs import BadRulePack, RulePack, parse_pack
from domain.state_pickles import read_pickle

MAX_SHADOWS: Final = 4
"""Maximum number of shadow packs at a time: each is evaluated for every payment."""
MAX_PACKS: Final = 1_000
"""Maximum number of distinct packs that are ever active in a partition. All are kept: they restate their decisions."""
MAX_LANE: Final = 64
"""Longest lane. A rule that needs more earlier payments than this is checked from this number on."""
ELSEWHERE: Final = ""
"""Lane of the channels that no rule names; the channel of a payment is never empty."""
_new_tuple: Final = tuple.__new__  # as in payment.py: called for every payment
PACKS_KEY: Final = "\x1fpacks"
"""State entry of the packs of a partition. It is no account's key, since U+001F is refused in ids."""


class ContentConflict(NamedTuple):
    """A report of other content under a transaction id that the account has used before.

    The payment is decided like any other.
    """

    detail: str


Lane: TypeAlias = tuple[tuple[tuple[Check, CompiledRule], ...], ...]
"""Checks to call, by number of earlier payments; the last entry is for all larger numbers."""


class ActivePack(NamedTuple):
    """A rule pack compiled to functions, with how far back its rules look.

    `rules` are the rules that the account's fold decides, without `by_labels` (decided by labels alone) and `allowing`
    (which prevent a flag). `lanes` are the checks of `rules` by channel: for each number of earlier payments, the
    checks that can hold. Channels that no rule names share the lane ELSEWHERE. `entity_keys` are the kinds of entity
    that decide the remaining rules, across accounts.
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
        """Return the index in the pack of the rule that gave a reason."""
        return next(number for number, rule in enumerate(self.pack.rules) if rule.name == reason.rule)


class RuleFinding(NamedTuple):
    """What one rule of a pack measures of one payment, for `fraudcase explain`."""

    compiled: CompiledRule
    measured: Measurement
    is_open: bool
    points: int


class RiskFold(HistoriesFold):
    """The state of one partition of payments.inbound.

    `load` reads a state entry by key. At most `hot_accounts` histories stay in memory; the least recently used leave
    first, and are read back when needed. With `hot_accounts=None` no history leaves and nothing is written: for replays
    and backtests. With `parse`, the state keeps the records that payments came in (given to `read` as `raw`), and
    `parse` reads them again.
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
        self._packs = [compile_pack(text) for text in canonical]
        self._shadows = [compile_pack(text) for text in shadows]
        self._packs_changed = False
        self._engine = ActiveEngine(load)
        self._use_pack(number)

    def _use_pack(self, number: int) -> None:
        """Decide the next payments by the pack of this number; -1 means no pack.

        Histories are kept as long as this pack and the shadows need them.
        """
        self._number = number
        active = [*self._packs[number : number + 1], *self._shadows]
        self._window_ms = max((pack.window_ms for pack in active), default=0)
        self._rows = max((pack.rows for pack in active), default=0)
        self._specs = specs_by_key(spec for pack in active for spec in pack.confirmed)

    def read(
        self, name: str, data: Any, offset: int, received_ms: int | None, raw: bytes | None = None
    ) -> list[RiskOutput | ContentConflict] | Refusal:
        """Fold one decoded record of the log, and return its outputs.

        The live job, replays and tests all call this method. `data` is a mapping of fields by name, or for a
        Transaction a tuple in the order of `payment.FIELDS`. `received_ms` is the record's Kafka timestamp, None for
        records of a file. `raw` are the bytes that were decoded.
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
        """Apply a RulesActivated record: make the pack active, run it as a shadow, or retire its shadow.

        Activating the active pack again changes nothing. Raises BadRulePack.
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
        self._use_pack(number)

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
        """Add a label: from now on it raises the risk of the keys that it names.

        A label that is known already changes nothing.
        """
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
        """Decide one payment: return its score, a flag if that is high enough, and restatements of later payments."""
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
        """Return the current decision on a payment, after all payments that arrived later.

        Without reasons it is no flag.
        """
        history = self._loaded.get(payment.account_id) or self._histories.read(payment.account_id)
        standing = history.standing.get(payment.order)
        if standing is not None:
            return standing
        index = history.index_of(payment)
        return NOTHING if index is None else decide(history, index, self._packs[history.packs[index]])

    def findings(self, payment: Payment) -> list[RuleFinding]:
        """Return what each rule of the pack that decided a payment measures of it now.

        The list is empty if the history no longer has the payment.
        """
        history = self._loaded.get(payment.account_id) or self._histories.read(payment.account_id)
        index = history.index_of(payment)
        return [] if index is None else findings(history, index, self._packs[history.packs[index]])

    def find_payment(self, account_id: str, transaction_id: str, event_time_ms: int) -> Payment | None:
        """Return the payment of an account with this id and event time, or None if it is not in memory."""
        history = self._loaded.get(account_id)
        if history is None or transaction_id not in history.ids:
            return None
        first = bisect_left(history.times, event_time_ms)
        same = history.payments[first : bisect_right(history.times, event_time_ms, first)]
        return next((payment for payment in same if payment.transaction_id == transaction_id), None)

    @property
    def active(self) -> ActivePack | None:
        """Return the pack that decides the next payment, or None before the first activation."""
        return self._packs[self._number] if self._number >= 0 else None

    @property
    def engine(self) -> int:
        """Return the number of the engine that decides the next payment."""
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
        """Decide again the payments after a late one, each by its own pack. Return changed decisions as
        restatements.
        """
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
    late_days = (history.latest_ms - payment.event_time_ms) // DAY_MS
    return Refusal("beyond_horizon", f"{late_days} days late, {HORIZON_MS // DAY_MS} are allowed")


def _pack_from_record(record: RulesActivated) -> ActivePack:
    made = compile_pack(record.pack)
    if made.pack_id != record.pack_id:
        raise BadRulePack(f"the pack's address is {made.pack_id}, the record says {record.pack_id[:64]!r}")
    return made


def compile_pack(canonical: str) -> ActivePack:
    """Compile a pack from its canonical JSON. Raises BadRulePack."""
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
    """Decide by a pack on the payment at an index of its history, from the payments before it in event time."""
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
    """Return whether an allowlist of the pack prevents a flag on the payment."""
    payment = history.payments[index]
    return any(each.check(history, index, payment) and each.is_open(history, index) for each in active.allowing)


def findings(history: History, index: int, active: ActivePack) -> list[RuleFinding]:
    """Return what each rule measures of the payment at an index, in the pack's order, whether it fires or not."""
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
    """Return the typology of the rule with the most points; of equal ones, of the first in the pack."""
    strongest = max(decision.reasons, key=lambda reason: reason.points)
    return next(rule.typology for rule in active.pack.rules if rule.name == strongest.rule)


def _risk_flagged(history: History, payment: Payment, decision: Decision, active: ActivePack) -> RiskFlagged:
    return RiskFlagged(
        **_shared_fields(history, payment, active),
        typology=_typology(decision, active),
        score=decision.score,
        reasons=decision.reasons,
    )


def _risk_restated(
    history: History, payment: Payment, before: Decision, after: Decision, active: ActivePack, cause: Payment
) -> RiskRestated:
    if after.reasons:
        history.standing[payment.order] = after
    else:
        history.standing.pop(payment.order, None)
    return RiskRestated(
        **_shared_fields(history, payment, active),
        typology=_typology(after if after.reasons else before, active),
        score_before=before.score,
        rules_before=before.rules,
        score=after.score,
        reasons=after.reasons,
        cause_transaction_id=cause.transaction_id,
        cause_digest=cause.digest.hex(),
    )


def _shared_fields(history: History, payment: Payment, active: ActivePack) -> dict[str, Any]:
    """Count a flag or restatement in the account's sequence, and return the fields that both kinds of event share."""
    history.sequence += 1
    return {
        "account_id": payment.account_id,
        "sequence": history.sequence,
        "flag_id": flag_id(payment.account_id, payment.transaction_id, payment.digest),
        "transaction_id": payment.transaction_id,
        "content_digest": payment.digest.hex(),
        "event_time": payment.event_time_ms,
        "amount_minor": payment.amount_minor,
        "currency": payment.currency,
        "merchant_id": payment.merchant_id,
        "card_id": payment.card_id,
        "payment_method": payment.payment_method,
        "channel": payment.channel,
        "country": payment.country,
        "latitude": payment.latitude,
        "longitude": payment.longitude,
        "pack_id": active.pack_id,
        "terminal_id": payment.terminal_id,
        "device_id": payment.device_id,
    }
