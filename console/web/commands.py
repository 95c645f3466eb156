"""Commands as the API takes them: one body for each, all of it bounded, and what becomes of it in the log."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from console.web.inputs import CaseId, Note, PersonName, Reason, RequestBody, Sha256, Token, Word
from domain.cases import commands as case_commands
from domain.cases.commands import AnalystCommand, Attachment
from domain.payment import LAST_EVENT_TIME_MS

MAX_ATTACHMENTS: Final = 10
"""The end of the year 9999."""
Disposition = Literal["confirmed_fraud", "false_positive", "inconclusive"]


class EmptyBody(RequestBody):
    """No more is needed."""


class ReasonBody(RequestBody):
    """Why it is to be done."""

    reason: Reason


class AssigneeBody(RequestBody):
    """Who is to work on the case."""

    assignee: PersonName


class NoteBody(RequestBody):
    """Words, and files that were uploaded to the case before, by digest."""

    text: Note
    attachments: Annotated[list[Sha256], Field(max_length=MAX_ATTACHMENTS, default_factory=list)]


class SnoozeBody(ReasonBody):
    """Until when nothing is to be done."""

    until_ms: Annotated[int, Field(ge=0, le=LAST_EVENT_TIME_MS)]


class ClosingBody(ReasonBody):
    """What the case turned out to be; `typology` where it is another than it was opened for."""

    disposition: Disposition
    typology: Word | None = None


class MergeBody(ReasonBody):
    """The case that it becomes part of."""

    into_account_id: Token
    into_case_id: CaseId


class LinkBody(ReasonBody):
    """The case that it has to do with."""

    other_account_id: Token
    other_case_id: CaseId


Body = EmptyBody | ReasonBody | AssigneeBody | NoteBody | SnoozeBody | ClosingBody | MergeBody | LinkBody


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandKind:
    """One command: what its route says, what it takes, and what it is in the log."""

    slug: str
    name: str
    body: type[RequestBody]
    command: Callable[..., AnalystCommand]
    summary: str


def _kind(slug: str, body: type[RequestBody], command: type[Any]) -> CommandKind:
    return CommandKind(
        slug=slug, name=command.__name__, body=body, command=command, summary=str(command.__doc__).partition("\n")[0]
    )


KINDS: Final[dict[str, CommandKind]] = {
    kind.slug: kind
    for kind in (
        _kind("take", EmptyBody, case_commands.TakeCase),
        _kind("release", EmptyBody, case_commands.ReleaseCase),
        _kind("assign", AssigneeBody, case_commands.AssignCase),
        _kind("note", NoteBody, case_commands.AddNote),
        _kind("escalate", ReasonBody, case_commands.EscalateCase),
        _kind("snooze", SnoozeBody, case_commands.SnoozeCase),
        _kind("wake", EmptyBody, case_commands.WakeCase),
        _kind("close", ClosingBody, case_commands.CloseCase),
        _kind("approve-closing", ReasonBody, case_commands.ApproveClosing),
        _kind("refuse-closing", ReasonBody, case_commands.RefuseClosing),
        _kind("withdraw-closing", ReasonBody, case_commands.WithdrawClosing),
        _kind("reopen", ReasonBody, case_commands.ReopenCase),
        _kind("approve-reopening", ReasonBody, case_commands.ApproveReopening),
        _kind("refuse-reopening", ReasonBody, case_commands.RefuseReopening),
        _kind("withdraw-reopening", ReasonBody, case_commands.WithdrawReopening),
        _kind("merge", MergeBody, case_commands.MergeCases),
        _kind("unmerge", ReasonBody, case_commands.UnmergeCase),
        _kind("link", LinkBody, case_commands.LinkCase),
        _kind("unlink", LinkBody, case_commands.UnlinkCase),
    )
}
"""Every analyst's command, by its place in the URL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandContext:
    """Who asks for it, of which case, at which version, when."""

    account_id: str
    case_id: str
    command_id: str
    actor: str
    seen_sequence: int
    requested_at_ms: int


def command_of(
    kind: CommandKind, body: RequestBody, order: CommandContext, attachments: tuple[Attachment, ...] = ()
) -> AnalystCommand:
    """The command as it enters the log."""
    fields = body.model_dump()
    if "attachments" in fields:
        fields["attachments"] = attachments
    return kind.command(
        **fields,
        account_id=order.account_id,
        case_id=order.case_id,
        command_id=order.command_id,
        actor=order.actor,
        seen_sequence=order.seen_sequence,
        requested_at_ms=order.requested_at_ms,
    )
