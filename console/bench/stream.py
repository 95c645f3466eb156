"""Benchmark of our risk job beside Flink SQL and textbook PyFlink, on the same payments in the same run.

All three read Avro from Kafka, take checkpoints, and write Avro to Kafka. Each runs at the parallelism and in the mode
that suit it best on two cores. Our job runs before and after the others, and the mean of its rates is compared, so that
a machine that slows down during the run favours none. Rates are computed from the broker's append times of the answers,
without start-up, the first fifth and the last twentieth of the answers.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from itertools import islice
from typing import Any, NamedTuple

from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)
from fastavro import schemaless_reader

from console.bench.latency import PATH_PERCENTILES, measure, percentiles
from console.payments.intake import open_intake
from console.system.bootstrap import activate_first_rules, register_schemas
from console.terminal import messages, print_status_line, progress
from console.waiting import ProgressStalled, end_offsets
from console.wiring import case_table, intake_parts, kafka_logs, topics
from domain.risk.events import RiskScored
from domain.risk.packs import RulePack
from generator.traffic import GeneratedPayment, Traffic, TrafficOptions
from infra import stack
from infra.flink_cluster import JOBS, cluster
from infra.parts import StackProgram, python_command
from infra.services import (
    CASE_JOB,
    CASE_VIEWS,
    RISK_JOB,
    checkpoints,
    job_arguments,
    jobs,
    make_job_check,
    service_name,
    services,
)
from infra.settings import Settings
from infra.topics import ensure_bucket, ensure_topics
from projections.logs.log import LogRecord, decode_answers
from schemas.catalog import latest, parse

SQL, TEXTBOOK = "flink-sql", "textbook"
REFERENCES = {
    SQL: ("stream.reference.flink_sql", "reference.sql"),
    TEXTBOOK: ("stream.reference.textbook", "reference.textbook"),
}
PARTITIONS, ACCOUNTS, TASKMANAGERS = 8, 20_000, 2
PATIENCE_S, QUIET_S = 120.0, 10.0
"""Seconds without an answer after which a job has stalled, and after which one that answers in batches is done."""
REFERENCE_HEAP = "4g"
"""Heap of the references, which keep their state as objects. Our job keeps bytes, for which the default suffices."""
WARM_S, STEADY_S = 20.0, 40.0
WARM_PART, LAST_PART = 5, 20
_APPENDED = {"message.timestamp.type": "LogAppendTime"}

Flags = frozenset[tuple[str, frozenset[str]]]
"""Transaction ids with the rules that fired."""


class DecisionBatch(NamedTuple):
    """Content of one record of an answer topic: the number of decisions, and the flags among them."""

    decisions: int
    flags: list[tuple[str, frozenset[str]]]


@dataclass(frozen=True, slots=True)
class BenchContender:
    """One job of the comparison: its programs, its answer topic, and the reader of its answers."""

    name: str
    parts: tuple[StackProgram, ...]
    topic: str
    read: Callable[[LogRecord], DecisionBatch]
    by_batch: bool = False
    """Whether a record holds many answers, so that they can be counted only by reading them."""
    begin: Mapping[int, int] = field(default_factory=dict)
    """First offset of its answers, by partition: after the answers of an earlier run."""


@dataclass(frozen=True, slots=True)
class ContenderResult:
    """Result of a contender: decisions per second after warm-up, and its flags."""

    tx_per_s: float
    flags: Flags


def bench_settings(settings: Settings, run: str) -> Settings:
    """Return the settings of a separate system: other names and ports, a cluster of two single-slot workers."""
    return settings.model_copy(
        update={
            "prefix": f"bench-{run}.",
            "partitions": PARTITIONS,
            "flink_port": settings.flink_port + 20,
            "flink_cluster_port": settings.flink_cluster_port + 60,
            "metrics_port": settings.metrics_port + 60,
            "flink_mode": "thread",
            "flink_parallelism": TASKMANAGERS,
            "flink_heap": "2g",  # a full collection of 1 GB stops a task for 0.4 s, every 20 s
            "flink_jvm_options": ("-XX:TieredStopAtLevel=1", "-Xmn1200m"),
            "flink_cluster_taskmanagers": TASKMANAGERS,
            "flink_cluster_slots": JOBS,
            "clock_every_s": 0,
        }
    )


def fill_logs(settings: Settings, pack: RulePack, traffic: Iterator[GeneratedPayment], transactions: int) -> None:
    """Create the logs and write the payments; the first record of each partition activates the rules."""
    logs = kafka_logs(settings)
    register_schemas(logs)
    ensure_topics(settings)
    ensure_bucket(settings)
    case_table(settings).ensure()
    names = topics(settings)
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap})
    new = [NewTopic(f"{settings.prefix}{topic}", PARTITIONS, 1, config=_APPENDED) for _, topic in REFERENCES.values()]
    stamped = [
        ConfigResource(
            ResourceType.TOPIC,
            name,
            incremental_configs=[
                ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in _APPENDED.items()
            ],
        )
        for name in (names.risk_scored, names.cases_inbox, names.cases_events)
    ]
    for done in (*admin.create_topics(new).values(), *admin.incremental_alter_configs(stamped).values()):
        done.result(30)
    for topic in names.ruled_logs:
        activate_first_rules(logs, topic, pack)
    intake, _ = open_intake(intake_parts(settings))
    with progress("payments written", transactions) as seen:
        for generated in islice(traffic, transactions):
            intake.send(generated.transaction, "benchmark")
            if intake.rows % 1000 == 0:
                seen(intake.rows)
    intake.flush()


def risk_job_contender(settings: Settings) -> BenchContender:
    """Return the risk job on its cluster as a contender."""
    decoder = kafka_logs(settings).decoder()

    def read(record: LogRecord) -> DecisionBatch:
        found = decode_answers(record, decoder)
        flagged = [each for each in found if isinstance(each, RiskScored) and each.rules]
        return DecisionBatch(len(found), [(each.transaction_id, frozenset(each.rules)) for each in flagged])

    risk = next(part for part in jobs(settings) if part.name == service_name(settings, RISK_JOB))
    return BenchContender("fraudcase", (*cluster(settings), risk), topics(settings).risk_scored, read, by_batch=True)


def flink_sql_contender(settings: Settings) -> BenchContender:
    """Return the Flink SQL reference, in one JVM with a task per core, as a contender."""
    decoder = kafka_logs(settings).decoder()
    settings = settings.model_copy(update={"flink_heap": REFERENCE_HEAP})

    def read(record: LogRecord) -> DecisionBatch:
        _, row = decoder.decode(record.value)
        return DecisionBatch(1, [(row["transaction_id"], frozenset(row["rules"].split(",")))] if row["rules"] else [])

    return BenchContender(SQL, (_reference(settings, SQL),), f"{settings.prefix}{REFERENCES[SQL][1]}", read)


def textbook_contender(settings: Settings) -> BenchContender:
    """Return the textbook PyFlink reference, on the cluster of our job, as a contender."""
    decisions = parse(latest("DecisionsMade").text)[1]
    schema = next(field for field in decisions["fields"] if field["name"] == "scored")["type"]["items"]

    def read(record: LogRecord) -> DecisionBatch:
        row: Any = schemaless_reader(BytesIO(record.value or b""), schema, None)
        return DecisionBatch(1, [(row["transaction_id"], frozenset(row["rules"]))] if row["rules"] else [])

    address = f"{settings.host}:{settings.flink_port}"
    settings = settings.model_copy(
        update={"flink_jvm_options": (), "flink_heap": REFERENCE_HEAP}
    )  # much of its work is the JVM's
    job = _reference(settings, TEXTBOOK, "--cluster", address)
    return BenchContender(TEXTBOOK, (*cluster(settings), job), f"{settings.prefix}{REFERENCES[TEXTBOOK][1]}", read)


def _reference(settings: Settings, name: str, *where: str) -> StackProgram:
    module, rest_port = REFERENCES[name][0], settings.flink_port + 1
    address = f"{settings.host}:{settings.flink_port if where else rest_port}"
    options = where or ("--rest-port", str(rest_port))
    return StackProgram(
        name=service_name(settings, name),
        command=python_command(module, *job_arguments(settings, name), *options),
        ports={} if where else {rest_port: "FRAUDCASE_FLINK_PORT"},
        is_ready=make_job_check(address, f"{settings.prefix}{name}"),
        after=tuple(part.name for part in cluster(settings)) if where else (),
    )


def run(settings: Settings, contender: BenchContender, transactions: int) -> ContenderResult:
    """Start a contender, let it decide all payments, and stop it. Raises ProgressStalled if answers are missing."""
    with running_programs(settings, contender.parts):
        return result_of(settings, contender, transactions)


def result_of(settings: Settings, contender: BenchContender, transactions: int) -> ContenderResult:
    """Return the rate and flags of a running contender. Raises ProgressStalled if answers are missing."""
    messages.print(f"{contender.name}: {transactions:,} payments", highlight=False)
    _wait_until_done(settings, contender, transactions)
    times: dict[int, int] = {}
    flags: set[tuple[str, frozenset[str]]] = set()
    log = kafka_logs(settings).reader()
    for partition, end in log.ends(contender.topic).items():
        for record in log.read(contender.topic, partition, end, contender.begin.get(partition, 0)):
            answer = contender.read(record)
            times[record.timestamp_ms] = times.get(record.timestamp_ms, 0) + answer.decisions
            flags.update(answer.flags)
    total = sum(times.values())
    if total != transactions:
        raise ProgressStalled(
            f"{contender.name} answered {total:,} of {transactions:,} payments. See the logs in {_logs(settings)}"
        )
    rate = sustained_rate(times)
    messages.print(f"{contender.name}: {rate:,.0f} payments/s, {len(flags):,} flagged", highlight=False)
    return ContenderResult(rate, frozenset(flags))


def sustained_rate(times: Mapping[int, int]) -> float:
    """Return answers per second in the middle of a run, from the numbers of answers by millisecond.

    Leaves out the first fifth, while a JVM compiles, and the last twentieth, when some tasks have no payments left.
    """
    total, answered, begun, counted = sum(times.values()), 0, None, 0
    for at in sorted(times):
        answered += times[at]
        if begun is None:
            begun = at if answered >= total // WARM_PART else None
            continue
        counted += times[at]
        if answered >= total - total // LAST_PART:
            return counted * 1000 / max(1, at - begun)
    return 0.0


@contextmanager
def running_programs(settings: Settings, parts: tuple[StackProgram, ...]) -> Iterator[None]:
    """Start programs, and stop them at the end in any case."""
    try:
        stack.check_ports(settings, parts)
        stack.up(settings, parts, print_status_line)
        yield
    finally:
        stack.down(settings, parts)


def _wait_until_done(settings: Settings, contender: BenchContender, transactions: int) -> None:
    before, moved = -1, time.monotonic()
    while True:
        now = sum(end_offsets(settings.kafka_bootstrap, contender.topic).values()) - sum(contender.begin.values())
        if now != before:
            before, moved = now, time.monotonic()
        waited = time.monotonic() - moved
        if now >= transactions or (contender.by_batch and before > 0 and waited > QUIET_S):
            return
        if waited > PATIENCE_S:
            raise ProgressStalled(
                f"{contender.name} wrote {before:,} records, and then nothing for {PATIENCE_S:.0f} s. "
                f"See the logs in {_logs(settings)}"
            )
        time.sleep(1)


def _logs(settings: Settings) -> str:
    return str(settings.home / "logs")


def flag_latencies(settings: Settings, traffic: Iterator[GeneratedPayment], rate: float) -> dict[str, Any]:
    """Measure latencies from payment to flag with the risk job alone, at a steady rate in payments per second."""
    messages.print(f"latency from payment to flag at {rate:,.0f} payments/s", highlight=False)
    views = partial(case_table, settings)
    seen = measure(kafka_logs(settings), views, traffic, rate, WARM_S, STEADY_S, with_views=False)
    return {
        "half_load_tx_per_s": round(rate),
        "flag_latency_ms": percentiles(list(seen.flagged_ms.values()), PATH_PERCENTILES),
        "flags_timed": len(seen.flagged_ms),
    }


def view_latencies(settings: Settings, traffic: Iterator[GeneratedPayment], rate: float) -> dict[str, Any]:
    """Measure latencies from payment to case view over the whole path, on the state of all earlier payments."""
    messages.print(f"latency from payment to case view at {rate:,.0f} payments/s", highlight=False)
    names = {service_name(settings, name) for name in (CASE_JOB, CASE_VIEWS)}
    with running_programs(settings, tuple(part for part in services(settings) if part.name in names)):
        wait_until_caught_up(settings)
        seen = measure(kafka_logs(settings), partial(case_table, settings), traffic, rate, WARM_S, STEADY_S)
    return {
        "path_tx_per_s": round(rate),
        "path_flag_latency_ms": percentiles(list(seen.flagged_ms.values()), PATH_PERCENTILES),
        "view_latency_ms": percentiles(list(seen.stored_ms.values()), PATH_PERCENTILES),
        "views_timed": len(seen.stored_ms),
    }


def wait_until_caught_up(settings: Settings) -> None:
    """Wait until flags, case events and views have not changed for QUIET_S."""
    names, table = topics(settings), case_table(settings)
    before, moved = -1, time.monotonic()
    while time.monotonic() - moved < QUIET_S:
        now = sum(
            sum(end_offsets(settings.kafka_bootstrap, topic).values())
            for topic in (names.risk_scored, names.cases_inbox, names.cases_events)
        )
        now += sum(1 for _ in table.scan())
        if now != before:
            before, moved = now, time.monotonic()
        time.sleep(1)


def restart_risk_job(settings: Settings, contender: BenchContender) -> BenchContender:
    """Return the risk job without state as a contender whose answers begin after the present ones."""
    shutil.rmtree(checkpoints(settings, RISK_JOB))
    return replace(contender, begin=kafka_logs(settings).reader().ends(contender.topic))


def time_loop() -> float:
    """Return the seconds that ten million additions take, best of three, as a measure of the machine's speed."""
    taken = []
    for _ in range(3):
        begun, total = time.perf_counter(), 0
        for number in range(10_000_000):
            total += number
        taken.append(time.perf_counter() - begun)
    return round(min(taken), 3)


def bench_stream(settings: Settings, transactions: int, seed: int, pack: RulePack) -> dict[str, Any]:
    """Run the whole comparison and return the report. Raises ProgressStalled or StackError.

    Our job keeps running after its second run, for the latencies: they are those of a system at work, and not of one
    that has just started and reads each account from its state.
    """
    traffic = iter(Traffic(TrafficOptions(seed=seed, accounts=ACCOUNTS, in_order=True)))
    fill_logs(settings, pack, traffic, transactions)
    contender, loops = risk_job_contender(settings), [time_loop()]
    first = run(settings, contender, transactions)
    loops.append(time_loop())
    results = {
        reference.name: run(settings, reference, transactions)
        for reference in (flink_sql_contender(settings), textbook_contender(settings))
    }
    loops.append(time_loop())
    contender = restart_risk_job(settings, contender)
    with running_programs(settings, contender.parts):
        second = result_of(settings, contender, transactions)
        for name, result in {**results, "fraudcase at first": first}.items():
            if result.flags != second.flags:
                only = sorted(tx for tx, _ in result.flags ^ second.flags)
                raise ProgressStalled(
                    f"{name} and fraudcase flag different payments: {len(only)} differ, for example {only[:3]}"
                )
        latencies = {
            **flag_latencies(settings, traffic, second.tx_per_s / 2),
            **view_latencies(settings, traffic, second.tx_per_s / 4),
        }
    both = (first.tx_per_s + second.tx_per_s) / 2
    return {
        "transactions": transactions,
        "rules": [rule.name for rule in pack.rules],
        "flags": len(second.flags),
        "tx_per_s": round(second.tx_per_s),
        "tx_per_s_at_first": round(first.tx_per_s),
        "flink_sql_tx_per_s": round(results[SQL].tx_per_s),
        "textbook_tx_per_s": round(results[TEXTBOOK].tx_per_s),
        "vs_flink_sql": round(both / results[SQL].tx_per_s, 2),
        "vs_textbook": round(both / results[TEXTBOOK].tx_per_s, 2),
        **latencies,
        "loop_s": [*loops, time_loop()],
    }
