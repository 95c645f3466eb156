"""Next step of an act that spans two accounts: an event in one account's log results in a command for the other
account.

Each account decides in its own log, and the process worker carries the steps across (docs/decisions/0001). Every id
derives from its cause, so that a step that is written twice is answered once.
"""

from typing import assert_never
from uuid import UUID, uuid5

from domain.cases.commands import AbsorbCase, ChainCommand, LinkBack, PartCase, UndoMerge, UnlinkBack
from domain.cases.events import AbsorptionRefused, CaseEvent, CaseLinked, CaseMerged, CaseUnlinked, CaseUnmerged

CHAINS = UUID("c1a7b5de-54a0-5c55-8d0b-6f4c52a7e013")


def chain_id(step: str, cause_id: str) -> str:
    """Return the id of a step, derived from the command that caused it."""
    return str(uuid5(CHAINS, f"{step}\x1f{cause_id}"))


def next_steps(event: CaseEvent) -> list[ChainCommand]:
    """Return the commands that an event results in for another account; most events result in none."""
    match event:
        case CaseMerged():
            return _absorb_command(event) if event.into_account_id != event.account_id else []
        case CaseUnmerged():
            is_undone = event.command_id == chain_id("UndoMerge", event.merge_id)  # the other case never took it
            return [] if is_undone or event.into_account_id == event.account_id else _part_command(event)
        case AbsorptionRefused():
            return _undo_command(event)
        case CaseLinked() | CaseUnlinked():
            return [] if event.is_back or event.other_account_id == event.account_id else _back_command(event)
        case _:
            return []


def _absorb_command(event: CaseMerged) -> list[ChainCommand]:
    return [
        AbsorbCase(
            account_id=event.into_account_id,
            case_id=event.into_case_id,
            command_id=chain_id("AbsorbCase", event.command_id),
            actor=event.actor,
            requested_at_ms=event.merged_at_ms,
            merge_id=event.command_id,
            from_account_id=event.account_id,
            from_case_id=event.case_id,
            is_escalated=event.is_escalated,
            standing=event.standing,
            amounts=event.amounts,
            flags=event.flags,
        )
    ]


def _part_command(event: CaseUnmerged) -> list[ChainCommand]:
    return [
        PartCase(
            account_id=event.into_account_id,
            case_id=event.into_case_id,
            command_id=chain_id("PartCase", event.command_id),
            actor=event.actor,
            requested_at_ms=event.unmerged_at_ms,
            merge_id=event.merge_id,
            from_account_id=event.account_id,
            from_case_id=event.case_id,
        )
    ]


def _undo_command(event: AbsorptionRefused) -> list[ChainCommand]:
    return [
        UndoMerge(
            account_id=event.from_account_id,
            case_id=event.from_case_id,
            command_id=chain_id("UndoMerge", event.merge_id),
            actor=event.actor,
            requested_at_ms=event.refused_at_ms,
            merge_id=event.merge_id,
            reason=event.reason,
        )
    ]


def _back_command(event: CaseLinked | CaseUnlinked) -> list[ChainCommand]:
    match event:
        case CaseLinked():
            kind: type[LinkBack | UnlinkBack] = LinkBack
            at_ms = event.linked_at_ms
        case CaseUnlinked():
            kind, at_ms = UnlinkBack, event.unlinked_at_ms
        case _:
            assert_never(event)
    return [
        kind(
            account_id=event.other_account_id,
            case_id=event.other_case_id,
            command_id=chain_id(kind.__name__, event.command_id),
            actor=event.actor,
            requested_at_ms=at_ms,
            other_account_id=event.account_id,
            other_case_id=event.case_id,
            reason=event.reason,
        )
    ]
