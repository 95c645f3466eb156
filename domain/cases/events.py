"""Events of a case. The events of a case have a `sequence` from 1 without gaps; answers to commands have none."""

from typing import Final, Literal, TypeAlias, assert_never, get_args
from uuid import UUID, uuid5

from domain.cases.commands import Amount, Attachment, MergedFlag
from domain.reason import Reason
from domain.record import Record

CONFIRMED_FRAUD: Final = "confirmed_fraud"
Disposition: TypeAlias = Literal["confirmed_fraud", "false_positive", "inconclusive"]
"""Outcome of a closed case."""
DISPOSITIONS: Final[tuple[Disposition, ...]] = get_args(Disposition)
"""Every disposition."""
REJECTIONS: Final = {
    "stale": "the case has changed since the version that the command names",
    "unknown_case": "the account has no such case, or no longer remembers it",
    "not_open": "the case is closed, or merged into another one",
    "not_closed": "the case is open: there is nothing to reopen",
    "not_merged": "the case is not merged into another one: there is nothing to undo",
    "nothing_to_do": "the case is in the requested state already",
    "held": "another person is the assignee of the case",
    "no_request": "no request is pending that could be approved, refused or withdrawn",
    "requested": "a request is pending: a second person has to answer it first",
    "second_person": "the requester cannot approve or refuse the request, and only the requester can withdraw it",
    "in_the_way": "another case prevents the act",
    "invalid": "a field of the command has a value that is not allowed",
    "limit": "the case has reached the maximum number of these",
}
"""Meaning of each rejection code."""


class FlaggedPayment(Record, frozen=True, kw_only=True):
    """Payment of a case, with all fields that its label needs.

    `account_id` is set only if the payment came with a case that was merged into this one.
    """

    transaction_id: str
    content_digest: str
    event_time: int
    merchant_id: str
    terminal_id: str | None
    device_id: str | None
    card_id: str | None
    account_id: str | None = None


class MissedEvent(Record, frozen=True, kw_only=True):
    """Event that the author of a stale command had not seen."""

    sequence: int
    kind: str


class NumberedEvent(Record, frozen=True):
    """Fields of every event that has a place in its case."""

    account_id: str
    case_id: str
    sequence: int


class CommandEvent(NumberedEvent, frozen=True, kw_only=True):
    """Fields of every event that results from an analyst's command."""

    actor: str
    command_id: str


# -- from flags and the clock -------------------------------------------------------------------------


class CaseOpened(NumberedEvent, frozen=True, kw_only=True):
    """Opening of a case by the first flag of a typology on an account that has no open case of this typology.

    `previous_case_id` is the last closed case of the typology. The position is in microdegrees.
    """

    typology: str
    flag_id: str
    transaction_id: str
    event_time: int
    amount_minor: int
    currency: str
    score: int
    rules: tuple[str, ...]
    opened_at_ms: int
    content_digest: str | None = None
    merchant_id: str | None = None
    terminal_id: str | None = None
    device_id: str | None = None
    card_id: str | None = None
    previous_case_id: str | None = None
    payment_method: str | None = None
    channel: str | None = None
    country: str | None = None
    latitude: int | None = None
    longitude: int | None = None
    reasons: tuple[Reason, ...] = ()


class RiskLinked(NumberedEvent, frozen=True):
    """Further flag on an open case. It is the most frequent event: `Record` says how to create one cheaply."""

    flag_id: str
    transaction_id: str
    event_time: int
    amount_minor: int
    currency: str
    score: int
    rules: tuple[str, ...]
    content_digest: str | None = None
    merchant_id: str | None = None
    terminal_id: str | None = None
    device_id: str | None = None
    card_id: str | None = None
    payment_method: str | None = None
    channel: str | None = None
    country: str | None = None
    latitude: int | None = None
    longitude: int | None = None
    reasons: tuple[Reason, ...] = ()


class RiskRevised(NumberedEvent, frozen=True, kw_only=True):
    """Restatement of a flag of this case after a late payment. A flag without rules is withdrawn.

    The score of a decision without rules counts as 0 here, because a payment without a flag weighs nothing in a case.
    `event_time` is the flagged payment's, in milliseconds. `flags_change` is the change of the case's number of
    standing flags. The case and the flag's account can disagree on whether the flag stood before: the flag may have
    come back with a case of another account.
    """

    flag_id: str
    transaction_id: str
    score_before: int
    score: int
    rules: tuple[str, ...]
    cause_transaction_id: str
    event_time: int | None = None
    flags_change: int | None = None


class CaseEscalated(NumberedEvent, frozen=True, kw_only=True):
    """Escalation of a case. `trigger` is score, flags, value, sla, merge or analyst."""

    trigger: str
    detail: str
    cause_id: str
    actor: str | None
    escalated_at_ms: int


class CaseWoken(NumberedEvent, frozen=True, kw_only=True):
    """End of a case's pause. `trigger` is clock, flag or analyst."""

    trigger: str
    cause_id: str
    actor: str | None
    woken_at_ms: int


# -- from analysts ------------------------------------------------------------------------------------


class CaseAssigned(CommandEvent, frozen=True, kw_only=True):
    """Assignment of a case to a person."""

    assignee: str
    previous_assignee: str | None
    assigned_at_ms: int


class CaseReleased(CommandEvent, frozen=True, kw_only=True):
    """Removal of a case's assignee."""

    previous_assignee: str
    released_at_ms: int


class NoteAdded(CommandEvent, frozen=True, kw_only=True):
    """Note on a case, with a text, files, or both."""

    note_id: str
    text: str
    attachments: tuple[Attachment, ...]
    added_at_ms: int


class CaseSnoozed(CommandEvent, frozen=True, kw_only=True):
    """Pause of a case until a time."""

    until_ms: int
    reason: str
    snoozed_at_ms: int


class ClosingRequested(CommandEvent, frozen=True, kw_only=True):
    """Request to close a case. A second person has to approve it; `detail` says why."""

    disposition: str
    typology: str | None
    reason: str
    detail: str
    requested_at_ms: int


class ClosingRefused(CommandEvent, frozen=True, kw_only=True):
    """Refusal of a requested closing by a second person."""

    requested_by: str
    reason: str
    refused_at_ms: int


class ClosingWithdrawn(CommandEvent, frozen=True, kw_only=True):
    """Withdrawal of a requested closing by its requester."""

    reason: str
    withdrawn_at_ms: int


class CaseClosed(CommandEvent, frozen=True, kw_only=True):
    """Closing of a case. `payments` are those with a standing flag; a confirmed fraud makes each of them a label.

    If a second person had to approve, that person is the actor, and `requested_by` gave the disposition and the reason.
    """

    disposition: str
    reason: str
    payments: tuple[FlaggedPayment, ...]
    closed_at_ms: int
    typology: str | None = None
    requested_by: str | None = None
    approval_reason: str | None = None


class ReopeningRequested(CommandEvent, frozen=True, kw_only=True):
    """Request to reopen a case. A second person has to approve it."""

    reason: str
    requested_at_ms: int


class ReopeningRefused(CommandEvent, frozen=True, kw_only=True):
    """Refusal of a requested reopening by a second person."""

    requested_by: str
    reason: str
    refused_at_ms: int


class ReopeningWithdrawn(CommandEvent, frozen=True, kw_only=True):
    """Withdrawal of a requested reopening by its requester."""

    reason: str
    withdrawn_at_ms: int


class CaseReopened(CommandEvent, frozen=True, kw_only=True):
    """Reopening of a case, without an assignee. The labels of its closing stay."""

    requested_by: str
    reason: str
    approval_reason: str
    reopened_at_ms: int


class CaseMerged(CommandEvent, frozen=True, kw_only=True):
    """Merge of this case into another one, with the flags and amounts that it hands over.

    `standing` is the number of standing flags.
    """

    into_account_id: str
    into_case_id: str
    reason: str
    is_escalated: bool
    standing: int
    amounts: tuple[Amount, ...]
    flags: tuple[MergedFlag, ...]
    merged_at_ms: int


class CaseAbsorbed(CommandEvent, frozen=True, kw_only=True):
    """Merge of another case into this one."""

    merge_id: str
    from_account_id: str
    from_case_id: str
    standing: int
    amounts: tuple[Amount, ...]
    flags: tuple[MergedFlag, ...]
    absorbed_at_ms: int


class CaseUnmerged(CommandEvent, frozen=True, kw_only=True):
    """Undoing of the merge of this case into another one."""

    merge_id: str
    into_account_id: str
    into_case_id: str
    reason: str
    unmerged_at_ms: int


class CaseParted(CommandEvent, frozen=True, kw_only=True):
    """Removal of another case from this one, with the flags and amounts that it had brought."""

    merge_id: str
    from_account_id: str
    from_case_id: str
    standing: int
    amounts: tuple[Amount, ...]
    flag_ids: tuple[str, ...]
    transactions: tuple[str, ...]
    parted_at_ms: int


class CaseLinked(CommandEvent, frozen=True, kw_only=True):
    """Link from this case to another one. `is_back` is true if the other case made the link."""

    other_account_id: str
    other_case_id: str
    reason: str
    is_back: bool
    linked_at_ms: int


class CaseUnlinked(CommandEvent, frozen=True, kw_only=True):
    """Removal of a link to another case. `is_back` is true if the other case removed the link."""

    other_account_id: str
    other_case_id: str
    reason: str
    is_back: bool
    unlinked_at_ms: int


# -- answers that change no case ------------------------------------------------------------------------


class CommandRejected(Record, frozen=True, kw_only=True):
    """Answer to a command that could not be carried out. It changes no case and takes no sequence number.

    `reason` is for people and `code` for programs; see REJECTIONS. `missed` holds the remembered events since the
    version that the command's author had seen.
    """

    account_id: str
    case_id: str
    command_id: str
    actor: str
    reason: str
    rejected_at_ms: int
    command: str | None = None
    code: str | None = None
    missed: tuple[MissedEvent, ...] = ()


class AbsorptionRefused(Record, frozen=True, kw_only=True):
    """Answer to an AbsorbCase that could not be carried out. The other case is then unmerged."""

    account_id: str
    case_id: str
    command_id: str
    actor: str
    merge_id: str
    from_account_id: str
    from_case_id: str
    reason: str
    refused_at_ms: int


WorkEvent: TypeAlias = (
    CaseWoken
    | CaseAssigned
    | CaseReleased
    | NoteAdded
    | CaseSnoozed
    | ClosingRequested
    | ClosingRefused
    | ClosingWithdrawn
    | ReopeningRequested
    | ReopeningRefused
    | ReopeningWithdrawn
    | CaseMerged
    | CaseUnmerged
    | CaseLinked
    | CaseUnlinked
)
"""Event that changes only the work on a case, not its flags or its disposition."""
NonFlagEvent: TypeAlias = WorkEvent | CaseEscalated | CaseClosed | CaseReopened | CaseAbsorbed | CaseParted
"""Event that does not result from a flag alone."""
LaterEvent: TypeAlias = RiskLinked | RiskRevised | NonFlagEvent
"""Event that can follow the opening of a case."""
SequencedCaseEvent: TypeAlias = CaseOpened | LaterEvent
CaseAnswer: TypeAlias = CommandRejected | AbsorptionRefused
CaseEvent: TypeAlias = SequencedCaseEvent | CaseAnswer


def command_answered(event: CaseEvent) -> str | None:
    """Return the id of the command that an event answers, or None for an event without a command.

    A command on two cases of an account results in an event of each case. The answer is the event of the case that the
    command names.
    """
    if isinstance(event, CommandEvent | CommandRejected | AbsorptionRefused):
        return event.command_id
    return event.cause_id if isinstance(event, CaseEscalated | CaseWoken) and event.actor is not None else None


def happened_at_ms(event: SequencedCaseEvent) -> int | None:
    """Return the event's own time in milliseconds: the payment's for a flag, the time of the act for others.

    Return None for a RiskRevised from before it had a time.
    """
    match event:
        case CaseOpened() | RiskLinked() | RiskRevised():
            return event.event_time
        case CaseEscalated():
            return event.escalated_at_ms
        case CaseWoken():
            return event.woken_at_ms
        case CaseAssigned():
            return event.assigned_at_ms
        case CaseReleased():
            return event.released_at_ms
        case NoteAdded():
            return event.added_at_ms
        case CaseSnoozed():
            return event.snoozed_at_ms
        case ClosingRequested() | ReopeningRequested():
            return event.requested_at_ms
        case ClosingRefused() | ReopeningRefused():
            return event.refused_at_ms
        case ClosingWithdrawn() | ReopeningWithdrawn():
            return event.withdrawn_at_ms
        case CaseClosed():
            return event.closed_at_ms
        case CaseReopened():
            return event.reopened_at_ms
        case CaseMerged():
            return event.merged_at_ms
        case CaseAbsorbed():
            return event.absorbed_at_ms
        case CaseUnmerged():
            return event.unmerged_at_ms
        case CaseParted():
            return event.parted_at_ms
        case CaseLinked():
            return event.linked_at_ms
        case CaseUnlinked():
            return event.unlinked_at_ms
        case _:
            assert_never(event)


CASES = UUID("8f6f5e0e-6f0c-5c1b-9d55-0d6d8f1f2a31")


class ClockTicked(Record, frozen=True, kw_only=True):
    """Current time in milliseconds, written once into each partition, so that deadlines can be replayed."""

    tick_id: str
    now_ms: int


def case_id(typology: str, first_flag_id: str, previous_case_id: str | None = None) -> str:
    """Return the id of the case that a flag opens.

    `previous_case_id` makes the ids differ if the flag opened an earlier case that is closed now.
    """
    after = f"\x1f{previous_case_id}" if previous_case_id else ""
    return str(uuid5(CASES, f"{typology}\x1f{first_flag_id}{after}"))
