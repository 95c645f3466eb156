"""A replay from end to end: derive, read what was recorded, compare, and say it in one report."""

from dataclasses import dataclass

from botocore.exceptions import BotoCoreError, ClientError

from console.work import bucket, case_table, progress, topics
from infra.settings import Settings
from projections.analytics import read_table
from projections.archive import ArchivedLog
from projections.log import KafkaLog
from projections.replay import (
    Comparison,
    Gap,
    archived_schema_check,
    compare,
    compare_views,
    decisions_in,
    decisions_of,
    derive,
    recorded,
    stored_items,
    views_digest,
)
from schemas.codec import Decoder
from schemas.registry import Registry

SHOWN = 10
"""Differences that a report names; it counts them all."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What came out. `document` is the report; `problems` name what differs, worst first."""

    document: dict[str, object]
    problems: list[str]
    is_lag: bool

    @property
    def exit_code(self) -> int:
        """0 for equal, 3 for "not all of it is there yet", 1 for a difference."""
        return 3 if self.is_lag else 1 if self.problems else 0


def replay(settings: Settings, source: str, *, with_views: bool = True) -> Replay:
    """Derive everything again from `kafka` or from `s3` alone, and compare it with what was recorded there."""
    names = topics(settings)
    log: KafkaLog | ArchivedLog
    problems: list[str] = []
    if source == "s3":
        store = bucket(settings)
        problems += archived_schema_check(store)
        log = ArchivedLog(store)
        decoder = Decoder(log.schema_text)
        decisions = decisions_of(read_table(store))
    else:
        log = KafkaLog(settings.kafka_bootstrap)
        decoder = Decoder(Registry(settings.registry_url).schema_text)
        decisions = decisions_in(log, names, decoder)
    with progress("records read", None) as seen:
        live = recorded(log, names, decoder, decisions, seen)
    try:
        with progress("records replayed", sum(log.ends(names.payments_inbound).values())) as seen:
            derived = derive(log, names, decoder, seen)
    except Gap as gap:
        altered = [each.detail for each in log.altered] if isinstance(log, ArchivedLog) else []
        problems = [*altered, str(gap), *problems]
        return Replay({"source": source, "live_digest": live.digest.hexdigest(), "problems": problems}, problems, False)
    if isinstance(log, ArchivedLog):
        problems += dict.fromkeys(each.detail for each in log.altered)
    result = compare(live, derived.history)
    derived.know(live.known_at_ms)
    views, stored_digest = Comparison([], 0), None
    if with_views:
        try:
            stored = stored_items(case_table(settings).scan())
            stored_digest, views = views_digest(stored), compare_views(stored, derived.items)
        except (BotoCoreError, ClientError) as error:
            problems.append(f"the case views cannot be read: {error}. Without them: fraudcase replay --no-live-views")
    differences = [*result.differences, *views.differences]
    missing = result.missing + views.missing
    problems += differences
    is_lag = not problems and missing > 0
    if is_lag:
        problems = [f"{missing} events or views are not there yet: the system is still at work. Try again"]
    history = derived.history
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
        "views": len(derived.views),
        "live_digest": live.digest.hexdigest(),
        "replay_digest": history.digest.hexdigest(),
        "live_views_digest": stored_digest,
        "replay_views_digest": views_digest(derived.items),
        "equal": not problems,
        "differences": len(differences),
        "problems": problems[:SHOWN],
    }
    return Replay(document, problems, is_lag)
