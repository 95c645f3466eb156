"""Commands on a case: from analysts, and from the process worker where a step spans two accounts.

An analyst's command names the case version that the analyst saw. The answer is the event of that case with the
command's id, or CommandRejected. The worker's commands name no version: they carry on a decision of another account,
and their ids derive from their cause.
"""

from typing import TypeAlias

from domain.record import Record


class Attachment(Record, frozen=True, kw_only=True):
    """File of a note. Its content is in the object store; the log holds only its SHA-256 digest."""

    file_name: str
    size: int
    media_type: str
    sha256: str
    storage_key: str


class MergedFlag(Record, frozen=True, kw_only=True):
    """Flag that a merged case hands over, with its payment. The score is 0 if the flag was withdrawn."""

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
    """Amount in minor units of a currency."""

    currency: str
    amount_minor: int


class CaseCommand(Record, frozen=True, kw_only=True):
    """Fields of every command."""

    account_id: str
    case_id: str
    command_id: str
    actor: str
    requested_at_ms: int


class VersionedCommand(CaseCommand, frozen=True, kw_only=True):
    """Fields of every analyst's command: also the sequence of the last case event that the analyst saw."""

    seen_sequence: int


# -- from analysts ----------------------------------------------------------------------------------


class TakeCase(VersionedCommand, frozen=True, kw_only=True):
    """Command of an analyst to work on a case that has no assignee."""


class AssignCase(VersionedCommand, frozen=True, kw_only=True):
    """Command to make a person the assignee of a case, in place of any earlier assignee."""

    assignee: str


class ReleaseCase(VersionedCommand, frozen=True, kw_only=True):
    """Command to remove the assignee; undoes TakeCase and AssignCase."""


class AddNote(VersionedCommand, frozen=True, kw_only=True):
    """Command to add a note with a text, files, or both."""

    text: str
    attachments: tuple[Attachment, ...]


class EscalateCase(VersionedCommand, frozen=True, kw_only=True):
    """Command to escalate a case."""

    reason: str


class SnoozeCase(VersionedCommand, frozen=True, kw_only=True):
    """Command to pause a case until a time in milliseconds. A tick, a new flag or WakeCase ends the pause."""

    until_ms: int
    reason: str


class WakeCase(VersionedCommand, frozen=True, kw_only=True):
    """Command to end the pause of a snoozed case; undoes SnoozeCase."""


class CloseCase(VersionedCommand, frozen=True, kw_only=True):
    """Command to close a case with one of DISPOSITIONS.

    `typology` is the typology that the analyst found, if it differs from the one that the case was opened for.
    """

    disposition: str
    reason: str
    typology: str | None = None


class ApproveClosing(VersionedCommand, frozen=True, kw_only=True):
    """Command of a second person to approve a requested closing."""

    reason: str


class RefuseClosing(VersionedCommand, frozen=True, kw_only=True):
    """Command of a second person to refuse a requested closing."""

    reason: str


class WithdrawClosing(VersionedCommand, frozen=True, kw_only=True):
    """Command of the requester to withdraw a requested closing; undoes CloseCase while the approval is pending."""

    reason: str


class ReopenCase(VersionedCommand, frozen=True, kw_only=True):
    """Command to request the reopening of a closed case. A second person has to approve it."""

    reason: str


class ApproveReopening(VersionedCommand, frozen=True, kw_only=True):
    """Command of a second person to approve a requested reopening."""

    reason: str


class RefuseReopening(VersionedCommand, frozen=True, kw_only=True):
    """Command of a second person to refuse a requested reopening."""

    reason: str


class WithdrawReopening(VersionedCommand, frozen=True, kw_only=True):
    """Command of the requester to withdraw a requested reopening."""

    reason: str


class MergeCases(VersionedCommand, frozen=True, kw_only=True):
    """Command to merge this case into another case, of this account or of another one."""

    into_account_id: str
    into_case_id: str
    reason: str


class UnmergeCase(VersionedCommand, frozen=True, kw_only=True):
    """Command to undo MergeCases; addressed to the case that was merged away."""

    reason: str


class LinkCase(VersionedCommand, frozen=True, kw_only=True):
    """Command to link this case with another case, of this account or of another one. Both cases record the link."""

    other_account_id: str
    other_case_id: str
    reason: str


class UnlinkCase(VersionedCommand, frozen=True, kw_only=True):
    """Command to remove a link from both cases; undoes LinkCase."""

    other_account_id: str
    other_case_id: str
    reason: str


# -- from the process worker --------------------------------------------------------------------------


class AbsorbCase(CaseCommand, frozen=True, kw_only=True):
    """Command to absorb a case of another account that was merged into this one. `merge_id` is the merging command."""

    merge_id: str
    from_account_id: str
    from_case_id: str
    is_escalated: bool
    standing: int
    amounts: tuple[Amount, ...]
    flags: tuple[MergedFlag, ...]


class PartCase(CaseCommand, frozen=True, kw_only=True):
    """Command to give back a case of another account that was unmerged."""

    merge_id: str
    from_account_id: str
    from_case_id: str


class UndoMerge(CaseCommand, frozen=True, kw_only=True):
    """Command to undo a merge that the other account refused."""

    merge_id: str
    reason: str


class LinkBack(CaseCommand, frozen=True, kw_only=True):
    """Command to record a link that a case of another account made."""

    other_account_id: str
    other_case_id: str
    reason: str


class UnlinkBack(CaseCommand, frozen=True, kw_only=True):
    """Command to remove a link that a case of another account removed."""

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
