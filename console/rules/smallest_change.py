"""The smallest change to a payment that reverses its decision."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, takewhile
from math import log as logarithm
from typing import Any, Final, NamedTuple

from console.rules.dossier import FIELDS, MICRODEGREES, DecisionDossier, Log, decide_changed_payment, event_order
from domain.durations import DAY_MS, HOUR_MS, MINUTE_MS
from domain.geo import distance_m
from domain.payment import FUTURE_TOLERANCE_MS, MAX_AMOUNT_MINOR, Payment
from domain.risk.features import previous_present
from domain.risk.fold import findings
from domain.risk.history import HORIZON_MS, MAX_WINDOW_MS

FARTHEST_M: Final = 20_000_000
"""Half of the equator: the greatest distance on Earth, in metres."""


NEIGHBOURS: Final = 100
"""Number of payments before and after it to whose times the payment is shifted."""


ALTERNATIVES: Final = 5
"""Maximum number of other values that are tried for a field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallestChange:
    """A change that reverses the decision, and the decision after it.

    `effort` makes changes of different kinds comparable: an amount multiplied or divided by e, a day, 100 km, and
    another value of a field each have effort 1.
    """

    field: str
    before: Any
    after: Any
    step: str
    effort: float
    score: int
    rules: tuple[str, ...]


class _CandidateChange(NamedTuple):
    """A change that reverses the decision on the dossier: the fields that it replaces, and its description."""

    fields: dict[str, Any]
    name: str
    before: Any
    after: Any
    step: str
    effort: float


DecisionPredicate = Callable[[Payment], bool]


def smallest_changes(log: Log, dossier: DecisionDossier) -> list[SmallestChange]:
    """Return the nearest change of each kind that reverses the decision, smallest effort first; each is verified over
    the whole log.
    """
    is_flagged = bool(dossier.decision(dossier.payment).reasons)

    def turns(payment: Payment) -> bool:
        return bool(dossier.decision(payment).reasons) is not is_flagged

    made: list[SmallestChange] = []
    for fields, name, before, after, step, effort in chain(
        _amount_candidates(dossier, turns),
        _time_candidates(dossier, turns),
        _place_candidates(dossier, turns),
        _value_candidates(dossier, turns),
    ):
        decision = decide_changed_payment(log, dossier, {**dossier.data, **fields})
        if decision is not None and bool(decision.reasons) is not is_flagged:
            made.append(
                SmallestChange(
                    field=name,
                    before=before,
                    after=after,
                    step=step,
                    effort=round(effort, 4),
                    score=decision.score,
                    rules=decision.rules,
                )
            )
    return sorted(made, key=lambda change: change.effort)


def _nearest_step(turns: Callable[[int], bool], steps: Iterable[int]) -> int | None:
    """Return the step nearest to 0 that reverses the decision, or None: try these steps outwards, then bisect."""
    behind = {True: 0, False: 0}  # on each side the last step that does not reverse the decision
    for step in sorted(set(steps) - {0}, key=lambda step: (abs(step), step)):
        if not turns(step):
            behind[step > 0] = step
            continue
        near, far = behind[step > 0], step
        while abs(far - near) > 1:
            middle = (near + far) // 2
            near, far = (near, middle) if turns(middle) else (middle, far)
        return far
    return None


def _doubling_steps(most: int) -> Iterator[int]:
    """Yield 1, -1, 2, -2, 4, -4 and so on up to a bound."""
    steps = takewhile(lambda step: step <= most, (1 << power for power in range(64)))
    return (signed for step in steps for signed in (step, -step))


def _amount_candidates(dossier: DecisionDossier, turns: DecisionPredicate) -> Iterator[_CandidateChange]:
    payment = dossier.payment
    before = payment.amount_minor
    edges = [
        edge
        for found in findings(*dossier.placed(payment), dossier.pack)
        if found.measured.measure == "minor units" and found.measured.value is not None
        for edge in (
            found.measured.threshold - found.measured.value,
            found.measured.threshold - found.measured.value - 1,
        )
    ]
    step = _nearest_step(
        lambda step: 0 <= before + step <= MAX_AMOUNT_MINOR and turns(payment._replace(amount_minor=before + step)),
        [*edges, *_doubling_steps(MAX_AMOUNT_MINOR)],
    )
    if step is not None:
        effort = abs(logarithm((before + step + 1) / (before + 1)))
        yield _CandidateChange(
            {"amount_minor": before + step}, "amount_minor", before, before + step, f"{step:+,} minor units", effort
        )


def _time_candidates(dossier: DecisionDossier, turns: DecisionPredicate) -> Iterator[_CandidateChange]:
    payment = dossier.payment
    before = payment.event_time_ms
    earliest = max(0, before - MAX_WINDOW_MS, dossier.latest_ms - HORIZON_MS)
    latest = before + MAX_WINDOW_MS
    if dossier.received_ms is not None:
        latest = min(latest, dossier.received_ms + FUTURE_TOLERANCE_MS)
    place = bisect_left(dossier.others, payment.order, key=event_order)
    near = dossier.others[max(0, place - NEIGHBOURS) : place + NEIGHBOURS]
    step = _nearest_step(
        lambda step: earliest <= before + step <= latest and turns(payment._replace(event_time_ms=before + step)),
        [
            *(other.event_time_ms - before + after for other in near for after in (0, 1)),
            *_doubling_steps(MAX_WINDOW_MS),
        ],
    )
    if step is not None:
        text = f"{'later' if step > 0 else 'earlier'} by {format_span(abs(step))}"
        yield _CandidateChange(
            {"event_time": before + step}, "event_time", before, before + step, text, abs(step) / DAY_MS
        )


def format_span(ms: int) -> str:
    """Format milliseconds for people, e.g. 1 d 3 h or 5 m 0.25 s."""
    parts = []
    for unit, size in (("d", DAY_MS), ("h", HOUR_MS), ("m", MINUTE_MS)):
        if ms >= size:
            parts.append(f"{ms // size} {unit}")
            ms %= size
    if ms or not parts:
        parts.append(f"{ms / 1000:g} s")
    return " ".join(parts)


def _place_candidates(dossier: DecisionDossier, turns: DecisionPredicate) -> Iterator[_CandidateChange]:
    """Move the payment towards home or away from it, and towards or away from the card's previous place."""
    payment = dossier.payment
    if payment.latitude is None or payment.longitude is None:
        return
    starts = {"home": (payment.home_latitude, payment.home_longitude)}
    before = previous_present(*dossier.placed(payment), MAX_WINDOW_MS)
    if before is not None:
        starts["the card's previous place"] = before.latitude, before.longitude
    for name, (latitude, longitude) in starts.items():
        if latitude is None or longitude is None:
            continue
        here = payment.latitude, payment.longitude
        way = _MapLine((latitude, longitude), here)
        step = _nearest_step(
            lambda step, way=way: turns(_move_payment(payment, way.point(step))),  # type: ignore[misc]  # bound now
            _doubling_steps(FARTHEST_M),
        )
        if step is None:
            continue
        there = way.point(step)
        metres = distance_m(*here, *there)
        fields = {"latitude": there[0] / MICRODEGREES, "longitude": there[1] / MICRODEGREES}
        text = f"{metres / 1000:,.3f} km {'away from' if step > 0 else 'towards'} {name}"
        yield _CandidateChange(fields, "place", _degrees(here), _degrees(there), text, metres / 100_000)


class _MapLine(NamedTuple):
    """A line on the map, straight in degrees, from a start through the place of the payment."""

    start: tuple[int, int]
    here: tuple[int, int]

    def point(self, step_m: int) -> tuple[int, int]:
        """Return the point `step_m` metres beyond the payment's place, in microdegrees, kept within the map."""
        metres = distance_m(*self.start, *self.here)
        if metres == 0:  # no direction to follow: go towards the equator
            north = self.start[0] + (step_m * 9 if self.start[0] < 0 else -step_m * 9)
            return max(-90 * MICRODEGREES, min(90 * MICRODEGREES, north)), self.start[1]
        share = max(0, metres + step_m)
        latitude = self.start[0] + (self.here[0] - self.start[0]) * share // metres
        half_turn = 180 * MICRODEGREES
        across = (self.here[1] - self.start[1] + half_turn) % (2 * half_turn) - half_turn  # the short way round
        longitude = self.start[1] + across * share // metres
        return (
            max(-90 * MICRODEGREES, min(90 * MICRODEGREES, latitude)),
            (longitude + 180 * MICRODEGREES) % (360 * MICRODEGREES) - 180 * MICRODEGREES,
        )


def _move_payment(payment: Payment, point: tuple[int, int]) -> Payment:
    return payment._replace(latitude=point[0], longitude=point[1])


def _degrees(point: tuple[int, int]) -> list[float]:
    return [point[0] / MICRODEGREES, point[1] / MICRODEGREES]


def _value_candidates(dossier: DecisionDossier, turns: DecisionPredicate) -> Iterator[_CandidateChange]:
    """Replace one field by a value that it has in one of the account's recent payments."""
    payment = dossier.payment
    for name in FIELDS:
        before = getattr(payment, name)
        known = dict.fromkeys(getattr(other, name) for other in reversed(dossier.others))
        for value in [value for value in known if value not in (before, None)][:ALTERNATIVES]:
            if turns(payment._replace(**{name: value})):
                yield _CandidateChange({name: value}, name, before, value, f"{value} as in other payments", 1.0)
                break
