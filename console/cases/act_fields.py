"""Catalogue of the fields that analysts give with an act: the same field is asked for in the same way everywhere.

A field has the name that it has in the commands of `domain.cases.commands`. Its type in the API is in
`console.web.act_bodies`. An act that only uses fields of this catalogue needs no line here.
"""

from dataclasses import dataclass
from typing import Any, Final

from domain.cases.events import DISPOSITIONS

REQUIRED: Final = object()
"""Default of a field that must be given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActField:
    """One field of a command: how a dialog and the command line ask for it."""

    control: str
    """Name of the form control in the dialogs of `case.html`. Two fields may share one."""
    option: str = ""
    """Option of `fraudcase case act`, without dashes; "" if the command line cannot give the field."""
    help: str = ""
    """Help text of the option."""
    default: Any = REQUIRED


FIELDS: Final[dict[str, ActField]] = {
    "assignee": ActField(control="assignee", option="assignee", help="user who is to work on the case"),
    "attachments": ActField(control="files", default=()),
    "disposition": ActField(
        control="disposition", option="disposition", help=f"outcome of the case: one of {', '.join(DISPOSITIONS)}"
    ),
    "into_account_id": ActField(control="other"),
    "into_case_id": ActField(control="other", option="other", help="id of the case to merge into"),
    "other_account_id": ActField(control="other"),
    "other_case_id": ActField(control="other", option="other", help="id of the other case"),
    "reason": ActField(control="reason", option="reason", help="reason, in words"),
    "text": ActField(control="text", option="text", help="text of the note"),
    "typology": ActField(
        control="typology", option="typology", help="typology found, if it differs from the case's", default=None
    ),
    "until_ms": ActField(control="until", option="until", help="wake-up time: ISO 8601, or UTC milliseconds"),
}
"""Every field, by its name in the commands."""
SNOOZE_CHOICES: Final = ((1, "1 hour"), (4, "4 hours"), (24, "1 day"), (72, "3 days"), (168, "1 week"))
"""Choices of the control `until`: hours from now, and their text."""
