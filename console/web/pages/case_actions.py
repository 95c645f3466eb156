"""Acts that a person can do on a case now: the buttons of its page, the confirmation of an answer, and its undo."""

from collections.abc import Mapping
from typing import Any, Final

from console.cases.act_catalog import ACTS, AnalystAct, answers_by_event
from console.people.accounts import Person
from projections.views.case_view import CaseView

ANSWERS: Final = answers_by_event()
UNDO_REASON: Final = "undone right away"


def actions_for(view: CaseView, person: Person) -> list[AnalystAct]:
    """Return the acts that the person may do on the case now, in the order of the buttons."""
    return [act for act in ACTS.values() if act.is_offered(view, person.name) and person.may(act.permission)]


def confirmation_of(event_name: str) -> str:
    """Return the message that confirms an act, by the name of the event that answered it."""
    return ANSWERS[event_name].message if event_name in ANSWERS else "Done"


def undo_of(answer: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the act that takes an answer back, with its form fields, or None if no act does."""
    undo = ANSWERS[answer["answer"]].undo if answer["answer"] in ANSWERS else ""
    if not undo:
        return None
    given = {"linked": ("other", answer["event"].get("other_case_id")), "reason": ("reason", UNDO_REASON)}
    fields = dict(given[control] for control in ACTS[undo].controls)
    return {"slug": undo, "fields": {"seen_sequence": answer["sequence"], **fields}}
