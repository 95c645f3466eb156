"""What has happened to a case. Those with a `sequence` are numbered without gaps, case by case; answers are not."""

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
    "stale": "the case has moved on since the version that was seen",
    "unknown_case": "the account has no such case, or no longer remembers it",
    "not_open": "the case is closed, or merged into another",
    "not_closed": "the case is open: there is nothing to reopen",
    "not_merged": "the case stands for itself: there is nothing to undo",
    "nothing_to_do": "it is so already",
    "held": "somebody else works on the case",
    "no_request": "nobody has asked for what is to be approved, refused or withdrawn",
    "requested": "somebody has asked for it, and a second person has not answered yet",
    "second_person": "who asked for it cannot be the one who approves or refuses it; nobody else can withdraw it",
    "in_the_way": "another case makes it impossible",
    "invalid": "a field of the command says what cannot be",
    "limit": "the case cannot take any more of these",
}
"""Why commands are rejected, by code."""


class FlaggedPayment(Record, frozen=True, kw_only=True):
    """A payment that a case is about, with all that a label on it needs.

    `account_id` is given where the payment came with a case that was merged into this one.
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
    """An event that the author of a stale command had not seen."""

    sequence: int
    kind: str


class NumberedEvent(Record, frozen=True):
    """What every numbered event says."""

    account_id: str
    case_id: str
    sequence: int


class CommandEvent(NumberedEvent, frozen=True, kw_only=True):
    """What every event says that an analyst's command led to."""

    actor: str
    command_id: str


# -- from flags and the clock -------------------------------------------------------------------------


class CaseOpened(NumberedEvent, frozen=True, kw_only=True):
    """The first flag of a typology on an account without an open case of it.

    `previous_case_id` is the last case of the typology, now closed.
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
    """A further flag on the open case. There are more of these than of all others: see `Record` on how to make one."""

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
    """A flag that is linked to the case was restated by a late payment; without rules it no longer stands.

    The score of a decision without rules counts as 0 here: what is not flagged weighs nothing in a case.
    `event_time` is the flagged payment's. `flags_change` is by how many more flags of this case stand, which may have
    known otherwise of the flag than the flag's account: where it came back with a case of another account.
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
    """More eyes are needed: `trigger` is score, flags, value, sla, merge or analyst."""

    trigger: str
    detail: str
    cause_id: str
    actor: str | None
    escalated_at_ms: int


class CaseWoken(NumberedEvent, frozen=True, kw_only=True):
    """The case is no longer snoozed: `trigger` is clock, flag or analyst."""

    trigger: str
    cause_id: str
    actor: str | None
    woken_at_ms: int


# -- from analysts ------------------------------------------------------------------------------------


class CaseAssigned(CommandEvent, frozen=True, kw_only=True):
    """Somebody works on the case now."""

    assignee: str
    previous_assignee: str | None
    assigned_at_ms: int


class CaseReleased(CommandEvent, frozen=True, kw_only=True):
    """Nobody works on the case now."""

    previous_assignee: str
    released_at_ms: int


class NoteAdded(CommandEvent, frozen=True, kw_only=True):
    """Words and files."""

    note_id: str
    text: str
    attachments: tuple[Attachment, ...]
    added_at_ms: int


class CaseSnoozed(CommandEvent, frozen=True, kw_only=True):
    """Nothing is to be done until then."""

    until_ms: int
    reason: str
    snoozed_at_ms: int


class ClosingRequested(CommandEvent, frozen=True, kw_only=True):
    """The case is decided if a second person agrees; `detail` says why one is needed."""

    disposition: str
    typology: str | None
    reason: str
    detail: str
    requested_at_ms: int


class ClosingRefused(CommandEvent, frozen=True, kw_only=True):
    """The second person did not agree."""

    requested_by: str
    reason: str
    refused_at_ms: int


class ClosingWithdrawn(CommandEvent, frozen=True, kw_only=True):
    """Who had asked no longer does."""

    reason: str
    withdrawn_at_ms: int


class CaseClosed(CommandEvent, frozen=True, kw_only=True):
    """An analyst has decided. `payments` are those whose flags stand: of a confirmed fraud, each becomes a label.

    Where a second person had to agree, that is the actor, and `requested_by` gave the disposition and the reason.
    """

    disposition: str
    reason: str
    payments: tuple[FlaggedPayment, ...]
    closed_at_ms: int
    typology: str | None = None
    requested_by: str | None = None
    approval_reason: str | None = None


class ReopeningRequested(CommandEvent, frozen=True, kw_only=True):
    """The case is worked on again if a second person agrees."""

    reason: str
    requested_at_ms: int


class ReopeningRefused(CommandEvent, frozen=True, kw_only=True):
    """The second person did not agree."""

    requested_by: str
    reason: str
    refused_at_ms: int


class ReopeningWithdrawn(CommandEvent, frozen=True, kw_only=True):
    """Who had asked no longer does."""

    reason: str
    withdrawn_at_ms: int


class CaseReopened(CommandEvent, frozen=True, kw_only=True):
    """The case is open again, with nobody on it; the labels that its closing put stay."""

    requested_by: str
    reason: str
    approval_reason: str
    reopened_at_ms: int


class CaseMerged(CommandEvent, frozen=True, kw_only=True):
    """This case is now part of another one, to which it hands over all of this; `standing` counts flags that stand."""

    into_account_id: str
    into_case_id: str
    reason: str
    is_escalated: bool
    standing: int
    amounts: tuple[Amount, ...]
    flags: tuple[MergedFlag, ...]
    merged_at_ms: int


class CaseAbsorbed(CommandEvent, frozen=True, kw_only=True):
    """Another case is now part of this one."""

    merge_id: str
    from_account_id: str
    from_case_id: str
    standing: int
    amounts: tuple[Amount, ...]
    flags: tuple[MergedFlag, ...]
    absorbed_at_ms: int


class CaseUnmerged(CommandEvent, frozen=True, kw_only=True):
    """This case stands for itself again."""

    merge_id: str
    into_account_id: str
    into_case_id: str
    reason: str
    unmerged_at_ms: int


class CaseParted(CommandEvent, frozen=True, kw_only=True):
    """Another case is no longer part of this one; it takes along what it had brought."""

    merge_id: str
    from_account_id: str
    from_case_id: str
    standing: int
    amounts: tuple[Amount, ...]
    flag_ids: tuple[str, ...]
    transactions: tuple[str, ...]
    parted_at_ms: int


class CaseLinked(CommandEvent, frozen=True, kw_only=True):
    """This case has to do with another one; `is_back` if that one was linked to this one."""

    other_account_id: str
    other_case_id: str
    reason: str
    is_back: bool
    linked_at_ms: int


class CaseUnlinked(CommandEvent, frozen=True, kw_only=True):
    """And no longer."""

    other_account_id: str
    other_case_id: str
    reason: str
    is_back: bool
    unlinked_at_ms: int


# -- answers that change no case ------------------------------------------------------------------------


class CommandRejected(Record, frozen=True, kw_only=True):
    """The answer to a command that could not be carried out; it changes no case, so it takes no sequence of one.

    `code` says for programs what `reason` says for people; see REJECTIONS. `missed` are the events since the version
    that the command's author had seen, as far as they are remembered.
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
    """The answer to AbsorbCase where this case could not take the other one, which is then unmerged."""

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
"""What changes nothing of a case but how it is worked on."""
DeedEvent: TypeAlias = WorkEvent | CaseEscalated | CaseClosed | CaseReopened | CaseAbsorbed | CaseParted
"""What does not come from a flag alone."""
LaterEvent: TypeAlias = RiskLinked | RiskRevised | DeedEvent
"""What can follow the opening."""
SequencedCaseEvent: TypeAlias = CaseOpened | LaterEvent
CaseAnswer: TypeAlias = CommandRejected | AbsorptionRefused
CaseEvent: TypeAlias = SequencedCaseEvent | CaseAnswer


def command_answered(event: CaseEvent) -> str | None:
    """The command that an event answers; None for an event that no command asked for.

    A command that concerns two cases of an account leads to an event of each: the answer is that of its own case.
    """
    if isinstance(event, CommandEvent | CommandRejected | AbsorptionRefused):
        return event.command_id
    return event.cause_id if isinstance(event, CaseEscalated | CaseWoken) and event.actor is not None else None


def happened_at_ms(event: SequencedCaseEvent) -> int | None:
    """The event's own time: of a flag its payment's, of a deed when it was done. None for old RiskRevised, without."""
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
    """Time as far as cases are concerned: written once into each partition, so that deadlines replay."""

    tick_id: str
    now_ms: int


def case_id(typology: str, first_flag_id: str, previous_case_id: str | None = None) -> str:
    """The id of the case that a flag opens. A flag that has opened a case before (closed since) opens another one."""
    after = f"\x1f{previous_case_id}" if previous_case_id else ""
    return str(uuid5(CASES, f"{typology}\x1f{first_flag_id}{after}"))
