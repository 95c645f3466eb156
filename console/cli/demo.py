"""`fraudcase demo`: the whole path from payments to a replay from the archive alone."""

import time
from collections.abc import Callable
from itertools import islice
from typing import Annotated

import typer

from console.cli.options import AsJson, read_settings
from console.cli.output import errors_as_messages, fail, print_sign_ins, report
from console.history.replay import ReplayReport, replay
from console.payments.intake import AcknowledgedRecords, AnswerTracker, open_intake, send_generated
from console.system import lifecycle as system
from console.terminal import messages, print_status_line, progress
from console.times import now_ms
from console.waiting import ProgressStalled
from console.wiring import bucket, case_table, intake_parts, kafka_logs, people, replay_source, topics
from generator.traffic import GeneratedPayment, Traffic, TrafficOptions, run_of
from infra import stack
from infra.parts import store_programs
from infra.settings import Settings
from projections.archive.analytics import FOLDER
from projections.archive.archived_log import ArchivedLog
from projections.archive.segments import next_offset

STEADY_PER_S = 1_000
STEADY_SHARE = 0.1
"""Fraction of the payments sent last, at STEADY_PER_S. Latency during a flood would only measure the queue."""
PATIENCE_S = 120.0
ACCOUNTS = 20_000
STAY_PER_S = 50.0
"""Payments per second of the traffic that continues."""
PER_SECOND = 10.0
"""Payments per second of event time: 100,000 payments span just under three hours, which end now."""


SHOWN_OF_REPLAY = (
    "flags",
    "cases_opened",
    "cases_escalated",
    "views",
    "audit_events",
    "replay_views_digest",
    "live_digest",
    "replay_digest",
)


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command()(demo)


def demo(
    once: Annotated[
        bool, typer.Option("--once", help="print a table and stop, instead of running on with live traffic")
    ] = False,
    transactions: Annotated[int, typer.Option(help="number of payments")] = 100_000,
    seed: Annotated[int, typer.Option(help="random seed; the same seed gives the same traffic")] = 1,
    as_json: AsJson = False,
) -> None:
    """Run payments through the real system into flags, cases, views and an audit log. With --once, verify by replay."""
    settings = read_settings()
    with errors_as_messages():
        system.up(settings, report=print_status_line)
        figures = run_demo(settings, transactions, seed)
        if not once:
            _stay(settings, seed)
            return
        result = _replay_without_views(settings)
    document = {**figures, **{name: result.document[name] for name in SHOWN_OF_REPLAY}}
    report(document, as_json=as_json)
    with errors_as_messages():
        system.down(settings, lambda _, __: None)
    if result.exit_code or document["live_views_digest"] != document["replay_views_digest"]:
        raise fail("\n".join(result.problems or ["the stored views differ from the replayed views"]))


def run_demo(settings: Settings, transactions: int, seed: int) -> dict[str, object]:
    """Send payments, wait until all their results are stored, and return the figures."""
    span_ms = int(transactions / PER_SECOND * 1000)
    start_ms = now_ms() - span_ms
    traffic = iter(_traffic(seed, start_ms, PER_SECOND))
    steady = int(transactions * STEADY_SHARE)
    flood_s, _ = _send(settings, list(islice(traffic, transactions - steady)), None)
    _, latencies = _send(settings, list(islice(traffic, steady)), STEADY_PER_S)
    result = settle(settings)
    return {
        "transactions_in": transactions,
        "tx_per_s": round((transactions - steady) / flood_s),
        "p99_latency_ms": sorted(latencies)[int(len(latencies) * 0.99)],
        "live_views_digest": result.document["live_views_digest"],
    }


def _traffic(seed: int, start_ms: int, per_second: float) -> Traffic:
    """Return traffic of the same people with the same homes for one seed; payments depend on `start_ms`."""
    run = run_of(start_ms)
    return Traffic(TrafficOptions(seed=seed, accounts=ACCOUNTS, start_ms=start_ms, per_second=per_second, run=run))


def _send(settings: Settings, made: list[GeneratedPayment], rate: float | None) -> tuple[float, list[int]]:
    """Send payments and wait for every answer.

    Return the seconds that this took, and each payment's latency from log to log in milliseconds.
    """
    answers, (intake, sent) = AnswerTracker(kafka_logs(settings)), open_intake(intake_parts(settings))
    started = time.monotonic()
    with progress("payments sent", len(made)) as seen:
        send_generated(intake, made, rate, lambda _: seen(intake.rows) if intake.rows % 500 == 0 else None)
    intake.flush()
    with progress("payments answered", len(made)) as seen:
        answers.wait_for(sent.places, seen)
    return time.monotonic() - started, _latencies(answers, sent)


def _latencies(answers: AnswerTracker, sent: AcknowledgedRecords) -> list[int]:
    return [answers.answered_ms[place] - sent_ms for place, sent_ms in sent.sent_ms.items()]


def settle(settings: Settings) -> ReplayReport:
    """Wait until views and archive hold every result of the logs. Raise ProgressStalled after PATIENCE_S."""
    _wait_until(lambda: archive_lag(settings) == 0, "the archive has not caught up")
    found: list[ReplayReport] = []

    def is_complete() -> bool:
        found.append(replay(replay_source(settings, "kafka"), topics(settings), lambda: case_table(settings).scan()))
        return not found[-1].is_lag

    _wait_until(is_complete, "events or views are still missing")
    _wait_until(lambda: archive_lag(settings) == 0, "the archive has not caught up")
    if found[-1].exit_code:
        raise ProgressStalled("\n".join(found[-1].problems))
    return found[-1]


def archive_lag(settings: Settings) -> int:
    """Return the number of records in Kafka that are not archived yet."""
    log, store, names = kafka_logs(settings).reader(), bucket(settings), topics(settings)
    archived = ArchivedLog(store)
    lag = 0
    for topic in names.archived_logs:
        archived_ends = archived.ends(topic)
        lag += sum(end - archived_ends.get(number, 0) for number, end in log.ends(topic).items())
    for number, end in log.ends(names.risk_scored).items():
        lag += end - next_offset(store, f"{FOLDER}partition={number:03d}/")
    return lag


def _wait_until(is_done: Callable[[], bool], problem: str) -> None:
    started = time.monotonic()
    while not is_done():
        if time.monotonic() - started > PATIENCE_S:
            raise ProgressStalled(f"{problem} after {PATIENCE_S:.0f} s. Check: fraudcase status")
        time.sleep(0.5)


def _replay_without_views(settings: Settings) -> ReplayReport:
    """Replay from S3 alone. Stop Kafka and the live tables first, so that nothing can be read from them."""
    stores = {part.name: part for part in store_programs(settings)}
    messages.print("stopping DynamoDB and Kafka: the replay reads nothing but the archive in S3", highlight=False)
    stack.down(settings, [stores["dynamodb"], stores["kafka"]], lambda _, __: None)
    return replay(replay_source(settings, "s3"), topics(settings))


def _stay(settings: Settings, seed: int) -> None:
    """Send traffic dated now until interrupted."""
    print_sign_ins(settings, system.first_sign_ins(people(settings)))
    addresses = {
        "risk job (Flink)": f"http://{settings.host}:{settings.flink_port}",
        "case job (Flink)": f"http://{settings.host}:{settings.flink_port + 1}",
        "schema registry": settings.registry_url,
        "metrics of the archive worker": f"http://{settings.host}:{settings.metrics_port + 3}/metrics",
    }
    for name, address in addresses.items():
        messages.print(f"{name:<30} {address}", highlight=False)
    messages.print("Ctrl-C ends the traffic; the system keeps running until: fraudcase down", highlight=False)
    traffic = _traffic(seed, now_ms(), STAY_PER_S)
    intake, _ = open_intake(intake_parts(settings))
    try:
        with progress("payments sent", None) as seen:
            send_generated(intake, traffic, STAY_PER_S, lambda _: seen(intake.rows))
    except KeyboardInterrupt:
        intake.flush()
