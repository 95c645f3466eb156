"""Request bodies of analyst acts: one model for each act, made from the fields of its command."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Final

from pydantic import Field, create_model

from console.cases.act_catalog import ACTS, AnalystAct
from console.cases.act_fields import FIELDS, REQUIRED
from console.web.inputs import CaseId, Note, PersonName, Reason, RequestBody, Sha256, TimeMs, Token, Word
from domain.cases.answers import MAX_NOTE_ATTACHMENTS
from domain.cases.commands import AnalystCommand, Attachment
from domain.cases.events import Disposition

FIELD_TYPES: Final[dict[str, Any]] = {
    "assignee": PersonName,
    "attachments": Annotated[list[Sha256], Field(max_length=MAX_NOTE_ATTACHMENTS)],
    "disposition": Disposition,
    "into_account_id": Token,
    "into_case_id": CaseId,
    "other_account_id": Token,
    "other_case_id": CaseId,
    "reason": Reason,
    "text": Note,
    "typology": Word | None,
    "until_ms": TimeMs,
}
"""Type of each field of `console.cases.act_fields` in the API. Attachments are the digests of uploaded files."""


def _body_model(act: AnalystAct) -> type[RequestBody]:
    fields: dict[str, Any] = {}
    for name in act.fields:
        default = FIELDS[name].default
        if default is REQUIRED:
            fields[name] = (FIELD_TYPES[name], ...)
        elif isinstance(default, tuple):
            fields[name] = (FIELD_TYPES[name], Field(default_factory=list))
        else:
            fields[name] = (FIELD_TYPES[name], default)
    model: type[RequestBody] = create_model(
        f"{act.command.__name__}Body", __base__=RequestBody, __doc__=act.summary, **fields
    )
    return model


BODIES: Final[dict[str, type[RequestBody]]] = {name: _body_model(act) for name, act in ACTS.items()}
"""Body of each act, by the name of the act."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandContext:
    """Fields of a command that the analyst does not type: the case, its version, the actor and the time."""

    account_id: str
    case_id: str
    command_id: str
    actor: str
    seen_sequence: int
    requested_at_ms: int


def build_command(
    act: AnalystAct, body: RequestBody, context: CommandContext, attachments: tuple[Attachment, ...] = ()
) -> AnalystCommand:
    """Return the command for an act. `attachments` are the files that the body names by digest."""
    fields = body.model_dump()
    if "attachments" in fields:
        fields["attachments"] = attachments
    command: AnalystCommand = act.command(**fields, **asdict(context))
    return command
