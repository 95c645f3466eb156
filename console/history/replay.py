"""A replay from end to end: derive, read what was recorded, compare, and say it in one report."""

import os
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from console.terminal import progress
from console.wiring import bucket, case_table, kafka_logs, store_options, topics
from infra.settings import Settings
from projections.replay.certificate import certificate, failed_certificate
from projections.replay.compare_views import compare_views, encoded_digest, stored_items, views_digest
from projections.replay.outcome import Items, ReplayComparison, ReplayResult
from projections.replay.replay import archived_schema_check, ends_of
from projections.replay.replay import replay as read_again
from projections.replay.sources import BucketSource, KafkaSource, LogGap, LogSource

SHOWN = 10
"""Differences that a report names; it counts them all."""
SIDE_BY_SIDE = 60_000
"""Records from which on it pays to start processes for them: what each imports takes as long as some 30,000 records."""


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """What came out. `document` is the report; `problems` name what differs, worst first."""

    document: dict[str, object]
    problems: list[str]
    is_lag: bool
    certificate: dict[str, Any]

    @property
    def exit_code(self) -> int:
        """0 for equal, 3 for "not all of it is there yet", 1 for a difference."""
        return 3 if self.is_lag else 1 if self.problems else 0


def source_of(settings: Settings, name: str) -> LogSource:
    """`kafka` or `s3`."""
    archive = BucketSource(store_options(settings, settings.s3_url), settings.bucket, settings.prefix)
    if name == "s3":
        return archive
    return KafkaSource(kafka_logs(settings), archive)


def cores() -> int:
    """How many processes can work at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _workers_for(records: int) -> int:
    return cores() if records >= SIDE_BY_SIDE else 1


def replay(
    settings: Settings,
    source: str,
    *,
    with_views: bool = True,
    until_ms: int | None = None,
    workers: int | None = None,
) -> ReplayReport:
    """Derive everything again from `kafka` or from `s3` alone, and compare it with what was recorded there.

    With a time, what the records up to it lead to; the stored views, which have gone on, are then left aside.
    """
    names, reader = topics(settings), source_of(settings, source)
    schemas = archived_schema_check(bucket(settings)) if source == "s3" else []
    stored: Items | None = None
    unreadable: list[str] = []
    if with_views and until_ms is None:
        try:  # before the logs: whatever a view speaks of by then, they hold
            stored = stored_items(case_table(settings).scan())
        except (BotoCoreError, ClientError) as error:
            unreadable = [f"the case views cannot be read: {error}. Without them: fraudcase replay --no-live-views"]
    try:
        ends = {topic: sum(found.values()) for topic, found in ends_of(reader, names).items()}
        total = sum(ends.values())
        with progress("records and answers read", total + ends[names.payments_inbound]) as seen:  # a payment has one
            replayed = read_again(reader, names, workers or _workers_for(total), until_ms, seen)
    except LogGap as gap:
        problems = [*dict.fromkeys(gap.altered), str(gap), *schemas]
        document: dict[str, object] = {"source": source, "problems": problems}
        return ReplayReport(document, problems, False, failed_certificate(str(gap), gap.altered, until_ms))
    views, stored_digest = ReplayComparison([], 0), None
    if stored is not None:
        views = compare_views(stored, replayed.derived.items(replayed.live.known_at_ms))
        stored_digest = views_digest(stored)
    return _make_report(replayed, source, views, stored_digest, [*schemas, *unreadable], settings, until_ms)


def _make_report(
    replayed: ReplayResult,
    source: str,
    views: ReplayComparison,
    stored_digest: str | None,
    others: list[str],
    settings: Settings,
    until_ms: int | None,
) -> ReplayReport:
    differences = [*replayed.comparison.differences, *views.differences]
    problems = [*others, *(each.text for each in (*replayed.altered, *differences))]
    missing = replayed.comparison.missing + views.missing
    is_lag = not problems and missing > 0
    if is_lag:
        problems = [f"{missing} events or views are not there yet: the system is still at work. Try again"]
    live, history = replayed.live, replayed.derived.history
    document: dict[str, object] = {
        "source": source,
        "payments": history.payments,
        "duplicates": history.duplicates,
        "quarantined": history.quarantined,
        "flags": history.flags,
        "entity_flags": history.entity_flags,
        "cases_opened": history.opened,
        "cases_escalated": history.escalated,
        "audit_events": history.digest.events,
        "views": replayed.derived.views,
        "live_digest": live.digest.hexdigest(),
        "replay_digest": history.digest.hexdigest(),
        "live_views_digest": stored_digest,
        "replay_views_digest": encoded_digest(replayed.derived.encoded),
        "equal": not problems,
        "differences": len(differences),
        "problems": problems[:SHOWN],
    }
    made = certificate(replayed, topics(settings), until_ms, views.differences)
    document["root"] = made["root"]
    return ReplayReport(document, problems, is_lag, made)
