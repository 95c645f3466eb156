"""How the jobs run does not change their decisions: one recorded input results in one digest.

Each system has its own prefix on the test stack, and gets equal bytes, in equal order, with equal Kafka timestamps. The
clock ticks from a file, at two points of the log that are defined by the records before them: after all flags of the
payments so far. (Flags of different accounts, and ticks, enter a partition in the order of their arrival. The order of
accounts decides nothing; the position of a tick does.)
"""

import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from confluent_kafka import Producer

from console.payments.intake import AnswerTracker, LogPlace
from console.system import lifecycle as system
from console.waiting import ProgressStalled
from console.wiring import kafka_logs, topics
from infra import stack
from infra.flink_cluster import cluster, taskmanager_name
from infra.parts import StackProgram, read_json
from infra.services import CASE_JOB, CASE_VIEWS, FLINK_JOBS, RISK_JOB, job_name, service_name, services
from infra.settings import Settings
from schemas.codec import Encoder
from tests.support.replays import replay_system
from tests.support.stack import PORTS
from tests.support.traffic import CHUNK, RecordedPayment, recording, tick

PATIENCE_S = 120.0
BESIDE = {name: PORTS[name] + 100 for name in ("flink_port", "metrics_port")} | {"flink_cluster_port": 20600}
"""Ports of the systems of this file. One runs at a time, beside the system of the other tests."""
Digests = tuple[object, object]
"""Digests of all decisions, and of the stored case views."""


def write(settings: Settings, records: Sequence[RecordedPayment]) -> set[LogPlace]:
    """Append the records to payments.inbound, and return their log positions."""
    places: set[LogPlace] = set()
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap, "partitioner": "murmur2_random"})
    for record in records:
        producer.produce(
            topics(settings).payments_inbound, record.value, record.key, timestamp=record.timestamp_ms,
            on_delivery=lambda _, message: places.add((message.partition(), message.offset())),
        )  # fmt: skip
    assert producer.flush(60) == 0
    assert len(places) == len(records)
    return places


def beside(settings: Settings, prefix: str, **changed: object) -> Settings:
    """Return the settings of a further system on the test stack."""
    small = {"flink_window_ms": 10, "checkpoint_every_ms": 1_000, "flink_snapshot_every": 100}
    return settings.model_copy(update={"prefix": f"{prefix}-", **BESIDE, **small, **changed})


def parts_of(settings: Settings, *, with_cluster: bool = True) -> list[StackProgram]:
    """Return the programs that a system needs here: its jobs, its case views, and the cluster if it has one."""
    names = {service_name(settings, name) for name in (FLINK_JOBS, RISK_JOB, CASE_JOB, CASE_VIEWS)}
    if with_cluster:
        names |= {part.name for part in cluster(settings)}
    return [part for part in services(settings) if part.name in names]


def settled(settings: Settings) -> dict[str, object]:
    """Replay until every result of the logs is there: no record is lost, and no decision differs."""
    begun = time.monotonic()
    while (result := replay_system(settings, "kafka")).is_lag:
        if time.monotonic() - begun > PATIENCE_S:
            raise ProgressStalled("\n".join(result.problems))
        time.sleep(0.5)
    assert result.problems == []
    return result.document


def through(
    settings: Settings,
    records: Sequence[RecordedPayment],
    folder: Path,
    *,
    killed: Sequence[str] = (),
    resumed: Settings | None = None,
) -> Digests:
    """Run a recording through a system of its own, and return the digests.

    The recording has two halves, each followed by a tick of the clock. Between them, the system may be stopped and
    `resumed` with other settings. In the middle of the second half, the `killed` programs are killed, and started
    again.
    """
    system.prepare(settings)
    half, now = len(records) // 2, resumed or settings
    stack.up(settings, parts_of(settings))
    try:
        AnswerTracker(kafka_logs(settings)).wait_for(write(settings, records[:half]))
        settled(settings)
        tick(settings, folder, records[half - 1])
        if resumed:
            stack.down(settings, parts_of(settings, with_cluster=False))
            stack.up(now, parts_of(now))
        send_on(now, records[half:], killed)
        settled(now)
        tick(now, folder, records[-1])
        document = settled(now)
        if killed or resumed:
            assert all(restored(now).values()), "a job did not start from a checkpoint"
    finally:
        stack.down(now, parts_of(now, with_cluster=False))
    for kind in ("quarantined", "duplicates", "flags", "cases_opened", "cases_escalated"):
        assert document[kind], f"the recording has no {kind}"
    return document["live_digest"], document["live_views_digest"]


def send_on(settings: Settings, records: Sequence[RecordedPayment], killed: Sequence[str]) -> None:
    """Write in chunks, kill when half is written, write the rest, start again, and wait for all answers."""
    answers, places = AnswerTracker(kafka_logs(settings)), set[LogPlace]()
    for first in range(0, len(records), CHUNK):
        places |= write(settings, records[first : first + CHUNK])
        answers.poll()
        if first == len(records) // 2 // CHUNK * CHUNK:
            for name in killed:
                stack.kill(settings, name)
    assert set(stack.up(settings, parts_of(settings))) == set(killed)
    answers.wait_for(places)


def restored(settings: Settings) -> dict[str, int]:
    """Return the number of times that each job on the cluster started from a checkpoint."""
    address = f"http://{settings.host}:{settings.flink_port}/jobs"
    ours = {job_name(settings, name) for name in (RISK_JOB, CASE_JOB)}
    found = read_json(f"{address}/overview")["jobs"]  # includes cancelled jobs
    running = {job["name"]: job["jid"] for job in found if job["name"] in ours and job["state"] == "RUNNING"}
    assert running.keys() == ours
    return {name: read_json(f"{address}/{job}/checkpoints")["counts"]["restored"] for name, job in running.items()}


@pytest.fixture(scope="module")
def encoder(settings: Settings) -> Encoder:
    return kafka_logs(settings).encoder()


@pytest.fixture(scope="module")
def records(encoder: Encoder) -> list[RecordedPayment]:
    return recording(1, encoder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ticks")


@pytest.fixture(scope="module")
def digests(settings: Settings, records: Sequence[RecordedPayment], folder: Path) -> Digests:
    """Return the digests of a run that differs in every setting: four tasks, batches of a second, Python in
    processes.

    `make prove` runs each difference alone, with more records, beside the plainest run.
    """
    unlike = beside(settings, "unlike", flink_parallelism=4, flink_window_ms=1_000, flink_mode="process")
    return through(unlike, records, folder)


def test_kills_parallelism_batches_and_processes_change_nothing(
    settings: Settings, records: Sequence[RecordedPayment], folder: Path, digests: Digests
) -> None:
    """On a cluster, with one task in threads at first. The jobs continue with two tasks; then one job and the case
    views are killed.

    Decisions since the last checkpoints are made again.
    """
    narrow = beside(settings, "cluster", flink_cluster_taskmanagers=2, flink_parallelism=1)
    wide = narrow.model_copy(update={"flink_parallelism": 2})
    killed = [taskmanager_name(1), service_name(wide, CASE_VIEWS)]
    try:
        assert through(narrow, records, folder, killed=killed, resumed=wide) == digests
    finally:
        stack.down(wide, cluster(wide))
