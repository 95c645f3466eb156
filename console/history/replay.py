"""Runs a replay: derives history again, reads the recorded one, compares the two, and makes a report."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from console.terminal import progress
from projections.replay.certificate import certificate, failed_certificate
from projections.replay.compare_views import compare_views, encoded_digest, stored_items, views_digest
from projections.replay.outcome import Items, ReplayComparison, ReplayResult
from projections.replay.replay import archived_schema_check, ends_of
from projections.replay.replay import replay as read_again
from projections.replay.sources import BucketSource, LogGap, LogSource
from projections.views.case_view import Item
from schemas.topics import Topics

SHOWN = 10
"""Differences that a report lists; it counts all of them."""
SIDE_BY_SIDE = 60_000
"""Records from which several processes pay off: the imports of one process cost as much as 30,000 records."""


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """Result of a replay: `document` is the report, `problems` name the differences, worst first."""

    document: dict[str, object]
    problems: list[str]
    is_lag: bool
    certificate: dict[str, Any]

    @property
    def exit_code(self) -> int:
        """Return 0 if all is equal, 3 if something is still missing, 1 if anything differs."""
        return 3 if self.is_lag else 1 if self.problems else 0


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _workers_for(records: int) -> int:
    return cores() if records >= SIDE_BY_SIDE else 1


def replay(
    source: LogSource,
    names: Topics,
    scan_views: Callable[[], Iterable[Item]] | None = None,
    *,
    until_ms: int | None = None,
    workers: int | None = None,
) -> ReplayReport:
    """Derive all flags, case events and views again from one source, and compare them with the recorded ones.

    `scan_views` reads the stored case views; without it they are not compared. With `until_ms`, only records up to
    that time are replayed, and the stored views, which are newer, are not compared.
    """
    origin = "s3" if isinstance(source, BucketSource) else "kafka"
    schemas = archived_schema_check(source.objects()) if isinstance(source, BucketSource) else []
    stored: Items | None = None
    unreadable: list[str] = []
    if scan_views is not None and until_ms is None:
        try:  # before the logs, which then hold all that the views contain
            stored = stored_items(iter(scan_views()))
        except (BotoCoreError, ClientError) as error:
            unreadable = [f"the case views cannot be read: {error}. Without them: fraudcase replay --no-live-views"]
    try:
        ends = {topic: sum(found.values()) for topic, found in ends_of(source, names).items()}
        total = sum(ends.values())
        with progress("records and answers read", total + ends[names.payments_inbound]) as seen:  # a payment has one
            replayed = read_again(source, names, workers or _workers_for(total), until_ms, seen)
    except LogGap as gap:
        problems = [*dict.fromkeys(gap.altered), str(gap), *schemas]
        document: dict[str, object] = {"source": origin, "problems": problems}
        return ReplayReport(document, problems, False, failed_certificate(str(gap), gap.altered, until_ms))
    views, stored_digest = ReplayComparison([], 0), None
    if stored is not None:
        views = compare_views(stored, replayed.derived.items(replayed.live.known_at_ms))
        stored_digest = views_digest(stored)
    return _make_report(replayed, origin, views, stored_digest, [*schemas, *unreadable], names, until_ms)


def _make_report(
    replayed: ReplayResult,
    origin: str,
    views: ReplayComparison,
    stored_digest: str | None,
    others: list[str],
    names: Topics,
    until_ms: int | None,
) -> ReplayReport:
    differences = [*replayed.comparison.differences, *views.differences]
    problems = [*others, *(each.text for each in (*replayed.altered, *differences))]
    missing = replayed.comparison.missing + views.missing
    is_lag = not problems and missing > 0
    if is_lag:
        problems = [f"{missing} events or views are still missing: the system is still working. Try again"]
    live, history = replayed.live, replayed.derived.history
    document: dict[str, object] = {
        "source": origin,
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
    made = certificate(replayed, names, until_ms, views.differences)
    document["root"] = made["root"]
    return ReplayReport(document, problems, is_lag, made)
