"""Why a rule fired: part of flags, and of what cases say about them."""

from domain.record import Record


class Reason(Record, frozen=True, kw_only=True):
    """Why one rule fired: what it measured, what it allows, and the payments that it counted.

    `value` and `threshold` are integers in the unit that `measure` names. `severity` and `reason_code` are the rule's.
    """

    rule: str
    measure: str
    value: int
    threshold: int
    points: int
    contributing: tuple[str, ...]
    severity: str = "medium"
    reason_code: str = ""
