"""Answers to commands: events of the account's cases, or a rejection.

This file is longer than 500 lines because it holds all answers to a case's commands: they share their checks,
and most acts on two cases need the checks of both (docs/decisions/0020).
"""

from typing import Any, Final, NamedTuple, TypeAlias, assert_never
from uuid import UUID, uuid5

from domain.cases.commands import (
    AbsorbCase,
    AddNote,
    AnalystCommand,
    ApproveClosing,
    ApproveReopening,
    AssignCase,
    Attachment,
    CloseCase,
    Command,
    EscalateCase,
    LinkBack,
    LinkCase,
    MergeCases,
    PartCase,
    RefuseClosing,
    RefuseReopening,
    ReleaseCase,
    ReopenCase,
    SnoozeCase,
    TakeCase,
    UndoMerge,
    UnlinkBack,
    UnlinkCase,
    UnmergeCase,
    WakeCase,
    WithdrawClosing,
    WithdrawReopening,
)
from domain.cases.escalation import case_escalated, escalation_trigger, largest_value_major
from domain.cases.events import (
    DISPOSITIONS,
    AbsorptionRefused,
    CaseAbsorbed,
    CaseAssigned,
    CaseClosed,
    CaseEvent,
    CaseLinked,
    CaseMerged,
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
    MissedEvent,
    NoteAdded,
    ReopeningRefused,
    ReopeningRequested,
    ReopeningWithdrawn,
)
from domain.cases.state import (
    MAX_ABSORBED,
    MAX_ATTACHMENTS,
    MAX_LINKED,
    MAX_LINKS,
    MAX_NOTES,
    AccountCases,
    ApprovalRequest,
    Case,
    MergeTarget,
    amounts_of,
    case_after_event,
    count_remembered_flags,
    merged_flags,
    standing_payments,
)
from domain.durations import DAY_MS
from domain.record import replace
from domain.sealed import count_characters

NOTES = UUID("5f4b8a53-64d7-5d42-8e4f-0b6a35c2a9d1")
FOUR_EYES_FROM_VALUE_MAJOR: Final = 5_000
"""Flagged amount, in whole units of one currency, from which a closing needs a second person's approval."""
MAX_SNOOZE_MS: Final = 30 * DAY_MS
MAX_NAME_CHARS: Final = 200
MAX_REASON_CHARS: Final = 2_000
MAX_NOTE_CHARS: Final = 10_000
MAX_NOTE_ATTACHMENTS: Final = 10
MAX_ATTACHMENT_BYTES: Final = 25 << 20


class Rejection(NamedTuple):
    """Reason why a command is not carried out: a code of REJECTIONS, and a sentence that tells the user what to do."""

    code: str
    reason: str


EventsOrRejection: TypeAlias = list[CaseEvent] | Rejection
_UNKNOWN_CASE: Final = Rejection("unknown_case", "the account has no case of this id, or no longer remembers it")


def on_command(state: AccountCases, command: Command) -> list[CaseEvent]:
    """Return the events that answer a command. Return none if the command was answered before."""
    if command.command_id in state.answered:
        return []
    case = state.case(command.case_id)
    if isinstance(command, AbsorbCase):
        return _absorb(state, case, command)
    decided = _UNKNOWN_CASE if case is None else _decide(state, case, command)
    return [_command_rejected(case, command, decided)] if isinstance(decided, Rejection) else decided


def _decide(state: AccountCases, case: Case, command: Command) -> EventsOrRejection:
    match command:
        case AbsorbCase() | PartCase() | UndoMerge() | LinkBack() | UnlinkBack():
            return _decide_chain_command(state, case, command)
        case _:
            error = _text_error(command)
            if error:
                return Rejection("invalid", error)
            if command.seen_sequence != case.sequence:
                moved = f"the case has moved on: seen at {command.seen_sequence}, now at {case.sequence}"
                return Rejection("stale", moved)
            return _decide_analyst_command(state, case, command)


def _decide_analyst_command(state: AccountCases, case: Case, command: AnalystCommand) -> EventsOrRejection:
    match command:
        case AddNote():
            return _add_note(case, command)
        case LinkCase() | UnlinkCase():
            return _link(state, case, command)
        case ReopenCase() | ApproveReopening() | RefuseReopening() | WithdrawReopening():
            return _decide_reopening(state, case, command)
        case UnmergeCase():
            return _unmerge(state, case, command)
        case _:
            if not case.is_open:
                return Rejection("not_open", _not_open_reason(case))
    match command:
        case TakeCase() | AssignCase() | ReleaseCase():
            return _assign(case, command)
        case EscalateCase():
            if case.escalated:
                return Rejection("nothing_to_do", "the case is escalated already")
            cause, at_ms = command.command_id, command.requested_at_ms
            return [case_escalated(state.account_id, case, "analyst", command.reason, cause, at_ms, command.actor)]
        case SnoozeCase() | WakeCase():
            return _snooze(case, command)
        case CloseCase():
            return _close(case, command)
        case ApproveClosing() | RefuseClosing() | WithdrawClosing():
            return _decide_closing(case, command)
        case MergeCases():
            return _merge(state, case, command)
        case _:
            assert_never(command)


# -- checks that need no case -----------------------------------------------------------------------------


def _text_error(command: AnalystCommand) -> str:
    """Return the error in the texts of a command, or an empty text if there is none."""
    if not 0 < len(command.actor.strip()) <= MAX_NAME_CHARS:
        return f"the actor must have 1 to {MAX_NAME_CHARS} characters"
    reason = getattr(command, "reason", None)
    if reason is not None and not 0 < count_characters(reason.strip()) <= MAX_REASON_CHARS:
        return f"the reason must have 1 to {MAX_REASON_CHARS} characters"
    return ""


def _not_open_reason(case: Case) -> str:
    if case.work.merged_into is not None:
        return f"the case is merged into {case.work.merged_into.case_id}: act on that one, or unmerge it"
    return f"the case is closed already, as {case.disposition}"


# -- assignment, notes, snoozing ----------------------------------------------------------------------------


def _assign(case: Case, command: TakeCase | AssignCase | ReleaseCase) -> EventsOrRejection:
    holder = case.work.assignee
    if isinstance(command, ReleaseCase):
        if holder is None:
            return Rejection("nothing_to_do", "nobody holds the case")
        at_ms = command.requested_at_ms
        return [CaseReleased(**_next_fields(case, command), previous_assignee=holder, released_at_ms=at_ms)]
    if isinstance(command, TakeCase):
        assignee = command.actor
        if holder is not None and holder != assignee:
            return Rejection("held", f"{holder} works on the case: ask for its release, or have it assigned")
    else:
        assignee = command.assignee
        if not 0 < len(assignee.strip()) <= MAX_NAME_CHARS:
            return Rejection("invalid", f"the assignee must have 1 to {MAX_NAME_CHARS} characters")
    if holder == assignee:
        return Rejection("nothing_to_do", f"{assignee} works on the case already")
    at_ms = command.requested_at_ms
    return [
        CaseAssigned(**_next_fields(case, command), assignee=assignee, previous_assignee=holder, assigned_at_ms=at_ms)
    ]  # fmt: skip


def _add_note(case: Case, command: AddNote) -> EventsOrRejection:
    length = count_characters(command.text)
    if length > MAX_NOTE_CHARS:
        return Rejection("invalid", f"a note has at most {MAX_NOTE_CHARS} characters, this one has {length}")
    if not command.text.strip() and not command.attachments:
        return Rejection("invalid", "a note needs words or a file")
    if len(command.attachments) > MAX_NOTE_ATTACHMENTS:
        return Rejection(
            "invalid", f"a note has at most {MAX_NOTE_ATTACHMENTS} files, this one has {len(command.attachments)}"
        )
    for attachment in command.attachments:
        error = _attachment_error(attachment)
        if error:
            return Rejection("invalid", error)
    if case.work.notes >= MAX_NOTES:
        return Rejection("limit", f"the case has {MAX_NOTES} notes, which is all that it may have")
    if case.work.attachments + len(command.attachments) > MAX_ATTACHMENTS:
        return Rejection("limit", f"the case has {case.work.attachments} files, it may have {MAX_ATTACHMENTS}")
    return [
        NoteAdded(
            **_next_fields(case, command),
            note_id=str(uuid5(NOTES, f"{command.account_id}\x1f{command.command_id}")),
            text=command.text,
            attachments=command.attachments,
            added_at_ms=command.requested_at_ms,
        )
    ]


def _attachment_error(attachment: Attachment) -> str:
    name = attachment.file_name
    if not 0 < count_characters(name.strip()) <= MAX_NAME_CHARS or any(sign in name for sign in "/\\\x00"):
        return f"a file's name has 1 to {MAX_NAME_CHARS} characters and names no folder"
    if not 0 <= attachment.size <= MAX_ATTACHMENT_BYTES:
        return f"{name}: a file has at most {MAX_ATTACHMENT_BYTES} bytes, this one has {attachment.size}"
    if len(attachment.sha256) != 64 or set(attachment.sha256) - set("0123456789abcdef"):
        return f"{name}: the SHA-256 must be 64 hexadecimal digits"
    if not attachment.storage_key or not attachment.media_type:
        return f"{name}: the media type and the place where the file lies must be named"
    return ""


def _snooze(case: Case, command: SnoozeCase | WakeCase) -> EventsOrRejection:
    until_ms, at_ms = case.work.snoozed_until_ms, command.requested_at_ms
    if isinstance(command, WakeCase):
        if until_ms is None:
            return Rejection("nothing_to_do", "the case is not snoozed")
        return [_case_woken(case, command)]
    if case.work.request is not None:
        return Rejection("requested", _pending_request_error(case.work.request, "closing"))
    if not at_ms < command.until_ms <= at_ms + MAX_SNOOZE_MS:
        return Rejection(
            "invalid", f"a case is snoozed until a later time, at most {MAX_SNOOZE_MS // DAY_MS} days from now"
        )
    if command.until_ms == until_ms:
        return Rejection("nothing_to_do", "the case is snoozed until then already")
    return [
        CaseSnoozed(
            **_next_fields(case, command), until_ms=command.until_ms, reason=command.reason, snoozed_at_ms=at_ms
        )
    ]  # fmt: skip


def _case_woken(case: Case, command: WakeCase) -> CaseWoken:
    return CaseWoken(
        account_id=command.account_id,
        case_id=case.case_id,
        sequence=case.sequence + 1,
        trigger="analyst",
        cause_id=command.command_id,
        actor=command.actor,
        woken_at_ms=command.requested_at_ms,
    )


# -- closing and reopening ------------------------------------------------------------------------------------


def _pending_request_error(request: ApprovalRequest, act: str) -> str:
    return f"{request.actor} has asked for the {act}: approve, refuse or withdraw that first"


def _close(case: Case, command: CloseCase) -> EventsOrRejection:
    if case.work.request is not None:
        return Rejection("requested", _pending_request_error(case.work.request, "closing"))
    if command.disposition not in DISPOSITIONS:
        return Rejection("invalid", f"the disposition must be one of {', '.join(DISPOSITIONS)}")
    if command.typology is not None and not 0 < len(command.typology.strip()) <= MAX_NAME_CHARS:
        return Rejection("invalid", f"the typology must have 1 to {MAX_NAME_CHARS} characters, or be left out")
    value, currency = largest_value_major(case)
    if value >= FOUR_EYES_FROM_VALUE_MAJOR:
        return [
            ClosingRequested(
                **_next_fields(case, command),
                disposition=command.disposition,
                typology=command.typology,
                reason=command.reason,
                detail=f"{value} {currency} flagged, from {FOUR_EYES_FROM_VALUE_MAJOR} a second person must agree",
                requested_at_ms=command.requested_at_ms,
            )
        ]
    return [
        CaseClosed(
            **_next_fields(case, command),
            disposition=command.disposition,
            typology=command.typology,
            reason=command.reason,
            payments=standing_payments(case),
            closed_at_ms=command.requested_at_ms,
        )
    ]


def _decide_closing(case: Case, command: ApproveClosing | RefuseClosing | WithdrawClosing) -> EventsOrRejection:
    request = case.work.request
    if request is None:
        return Rejection("no_request", "nobody has asked for the closing of the case")
    is_own, at_ms = command.actor == request.actor, command.requested_at_ms
    if isinstance(command, WithdrawClosing):
        if not is_own:
            return Rejection(
                "second_person", f"only {request.actor}, who asked for the closing, can withdraw it: refuse it"
            )
        return [ClosingWithdrawn(**_next_fields(case, command), reason=command.reason, withdrawn_at_ms=at_ms)]
    if is_own:
        return Rejection("second_person", "you asked for the closing: a second person must approve or refuse it")
    if isinstance(command, RefuseClosing):
        return [
            ClosingRefused(
                **_next_fields(case, command), requested_by=request.actor, reason=command.reason, refused_at_ms=at_ms
            )
        ]  # fmt: skip
    assert request.disposition is not None
    return [
        CaseClosed(
            **_next_fields(case, command),
            disposition=request.disposition,
            typology=request.typology,
            reason=request.reason,
            payments=standing_payments(case),
            closed_at_ms=at_ms,
            requested_by=request.actor,
            approval_reason=command.reason,
        )
    ]


def _decide_reopening(
    state: AccountCases, case: Case, command: ReopenCase | ApproveReopening | RefuseReopening | WithdrawReopening
) -> EventsOrRejection:
    if case.work.merged_into is not None:
        return Rejection("not_closed", _not_open_reason(case))
    if case.is_open:
        return Rejection("not_closed", "the case is open")
    request, is_reopening = case.work.request, isinstance(command, ReopenCase | ApproveReopening)
    if is_reopening and case.typology in state.cases:
        other = state.cases[case.typology].case_id
        return Rejection(
            "in_the_way", f"case {other} of the same typology is open: work on that one, or close it first"
        )
    if isinstance(command, ReopenCase):
        if request is not None:
            return Rejection("requested", _pending_request_error(request, "reopening"))
        at_ms = command.requested_at_ms
        return [ReopeningRequested(**_next_fields(case, command), reason=command.reason, requested_at_ms=at_ms)]
    if request is None:
        return Rejection("no_request", "nobody has asked for the reopening of the case")
    return _answer_reopening_request(case, command, request)


def _answer_reopening_request(
    case: Case, command: ApproveReopening | RefuseReopening | WithdrawReopening, request: ApprovalRequest
) -> EventsOrRejection:
    is_own, at_ms = command.actor == request.actor, command.requested_at_ms
    if isinstance(command, WithdrawReopening):
        if not is_own:
            return Rejection(
                "second_person", f"only {request.actor}, who asked for the reopening, can withdraw it: refuse it"
            )
        return [ReopeningWithdrawn(**_next_fields(case, command), reason=command.reason, withdrawn_at_ms=at_ms)]
    if is_own:
        return Rejection("second_person", "you asked for the reopening: a second person must approve or refuse it")
    if isinstance(command, RefuseReopening):
        return [
            ReopeningRefused(
                **_next_fields(case, command), requested_by=request.actor, reason=command.reason, refused_at_ms=at_ms
            )
        ]  # fmt: skip
    return [
        CaseReopened(
            **_next_fields(case, command),
            requested_by=request.actor,
            reason=request.reason,
            approval_reason=command.reason,
            reopened_at_ms=at_ms,
        )
    ]


# -- merging ----------------------------------------------------------------------------------------------------


def _merge(state: AccountCases, case: Case, command: MergeCases) -> EventsOrRejection:
    if command.into_case_id == case.case_id:
        return Rejection("invalid", "a case cannot be merged into itself")
    if case.work.request is not None:
        return Rejection("requested", _pending_request_error(case.work.request, "closing"))
    merged = _case_merged(
        state.account_id, case, command, command.into_account_id, command.into_case_id, command.reason
    )
    if command.into_account_id != state.account_id:
        return [merged]  # the other account decides whether it can take the case: see the process worker
    into = state.case(command.into_case_id)
    obstacle = _merge_obstacle(into, merged)
    if into is None or obstacle:
        return Rejection("in_the_way", obstacle)
    return [merged, *_absorbing_events(state.account_id, into, command, merged, command.command_id)]


def _case_merged(
    account_id: str, case: Case, command: MergeCases | UndoMerge, into_account: str, into_case: str, reason: str
) -> CaseMerged:
    return CaseMerged(
        **_next_fields(case, command),
        into_account_id=into_account,
        into_case_id=into_case,
        reason=reason,
        is_escalated=case.escalated,
        standing=case.flags,
        amounts=amounts_of(case.value_minor),
        flags=merged_flags(account_id, case),
        merged_at_ms=command.requested_at_ms,
    )


def _merge_obstacle(into: Case | None, brought: CaseMerged | AbsorbCase) -> str:
    """Return the reason that keeps a case from absorbing another one, or an empty text if there is none."""
    if into is None:
        return "the account has no case of the id to merge into, or no longer remembers it"
    if not into.is_open:
        return f"the case to merge into is not open: {_not_open_reason(into)}"
    if len(into.work.absorbed) >= MAX_ABSORBED:
        return f"the case to merge into has {MAX_ABSORBED} cases merged into it, which is all that it may have"
    if count_remembered_flags(into) + len(brought.flags) > MAX_LINKED:
        return f"the two cases have more than {MAX_LINKED} flags together, which is all that one may have"
    return ""


def _absorbing_events(
    account_id: str,
    into: Case,
    command: MergeCases | AbsorbCase | UndoMerge,
    brought: CaseMerged | AbsorbCase,
    merge_id: str,
) -> list[CaseEvent]:
    """Return the events of the case that absorbs another one: CaseAbsorbed, and CaseEscalated if needed."""
    from_account = brought.from_account_id if isinstance(brought, AbsorbCase) else brought.account_id
    absorbed = CaseAbsorbed(
        **_next_fields(into, command),
        merge_id=merge_id,
        from_account_id=from_account,
        from_case_id=brought.from_case_id if isinstance(brought, AbsorbCase) else brought.case_id,
        standing=brought.standing,
        amounts=brought.amounts,
        flags=brought.flags,
        absorbed_at_ms=command.requested_at_ms,
    )
    into = case_after_event(into, absorbed)
    if into.escalated:
        return [absorbed]
    trigger, detail = ("merge", "the merged case was escalated") if brought.is_escalated else escalation_trigger(into)
    if not trigger:
        return [absorbed]
    cause, at_ms = absorbed.from_case_id, command.requested_at_ms
    return [absorbed, case_escalated(account_id, into, trigger, detail, cause, at_ms)]


def _unmerge(state: AccountCases, case: Case, command: UnmergeCase) -> EventsOrRejection:
    merged = case.work.merged_into
    if merged is None:
        return Rejection("not_merged", "the case is not merged into another")
    if case.typology in state.cases:
        other = state.cases[case.typology].case_id
        return Rejection("in_the_way", f"case {other} of the same typology is open: close or merge it first")
    unmerged = _case_unmerged(case, command, merged, command.reason)
    into = state.case(merged.case_id) if merged.account_id == state.account_id else None
    if into is None or case.case_id not in into.work.absorbed:
        return [unmerged]
    if not into.is_open:
        return Rejection("in_the_way", f"the case that it is merged into is not open: {_not_open_reason(into)}")
    return [unmerged, _case_parted(into, command, case.case_id)]


def _case_unmerged(case: Case, command: UnmergeCase | UndoMerge, merged: MergeTarget, reason: str) -> CaseUnmerged:
    return CaseUnmerged(
        **_next_fields(case, command),
        merge_id=merged.merge_id,
        into_account_id=merged.account_id,
        into_case_id=merged.case_id,
        reason=reason,
        unmerged_at_ms=command.requested_at_ms,
    )


def _case_parted(into: Case, command: UnmergeCase | PartCase, from_case_id: str) -> CaseParted:
    brought = into.work.absorbed[from_case_id]
    return CaseParted(
        **_next_fields(into, command),
        merge_id=brought.merge_id,
        from_account_id=brought.account_id,
        from_case_id=from_case_id,
        standing=brought.standing,
        amounts=amounts_of(brought.value_minor),
        flag_ids=tuple(brought.linked),
        transactions=tuple(flag.transaction_id for flag in brought.linked.values()),
        parted_at_ms=command.requested_at_ms,
    )


# -- links --------------------------------------------------------------------------------------------------------


def _link(state: AccountCases, case: Case, command: LinkCase | UnlinkCase) -> EventsOrRejection:
    other_id = command.other_case_id
    if other_id == case.case_id:
        return Rejection("invalid", "a case is not linked to itself")
    other = state.case(other_id) if command.other_account_id == state.account_id else None
    if isinstance(command, UnlinkCase):
        if case.work.links.get(other_id) != command.other_account_id:
            return Rejection("nothing_to_do", "the two cases are not linked")
        unlinked = [_case_unlinked(case, command, command.other_account_id, other_id, is_back=False)]
        if other is not None and case.case_id in other.work.links:
            unlinked.append(_case_unlinked(other, command, state.account_id, case.case_id, is_back=True))
        return [*unlinked]
    if other_id in case.work.links:
        return Rejection("nothing_to_do", "the two cases are linked already")
    if other is None and command.other_account_id == state.account_id:
        return Rejection("in_the_way", "the account has no case of the id to link to, or no longer remembers it")
    if max(len(each.work.links) for each in (case, other or case)) >= MAX_LINKS:
        return Rejection("limit", f"one of the two cases has {MAX_LINKS} links, which is all that it may have")
    linked = [_case_linked(case, command, command.other_account_id, other_id, is_back=False)]
    if other is not None and case.case_id not in other.work.links:
        linked.append(_case_linked(other, command, state.account_id, case.case_id, is_back=True))
    return [*linked]


def _case_linked(
    case: Case, command: LinkCase | LinkBack, account_id: str, case_id: str, *, is_back: bool
) -> CaseLinked:  # fmt: skip
    return CaseLinked(
        **_next_fields(case, command),
        other_account_id=account_id,
        other_case_id=case_id,
        reason=command.reason,
        is_back=is_back,
        linked_at_ms=command.requested_at_ms,
    )


def _case_unlinked(
    case: Case, command: UnlinkCase | UnlinkBack, account_id: str, case_id: str, *, is_back: bool
) -> CaseUnlinked:
    return CaseUnlinked(
        **_next_fields(case, command),
        other_account_id=account_id,
        other_case_id=case_id,
        reason=command.reason,
        is_back=is_back,
        unlinked_at_ms=command.requested_at_ms,
    )


# -- steps of acts that another account began ------------------------------------------------------------------------


def _decide_chain_command(
    state: AccountCases, case: Case, command: AbsorbCase | PartCase | UndoMerge | LinkBack | UnlinkBack
) -> EventsOrRejection:
    match command:
        case AbsorbCase():
            return _absorb(state, case, command)
        case PartCase():
            brought = case.work.absorbed.get(command.from_case_id)
            if brought is None or brought.merge_id != command.merge_id:
                return Rejection("nothing_to_do", "the other case is not merged into this one")
            return [_case_parted(case, command, command.from_case_id)]
        case UndoMerge():
            return _undo_merge(state, case, command)
        case LinkBack():
            if command.other_case_id in case.work.links:
                return Rejection("nothing_to_do", "the two cases are linked already")
            if len(case.work.links) >= MAX_LINKS:
                return Rejection("limit", f"the case has {MAX_LINKS} links, which is all that it may have")
            return [_case_linked(case, command, command.other_account_id, command.other_case_id, is_back=True)]
        case UnlinkBack():
            if command.other_case_id not in case.work.links:
                return Rejection("nothing_to_do", "the two cases are not linked")
            return [_case_unlinked(case, command, command.other_account_id, command.other_case_id, is_back=True)]
        case _:
            assert_never(command)


def _absorb(state: AccountCases, case: Case | None, command: AbsorbCase) -> list[CaseEvent]:
    obstacle = _merge_obstacle(case, command)
    if case is not None and not obstacle and command.from_case_id in case.work.absorbed:
        obstacle = "the other case is part of this one already"
    if case is not None and not obstacle:
        return _absorbing_events(state.account_id, case, command, command, command.merge_id)
    return [
        AbsorptionRefused(
            account_id=command.account_id,
            case_id=command.case_id,
            command_id=command.command_id,
            actor=command.actor,
            merge_id=command.merge_id,
            from_account_id=command.from_account_id,
            from_case_id=command.from_case_id,
            reason=obstacle,
            refused_at_ms=command.requested_at_ms,
        )
    ]


def _undo_merge(state: AccountCases, case: Case, command: UndoMerge) -> EventsOrRejection:
    """Undo a merge that the other account refused. Merge into a newer open case of the typology if there is one."""
    merged = case.work.merged_into
    if merged is None or merged.merge_id != command.merge_id:
        return Rejection("nothing_to_do", "the case is no longer merged into the other one")
    newer = state.cases.get(case.typology)
    if newer is None:
        return [_case_unmerged(case, command, merged, command.reason)]
    merged_again = _case_merged(state.account_id, case, command, state.account_id, newer.case_id, command.reason)
    obstacle = _merge_obstacle(newer, merged_again)
    if obstacle:
        return Rejection("in_the_way", f"{command.reason}; nor can case {newer.case_id} take it: {obstacle}")
    return [merged_again, *_absorbing_events(state.account_id, newer, command, merged_again, command.command_id)]


# -- parts ------------------------------------------------------------------------------------------------


def _next_fields(case: Case, command: Command) -> dict[str, Any]:
    """Return the fields that every next event of a case has: its place, its actor and its command."""
    return {
        "account_id": command.account_id,
        "case_id": case.case_id,
        "sequence": case.sequence + 1,
        "actor": command.actor,
        "command_id": command.command_id,
    }


def _command_rejected(case: Case | None, command: Command, rejection: Rejection) -> CommandRejected:
    rejected = CommandRejected(
        account_id=command.account_id,
        case_id=command.case_id,
        command_id=command.command_id,
        actor=command.actor,
        reason=rejection.reason,
        rejected_at_ms=command.requested_at_ms,
        command=type(command).__name__,
        code=rejection.code,
    )
    if (
        rejection.code != "stale"
        or case is None
        or isinstance(command, AbsorbCase | PartCase | UndoMerge | LinkBack | UnlinkBack)
    ):
        return rejected
    return replace(rejected, missed=_missed_events(case, command.seen_sequence))


def _missed_events(case: Case, seen: int) -> tuple[MissedEvent, ...]:
    first = case.sequence - len(case.recent) + 1
    return tuple(
        MissedEvent(sequence=first + number, kind=kind)
        for number, kind in enumerate(case.recent)
        if first + number > seen
    )
