"""Benchmark of a replay, beside consuming and decoding the same records without any processing.

The history is written by the jobs: payments, flags and case events, as in a running system.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from console.bench.case_fold import case_fold_rate, inbox
from console.bench.consume_only import read_all
from console.bench.stream import fill_logs, running_programs, wait_until_caught_up
from console.bench.views import view_rates
from console.history.replay import cores
from console.rules.files import load_pack
from console.terminal import messages, progress
from console.waiting import ProgressStalled
from console.wiring import case_tables, kafka_logs, replay_source, topics
from domain.cases.fold import CaseFold
from domain.payment import Refusal
from generator.traffic import Traffic, TrafficOptions
from infra.flink_cluster import cluster
from infra.services import CASE_JOB, RISK_JOB, jobs, service_name
from infra.settings import Settings
from projections.logs.known import KnownEvent
from projections.replay.outcome import DerivedState
from projections.replay.replay import derive, ends_of
from projections.replay.workers import hide_main_module

ACCOUNTS = 20_000
FOLD_EVENTS, VIEW_EVENTS = 300_000, 30_000
ROUNDS = 3
"""Rounds of reading, decoding and replaying. The fastest of each counts, because other programs only slow it down."""
DEFAULT_FRACTION = 4
"""Divisor of the number of payments for the default pack, whose rules cost several times as much."""
Measure = Callable[[Settings, int], Mapping[str, float]]
"""Further measurement of the same run, from the settings of the separate system and a seed."""


def fold_rate(_: Settings, seed: int) -> Mapping[str, float]:
    """Measure the case fold in case events per second, in one process."""
    return {"fold_events_per_s": round(case_fold_rate(FOLD_EVENTS, seed))}


def view_rate(settings: Settings, seed: int) -> Mapping[str, float]:
    """Measure a rebuild of views in case events per second, beside the writes per second of the bare store."""
    fold, known = CaseFold(), list[KnownEvent]()
    for number, record in enumerate(inbox(VIEW_EVENTS, seed)):
        events = fold.step(record)
        if not isinstance(events, Refusal):
            known += [KnownEvent(event, number) for event in events]
    return view_rates(case_tables(settings), settings.prefix, known)


MEASURES: tuple[Measure, ...] = (fold_rate, view_rate)


def bench_replay(
    settings: Settings, transactions: int, seed: int, workers: int | None, measures: Sequence[Measure] = MEASURES
) -> dict[str, Any]:
    """Run all measurements and return the report. Raises ProgressStalled, StackError or LogGap."""
    number = workers or cores()
    three = settings.model_copy(update={"prefix": f"{settings.prefix}three."})
    record_history(three, "three", transactions, seed)
    rounds = [
        (
            _consume_rate(three, number, decode=False),
            _consume_rate(three, number, decode=True),
            *_time_replay(three, number),
        )
        for _ in range(ROUNDS)
    ]
    consumed, decoded = max(each[0] for each in rounds), max(each[1] for each in rounds)
    replayed, derived = max(each[2] for each in rounds), rounds[0][3]
    default = settings.model_copy(update={"prefix": f"{settings.prefix}default."})
    record_history(default, "default", transactions // DEFAULT_FRACTION, seed)
    by_default, more = _time_replay(default, number)
    figures = {
        "transactions": transactions,
        "workers": number,
        "tx_per_s": round(replayed),
        "consume_decode_tx_per_s": round(decoded),
        "consume_tx_per_s": round(consumed),
        "vs_consume_decode": round(replayed / decoded, 2),
        "vs_consume": round(replayed / consumed, 2),
        "flags": derived.history.flags,
        "case_events": derived.history.case_events,
        "default_tx_per_s": round(by_default),
        "default_entity_flags": more.history.entity_flags,
    }
    for measure in measures:
        figures.update(measure(settings, seed))
    return figures


def record_history(settings: Settings, pack: str, transactions: int, seed: int) -> None:
    """Write payments and let the jobs decide them."""
    traffic = iter(Traffic(TrafficOptions(seed=seed, accounts=ACCOUNTS, in_order=True)))
    fill_logs(settings, load_pack(pack), traffic, transactions)
    wanted = {service_name(settings, name) for name in (RISK_JOB, CASE_JOB)}
    entity = tuple(part for part in jobs(settings) if part.name not in wanted)
    parts = (*cluster(settings), *(part for part in jobs(settings) if part.name in wanted), *entity)
    messages.print(f"pack {pack}: the jobs decide on {transactions:,} payments", highlight=False)
    with running_programs(settings, parts):
        wait_until_caught_up(settings)


def _time_replay(settings: Settings, workers: int) -> tuple[float, DerivedState]:
    """Return payments per second from the start of the processes to the last digest, and the derived state.

    All deciding logs are replayed; nothing is compared.
    """
    source, names = replay_source(settings, "kafka"), topics(settings)
    total = sum(sum(found.values()) for topic, found in ends_of(source, names).items() if topic != names.cases_events)
    with progress("records replayed", total) as seen:
        begun = time.monotonic()
        derived = derive(source, names, workers, seen)
        derived.history.digest.hexdigest()
        seconds = time.monotonic() - begun
    payments = derived.history.payments
    if not payments:
        raise ProgressStalled("no payment was decided. Check that a rule pack is active")
    messages.print(f"{payments:,} payments replayed in {seconds:.1f} s", highlight=False)
    return payments / seconds, derived


def _consume_rate(settings: Settings, workers: int, *, decode: bool) -> float:
    source, names = replay_source(settings, "kafka"), topics(settings)
    registry = kafka_logs(settings).registry()
    topic = names.payments_inbound
    ends = ends_of(source, names)[topic]
    ids = [registry.ids()[name] for name in ("Transaction", "RulesActivated")]
    schemas = {number: json.loads(registry.schema_text(number) or "") for number in ids} if decode else None
    with hide_main_module():
        begun = time.monotonic()
        read = read_all(settings.kafka_bootstrap, topic, ends, schemas, workers)
        seconds = time.monotonic() - begun
    messages.print(f"{read:,} records consumed{' and decoded' if decode else ''} in {seconds:.1f} s", highlight=False)
    return read / seconds
