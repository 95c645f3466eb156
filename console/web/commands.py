"""Commands as the API takes them: one body for each, all of it bounded, and what becomes of it in the log."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from console.web.inputs import Asked, CaseId, Note, PersonName, Reason, Sha256, Token, Word
from domain.cases import commands as case_commands
from domain.cases.commands import AnalystCommand, Attachment
from domain.payment import LAST_EVENT_TIME_MS

MAX_ATTACHMENTS: Final = 10
"""The end of the year 9999."""
Disposition = Literal["confirmed_fraud", "false_positive", "inconclusive"]


class Nothing(Asked):
    """No more is needed."""


class Why(Asked):
    """Why it is to be done."""

    reason: Reason


class To(Asked):
    """Who is to work on the case."""

    assignee: PersonName


class Noted(Asked):
    """Words, and files that were uploaded to the case before, by digest."""

    text: Note
    attachments: Annotated[list[Sha256], Field(max_length=MAX_ATTACHMENTS, default_factory=list)]


class Until(Why):
    """Until when nothing is to be done."""

    until_ms: Annotated[int, Field(ge=0, le=LAST_EVENT_TIME_MS)]


class Closing(Why):
    """What the case turned out to be; `typology` where it is another than it was opened for."""

    disposition: Disposition
    typology: Word | None = None


class Into(Why):
    """The case that it becomes part of."""

    into_account_id: Token
    into_case_id: CaseId


class Other(Why):
    """The case that it has to do with."""

    other_account_id: Token
    other_case_id: CaseId


Body = Nothing | Why | To | Noted | Until | Closing | Into | Other


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One command: what its route says, what it takes, and what it is in the log."""

    slug: str
    name: str
    body: type[Asked]
    command: Callable[..., AnalystCommand]
    summary: str


def _kind(slug: str, body: type[Asked], command: type[Any]) -> Kind:
    return Kind(
        slug=slug, name=command.__name__, body=body, command=command, summary=str(command.__doc__).partition("\n")[0]
    )


KINDS: Final[dict[str, Kind]] = {
    kind.slug: kind
    for kind in (
        _kind("take", Nothing, case_commands.TakeCase),
        _kind("release", Nothing, case_commands.ReleaseCase),
        _kind("assign", To, case_commands.AssignCase),
        _kind("note", Noted, case_commands.AddNote),
        _kind("escalate", Why, case_commands.EscalateCase),
        _kind("snooze", Until, case_commands.SnoozeCase),
        _kind("wake", Nothing, case_commands.WakeCase),
        _kind("close", Closing, case_commands.CloseCase),
        _kind("approve-closing", Why, case_commands.ApproveClosing),
        _kind("refuse-closing", Why, case_commands.RefuseClosing),
        _kind("withdraw-closing", Why, case_commands.WithdrawClosing),
        _kind("reopen", Why, case_commands.ReopenCase),
        _kind("approve-reopening", Why, case_commands.ApproveReopening),
        _kind("refuse-reopening", Why, case_commands.RefuseReopening),
        _kind("withdraw-reopening", Why, case_commands.WithdrawReopening),
        _kind("merge", Into, case_commands.MergeCases),
        _kind("unmerge", Why, case_commands.UnmergeCase),
        _kind("link", Other, case_commands.LinkCase),
        _kind("unlink", Other, case_commands.UnlinkCase),
    )
}
"""Every analyst's command, by its place in the URL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Who asks for it, of which case, at which version, when."""

    account_id: str
    case_id: str
    command_id: str
    actor: str
    seen_sequence: int
    requested_at_ms: int


def command_of(kind: Kind, body: Asked, order: Order, attachments: tuple[Attachment, ...] = ()) -> AnalystCommand:
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
