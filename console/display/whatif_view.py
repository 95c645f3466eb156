"""The result of a what-if, prepared for its pages: bars and curves with coordinates, cases with their events."""

from dataclasses import dataclass
from datetime import date
from typing import Any, Final, NamedTuple

from console.display.formats import duration, money, title, utc, words
from domain.durations import DAY_MS, HOUR_MS, MINUTE_MS

WIDTH: Final = 1_000
FLOW_HEIGHT: Final = 132
DAYS_HEIGHT: Final = 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 12, 30
MAX_BARS: Final = 62
"""Maximum number of bars by day; more days are grouped."""
KINDS: Final[dict[str, str]] = {
    "lost": "No longer found", "not_escalated": "No longer escalated", "later": "Later",
    "escalated_later": "Escalated later", "opened": "Found only by the new rules", "escalated": "Newly escalated",
    "earlier": "Earlier", "escalated_earlier": "Escalated earlier", "typology": "Another typology",
    "flags": "Other flags", "reasons": "Other reasons only",
}  # fmt: skip
"""Kinds of differences in words, missed cases first."""
WORSE: Final = frozenset({"lost", "not_escalated", "later", "escalated_later"})
MORE: Final = frozenset({"opened", "escalated", "earlier", "escalated_earlier"})


class ChartBar(NamedTuple):
    """A bar on a chart, with its label."""

    x: float
    y: float
    width: float
    height: float
    look: str
    label: str


class AxisMark(NamedTuple):
    """A mark on an axis."""

    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DailyAlertsChart:
    """The chart of alerts by day."""

    boxes: list[ChartBar]
    lines: list[AxisMark]
    dates: list[AxisMark]
    each: int
    """Days of one bar."""


class AmountComparison(NamedTuple):
    """Two amounts side by side, each with its percentage of the larger one."""

    name: str
    baseline: str
    new: str
    difference: str
    baseline_share: float
    new_share: float
    trend: str


class TimingShift(NamedTuple):
    """The number of cases that moved earlier or later by a time in this range."""

    label: str
    earlier: int
    later: int
    earlier_share: float
    later_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatifView:
    """Content of a what-if page."""

    found: dict[str, Any]
    flow: list[ChartBar]
    days: DailyAlertsChart
    money: list[AmountComparison]
    frauds: list[AmountComparison]
    spread: list[TimingShift]
    kinds: list[tuple[str, str, int]]
    """Slug, words and number of each kind of change that there is."""


def view_of(found: dict[str, Any]) -> WhatifView:
    """Prepare a what-if document for its page."""
    return WhatifView(
        found=found,
        flow=_flow(found["cases"]),
        days=_days(found["per_day"]),
        money=[_money_row(currency, each) for currency, each in found["money_minor"].items()],
        frauds=_frauds(found["fraud"]),
        spread=_spread(found["changed"]),
        kinds=[(slug, text, found["cases"][slug]) for slug, text in KINDS.items() if found["cases"][slug]],
    )


def _flow(cases: dict[str, Any]) -> list[ChartBar]:
    """Draw the cases of the recorded rules above those of the new rules; cases that both have are in the middle."""
    lost, opened = cases["lost"], cases["opened"]
    kept = cases["baseline"] - lost
    whole = max(1, lost + kept + opened)
    unit = WIDTH / whole
    parts = ((0, lost, 14, "lost"), (lost, kept, 14, "kept"), (lost, kept, 76, "kept"),
             (lost + kept, opened, 76, "opened"))  # fmt: skip
    texts = {"lost": "no longer found", "kept": "found by both", "opened": "only by the new rules"}
    return [
        ChartBar(round(begin * unit, 1), y, round(max(size * unit - 2, 1.5), 1), 42, look, f"{size:,} {texts[look]}")
        for begin, size, y, look in parts
        if size
    ]


def _days(series: list[dict[str, Any]]) -> DailyAlertsChart:
    each = max(1, -(-len(series) // MAX_BARS))
    groups = [series[at : at + each] for at in range(0, len(series), each)]
    sums = [(sum(day["baseline"] for day in group), sum(day["new"] for day in group)) for group in groups]
    most = max([1, *(value for pair in sums for value in pair)])
    step = step_of(most)
    top = -(-most // step) * step
    slot = (WIDTH - _LEFT - _RIGHT) / max(1, len(groups))
    high = DAYS_HEIGHT - _TOP - _BOTTOM
    boxes = []
    for number, (group, pair) in enumerate(zip(groups, sums, strict=True)):
        width = min(26.0, slot * 0.4)
        middle = _LEFT + slot * (number + 0.5)
        for side, value in enumerate(pair):
            height = round(high * value / top, 1)
            label = f"{_date_range(group)}: {value:,} by the {('recorded', 'new')[side]} rules"
            x = round(middle - width + side * width, 1)
            look = ("baseline", "new")[side]
            boxes.append(ChartBar(x, round(_TOP + high - height, 1), round(width - 1, 1), height, look, label))
    every = max(1, len(groups) // 8)
    return DailyAlertsChart(
        boxes=boxes,
        lines=[AxisMark(round(_TOP + high * (1 - value / top), 1), f"{value:,}") for value in range(0, top + 1, step)],
        dates=[
            AxisMark(round(_LEFT + slot * (number + 0.5), 1), _day(group[0]["day"]))
            for number, group in enumerate(groups)
            if number % every == 0
        ],
        each=each,
    )


def step_of(most: int) -> int:
    """Return a round distance between grid lines that gives two to five lines."""
    size = 1
    while True:
        for times in (1, 2, 5):
            if most <= 5 * times * size:
                return times * size
        size *= 10


def _day(day: str) -> str:
    found = date.fromisoformat(day)
    return f"{found.day} {found:%b}"


def _date_range(group: list[dict[str, Any]]) -> str:
    first, last = group[0]["day"], group[-1]["day"]
    return first if first == last else f"{first} to {last}"


def _money_row(currency: str, each: dict[str, int]) -> AmountComparison:
    return _row(currency, each, lambda amount: money(amount, currency), "")


def _frauds(fraud: dict[str, Any]) -> list[AmountComparison]:
    if not fraud["known"]:
        return []
    rows = [_row("Frauds", fraud["caught"], lambda number: f"{number:,}", "catch", fraud["known"])]
    for currency, each in fraud["caught_minor"].items():
        known = fraud["known_minor"].get(currency, 0)
        rows.append(_row(currency, each, lambda amount, of=currency: money(amount, of), "catch", known))
    return rows


def _row(name: str, each: dict[str, int], said: Any, kind: str, most: int = 0) -> AmountComparison:
    most = max(1, most, each["baseline"], each["new"])
    difference = each["difference"]
    text = f"{'+' if difference > 0 else ''}{said(difference)}" if difference else "no change"
    trend = "" if not difference or not kind else "good" if difference > 0 else "bad"
    return AmountComparison(name, said(each["baseline"]), said(each["new"]), text,
                            round(100 * each["baseline"] / most, 1),
               round(100 * each["new"] / most, 1), trend)  # fmt: skip


_SPANS: Final = (("up to a minute", MINUTE_MS), ("up to an hour", HOUR_MS), ("up to a day", DAY_MS), ("longer", None))


def _spread(changed: list[dict[str, Any]]) -> list[TimingShift]:
    """Count the cases that became known earlier or later, by the size of the difference."""
    moved = [each["known_difference_ms"] for each in changed if each["known_difference_ms"]]
    counts = {label: [0, 0] for label, _ in _SPANS}
    for by in moved:
        label = next(label for label, most in _SPANS if most is None or abs(by) <= most)
        counts[label][by > 0] += 1
    most = max([1, *(number for pair in counts.values() for number in pair)])
    return [
        TimingShift(label, earlier, later, round(100 * earlier / most, 1), round(100 * later / most, 1))
        for label, (earlier, later) in counts.items()
        if earlier or later
    ]


# -- events -----------------------------------------------------------------------------------------------------

_HIDDEN: Final = frozenset({"kind", "known_at_ms", "reasons", "sequence", "account_id", "content_digest"})


def event_lines(event: dict[str, Any], other: dict[str, Any] | None) -> list[tuple[str, str, bool]]:
    """Return the fields of an event as (name, value, differs); `differs` is True if the other side's event has
    another value.
    """
    lines = []
    for name, value in event.items():
        if name in _HIDDEN or value in (None, "", []):
            continue
        differs = other is not None and other.get(name) != value
        lines.append((words(name.removesuffix("_ms").removesuffix("_minor")), _value_text(name, value, event), differs))
    for reason in event.get("reasons") or ():
        said = f"{reason['value']:,} {reason['measure']}, from {reason['threshold']:,}: {reason['points']} points"
        is_same = other is not None and reason in (other.get("reasons") or ())
        lines.append((title(reason["rule"]), said, other is not None and not is_same))
    return lines


def _value_text(name: str, value: Any, event: dict[str, Any]) -> str:
    if name.endswith("_ms") or name == "event_time":
        return f"{utc(value)} UTC"
    if name == "amount_minor":
        return money(value, event.get("currency", ""))
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def moved(difference_ms: int | None) -> str:
    """Format the difference between two times, e.g. "2 h 5 min earlier"."""
    if not difference_ms:
        return ""
    return f"{duration(difference_ms)} {'later' if difference_ms > 0 else 'earlier'}"
