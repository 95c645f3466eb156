"""Rows of the queue: the fields of a case that lists show, and the entities that the board finds it by."""

from typing import Any, Final, Literal, TypeAlias, get_args

from domain.cases.status import DONE_STATUSES
from projections.views.case_view import CaseView

EntityKind: TypeAlias = Literal["card", "device", "merchant", "terminal"]
ENTITY_KINDS: Final[tuple[EntityKind, ...]] = get_args(EntityKind)
"""Kinds of entities that cases can share."""
SHOWN: Final = (
    "case_id", "account_id", "typology", "status", "sequence", "opened_at_ms", "last_event_ms", "escalated",
    "escalation_trigger", "flags", "score_max", "value_minor", "assignee", "snoozed_until_ms", "sla_due_ms",
    "disposition", "notes", "attachments", "countries", "payment_methods",
)  # fmt: skip
"""Fields of CaseView that lists show."""


def is_done(view: CaseView) -> bool:
    """Return True if the case needs no more work: it is closed or merged."""
    return view.status in DONE_STATUSES


def row_of(view: CaseView) -> dict[str, Any]:
    """Return the fields of a case that lists show."""
    pending = view.pending["what"] if view.pending else None
    return {**{name: getattr(view, name) for name in SHOWN}, "pending": pending}


def entities_of(view: CaseView) -> list[tuple[EntityKind, str]]:
    """Return the kind and id of each card, device, merchant and terminal of the case."""
    ids = {"card": view.cards, "device": view.devices, "merchant": view.merchants, "terminal": view.terminals}
    return [(kind, value) for kind in ENTITY_KINDS for value in ids[kind]]
