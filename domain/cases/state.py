"""State of an account's cases, and its change by each event.

The decisions stand in other modules: `flags.py` decides on flags and ticks, `answers.py` on commands; `fold.py` folds
the inbox.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, assert_never

from domain.cases.commands import Amount, MergedFlag
from domain.cases.events import (
    AbsorptionRefused,
    CaseAbsorbed,
    CaseAssigned,
    CaseClosed,
    CaseEscalated,
    CaseEvent,
    CaseLinked,
    CaseMerged,
    CaseOpened,
    CaseParted,
    CaseReleased,
    CaseReopened,
    CaseSnoozed,
    CaseUnlinked,
    CaseUnmerged,
    CaseWoken,
    ClosingRefused,
    ClosingRequested,
    ClosingWithdrawn,
    CommandRejected,
    FlaggedPayment,
    LaterEvent,
    NonFlagEvent,
    NoteAdded,
    ReopeningRefused,
    ReopeningRequested,
    ReopeningWithdrawn,
    RiskLinked,
    RiskRevised,
    WorkEvent,
    command_answered,
)
from domain.cases.linked_flag import LinkedFlag, flag_of_event, flag_of_merged_case, payment_of_flag
from domain.record import replace as changed

SLA_MS: Final = 4 * 3_600_000
"""Time from the opening of a case to its automatic escalation, by the clock ticks in the log."""
MAX_LINKED: Final = 1_000
"""Flags that a case remembers. Beyond them the earliest are forgotten: a restatement links a forgotten flag again, and
closing the case as confirmed fraud puts no label on it."""
MAX_CLOSED: Final = 20
"""Closed and merged cases that an account remembers, together with at most MAX_LINKED flags. A remembered case receives
restatements and can be reopened or unmerged. A restated flag of a forgotten case, if it is valid, opens or joins a case
like a new flag."""
MAX_ANSWERED: Final = 100
"""Command ids that an account remembers, so that a redelivered command is answered once."""
MAX_RECENT: Final = 50
"""Last events of a case whose kind is remembered: a stale command is answered with those that its author missed."""
MAX_NOTES: Final = 1_000
"""Notes that a case may have."""
MAX_ATTACHMENTS: Final = 100
"""Files that the notes of a case may have in total."""
MAX_LINKS: Final = 100
"""Links that a case may have."""
MAX_ABSORBED: Final = 20
"""Cases that may be merged into one case."""


class BrokenLog(Exception):
    """Event that cannot follow the events before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRequest:
    """Request that waits for a second person: a closing, or a reopening, which has no disposition."""

    actor: str
    reason: str
    disposition: str | None = None
    typology: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeTarget:
    """Case that this one is merged into, and the command that merged it."""

    account_id: str
    case_id: str
    merge_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AbsorbedCase:
    """Flags and amounts that an absorbed case brought along, kept apart so that it can leave with them."""

    account_id: str
    merge_id: str
    standing: int
    value_minor: dict[str, int]
    linked: dict[str, LinkedFlag]


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseWork:
    """Work of analysts on a case. It is kept apart from the flags, which change far change often."""

    is_touched: bool = False
    assignee: str | None = None
    snoozed_at_ms: int | None = None
    snoozed_until_ms: int | None = None
    request: ApprovalRequest | None = None
    merged_into: MergeTarget | None = None
    absorbed: dict[str, AbsorbedCase] = field(default_factory=dict)
    """Absorbed cases by case id."""
    links: dict[str, str] = field(default_factory=dict)
    """Account ids of linked cases, by case id."""
    notes: int = 0
    attachments: int = 0
    sla_from_ms: int | None = None
    """Start of the SLA deadline, if it is not the opening."""


UNTOUCHED: Final = CaseWork()


@dataclass(slots=True, kw_only=True)
class Case:
    """Part of a case that decisions read; the case view holds everything that people read.

    Decisions only read it. The fold changes it in place, only through `evolve`.
    """

    case_id: str
    typology: str
    sequence: int
    opened_at_ms: int
    escalated: bool
    flags: int
    """Number of standing flags, with those of absorbed cases."""
    value_minor: dict[str, int]
    linked: dict[str, LinkedFlag]
    """Flags by id, oldest first."""
    disposition: str | None = None
    """Outcome of the case; None while it is open."""
    recent: list[str] = field(default_factory=list)
    """Kinds of the last MAX_RECENT events, oldest first."""
    work: CaseWork = UNTOUCHED

    @property
    def is_open(self) -> bool:
        """Return whether the case is neither closed nor merged into another."""
        return self.disposition is None and self.work.merged_into is None

    def knows(self, flag_id: str) -> bool:
        """Return whether the flag is linked to this case, or to a case that is merged into it."""
        return any(flag_id in linked for linked in _flag_maps(self))


@dataclass(slots=True, kw_only=True)
class AccountCases:
    """Cases of an account, open and closed, and the position of the flags and commands read so far."""

    account_id: str
    risk_sequence: int = 0
    cases: dict[str, Case] = field(default_factory=dict)
    answered: list[str] = field(default_factory=list)
    """Ids of the last MAX_ANSWERED answered commands: a redelivered command is answered once."""
    closed: list[Case] = field(default_factory=list)
    """Closed and merged cases, oldest first."""
    previous: dict[str, str] = field(default_factory=dict)
    """Id of the case that was closed or merged last, by typology."""
    entity_offsets: dict[str, int] = field(default_factory=dict)
    """Last offset read from entities.inbound, by partition: a redelivered entity flag adds nothing."""

    def case(self, case_id: str) -> Case | None:
        """Return an open or remembered case by its id, or None."""
        for case in self.cases.values():
            if case.case_id == case_id:
                return case
        for case in self.closed:
            if case.case_id == case_id:
                return case
        return None

    def open_for(self, typology: str) -> Case | None:
        """Return the open case that flags of a typology join: its own, or the target of its last merge."""
        case = self.cases.get(typology)
        if case is not None or typology not in self.previous:
            return case
        case = self.case(self.previous[typology])
        for _ in range(MAX_CLOSED):  # the target may itself be merged into another case
            if case is None or case.work.merged_into is None or case.work.merged_into.account_id != self.account_id:
                break
            case = self.case(case.work.merged_into.case_id)
        return case if case is not None and case.is_open else None


# -- change by an event ---------------------------------------------------------------------------------


def evolve(state: AccountCases, event: CaseEvent) -> AccountCases:
    """Apply an event to the state in place and return the state. Raise BrokenLog if the event cannot follow.

    It changes the state in place because a case may have 1,000 flags, and nearly every event adds one.
    """
    if type(event) is RiskLinked:  # by far the most frequent event
        _apply_next_event(_known_case(state, event), event)
        return state
    answers = command_answered(event)
    if answers is not None and answers not in state.answered:
        state.answered.append(answers)
        del state.answered[:-MAX_ANSWERED]
    if isinstance(event, CommandRejected | AbsorptionRefused):
        return state
    if isinstance(event, CaseOpened):
        state.cases[event.typology] = open_case(state.cases.get(event.typology), event)
        return state
    case = _known_case(state, event)
    was_open = case.is_open
    _apply_next_event(case, event)
    if was_open and not case.is_open:
        _remember_closed_case(state, case)
    elif case.is_open and not was_open:
        _reopen_case(state, case)
    return state


def _known_case(state: AccountCases, event: LaterEvent) -> Case:
    case = state.case(event.case_id)
    if case is None:
        raise BrokenLog(f"account {state.account_id} has no case {event.case_id}")
    return case


def _remember_closed_case(state: AccountCases, case: Case) -> None:
    """Move a case from the open to the closed cases. Drop the oldest closed ones beyond the two limits."""
    del state.cases[case.typology]
    state.closed.append(case)
    del state.closed[:-MAX_CLOSED]
    while sum(map(count_remembered_flags, state.closed)) > MAX_LINKED and len(state.closed) > 1:
        del state.closed[0]
    state.previous[case.typology] = case.case_id


def _reopen_case(state: AccountCases, case: Case) -> None:
    if case.typology in state.cases:
        raise BrokenLog(f"case {case.case_id} opens again while {state.cases[case.typology].case_id} is open")
    state.closed = [other for other in state.closed if other.case_id != case.case_id]
    state.cases[case.typology] = case


def open_case(before: Case | None, event: CaseOpened) -> Case:
    """Return the case that an event opens. Raise BrokenLog if another case of the typology is open."""
    if before is not None:
        raise BrokenLog(f"case {event.case_id} opens while {before.case_id} is open")
    return Case(
        case_id=event.case_id,
        typology=event.typology,
        sequence=1,
        opened_at_ms=event.opened_at_ms,
        escalated=False,
        flags=1,
        value_minor={event.currency: event.amount_minor},
        linked={event.flag_id: flag_of_event(event)},
        recent=["CaseOpened"],
    )


def case_after_event(case: Case, event: LaterEvent) -> Case:
    """Return a copy of a case with one of its events applied. The case itself does not change."""
    case = replace(case, value_minor=dict(case.value_minor), linked=dict(case.linked), recent=[*case.recent])
    _apply_next_event(case, event)
    return case


def _apply_next_event(case: Case, event: LaterEvent) -> None:
    """Apply an event to a case in place. Raise BrokenLog unless it is the case's next event."""
    if event.sequence != case.sequence + 1:
        raise BrokenLog(f"{type(event).__name__} {event.sequence} cannot follow {case}")
    if isinstance(event, RiskLinked):  # by far the most frequent event
        _add_flag(case, event)
    else:
        _change(case, event)
    case.sequence = event.sequence
    recent = case.recent
    recent.append(type(event).__name__)
    if len(recent) > MAX_RECENT:
        del recent[0]


def _change(case: Case, event: RiskRevised | NonFlagEvent) -> None:
    match event:
        case RiskRevised():
            _revise_flag(case, event)
        case CaseEscalated():
            case.escalated = True
            if event.actor is not None:
                case.work = replace(case.work, is_touched=True)
        case CaseClosed():
            case.disposition = event.disposition
            case.work = replace(case.work, request=None, snoozed_at_ms=None, snoozed_until_ms=None)
        case CaseReopened():
            case.disposition = None
            since_ms = event.reopened_at_ms
            case.work = replace(case.work, is_touched=True, assignee=None, request=None, sla_from_ms=since_ms)
        case CaseAbsorbed():
            _absorb(case, event)
        case CaseParted():
            _remove_absorbed(case, event)
        case _:
            case.work = _apply_to_work(case.work, event)


def _apply_to_work(work: CaseWork, event: WorkEvent) -> CaseWork:
    match event:
        case CaseWoken():
            return replace(work, snoozed_at_ms=None, snoozed_until_ms=None)
        case CaseAssigned():
            return replace(work, is_touched=True, assignee=event.assignee)
        case CaseReleased():
            return replace(work, is_touched=True, assignee=None)
        case NoteAdded():
            attachments = work.attachments + len(event.attachments)
            return replace(work, is_touched=True, notes=work.notes + 1, attachments=attachments)
        case CaseSnoozed():
            until, at = event.until_ms, event.snoozed_at_ms
            return replace(work, is_touched=True, snoozed_at_ms=at, snoozed_until_ms=until)
        case ClosingRequested():
            request = ApprovalRequest(
                actor=event.actor, reason=event.reason, disposition=event.disposition, typology=event.typology
            )
            return replace(work, is_touched=True, request=request, snoozed_at_ms=None, snoozed_until_ms=None)
        case ReopeningRequested():
            return replace(work, request=ApprovalRequest(actor=event.actor, reason=event.reason))
        case ClosingRefused() | ClosingWithdrawn() | ReopeningRefused() | ReopeningWithdrawn():
            return replace(work, request=None)
        case CaseMerged():
            into = MergeTarget(account_id=event.into_account_id, case_id=event.into_case_id, merge_id=event.command_id)
            return replace(work, is_touched=True, merged_into=into, snoozed_at_ms=None, snoozed_until_ms=None)
        case CaseUnmerged():
            return replace(work, merged_into=None)
        case CaseLinked():
            return replace(work, links={**work.links, event.other_case_id: event.other_account_id})
        case CaseUnlinked():
            return replace(work, links={key: at for key, at in work.links.items() if key != event.other_case_id})
        case _:
            assert_never(event)


def _add_flag(case: Case, event: RiskLinked) -> None:
    linked, value, currency = case.linked, case.value_minor, event.currency
    case.flags += 1
    value[currency] = value.get(currency, 0) + event.amount_minor
    linked[event.flag_id] = flag_of_event(event)
    if len(linked) > MAX_LINKED:
        del linked[next(iter(linked))]


def _revise_flag(case: Case, event: RiskRevised) -> None:
    if event.flag_id in case.linked:
        case.flags += _count_change(case.linked, event.flag_id, bool(event.rules))
        case.linked[event.flag_id] = changed(case.linked[event.flag_id], score=event.score)
        if event.flags_change is None or not case.work.absorbed:  # the first engines did not look at absorbed cases
            return
    absorbed = dict(case.work.absorbed)
    for key, each in absorbed.items():
        if event.flag_id in each.linked:
            change = _count_change(each.linked, event.flag_id, bool(event.rules))
            linked = {**each.linked, event.flag_id: changed(each.linked[event.flag_id], score=event.score)}
            absorbed[key] = replace(each, standing=each.standing + change, linked=linked)
            case.flags += change
    case.work = replace(case.work, absorbed=absorbed)


def standing_flags_change(case: Case, flag_id: str, stands: bool) -> int:
    """Return the change of a case's number of standing flags once a flag that it has is valid or withdrawn."""
    return sum(_count_change(linked, flag_id, stands) for linked in _flag_maps(case) if flag_id in linked)


def _count_change(linked: Mapping[str, LinkedFlag], flag_id: str, stands: bool) -> int:
    return stands - (linked[flag_id].score > 0)


def _absorb(case: Case, event: CaseAbsorbed) -> None:
    brought = AbsorbedCase(
        account_id=event.from_account_id,
        merge_id=event.merge_id,
        standing=event.standing,
        value_minor={amount.currency: amount.amount_minor for amount in event.amounts},
        linked={flag.flag_id: flag_of_merged_case(flag) for flag in event.flags},
    )
    case.flags += event.standing
    case.value_minor = add_amounts(case.value_minor, brought.value_minor, 1)
    case.work = replace(case.work, absorbed={**case.work.absorbed, event.from_case_id: brought})


def _remove_absorbed(case: Case, event: CaseParted) -> None:
    remaining = {key: each for key, each in case.work.absorbed.items() if key != event.from_case_id}
    amounts = {amount.currency: amount.amount_minor for amount in event.amounts}
    case.flags -= event.standing
    case.value_minor = add_amounts(case.value_minor, amounts, -1)
    case.work = replace(case.work, absorbed=remaining)


# -- parts -----------------------------------------------------------------------------------------------


def add_amounts(value_minor: Mapping[str, int], other: Mapping[str, int], sign: int) -> dict[str, int]:
    """Return amounts by currency with others added (`sign` 1) or subtracted (`sign` -1).

    A subtraction leaves out currencies of which nothing remains.
    """
    currencies = {**value_minor, **other}
    total = {currency: value_minor.get(currency, 0) + sign * other.get(currency, 0) for currency in currencies}
    return {currency: amount for currency, amount in total.items() if amount or sign > 0}


def amounts_of(value_minor: Mapping[str, int]) -> tuple[Amount, ...]:
    """Return amounts by currency as a tuple of Amount, sorted by currency."""
    return tuple(Amount(currency=currency, amount_minor=amount) for currency, amount in sorted(value_minor.items()))


def count_remembered_flags(case: Case) -> int:
    """Return the number of flags that a case remembers, with those of the cases that are merged into it."""
    return sum(map(len, _flag_maps(case)))


def merged_flags(account_id: str, case: Case) -> tuple[MergedFlag, ...]:
    """Return the flags that a case hands over on a merge, with those of the cases that are merged into it."""
    return tuple(
        MergedFlag(
            flag_id=flag_id,
            score=flag.score,
            account_id=payment.account_id or account_id,
            transaction_id=payment.transaction_id,
            content_digest=payment.content_digest,
            event_time=payment.event_time,
            merchant_id=payment.merchant_id,
            terminal_id=payment.terminal_id,
            device_id=payment.device_id,
            card_id=payment.card_id,
        )
        for linked in _flag_maps(case)
        for flag_id, flag in linked.items()
        if (payment := payment_of_flag(flag)) is not None
    )


def standing_payments(case: Case) -> tuple[FlaggedPayment, ...]:
    """Return the payments of a case with a standing flag, with those of the cases that are merged into it."""
    return tuple(
        payment
        for linked in _flag_maps(case)
        for flag in linked.values()
        if flag.score > 0 and (payment := payment_of_flag(flag)) is not None
    )


def _flag_maps(case: Case) -> Iterator[Mapping[str, LinkedFlag]]:
    """Yield the flags of a case by id: its own, then those of each case that is merged into it."""
    yield case.linked
    for each in case.work.absorbed.values():
        yield each.linked
