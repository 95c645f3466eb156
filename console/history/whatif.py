"""Runs a what-if: replays history under other rules and describes the differences in one document."""

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from typing import Any, Final, Literal, NamedTuple

from console.times import iso_time
from domain.durations import DAY_MS
from domain.payment import FIELDS
from domain.record_types import to_fields
from domain.risk.packs import RulePack
from projections.archive.archived_log import ArchivedLog
from projections.logs.kafka_logs import KafkaLogs
from projections.logs.log import KafkaLog
from projections.replay.sources import BucketSource
from projections.replay.whatif import (
    CaseTrace,
    FlaggedTransaction,
    LabelledFraud,
    MoneyAmount,
    TracedEvent,
    WhatifOutcome,
    WhatifPeriod,
    count_valid_flags,
    run_whatif,
)
from projections.replay.whatif_diff import (
    ChangedCase,
    DetectionResult,
    WhatifChange,
    WhatifDiff,
    compare,
    detection_result,
)
from schemas.codec import Decoder

FORMAT: Final = 1
"""Format number of the document; readers check it."""
MINUTES_PER_CASE: Final = 20
"""Default of an analyst's minutes per case."""
QUEUED_KBYTES: Final = 4_096
"""KiB that each of the merged readers prefetches."""
MAX_DAYS: Final = 3_660
"""Maximum number of days in a daily series."""
METHOD: Final = (
    "Both sides replay the same log without analysts' commands, through the same folds: one by the rules that were "
    "active, the other by these rules. What analysts did is left out on both sides."
)
Source = Literal["kafka", "s3"]
Progress = Callable[[int, int], None]


class WhatifRequest(NamedTuple):
    """Options of a what-if: source, period, and an analyst's minutes per case."""

    source: Source
    period: WhatifPeriod
    minutes_per_case: int = MINUTES_PER_CASE


def run(
    logs: KafkaLogs,
    archive: BucketSource,
    pack: RulePack,
    asked: WhatifRequest,
    seen: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Replay by the recorded rules and by `pack`, and return the differences. Raise LogGap if records are missing."""
    log: KafkaLog | ArchivedLog
    if asked.source == "s3":
        log = ArchivedLog(archive.objects())
        lookup = log.schema_text
    else:
        log = logs.reader(QUEUED_KBYTES)
        lookup = logs.registry().schema_text
    outcome = run_whatif(log, logs.topics, Decoder(lookup, {"Transaction": FIELDS}), pack, asked.period, seen)
    altered = [each.detail for each in log.altered] if isinstance(log, ArchivedLog) else []
    return document(outcome, asked, list(dict.fromkeys(altered)))


def document(outcome: WhatifOutcome, asked: WhatifRequest, problems: list[str] | None = None) -> dict[str, Any]:
    """Return the result of a what-if, by the keys of docs/whatif.md."""
    diff = compare(outcome)
    series = _series(outcome)
    return {
        "whatif": FORMAT,
        "method": METHOD,
        "source": asked.source,
        "rules": _rules(outcome.pack),
        "baseline_rules": [_rules(pack) for pack in outcome.recorded_packs.values()],
        "from_ms": asked.period.from_ms,
        "to_ms": asked.period.to_ms,
        "first_payment_ms": outcome.first_ms,
        "last_payment_ms": outcome.last_ms,
        "days": len(series),
        "records": outcome.records,
        "payments": outcome.payments,
        "refused": outcome.refused,
        "ticks": outcome.ticks,
        "labels": outcome.labels,
        "labels_without_payment": outcome.unplaced_labels,
        "minutes_per_case": asked.minutes_per_case,
        "cases": _cases(outcome, diff),
        "alerts": _alerts(outcome, len(series)),
        "money_minor": _money(outcome.recorded.flagged.values(), outcome.other.flagged.values()),
        "fraud": _fraud(outcome),
        "analyst_hours": _hours(outcome, asked.minutes_per_case),
        "per_day": series,
        "changed": [_changed(each, {fraud.identity for fraud in outcome.frauds}) for each in diff.changed],
        "problems": problems or [],
    }


def shorten_document(found: dict[str, Any], most: int) -> dict[str, Any]:
    """Return the document with the first `most` changed cases; the figures still count all of them."""
    return {**found, "changed": found["changed"][:most]}


def _rules(pack: RulePack) -> dict[str, Any]:
    return {"name": pack.name, "version": pack.version, "pack_id": pack.pack_id, "rules": len(pack.rules)}


def _new(traces: Iterable[CaseTrace]) -> list[CaseTrace]:
    return [trace for trace in traces if trace.is_new]


def _cases(outcome: WhatifOutcome, diff: WhatifDiff) -> dict[str, Any]:
    sides = outcome.recorded.traces.values(), outcome.other.traces.values()
    return {
        **_compare_counts(*(len(_new(side)) for side in sides)),
        "same": diff.same,
        "changed": len(diff.changed),
        **{change.value: diff.count(change) for change in WhatifChange},
        "escalations": _compare_counts(
            *(sum(trace.escalation is not None for trace in side if trace.is_moved) for side in sides)
        ),
    }


def _compare_counts(baseline: int, new: int) -> dict[str, int]:
    return {"baseline": baseline, "new": new, "difference": new - baseline}


def _alerts(outcome: WhatifOutcome, days: int) -> dict[str, Any]:
    counts = _compare_counts(outcome.recorded.flags, outcome.other.flags)
    return {**counts, "per_day": {name: round(each / max(1, days), 2) for name, each in counts.items()}}


def _money(recorded: Iterable[FlaggedTransaction], other: Iterable[FlaggedTransaction]) -> dict[str, dict[str, int]]:
    return _by_currency([each.sum for each in recorded], [each.sum for each in other])


def _by_currency(baseline: list[MoneyAmount], new: list[MoneyAmount]) -> dict[str, dict[str, int]]:
    totals = Counter[str](), Counter[str]()
    for total, sums in zip(totals, (baseline, new), strict=True):
        for each in sums:
            total[each.currency] += each.amount_minor
    return {
        currency: _compare_counts(totals[0][currency], totals[1][currency])
        for currency in sorted({*totals[0], *totals[1]})
    }


def _fraud(outcome: WhatifOutcome) -> dict[str, Any]:
    one, two = (detection_result(outcome.frauds, side.flagged) for side in (outcome.recorded, outcome.other))
    return {
        "known": len(outcome.frauds),
        "known_minor": {name: each["new"] for name, each in _by_currency([], _sums(outcome.frauds)).items()},
        "caught": _compare_counts(len(one.caught), len(two.caught)),
        "caught_minor": _by_currency(_sums(one.caught), _sums(two.caught)),
        "missed": _compare_counts(len(one.missed), len(two.missed)),
        "missed_minor": _by_currency(_sums(one.missed), _sums(two.missed)),
        "newly_caught": _count_only_here(two.caught, one),
        "newly_missed": _count_only_here(one.caught, two),
        "precision": {
            "baseline": _share(len(one.caught), len(outcome.recorded.flagged) if outcome.frauds else 0),
            "new": _share(len(two.caught), len(outcome.other.flagged) if outcome.frauds else 0),
        },
    }


def _sums(frauds: list[LabelledFraud]) -> list[MoneyAmount]:
    return [fraud.sum for fraud in frauds]


def _count_only_here(caught: list[LabelledFraud], elsewhere: DetectionResult) -> int:
    missed = {fraud.identity for fraud in elsewhere.missed}
    return sum(fraud.identity in missed for fraud in caught)


def _share(part: int, whole: int) -> float | None:
    """Return the fraction of flagged payments that labels call fraud, or None if there are no flags or no labels."""
    return round(part / whole, 4) if whole else None


def _hours(outcome: WhatifOutcome, minutes: int) -> dict[str, float]:
    hours = [round(len(_new(side.traces.values())) * minutes / 60, 1) for side in (outcome.recorded, outcome.other)]
    return {"baseline": hours[0], "new": hours[1], "difference": round(hours[1] - hours[0], 1)}


def _series(outcome: WhatifOutcome) -> list[dict[str, Any]]:
    """Return the flagged payments per day of event time, over the days of the period."""
    if outcome.first_ms is None or outcome.last_ms is None:
        return []
    sides = [
        Counter(each.event_time_ms // DAY_MS for each in side.flagged.values())
        for side in (outcome.recorded, outcome.other)
    ]
    first, last = outcome.first_ms // DAY_MS, outcome.last_ms // DAY_MS
    days = range(max(first, last - MAX_DAYS + 1), last + 1)
    return [{"day": _date(day).isoformat(), "baseline": sides[0][day], "new": sides[1][day]} for day in days]


def _date(day: int) -> date:
    return date(1970, 1, 1) + timedelta(days=day)


# -- a changed case -------------------------------------------------------------------------------------------


def _changed(case: ChangedCase, frauds: set[tuple[str, str, str]]) -> dict[str, Any]:
    one, two = case.pair
    return {
        "changes": [change.value for change in case.changes],
        "account_id": case.pair.either.account_id,
        "typology": case.pair.either.typology,
        "baseline": _case(one, frauds),
        "new": _case(two, frauds),
        "opened_difference_ms": two.opened_at_ms - one.opened_at_ms if one and two else None,
        "known_difference_ms": two.known_at_ms - one.known_at_ms if one and two else None,
        "first_difference": {
            "position": case.first.position,
            "baseline": _event(case.first.recorded),
            "new": _event(case.first.other),
        },
    }


def _case(trace: CaseTrace | None, frauds: set[tuple[str, str, str]]) -> dict[str, Any] | None:
    if trace is None:
        return None
    escalation = trace.escalation
    return {
        "case_id": trace.case_id,
        "typology": trace.typology,
        "opened_at_ms": trace.opened_at_ms,
        "known_at_ms": trace.known_at_ms,
        "escalated_at_ms": escalation.escalated_at_ms if escalation else None,
        "escalated_by": escalation.trigger if escalation else None,
        "events": len(trace.events),
        "flags": count_valid_flags(trace),
        "payments": len(trace.payments),
        "confirmed_frauds": sum(identity in frauds for identity in trace.payments),
        "value_minor": trace.value_minor(),
    }


def _event(told: TracedEvent | None) -> dict[str, Any] | None:
    if told is None:
        return None
    return {"kind": type(told.event).__name__, "known_at_ms": told.known_at_ms, **to_fields(told.event)}


# -- in words -------------------------------------------------------------------------------------------------


def period_text(found: dict[str, Any]) -> str:
    """Return the period of a document in words."""
    first, last = found["from_ms"], found["to_ms"]
    since = f"from {iso_time(first)}" if first is not None else "from the first payment"
    return f"{since} {f'until before {iso_time(last)}' if last is not None else 'to the last one'}"
