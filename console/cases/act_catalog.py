"""Catalogue of analyst acts: one entry for each command that an analyst can give on a case.

These are made from ACTS: the HTTP routes of the API and the pages with their permissions, the buttons and dialogs of
a case, the keyboard shortcuts, the bulk actions of the queue, the undo of an answer, the timeline's words, and the
subcommands of `fraudcase case act`.

To add an act, write its command, its decision and its event in `domain/cases/`, their Avro schemas in
`schemas/avro/`, and one entry here. A field that no other command has also needs an entry in
`console.cases.act_fields` and a type in `console.web.act_bodies`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from console.cases.act_fields import FIELDS
from console.cases.board_row import is_done
from console.people.roles import Permission
from domain.cases import commands, events
from domain.cases.answers import FOUR_EYES_FROM_VALUE_MAJOR
from projections.views.case_view import CaseView

Condition = Callable[[CaseView, str], bool]
"""Predicate of a case and a user name: True if the user can do something with the act now."""
COMMON_FIELDS: Final = frozenset(commands.VersionedCommand.__struct_fields__)
"""Fields of every analyst command. The caller sets them; the analyst does not type them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActAnswer:
    """One event that answers an act: its confirmation, its words in the timeline, and its undo."""

    event: type[Any]
    message: str
    """Confirmation that the page shows, without a full stop."""
    undo: str = ""
    """Name of the act that takes the event back; "" if none does."""
    sentence: str = ""
    """Words of the timeline after the actor's name; "" if `console.web.pages.timeline` composes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalystAct:
    """One act: its command, its permission, and how pages and the command line offer it."""

    name: str
    """Last part of its routes, and its subcommand of `fraudcase case act`."""
    command: type[Any]
    summary: str
    """One sentence for the API description and the CLI help."""
    permission: Permission
    answers: tuple[ActAnswer, ...]
    is_offered: Condition
    label: str
    """Text of the button."""
    key: str = ""
    """Keyboard shortcut on the page of a case; "" for none."""
    look: str = ""
    """CSS class of the button."""
    hint: str = ""
    """Sentence below the title of the dialog."""
    submit_label: str = ""
    """Text of the dialog's button; "" for the label."""
    bulk_label: str = ""
    """Text in the queue's list of bulk actions; "" if the act is not a bulk action."""
    concerns_linked_case: bool = False
    """The dialog offers only the linked cases instead of any case."""
    is_direct_command: bool = False
    """The act is also a subcommand of `fraudcase case`."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Return the names of the fields that the analyst gives, in the order of the command."""
        return tuple(name for name in self.command.__struct_fields__ if name not in COMMON_FIELDS)

    @property
    def controls(self) -> tuple[str, ...]:
        """Return the names of the dialog's controls, each once; empty if a button is enough."""
        names = dict.fromkeys(FIELDS[name].control for name in self.fields)
        return tuple("linked" if name == "other" and self.concerns_linked_case else name for name in names)


# -- conditions -----------------------------------------------------------------------------------------


def _is_open(view: CaseView, _: str) -> bool:
    return not is_done(view)


def _is_not_merged(view: CaseView, _: str) -> bool:
    return view.status != "merged"


def _is_open_without_request(view: CaseView, _: str) -> bool:
    return not is_done(view) and view.pending is None


def _other_requested(what: str) -> Condition:
    return lambda view, name: view.pending is not None and view.pending["what"] == what and view.pending["by"] != name


def _self_requested(what: str) -> Condition:
    return lambda view, name: view.pending is not None and view.pending["what"] == what and view.pending["by"] == name


# -- the catalogue --------------------------------------------------------------------------------------

_WORK, _LEAD = Permission.WORK_CASES, Permission.LEAD_CASES
_ASSIGNED: Final = ActAnswer(event=events.CaseAssigned, message="Assigned", undo="release")
_CLOSED: Final = ActAnswer(event=events.CaseClosed, message="Closed")
_ENTRIES: Final = (
    AnalystAct(
        name="take",
        command=commands.TakeCase,
        summary="Take a case that nobody works on.",
        permission=_WORK,
        answers=(_ASSIGNED,),
        is_offered=lambda view, _: not is_done(view) and view.assignee is None,
        label="Take",
        key="t",
        look="primary",
        bulk_label="Take",
    ),
    AnalystAct(
        name="approve-closing",
        command=commands.ApproveClosing,
        summary="Approve the closing that another person requested.",
        permission=_WORK,
        answers=(_CLOSED,),
        is_offered=_other_requested("closing"),
        label="Approve closing",
        key="y",
        look="primary",
        hint="You agree with the requested closing.",
    ),
    AnalystAct(
        name="refuse-closing",
        command=commands.RefuseClosing,
        summary="Refuse the closing that another person requested.",
        permission=_WORK,
        answers=(ActAnswer(event=events.ClosingRefused, message="Closing refused"),),
        is_offered=_other_requested("closing"),
        label="Refuse closing",
        key="x",
        hint="The case stays open.",
    ),
    AnalystAct(
        name="withdraw-closing",
        command=commands.WithdrawClosing,
        summary="Withdraw your own request to close a case.",
        permission=_WORK,
        answers=(
            ActAnswer(
                event=events.ClosingWithdrawn,
                message="Closing withdrawn",
                sentence="withdrew the request to close the case",
            ),
        ),
        is_offered=_self_requested("closing"),
        label="Withdraw closing",
        key="w",
        hint="You withdraw your request to close the case.",
    ),
    AnalystAct(
        name="approve-reopening",
        command=commands.ApproveReopening,
        summary="Approve the reopening that another person requested.",
        permission=_WORK,
        answers=(ActAnswer(event=events.CaseReopened, message="Reopened"),),
        is_offered=_other_requested("reopening"),
        label="Approve reopening",
        key="y",
        look="primary",
        hint="The case is open again.",
    ),
    AnalystAct(
        name="refuse-reopening",
        command=commands.RefuseReopening,
        summary="Refuse the reopening that another person requested.",
        permission=_WORK,
        answers=(ActAnswer(event=events.ReopeningRefused, message="Reopening refused"),),
        is_offered=_other_requested("reopening"),
        label="Refuse reopening",
        key="x",
        hint="The case stays closed.",
    ),
    AnalystAct(
        name="withdraw-reopening",
        command=commands.WithdrawReopening,
        summary="Withdraw your own request to reopen a case.",
        permission=_WORK,
        answers=(
            ActAnswer(
                event=events.ReopeningWithdrawn,
                message="Reopening withdrawn",
                sentence="withdrew the request to reopen the case",
            ),
        ),
        is_offered=_self_requested("reopening"),
        label="Withdraw reopening",
        key="w",
        hint="You withdraw your request to reopen the case.",
    ),
    AnalystAct(
        name="note",
        command=commands.AddNote,
        summary="Add a note to a case, with files that were uploaded to the case before.",
        permission=_WORK,
        answers=(ActAnswer(event=events.NoteAdded, message="Note added"),),
        is_offered=_is_not_merged,
        label="Note",
        key="n",
        submit_label="Add note",
    ),
    AnalystAct(
        name="escalate",
        command=commands.EscalateCase,
        summary="Escalate a case.",
        permission=_WORK,
        answers=(ActAnswer(event=events.CaseEscalated, message="Escalated"),),
        is_offered=lambda view, _: not is_done(view) and not view.escalated,
        label="Escalate",
        key="e",
        hint="The case needs the attention of others.",
        bulk_label="Escalate",
        is_direct_command=True,
    ),
    AnalystAct(
        name="snooze",
        command=commands.SnoozeCase,
        summary="Set a case aside until a time; a new flag wakes it earlier.",
        permission=_WORK,
        answers=(ActAnswer(event=events.CaseSnoozed, message="Snoozed", undo="wake"),),
        is_offered=lambda view, name: _is_open_without_request(view, name) and view.snoozed_until_ms is None,
        label="Snooze",
        key="s",
        hint="The case is set aside until then. A new flag wakes it earlier.",
        bulk_label="Snooze",
    ),
    AnalystAct(
        name="wake",
        command=commands.WakeCase,
        summary="Wake a snoozed case.",
        permission=_WORK,
        answers=(ActAnswer(event=events.CaseWoken, message="Awake"),),
        is_offered=lambda view, _: view.status == "snoozed",
        label="Wake",
        key="s",
    ),
    AnalystAct(
        name="close",
        command=commands.CloseCase,
        summary="Close a case with its outcome; closing it as confirmed fraud labels each of its payments.",
        permission=_WORK,
        answers=(
            _CLOSED,
            ActAnswer(
                event=events.ClosingRequested,
                message="A second person must approve the closing",
                undo="withdraw-closing",
            ),
        ),
        is_offered=_is_open_without_request,
        label="Close",
        key="c",
        hint=f"From {FOUR_EYES_FROM_VALUE_MAJOR:,} flagged in one currency a second person must agree.",
        submit_label="Close the case",
        is_direct_command=True,
    ),
    AnalystAct(
        name="reopen",
        command=commands.ReopenCase,
        summary="Request the reopening of a closed case; a second person must approve it.",
        permission=_WORK,
        answers=(
            ActAnswer(
                event=events.ReopeningRequested,
                message="A second person must approve the reopening",
                undo="withdraw-reopening",
            ),
        ),
        is_offered=lambda view, _: view.status == "closed" and view.pending is None,
        label="Reopen",
        key="o",
        look="primary",
        hint="A second person must agree.",
    ),
    AnalystAct(
        name="release",
        command=commands.ReleaseCase,
        summary="Release a case, so that nobody works on it.",
        permission=_WORK,
        answers=(ActAnswer(event=events.CaseReleased, message="Released", sentence="released the case"),),
        is_offered=lambda view, _: not is_done(view) and view.assignee is not None,
        label="Release",
        key="r",
        bulk_label="Release",
    ),
    AnalystAct(
        name="assign",
        command=commands.AssignCase,
        summary="Assign a case to a user.",
        permission=_LEAD,
        answers=(_ASSIGNED,),
        is_offered=_is_open,
        label="Assign",
        key="a",
        bulk_label="Assign to",
    ),
    AnalystAct(
        name="link",
        command=commands.LinkCase,
        summary="Link a case to another case; both show the link.",
        permission=_WORK,
        answers=(ActAnswer(event=events.CaseLinked, message="Linked", undo="unlink"),),
        is_offered=_is_not_merged,
        label="Link",
        key="l",
        hint="Both cases will show the link.",
    ),
    AnalystAct(
        name="unlink",
        command=commands.UnlinkCase,
        summary="Remove the link between two cases.",
        permission=_WORK,
        answers=(ActAnswer(event=events.CaseUnlinked, message="Unlinked"),),
        is_offered=lambda view, _: bool(view.links),
        label="Unlink",
        concerns_linked_case=True,
    ),
    AnalystAct(
        name="merge",
        command=commands.MergeCases,
        summary="Merge a case into another case.",
        permission=_LEAD,
        answers=(ActAnswer(event=events.CaseMerged, message="Merged", undo="unmerge"),),
        is_offered=_is_open_without_request,
        label="Merge",
        key="m",
        hint="This case becomes part of the other one.",
    ),
    AnalystAct(
        name="unmerge",
        command=commands.UnmergeCase,
        summary="Undo the merge of a case.",
        permission=_LEAD,
        answers=(
            ActAnswer(event=events.CaseUnmerged, message="Separate again", sentence="made it a separate case again"),
        ),
        is_offered=lambda view, _: view.status == "merged",
        label="Unmerge",
        key="m",
        hint="The case becomes a separate case again.",
    ),
)
"""In the order of the buttons."""
ACTS: Final[dict[str, AnalystAct]] = {act.name: act for act in _ENTRIES}
"""Every act by its name, in the order of the buttons."""


def answers_by_event() -> dict[str, ActAnswer]:
    """Return the answers of all acts, by the name of their event."""
    return {answer.event.__name__: answer for act in ACTS.values() for answer in act.answers}
