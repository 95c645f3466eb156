"""What a queue shows of a case, and what the board finds it by."""

from typing import Any, Final

from projections.views.case_view import CaseView

DONE: Final = frozenset({"closed", "merged"})
"""The statuses of cases that nobody has to do anything about."""
SHOWN: Final = (
    "case_id", "account_id", "typology", "status", "sequence", "opened_at_ms", "last_event_ms", "escalated",
    "escalation_trigger", "flags", "score_max", "value_minor", "assignee", "snoozed_until_ms", "sla_due_ms",
    "disposition", "notes", "attachments", "countries", "payment_methods",
)  # fmt: skip


def is_done(view: CaseView) -> bool:
    """Whether nobody has to do anything about it."""
    return view.status in DONE


def row_of(view: CaseView) -> dict[str, Any]:
    """The case in a list."""
    pending = view.pending["what"] if view.pending else None
    return {**{name: getattr(view, name) for name in SHOWN}, "pending": pending}


def entities_of(view: CaseView) -> list[tuple[str, str]]:
    """The cards, devices, merchants and terminals that the case has to do with."""
    kinds = (("card", view.cards), ("device", view.devices), ("merchant", view.merchants), ("terminal", view.terminals))
    return [(kind, value) for kind, values in kinds for value in values]
