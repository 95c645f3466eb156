"""The reason of a decision: flags have it, and case events repeat it."""

from domain.record import Record


class Reason(Record, frozen=True, kw_only=True):
    """Why one rule fired: the measured value, the threshold, and the payments that were counted.

    `value` and `threshold` are integers in the unit that `measure` names. `severity` and `reason_code` are those of the
    rule.
    """

    rule: str
    measure: str
    value: int
    threshold: int
    points: int
    contributing: tuple[str, ...]
    severity: str = "medium"
    reason_code: str = ""
