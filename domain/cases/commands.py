"""What is asked of a case: by analysts, and by the process worker where a step spans two accounts.

An analyst's command names the version of the case on their screen, and is answered by the event of that case that
bears its id, or by CommandRejected. The worker's commands name no version: they carry on what was decided elsewhere,
and their ids derive from its cause.
"""

from typing import TypeAlias

from domain.record import Record


class Attachment(Record, frozen=True, kw_only=True):
    """A file that lies in the object store: never in the log, which has its digest."""

    file_name: str
    size: int
    media_type: str
    sha256: str
    storage_key: str


class MergedFlag(Record, frozen=True, kw_only=True):
    """A flag that a merged case hands over, with its payment; a score of 0 where it no longer stands."""

    flag_id: str
    score: int
    account_id: str
    transaction_id: str
    content_digest: str
    event_time: int
    merchant_id: str
    terminal_id: str | None
    device_id: str | None
    card_id: str | None


class Amount(Record, frozen=True, kw_only=True):
    """An amount in minor units."""

    currency: str
    amount_minor: int


class CaseCommand(Record, frozen=True, kw_only=True):
    """What every command says."""

    account_id: str
    case_id: str
    command_id: str
    actor: str
    requested_at_ms: int


class VersionedCommand(CaseCommand, frozen=True, kw_only=True):
    """What every analyst's command says: also the version of the case on their screen."""

    seen_sequence: int


# -- an analyst's -----------------------------------------------------------------------------------


class TakeCase(VersionedCommand, frozen=True, kw_only=True):
    """The actor will work on the case, which nobody holds."""


class AssignCase(VersionedCommand, frozen=True, kw_only=True):
    """Somebody is to work on the case, whoever holds it now."""

    assignee: str


class ReleaseCase(VersionedCommand, frozen=True, kw_only=True):
    """Nobody is to hold the case: undoes TakeCase and AssignCase."""


class AddNote(VersionedCommand, frozen=True, kw_only=True):
    """Words on a case, and files."""

    text: str
    attachments: tuple[Attachment, ...]


class EscalateCase(VersionedCommand, frozen=True, kw_only=True):
    """An analyst asks for more eyes on a case, with the version of the case on their screen."""

    reason: str


class SnoozeCase(VersionedCommand, frozen=True, kw_only=True):
    """Nothing is to be done on the case until a time; a tick, a new flag or WakeCase ends that."""

    until_ms: int
    reason: str


class WakeCase(VersionedCommand, frozen=True, kw_only=True):
    """Undoes SnoozeCase."""


class CloseCase(VersionedCommand, frozen=True, kw_only=True):
    """An analyst has decided on a case, with its version on their screen; `disposition` is one of DISPOSITIONS.

    `typology` is what it turned out to be, where that is another than it was opened for.
    """

    disposition: str
    reason: str
    typology: str | None = None


class ApproveClosing(VersionedCommand, frozen=True, kw_only=True):
    """A second person agrees to the closing that was asked for."""

    reason: str


class RefuseClosing(VersionedCommand, frozen=True, kw_only=True):
    """A second person does not agree to it."""

    reason: str


class WithdrawClosing(VersionedCommand, frozen=True, kw_only=True):
    """Who asked for the closing no longer does: undoes CloseCase while it waits for approval."""

    reason: str


class ReopenCase(VersionedCommand, frozen=True, kw_only=True):
    """A closed case is to be worked on again, if a second person agrees."""

    reason: str


class ApproveReopening(VersionedCommand, frozen=True, kw_only=True):
    """A second person agrees to the reopening."""

    reason: str


class RefuseReopening(VersionedCommand, frozen=True, kw_only=True):
    """A second person does not agree to it."""

    reason: str


class WithdrawReopening(VersionedCommand, frozen=True, kw_only=True):
    """Who asked for the reopening no longer does."""

    reason: str


class MergeCases(VersionedCommand, frozen=True, kw_only=True):
    """This case becomes part of another one, of the same account or of another."""

    into_account_id: str
    into_case_id: str
    reason: str


class UnmergeCase(VersionedCommand, frozen=True, kw_only=True):
    """Undoes MergeCases; addressed to the case that was merged away."""

    reason: str


class LinkCase(VersionedCommand, frozen=True, kw_only=True):
    """This case has to do with another one, of the same account or of another; both will say so."""

    other_account_id: str
    other_case_id: str
    reason: str


class UnlinkCase(VersionedCommand, frozen=True, kw_only=True):
    """Undoes LinkCase, on both cases."""

    other_account_id: str
    other_case_id: str
    reason: str


# -- the process worker's -----------------------------------------------------------------------------


class AbsorbCase(CaseCommand, frozen=True, kw_only=True):
    """A case of another account has been merged into this one; `merge_id` is the command that asked for it."""

    merge_id: str
    from_account_id: str
    from_case_id: str
    is_escalated: bool
    standing: int
    amounts: tuple[Amount, ...]
    flags: tuple[MergedFlag, ...]


class PartCase(CaseCommand, frozen=True, kw_only=True):
    """A case of another account is no longer merged into this one."""

    merge_id: str
    from_account_id: str
    from_case_id: str


class UndoMerge(CaseCommand, frozen=True, kw_only=True):
    """The case that this one was to be merged into did not take it."""

    merge_id: str
    reason: str


class LinkBack(CaseCommand, frozen=True, kw_only=True):
    """A case of another account has been linked to this one."""

    other_account_id: str
    other_case_id: str
    reason: str


class UnlinkBack(CaseCommand, frozen=True, kw_only=True):
    """A case of another account is no longer linked to this one."""

    other_account_id: str
    other_case_id: str
    reason: str


AnalystCommand: TypeAlias = (
    TakeCase
    | AssignCase
    | ReleaseCase
    | AddNote
    | EscalateCase
    | SnoozeCase
    | WakeCase
    | CloseCase
    | ApproveClosing
    | RefuseClosing
    | WithdrawClosing
    | ReopenCase
    | ApproveReopening
    | RefuseReopening
    | WithdrawReopening
    | MergeCases
    | UnmergeCase
    | LinkCase
    | UnlinkCase
)
ChainCommand: TypeAlias = AbsorbCase | PartCase | UndoMerge | LinkBack | UnlinkBack
Command: TypeAlias = AnalystCommand | ChainCommand
