"""What somebody can do to a case as it stands: the buttons of its page, their keys, and what undoes them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from console.cases.board_row import is_done
from console.people.accounts import Person
from console.web.route_permissions import ROUTES
from projections.views.case_view import CaseView

ActionTest = Callable[[CaseView, str], bool]
"""Whether it makes sense for a case as it stands, and for somebody of this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseAction:
    """One command as a button; with `fields` it opens a dialog that asks for them."""

    slug: str
    label: str
    key: str
    fits: ActionTest
    fields: tuple[str, ...] = ()
    look: str = ""
    hint: str = ""


def _is_open(view: CaseView, _: str) -> bool:
    return not is_done(view)


def _waits_for(what: str, view: CaseView) -> bool:
    return view.pending is not None and view.pending["what"] == what


def _fits_another(what: str) -> ActionTest:
    return lambda view, name: _waits_for(what, view) and view.pending is not None and view.pending["by"] != name


def _fits_asker(what: str) -> ActionTest:
    return lambda view, name: _waits_for(what, view) and view.pending is not None and view.pending["by"] == name


ACTIONS: Final = (
    CaseAction(slug="take", label="Take", key="t", look="primary",
           fits=lambda view, name: _is_open(view, name) and view.assignee is None),
    CaseAction(slug="approve-closing", label="Approve closing", key="y", look="primary", fields=("reason",),
           fits=_fits_another("closing"), hint="You agree with the closing that was asked for."),
    CaseAction(slug="refuse-closing", label="Refuse closing", key="x", fields=("reason",),
           fits=_fits_another("closing"),
           hint="The case stays open."),
    CaseAction(slug="withdraw-closing", label="Withdraw closing", key="w", fields=("reason",),
           fits=_fits_asker("closing"),
           hint="You no longer ask for the closing."),
    CaseAction(slug="approve-reopening", label="Approve reopening", key="y", look="primary", fields=("reason",),
           fits=_fits_another("reopening"), hint="The case is worked on again."),
    CaseAction(slug="refuse-reopening", label="Refuse reopening", key="x", fields=("reason",),
           fits=_fits_another("reopening"),
           hint="The case stays closed."),
    CaseAction(slug="withdraw-reopening", label="Withdraw reopening", key="w", fields=("reason",),
           fits=_fits_asker("reopening"), hint="You no longer ask for the reopening."),
    CaseAction(slug="note", label="Note", key="n", fields=("text", "files"),
           fits=lambda view, _: view.status != "merged"),
    CaseAction(slug="escalate", label="Escalate", key="e", fields=("reason",),
           fits=lambda view, name: _is_open(view, name) and not view.escalated, hint="More eyes are needed."),
    CaseAction(slug="snooze", label="Snooze", key="s", fields=("until", "reason"),
           fits=lambda view, name: _is_open(view, name) and view.snoozed_until_ms is None and view.pending is None,
           hint="Nothing is to be done until then; a new flag ends it."),
    CaseAction(slug="wake", label="Wake", key="s", fits=lambda view, _: view.status == "snoozed"),
    CaseAction(slug="close", label="Close", key="c", fields=("disposition", "typology", "reason"),
           fits=lambda view, name: _is_open(view, name) and view.pending is None,
           hint="From 5,000 flagged in one currency a second person must agree."),
    CaseAction(slug="reopen", label="Reopen", key="o", fields=("reason",), look="primary",
           fits=lambda view, _: view.status == "closed" and view.pending is None,
           hint="A second person must agree."),
    CaseAction(slug="release", label="Release", key="r",
           fits=lambda view, name: _is_open(view, name) and view.assignee is not None),
    CaseAction(slug="assign", label="Assign", key="a", fields=("assignee",), fits=_is_open),
    CaseAction(slug="link", label="Link", key="l", fields=("other", "reason"),
           fits=lambda view, _: view.status != "merged",
           hint="Both cases will say so."),
    CaseAction(slug="unlink", label="Unlink", key="", fields=("linked", "reason"),
           fits=lambda view, _: bool(view.links)),
    CaseAction(slug="merge", label="Merge", key="m", fields=("other", "reason"),
           fits=lambda view, name: _is_open(view, name) and view.pending is None,
           hint="This case becomes part of the other one."),
    CaseAction(slug="unmerge", label="Unmerge", key="m", fields=("reason",),
           fits=lambda view, _: view.status == "merged",
           hint="The case stands for itself again."),
)  # fmt: skip
"""In the order of the buttons."""
UNDO_COMMANDS: Final[dict[str, str]] = {
    "CaseAssigned": "release", "CaseSnoozed": "wake", "ClosingRequested": "withdraw-closing",
    "ReopeningRequested": "withdraw-reopening", "CaseMerged": "unmerge", "CaseLinked": "unlink",
}  # fmt: skip
"""What takes back what an event says, right after it."""
ANSWER_TEXTS: Final[dict[str, str]] = {
    "CaseAssigned": "Assigned", "CaseReleased": "Released", "NoteAdded": "Note added", "CaseEscalated": "Escalated",
    "CaseSnoozed": "Snoozed", "CaseWoken": "Awake", "ClosingRequested": "A second person must approve the closing",
    "ClosingRefused": "Closing refused", "ClosingWithdrawn": "Closing withdrawn", "CaseClosed": "Closed",
    "ReopeningRequested": "A second person must approve the reopening", "ReopeningRefused": "Reopening refused",
    "ReopeningWithdrawn": "Reopening withdrawn", "CaseReopened": "Reopened", "CaseMerged": "Merged",
    "CaseUnmerged": "Stands for itself again", "CaseLinked": "Linked", "CaseUnlinked": "Unlinked",
}  # fmt: skip
UNDO_REASON: Final = "undone right away"


def is_permitted(person: Person, slug: str) -> bool:
    """Whether a role of theirs allows the command."""
    return person.may(ROUTES[f"POST /cases/{{case_id}}/{slug}"])


def actions_for(view: CaseView, person: Person) -> list[CaseAction]:
    """The buttons for somebody on a case as it stands."""
    return [action for action in ACTIONS if action.fits(view, person.name) and is_permitted(person, action.slug)]


def undo_of(said: Mapping[str, Any]) -> dict[str, Any] | None:
    """What to send to take an answer back: the command and its fields; None where nothing does."""
    slug = UNDO_COMMANDS.get(said["answer"])
    if slug is None:
        return None
    fields = {"other": said["event"].get("other_case_id"), "reason": UNDO_REASON}
    wanted = {"release": (), "wake": (), "unlink": ("other", "reason")}.get(slug, ("reason",))
    return {"slug": slug, "fields": {"seen_sequence": said["sequence"], **{name: fields[name] for name in wanted}}}
