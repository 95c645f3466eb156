"""Options of a search for a better rule pack, apart from the search, whose libraries are slow to import."""

from enum import StrEnum
from typing import NamedTuple


class TuningGoal(StrEnum):
    """Figure that a search maximises."""

    AVERAGE_PRECISION = "average_precision"
    F1 = "f1"
    RECALL_AT_PRECISION = "recall_at_precision"


class TuningOptions(NamedTuple):
    """Options of a search: goal, minimum precision, trials, seed, fraction of earlier days, and label delay in ms."""

    aim: TuningGoal
    precision: float
    trials: int
    seed: int
    earlier: float
    feedback_ms: int | None
