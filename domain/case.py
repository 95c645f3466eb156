"""The cases of one account, and the fold of a partition of cases.inbox: what a record leads to, what is then true."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias, TypeVar, assert_never

from domain.currencies import DECIMALS
from domain.events import (
    DISPOSITIONS,
    CaseClosed,
    CaseEscalated,
    CaseEvent,
    CaseOpened,
    ClockTicked,
    CloseCase,
    Command,
    CommandRejected,
    EntityFlagged,
    EscalateCase,
    Flag,
    FlaggedPayment,
    InboxRecord,
    RiskFlagged,
    RiskLinked,
    RiskRestated,
    RiskRevised,
    SequencedCaseEvent,
    case_id,
    from_fields,
)
from domain.payment import Refusal

ESCALATE_AT_SCORE: Final = 900
ESCALATE_AT_FLAGS: Final = 5
ESCALATE_AT_VALUE_MAJOR: Final = 10_000
"""The flagged amounts of a case, in whole units of their currency, that need more eyes."""
SLA_MS: Final = 4 * 3_600_000
"""A case that nobody escalated is escalated this long after it opened, when the log's clock says so."""
MAX_LINKED: Final = 1_000
"""Flags that a case remembers. Of more, the earliest are forgotten: a restatement links them anew, and closing the
case as confirmed fraud puts no label on them."""
MAX_CLOSED: Final = 20
"""Closed cases that an account remembers, together with at most MAX_LINKED flags, to tell them of restatements. A
restated flag of an older one, if it stands, opens or joins a case like a new flag."""
MAX_ANSWERED: Final = 100


Kept = TypeVar("Kept")


class BrokenLog(Exception):
    """An event that cannot follow what came before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What decisions need to know of a case; everything to be read is in the view."""

    case_id: str
    typology: str
    sequence: int
    opened_at_ms: int
    escalated: bool
    flags: int
    value_minor: dict[str, int]
    linked: dict[str, int]
    """Scores by flag id, oldest first; 0 for a flag that no longer stands."""
    payments: dict[str, FlaggedPayment] = field(default_factory=dict)
    """The payments of the linked flags, by flag id."""
    disposition: str | None = None
    """What the case turned out to be; None while it is open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountCases:
    """The open cases of an account by typology, its last closed ones, and how far its flags and commands are read."""

    account_id: str
    risk_sequence: int = 0
    cases: dict[str, Case] = field(default_factory=dict)
    answered: tuple[str, ...] = ()
    """The last commands that were answered, so that a redelivered one is answered once."""
    closed: tuple[Case, ...] = ()
    """Oldest first."""
    previous: dict[str, str] = field(default_factory=dict)
    """The case of a typology that was closed last."""
    entity_offsets: dict[str, int] = field(default_factory=dict)
    """How far flags of entities have been read, by partition of entities.inbound: redelivered ones add nothing."""


_INBOX: Final = frozenset({"RiskFlagged", "RiskRestated", "EntityFlagged", "ClockTicked", "EscalateCase", "CloseCase"})
AccountRecord: TypeAlias = Flag | Command


def decide(state: AccountCases, record: AccountRecord) -> list[CaseEvent] | Refusal:
    """What a record leads to. A redelivered record leads to nothing; one after a gap is refused."""
    match record:
        case RiskFlagged() | RiskRestated():
            if record.sequence <= state.risk_sequence:
                return []
            if record.sequence > state.risk_sequence + 1:
                return Refusal(
                    "sequence_gap",
                    f"account {state.account_id}: {type(record).__name__} {record.sequence} after "
                    f"{state.risk_sequence}; it waits for those between",
                )
            return _on_flag(state, record)
        case EntityFlagged():
            is_known = record.offset <= state.entity_offsets.get(str(record.partition), -1)
            return [] if is_known else _on_flag(state, record)
        case EscalateCase() | CloseCase():
            return _on_command(state, record)
        case _:
            assert_never(record)


def _on_flag(state: AccountCases, record: Flag) -> list[CaseEvent]:
    """A flag opens or joins a case. A restatement is told to every case that knows the flag, closed ones too.

    A flag that had been withdrawn and stands again opens or joins a case unless it is in an open one: what was
    decided on the closed case was decided without it.
    """
    holders = [case for case in (*state.cases.values(), *state.closed) if record.flag_id in case.linked]
    events: list[CaseEvent] = []
    if isinstance(record, RiskRestated) and holders:
        events += [_revised(case, record) for case in holders]
        if record.rules_before or any(case.disposition is None for case in holders):
            return events
    if not record.reasons:
        return events
    event = _open_or_link(state, record)
    case = _evolve_case(state.cases.get(record.typology), event)
    return [*events, event, *_escalation(state.account_id, case, record)]


def _revised(case: Case, record: RiskRestated) -> RiskRevised:
    return RiskRevised(
        account_id=record.account_id,
        case_id=case.case_id,
        sequence=case.sequence + 1,
        flag_id=record.flag_id,
        transaction_id=record.transaction_id,
        score_before=record.score_before if record.rules_before else 0,
        score=record.score if record.reasons else 0,
        rules=_rules(record),
        cause_transaction_id=record.cause_transaction_id,
    )


def _rules(record: Flag) -> tuple[str, ...]:
    return tuple(reason.rule for reason in record.reasons)


def _open_or_link(state: AccountCases, record: Flag) -> CaseOpened | RiskLinked:
    case = state.cases.get(record.typology)
    if case is None:
        previous = state.previous.get(record.typology)
        return CaseOpened(
            account_id=state.account_id,
            case_id=case_id(record.typology, record.flag_id, previous),
            sequence=1,
            typology=record.typology,
            flag_id=record.flag_id,
            transaction_id=record.transaction_id,
            event_time=record.event_time,
            amount_minor=record.amount_minor,
            currency=record.currency,
            score=record.score,
            rules=_rules(record),
            opened_at_ms=record.event_time,
            content_digest=record.content_digest,
            merchant_id=record.merchant_id,
            terminal_id=record.terminal_id,
            device_id=record.device_id,
            card_id=record.card_id,
            previous_case_id=previous,
        )
    return RiskLinked(
        account_id=state.account_id,
        case_id=case.case_id,
        sequence=case.sequence + 1,
        flag_id=record.flag_id,
        transaction_id=record.transaction_id,
        event_time=record.event_time,
        amount_minor=record.amount_minor,
        currency=record.currency,
        score=record.score,
        rules=_rules(record),
        content_digest=record.content_digest,
        merchant_id=record.merchant_id,
        terminal_id=record.terminal_id,
        device_id=record.device_id,
        card_id=record.card_id,
    )


def _escalation(account_id: str, case: Case, record: Flag) -> list[CaseEvent]:
    if case.escalated:
        return []
    value = case.value_minor[record.currency] // 10 ** DECIMALS[record.currency]
    if record.score >= ESCALATE_AT_SCORE:
        trigger, detail = "score", f"score {record.score}, from {ESCALATE_AT_SCORE}"
    elif case.flags >= ESCALATE_AT_FLAGS:
        trigger, detail = "flags", f"{case.flags} flags, from {ESCALATE_AT_FLAGS}"
    elif value >= ESCALATE_AT_VALUE_MAJOR:
        trigger, detail = "value", f"{value} {record.currency} flagged, from {ESCALATE_AT_VALUE_MAJOR}"
    else:
        return []
    return [_escalated(account_id, case, trigger, detail, record.flag_id, record.event_time)]


def _escalated(
    account_id: str, case: Case, trigger: str, detail: str, cause_id: str, at_ms: int, actor: str | None = None
) -> CaseEscalated:
    return CaseEscalated(
        account_id=account_id,
        case_id=case.case_id,
        sequence=case.sequence + 1,
        trigger=trigger,
        detail=detail,
        cause_id=cause_id,
        actor=actor,
        escalated_at_ms=at_ms,
    )


def _on_command(state: AccountCases, command: Command) -> list[CaseEvent]:
    if command.command_id in state.answered:
        return []
    case = next((case for case in state.cases.values() if case.case_id == command.case_id), None)
    if case is None:
        return [_rejected(command, _why_not_open(state, command.case_id))]
    if command.seen_sequence != case.sequence:
        return [_rejected(command, f"the case has moved on: seen at {command.seen_sequence}, now at {case.sequence}")]
    at_ms = command.requested_at_ms
    match command:
        case EscalateCase():
            if case.escalated:
                return [_rejected(command, "the case is escalated already")]
            cause, actor = command.command_id, command.actor
            return [_escalated(state.account_id, case, "analyst", command.reason, cause, at_ms, actor)]
        case CloseCase():
            if command.disposition not in DISPOSITIONS:
                return [_rejected(command, f"the disposition must be one of {', '.join(DISPOSITIONS)}")]
            return [_closed(case, command)]
        case _:
            assert_never(command)


def _why_not_open(state: AccountCases, wanted: str) -> str:
    closed = next((case for case in state.closed if case.case_id == wanted), None)
    if closed is None:
        return "the account has no open case of this id"
    return f"the case is closed already, as {closed.disposition}"


def _closed(case: Case, command: CloseCase) -> CaseClosed:
    return CaseClosed(
        account_id=command.account_id,
        case_id=case.case_id,
        sequence=case.sequence + 1,
        disposition=command.disposition,
        actor=command.actor,
        reason=command.reason,
        command_id=command.command_id,
        payments=tuple(payment for flag, payment in case.payments.items() if case.linked[flag] > 0),
        closed_at_ms=command.requested_at_ms,
    )


def _rejected(command: Command, reason: str) -> CommandRejected:
    return CommandRejected(
        account_id=command.account_id,
        case_id=command.case_id,
        command_id=command.command_id,
        actor=command.actor,
        reason=reason,
        rejected_at_ms=command.requested_at_ms,
    )


def on_tick(state: AccountCases, tick: ClockTicked) -> list[CaseEvent]:
    """The cases whose time is up at this tick."""
    return [
        _escalated(state.account_id, case, "sla", f"open for {SLA_MS // 3_600_000} h", tick.tick_id, tick.now_ms)
        for case in state.cases.values()
        if not case.escalated and tick.now_ms >= case.opened_at_ms + SLA_MS
    ]


def evolve(state: AccountCases, event: CaseEvent) -> AccountCases:
    """What is true after an event. Raises BrokenLog where it cannot follow."""
    answers = command_answered(event)
    if answers is not None:
        state = replace(state, answered=(*state.answered, answers)[-MAX_ANSWERED:])
    if isinstance(event, CommandRejected):
        return state
    before = state.cases.get(event.typology) if isinstance(event, CaseOpened) else _case(state, event.case_id)
    case = _evolve_case(before, event)
    if isinstance(event, CaseClosed):
        return _put_away(state, case)
    if case.disposition is not None:
        closed = tuple(case if other.case_id == case.case_id else other for other in state.closed)
        return replace(state, closed=closed)
    return replace(state, cases={**state.cases, case.typology: case})


def command_answered(event: CaseEvent) -> str | None:
    """The command that an event answers; None for an event that no command asked for."""
    if isinstance(event, CommandRejected | CaseClosed):
        return event.command_id
    return event.cause_id if isinstance(event, CaseEscalated) and event.actor is not None else None


def _case(state: AccountCases, wanted: str) -> Case:
    for case in (*state.cases.values(), *state.closed):
        if case.case_id == wanted:
            return case
    raise BrokenLog(f"account {state.account_id} has no case {wanted}")


def _put_away(state: AccountCases, case: Case) -> AccountCases:
    """A case leaves the open ones for the closed ones, of which only so many are remembered."""
    closed = (*state.closed, case)[-MAX_CLOSED:]
    while sum(len(each.linked) for each in closed) > MAX_LINKED and len(closed) > 1:
        closed = closed[1:]
    return replace(
        state,
        cases={typology: other for typology, other in state.cases.items() if typology != case.typology},
        closed=closed,
        previous={**state.previous, case.typology: case.case_id},
    )


def _evolve_case(case: Case | None, event: SequencedCaseEvent) -> Case:
    if isinstance(event, CaseOpened):
        if case is not None:
            raise BrokenLog(f"case {event.case_id} opens while {case.case_id} is open")
        return Case(
            case_id=event.case_id,
            typology=event.typology,
            sequence=1,
            opened_at_ms=event.opened_at_ms,
            escalated=False,
            flags=1,
            value_minor={event.currency: event.amount_minor},
            linked={event.flag_id: event.score},
            payments=_payment(event),
        )
    if case is None or event.sequence != case.sequence + 1:
        raise BrokenLog(f"{type(event).__name__} {event.sequence} cannot follow {case}")
    case = replace(case, sequence=event.sequence)
    match event:
        case RiskLinked():
            return replace(
                case,
                flags=case.flags + 1,
                value_minor={
                    **case.value_minor,
                    event.currency: case.value_minor.get(event.currency, 0) + event.amount_minor,
                },
                linked=_latest({**case.linked, event.flag_id: event.score}),
                payments=_latest({**case.payments, **_payment(event)}),
            )
        case RiskRevised():
            stood, stands = case.linked.get(event.flag_id, 0) > 0, bool(event.rules)
            return replace(case, flags=case.flags + stands - stood, linked={**case.linked, event.flag_id: event.score})
        case CaseEscalated():
            return replace(case, escalated=True)
        case CaseClosed():
            return replace(case, disposition=event.disposition)
        case _:
            assert_never(event)


def _payment(event: CaseOpened | RiskLinked) -> dict[str, FlaggedPayment]:
    """The payment of an event by its flag; none in an event from before there were labels."""
    if event.content_digest is None or event.merchant_id is None:
        return {}
    return {
        event.flag_id: FlaggedPayment(
            transaction_id=event.transaction_id,
            content_digest=event.content_digest,
            event_time=event.event_time,
            merchant_id=event.merchant_id,
            terminal_id=event.terminal_id,
            device_id=event.device_id,
            card_id=event.card_id,
        )
    }


def _latest(by_flag: dict[str, Kept]) -> dict[str, Kept]:
    return dict(list(by_flag.items())[-MAX_LINKED:]) if len(by_flag) > MAX_LINKED else by_flag


class CaseFold:
    """The state of one partition of cases.inbox: its accounts with cases, all in memory, and its clock.

    `load` reads a state entry by key and `keys` lists them; both are asked once, on start.
    """

    _CLOCK: Final = "\x1fclock"

    def __init__(
        self, load: Callable[[str], bytes | None] = lambda _: None, keys: Callable[[], Iterator[str]] = lambda: iter(())
    ) -> None:
        self._accounts: dict[str, AccountCases] = {}
        self._dirty: set[str] = set()
        for key in sorted(keys()):
            packed = load(key)
            if packed is not None and key != self._CLOCK:
                self._accounts[key] = _unpack(packed)
        self._now_ms = int(load(self._CLOCK) or -1)
        self._clock_dirty = False

    def read(self, name: str, data: dict[str, Any]) -> list[CaseEvent] | Refusal:
        """What a decoded record of the log leads to: the one door that the live job, replays and tests come in by."""
        if name not in _INBOX:
            return Refusal("unexpected_type", f"a {name} has no meaning in this topic")
        try:
            record = from_fields(name, data)
        except (KeyError, TypeError) as error:
            return Refusal("bad_fields", f"not the fields of a {name}: {error!r}")
        assert isinstance(record, InboxRecord)
        return self.step(record)

    def step(self, record: InboxRecord) -> list[CaseEvent] | Refusal:
        """The events that a record leads to, already applied; or why it cannot be read yet."""
        if isinstance(record, ClockTicked):
            return self._tick(record)
        state = self._accounts.get(record.account_id) or AccountCases(account_id=record.account_id)
        decided = decide(state, record)
        if isinstance(decided, Refusal):
            return decided
        if isinstance(record, RiskFlagged | RiskRestated):
            state = replace(state, risk_sequence=max(state.risk_sequence, record.sequence))
        if isinstance(record, EntityFlagged):
            place, read = str(record.partition), state.entity_offsets
            state = replace(state, entity_offsets={**read, place: max(read.get(place, -1), record.offset)})
        self._keep(state, decided)
        return decided

    def _tick(self, tick: ClockTicked) -> list[CaseEvent]:
        if tick.now_ms <= self._now_ms:
            return []
        self._now_ms, self._clock_dirty = tick.now_ms, True
        events: list[CaseEvent] = []
        for account_id in sorted(self._accounts):
            state = self._accounts[account_id]
            due = on_tick(state, tick)
            if due:
                self._keep(state, due)
                events += due
        return events

    def _keep(self, state: AccountCases, events: list[CaseEvent]) -> None:
        for event in events:
            state = evolve(state, event)
        self._accounts[state.account_id] = state
        self._dirty.add(state.account_id)

    def take_writes(self) -> dict[str, bytes | None]:
        """The state entries that changed since the last call, by key."""
        writes: dict[str, bytes | None] = {key: _pack(self._accounts[key]) for key in sorted(self._dirty)}
        if self._clock_dirty:
            writes[self._CLOCK] = str(self._now_ms).encode()
        self._dirty, self._clock_dirty = set(), False
        return writes


def _pack(state: AccountCases) -> bytes:
    return json.dumps(state, separators=(",", ":"), default=_fields).encode()


def _fields(part: AccountCases | Case | FlaggedPayment) -> dict[str, Any]:
    return {name: getattr(part, name) for name in part.__slots__}


def _unpack(packed: bytes) -> AccountCases:
    data = json.loads(packed)
    cases = {typology: _unpack_case(case) for typology, case in data.pop("cases").items()}
    closed = tuple(_unpack_case(case) for case in data.pop("closed", ()))
    return AccountCases(**{**data, "answered": tuple(data["answered"]), "cases": cases, "closed": closed})


def _unpack_case(data: dict[str, Any]) -> Case:
    payments = {flag: FlaggedPayment(**payment) for flag, payment in data.pop("payments", {}).items()}
    return Case(**data, payments=payments)
