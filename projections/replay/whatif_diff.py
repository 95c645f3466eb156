"""Comparison of the two sides of a what-if, case by case.

Two cases form a pair if they belong to one account and share a payment. Cases of the same typology are paired first,
then the others, those with the most shared payments first. No case is closed on either side, so an account has at most
one case of a typology and the pairs are unique.
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
    count_valid_flags,
)


class WhatifChange(StrEnum):
    """Kinds of difference of a case. Analysts would notice those before FLAGS."""

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
    def either(self) -> CaseTrace:
        """Return the recorded case, or the other one if there is none."""
        found = self.recorded or self.other
        assert found is not None
        return found


class FirstDifference(NamedTuple):
    """First differing event of two cases: its number and its value on each side; None after a case's last event."""

    position: int
    recorded: TracedEvent | None
    other: TracedEvent | None


@dataclass(frozen=True, slots=True)
class ChangedCase:
    """A case that differs, with its changes."""

    pair: CasePair
    changes: tuple[WhatifChange, ...]
    first: FirstDifference


@dataclass(frozen=True, slots=True)
class WhatifDiff:
    """The cases that differ, most important first, and the number of those that do not."""

    changed: list[ChangedCase]
    same: int

    def count(self, change: WhatifChange) -> int:
        """Return the number of cases with this change."""
        return sum(change in each.changes for each in self.changed)


def compare(outcome: WhatifOutcome) -> WhatifDiff:
    """Compare the cases of both sides that were opened or changed within the period."""
    changed: list[ChangedCase] = []
    same = 0
    for pair in pair_cases(outcome.recorded, outcome.other):
        first = _first_difference(pair)
        if first is not None:
            changed.append(ChangedCase(pair, _changes(pair), first))
        elif pair.either.is_moved:
            same += 1
    changed.sort(key=_weight)
    return WhatifDiff(changed, same)


def pair_cases(recorded: WhatifSide, other: WhatifSide) -> list[CasePair]:
    """Pair the cases of both sides."""
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
    )  # ids are unique, so the sort never compares two traces
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
    recorded = pair.recorded.events if pair.recorded else []
    other = pair.other.events if pair.other else []
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
    if one.payments.keys() != two.payments.keys() or count_valid_flags(one) != count_valid_flags(two):
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
"""Order of display: detections that would be lost come first."""


def _weight(case: ChangedCase) -> tuple[int, int, str]:
    return min(_ORDER[change] for change in case.changes), case.pair.either.opened_at_ms, case.pair.either.case_id


# -- detection of confirmed frauds -------------------------------------------------------------------------


class DetectionResult(NamedTuple):
    """Labelled payments that one side flagged, and those that it missed."""

    caught: list[LabelledFraud]
    missed: list[LabelledFraud]


def detection_result(
    frauds: list[LabelledFraud], flagged: dict[tuple[str, str, str], FlaggedTransaction]
) -> DetectionResult:
    """Divide the frauds into those that a side flagged and those that it missed."""
    caught = [fraud for fraud in frauds if fraud.identity in flagged]
    return DetectionResult(caught, [fraud for fraud in frauds if fraud.identity not in flagged])
