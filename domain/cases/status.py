"""Status of a case: the queue that it is in."""

from typing import Final, Literal, TypeAlias, get_args

OpenStatus: TypeAlias = Literal["new", "open", "in_review", "snoozed", "pending_approval"]
"""Status of a case that needs work."""
DoneStatus: TypeAlias = Literal["closed", "merged"]
"""Status of a case that needs no more work."""
CaseStatus: TypeAlias = Literal[OpenStatus, DoneStatus]
OPEN_STATUSES: Final[tuple[OpenStatus, ...]] = get_args(OpenStatus)
DONE_STATUSES: Final[tuple[DoneStatus, ...]] = get_args(DoneStatus)
STATUSES: Final[tuple[CaseStatus, ...]] = (*OPEN_STATUSES, *DONE_STATUSES)
"""Every status, in the order of a case's life. Each is a queue."""


def status_of(
    *,
    disposition: str | None,
    is_merged: bool,
    is_requested: bool,
    is_snoozed: bool,
    assignee: str | None,
    is_touched: bool,
) -> CaseStatus:
    """Return the status of a case: the first that applies, in the order merged, closed, pending approval, …."""
    if is_merged:
        return "merged"
    if disposition is not None:
        return "closed"
    if is_requested:
        return "pending_approval"
    if is_snoozed:
        return "snoozed"
    if assignee is not None:
        return "in_review"
    return "open" if is_touched else "new"
