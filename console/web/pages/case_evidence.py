"""The evidence of a case: flags with their reasons, and the payments that these counted, as a table, charts and a
map.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import log10
from typing import Any, Final, NamedTuple

from console.cases.seen_payment import SeenPayment
from console.display.formats import money, utc
from console.web.pages.maps import countries, map_point
from domain.cases.events import CaseAbsorbed, CaseOpened, RiskLinked, RiskRevised, SequencedCaseEvent
from domain.currencies import DECIMALS
from domain.durations import DAY_MS
from domain.reason import Reason

CHART_WIDTH, CHART_HEIGHT = 420, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 12, 30
MAX_DOTS: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFlag:
    """A flag of a case in its present state."""

    flag_id: str
    payment: SeenPayment
    score: int
    rules: tuple[str, ...]
    reasons: tuple[Reason, ...]
    card_id: str | None
    device_id: str | None
    terminal_id: str | None
    sequence: int
    revisions: tuple[RiskRevised, ...] = ()

    @property
    def stands(self) -> bool:
        """Return True unless a late payment has withdrawn the flag."""
        return bool(self.rules)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartDot:
    """A payment on a chart."""

    x: float
    y: float
    label: str
    transaction_id: str
    is_flagged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MapPlace:
    """A place on the map; flagged if one of its payments is."""

    x: float
    y: float
    label: str
    is_flagged: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AmountChart:
    """Amounts over time, on a logarithmic scale."""

    dots: list[ChartDot]
    across: list[tuple[float, str]]
    up: list[tuple[float, str]]
    summary: str
    width: int = CHART_WIDTH
    height: int = CHART_HEIGHT


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseEvidence:
    """The evidence of one case."""

    flags: list[CaseFlag]
    contributing: list[SeenPayment]
    unknown: list[str]
    """Ids of payments that the reasons name and that are no longer in memory."""
    charts: list[AmountChart] = field(default_factory=list)
    places: list[MapPlace] = field(default_factory=list)


def flags_of(events: Iterable[SequencedCaseEvent]) -> list[CaseFlag]:
    """Return the flags of a case in their state after these events, newest payment first."""
    found: dict[str, CaseFlag] = {}
    for event in events:
        if isinstance(event, CaseOpened | RiskLinked):
            found[event.flag_id] = _flag_from_event(event)
        elif isinstance(event, RiskRevised) and event.flag_id in found:
            flag = found[event.flag_id]
            found[event.flag_id] = _revise_flag(flag, event)
    return sorted(found.values(), key=lambda flag: (-flag.payment.event_time, flag.flag_id))


def _flag_from_event(event: CaseOpened | RiskLinked) -> CaseFlag:
    payment = SeenPayment(
        transaction_id=event.transaction_id, event_time=event.event_time, amount_minor=event.amount_minor,
        currency=event.currency, merchant_id=event.merchant_id, country=event.country, channel=event.channel,
        payment_method=event.payment_method, latitude=event.latitude, longitude=event.longitude,
    )  # fmt: skip
    return CaseFlag(
        flag_id=event.flag_id, payment=payment, score=event.score, rules=event.rules, reasons=event.reasons,
        card_id=event.card_id, device_id=event.device_id, terminal_id=event.terminal_id, sequence=event.sequence,
    )  # fmt: skip


def _revise_flag(flag: CaseFlag, event: RiskRevised) -> CaseFlag:
    return CaseFlag(
        flag_id=flag.flag_id, payment=flag.payment, score=event.score, rules=event.rules,
        reasons=tuple(reason for reason in flag.reasons if reason.rule in event.rules),
        card_id=flag.card_id, device_id=flag.device_id, terminal_id=flag.terminal_id, sequence=flag.sequence,
        revisions=(*flag.revisions, event),
    )  # fmt: skip


def named_payments(flags: Iterable[CaseFlag]) -> list[str]:
    """Return the ids of the payments that the reasons of these flags counted."""
    return list(dict.fromkeys(one for flag in flags for reason in flag.reasons for one in reason.contributing))


def unknown_payments(flags: Sequence[CaseFlag], known: Mapping[str, SeenPayment]) -> list[str]:
    """Return the ids of counted payments that are neither flagged here nor known."""
    flagged = {flag.payment.transaction_id for flag in flags}
    return [name for name in named_payments(flags) if name not in flagged and name not in known]


def build_evidence(flags: Sequence[CaseFlag], known: Mapping[str, SeenPayment]) -> CaseEvidence:
    """Build the evidence from flags and the payments that they counted; `known` has payments that are not flagged
    here, by id.
    """
    flagged = {flag.payment.transaction_id: flag.payment for flag in flags}
    wanted = [name for name in named_payments(flags) if name not in flagged]
    contributing = sorted((known[name] for name in wanted if name in known), key=lambda seen: -seen.event_time)
    everything = [
        _DrawnPayment(seen, is_flagged := seen.transaction_id in flagged, _label(seen, is_flagged))
        for seen in (*contributing, *flagged.values())[:MAX_DOTS]
    ]
    return CaseEvidence(
        flags=list(flags),
        contributing=contributing,
        unknown=unknown_payments(flags, known),
        charts=[_chart(group) for group in _by_currency(everything)],
        places=_places(everything),
    )


class _DrawnPayment(NamedTuple):
    """A payment on a chart or map, with its label."""

    payment: SeenPayment
    is_flagged: bool
    label: str


def _by_currency(everything: Iterable[_DrawnPayment]) -> list[list[_DrawnPayment]]:
    groups: dict[str, list[_DrawnPayment]] = {}
    for drawn in everything:
        groups.setdefault(drawn.payment.currency, []).append(drawn)
    return sorted(groups.values(), key=lambda group: -len(group))


def _chart(group: Sequence[_DrawnPayment]) -> AmountChart:
    """Draw the amounts of one currency over time."""
    currency = group[0].payment.currency
    decimals = DECIMALS.get(currency, 2)
    times = [drawn.payment.event_time for drawn in group]
    first, last = min(times), max(times)
    pad = max(1000, (last - first) // 20)
    first, last = first - pad, last + pad
    logs = [log10(max(1, drawn.payment.amount_minor)) for drawn in group]
    low, high = int(min(logs)), int(max(logs)) + 1

    def x_of(at_ms: float) -> float:
        return round(_LEFT + (at_ms - first) / (last - first) * (CHART_WIDTH - _LEFT - _RIGHT), 1)

    def y_of(power: float) -> float:
        return round(CHART_HEIGHT - _BOTTOM - (power - low) / (high - low) * (CHART_HEIGHT - _TOP - _BOTTOM), 1)

    dots = [
        ChartDot(
            x=x_of(payment.event_time),
            y=y_of(power),
            label=label,
            transaction_id=payment.transaction_id,
            is_flagged=is_flagged,
        )
        for (payment, is_flagged, label), power in zip(group, logs, strict=True)
    ]
    marks = [first + (last - first) * number / 3 for number in range(4)]
    many = sum(dot.is_flagged for dot in dots)
    return AmountChart(
        dots=sorted(dots, key=lambda dot: dot.is_flagged),
        across=[(x_of(mark), _moment(int(mark), last - first)) for mark in marks],
        up=[(y_of(power), _scale(power - decimals)) for power in range(low, high + 1)],
        summary=f"{len(dots)} payments in {currency} between {utc(first + pad)} and {utc(last - pad)} UTC, "
        f"{many} of them flagged",
    )


def _scale(power: int) -> str:
    return f"{10**power:,}" if power >= 0 else f"{10**power:.{-power}f}"


def _moment(at_ms: int, span_ms: int) -> str:
    text = utc(at_ms)
    return text[5:10] if span_ms > 5 * DAY_MS else text[5:16] if span_ms > DAY_MS else text[11:19]


def _label(payment: SeenPayment, is_flagged: bool) -> str:
    where = f", {payment.merchant_id}" if payment.merchant_id else ""
    flag = ", flagged" if is_flagged else ""
    return f"{money(payment.amount_minor, payment.currency)} at {utc(payment.event_time)} UTC{where}{flag}"


def _places(everything: Iterable[_DrawnPayment]) -> list[MapPlace]:
    """Group payments by place: by coordinates, or else at the centre of their country. Return one dot per place."""
    found: dict[tuple[float, float], list[_DrawnPayment]] = {}
    for drawn in everything:
        payment = drawn.payment
        if payment.latitude is not None and payment.longitude is not None:
            found.setdefault(map_point(payment.latitude, payment.longitude), []).append(drawn)
        elif payment.country is not None and payment.country in countries():
            _, x, y = countries()[payment.country]
            found.setdefault((x, y), []).append(drawn)
    return sorted((_place(where, there) for where, there in found.items()), key=lambda place: place.is_flagged)


def _place(where: tuple[float, float], there: Sequence[_DrawnPayment]) -> MapPlace:
    flagged = sum(drawn.is_flagged for drawn in there)
    label = there[0].label if len(there) == 1 else f"{len(there)} payments, {flagged} of them flagged"
    return MapPlace(x=where[0], y=where[1], label=label, is_flagged=flagged > 0)


def count_merged_flags(events: Iterable[SequencedCaseEvent]) -> int:
    """Count the flags that came by merging; the case knows no reasons of theirs."""
    return sum(len(event.flags) for event in events if isinstance(event, CaseAbsorbed))


def event_details(body: str) -> dict[str, Any]:
    """Parse an event's canonical JSON."""
    found: dict[str, Any] = json.loads(body)
    return found
