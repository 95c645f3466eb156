"""Two ways in which history may go, compared case by case.

A case of one side is a case of the other if both are of one account and share a payment: first those of one typology,
then, where rules gave a payment another typology, the others, those first that share most. Nobody closes a case on
either side, so an account has at most one case of a typology, and the pairs are unique.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from domain.cases.events import CaseEscalated
from projections.replay.whatif import (
    CaseTrace,
    FlaggedTransaction,
    LabelledFraud,
    TracedEvent,
    WhatifOutcome,
    WhatifSide,
    standing_flags,
)


class WhatifChange(StrEnum):
    """How a case differs. Those before FLAGS are what analysts would notice."""

    OPENED = "opened"
    LOST = "lost"
    EARLIER = "earlier"
    LATER = "later"
    ESCALATED = "escalated"
    NOT_ESCALATED = "not_escalated"
    ESCALATED_EARLIER = "escalated_earlier"
    ESCALATED_LATER = "escalated_later"
    TYPOLOGY = "typology"
    FLAGS = "flags"
    REASONS = "reasons"


class CasePair(NamedTuple):
    """A case on both sides, or on one."""

    recorded: CaseTrace | None
    other: CaseTrace | None

    @property
    def one(self) -> CaseTrace:
        """The case on a side that has it."""
        found = self.recorded or self.other
        assert found is not None
        return found


class FirstDifference(NamedTuple):
    """Where two cases part: the number of the event, and what it is on each side; None where the case has ended."""

    position: int
    recorded: TracedEvent | None
    other: TracedEvent | None


@dataclass(frozen=True, slots=True)
class ChangedCase:
    """A case that differs, and how."""

    pair: CasePair
    changes: tuple[WhatifChange, ...]
    first: FirstDifference


@dataclass(frozen=True, slots=True)
class WhatifDiff:
    """All that differs, those first that matter most; and how many do not."""

    changed: list[ChangedCase]
    same: int

    def count(self, change: WhatifChange) -> int:
        """Cases that differ so."""
        return sum(change in each.changes for each in self.changed)


def compare(outcome: WhatifOutcome) -> WhatifDiff:
    """The cases that the stretch opened or touched, on either side."""
    changed: list[ChangedCase] = []
    same = 0
    for pair in pair_cases(outcome.recorded, outcome.other):
        first = _first_difference(pair)
        if first is not None:
            changed.append(ChangedCase(pair, _changes(pair), first))
        elif pair.one.is_moved:
            same += 1
    changed.sort(key=_weight)
    return WhatifDiff(changed, same)


def pair_cases(recorded: WhatifSide, other: WhatifSide) -> list[CasePair]:
    """The cases of both sides, each with its other self."""
    of_account: dict[str, tuple[list[CaseTrace], list[CaseTrace]]] = {}
    for number, side in enumerate((recorded, other)):
        for trace in side.traces.values():
            of_account.setdefault(trace.account_id, ([], []))[number].append(trace)
    return [pair for account in sorted(of_account) for pair in _pair_by_time(*of_account[account])]


def _pair_by_time(recorded: list[CaseTrace], other: list[CaseTrace]) -> list[CasePair]:
    likely = sorted(
        (one.typology != two.typology, -shared, one.known_at_ms, one.case_id, two.case_id, one, two)
        for one in recorded
        for two in other
        if (shared := len(one.payments.keys() & two.payments.keys()))
    )  # ids are unique, so no two traces are ever compared
    found: list[CasePair] = []
    taken: set[str] = set()
    for *_, one, two in likely:
        if f"r{one.case_id}" not in taken and f"o{two.case_id}" not in taken:
            taken |= {f"r{one.case_id}", f"o{two.case_id}"}
            found.append(CasePair(one, two))
    found += [CasePair(one, None) for one in recorded if f"r{one.case_id}" not in taken]
    found += [CasePair(None, two) for two in other if f"o{two.case_id}" not in taken]
    return found


def _first_difference(pair: CasePair) -> FirstDifference | None:
    recorded = pair.recorded.told if pair.recorded else []
    other = pair.other.told if pair.other else []
    for position in range(max(len(recorded), len(other))):
        one = recorded[position] if position < len(recorded) else None
        two = other[position] if position < len(other) else None
        if one is not two and one != two:
            return FirstDifference(position + 1, one, two)
    return None


def _changes(pair: CasePair) -> tuple[WhatifChange, ...]:
    one, two = pair
    if one is None:
        return (WhatifChange.OPENED,)
    if two is None:
        return (WhatifChange.LOST,)
    changes = [*_opening(one, two), *_escalation(one.escalation, two.escalation)]
    if one.typology != two.typology:
        changes.append(WhatifChange.TYPOLOGY)
    if one.payments.keys() != two.payments.keys() or standing_flags(one) != standing_flags(two):
        changes.append(WhatifChange.FLAGS)
    return tuple(changes) or (WhatifChange.REASONS,)


def _opening(one: CaseTrace, two: CaseTrace) -> list[WhatifChange]:
    before, after = (one.opened_at_ms, one.known_at_ms), (two.opened_at_ms, two.known_at_ms)
    return [] if before == after else [WhatifChange.EARLIER if after < before else WhatifChange.LATER]


def _escalation(one: CaseEscalated | None, two: CaseEscalated | None) -> list[WhatifChange]:
    if one is None or two is None:
        if one is two:
            return []
        return [WhatifChange.ESCALATED if one is None else WhatifChange.NOT_ESCALATED]
    if one.escalated_at_ms == two.escalated_at_ms:
        return []
    return [
        WhatifChange.ESCALATED_EARLIER if two.escalated_at_ms < one.escalated_at_ms else WhatifChange.ESCALATED_LATER
    ]


_ORDER = {change: number for number, change in enumerate([
    WhatifChange.LOST, WhatifChange.NOT_ESCALATED, WhatifChange.LATER, WhatifChange.ESCALATED_LATER,
    WhatifChange.OPENED, WhatifChange.ESCALATED,
    WhatifChange.EARLIER, WhatifChange.ESCALATED_EARLIER, WhatifChange.TYPOLOGY,
    WhatifChange.FLAGS, WhatifChange.REASONS,
])}  # fmt: skip
"""What a reader should see first: what would no longer be found."""


def _weight(case: ChangedCase) -> tuple[int, int, str]:
    return min(_ORDER[change] for change in case.changes), case.pair.one.opened_at_ms, case.pair.one.case_id


# -- what confirmed frauds say of both sides ---------------------------------------------------------------


class DetectionResult(NamedTuple):
    """Labelled payments that one side flagged, and those that it did not."""

    caught: list[LabelledFraud]
    missed: list[LabelledFraud]


def catch(frauds: list[LabelledFraud], flagged: dict[tuple[str, str, str], FlaggedTransaction]) -> DetectionResult:
    """What a side made of the frauds."""
    caught = [fraud for fraud in frauds if fraud.identity in flagged]
    return DetectionResult(caught, [fraud for fraud in frauds if fraud.identity not in flagged])
