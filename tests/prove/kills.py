"""Systems that are killed at random moments while they decide, and must arrive at the decisions of the plain run."""

import json
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException, Producer

from console.system import lifecycle as system
from console.waiting import ProgressStalled
from console.wiring import topics
from infra import stack
from infra.flink_cluster import cluster
from infra.parts import StackProgram, store_programs
from infra.services import services
from infra.settings import CHECKOUT, Settings
from schemas.codec import Encoder
from schemas.registry import SchemaRegistry
from tests.support.replays import replay_system
from tests.support.traffic import CHUNK, RecordedPayment, recording, tick

PORTS: dict[str, Any] = {
    "kafka_port": 21092, "kafka_controller_port": 21093, "registry_port": 21081, "dynamodb_port": 21000,
    "s3_port": 21090, "flink_port": 21082, "metrics_port": 21400, "console_port": 21080, "flink_cluster_port": 21600,
}  # fmt: skip
PATIENCE_S = 300.0
SEED, PAYMENTS = 1, 8_000


def home() -> Settings:
    """Return the settings of the stores that every system here shares."""
    folder = CHECKOUT / ".fraudcase"
    return Settings(home=folder / "prove", jars=folder / "jars", partitions=8, clock_every_s=0, **PORTS)


def beside(prefix: str, **changed: object) -> Settings:
    """Return the settings of a further system on these stores. One system runs at a time."""
    small = {"flink_window_ms": 10, "checkpoint_every_ms": 1_000, "flink_snapshot_every": 100}
    return home().model_copy(update={"prefix": f"{prefix}-", **small, **changed})


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: the chunk of the recording before it, the delay after that chunk was written, and the process."""

    chunk: int
    after_s: float
    dead_s: float
    victim: int


def plan(seed: int, kills: int, chunks: int) -> list[Kill]:
    """Return random moments from a seed, in order."""
    draw = random.Random(seed)
    made = [
        Kill(draw.randrange(chunks), draw.uniform(0, 1.5), draw.uniform(0, 2), draw.randrange(1 << 16))
        for _ in range(kills)
    ]
    return sorted(made, key=lambda kill: (kill.chunk, kill.after_s))


def derived_in(certificate: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a certificate that do not depend on when its system was made.

    The log has a digest too, which is a part of the root: the first record of each partition activates the rules, and
    carries the time at which it was written.
    """
    digests = {name: digest for name, digest in certificate["digests"].items() if name != "inbound"}
    return {"digests": digests, "counts": certificate["counts"]}


def derived_of(
    settings: Settings, ticks: Path, kills: Sequence[Kill] = (), start: int = 0
) -> tuple[dict[str, Any], list[str]]:
    """Return the results of the recording in a system of its own, and the processes that were killed. Raise
    ProgressStalled.

    The kills rotate through all processes, beginning at `start`, so that enough rounds kill each of them.
    """
    system.prepare(settings)
    everyone = [*store_programs(settings), *services(settings)]
    names = [part.name for part in everyone]
    records = recording(SEED, Encoder(SchemaRegistry(settings.registry_url).ids()), PAYMENTS)
    killed: list[str] = []
    with running(settings, everyone):
        half = len(records) // 2
        for first, last in ((0, half), (half, len(records))):
            for begin in range(first, last, CHUNK):
                write(settings, records[begin : min(last, begin + CHUNK)])
                for kill in kills:
                    if kill.chunk == begin // CHUNK:
                        killed.append(names[(start + len(killed)) % len(names)])
                        _kill(settings, everyone, killed[-1], kill)
            settled(settings)
            tick(settings, ticks, records[last - 1])
        return derived_in(settled(settings)), killed


def _kill(settings: Settings, everyone: Sequence[StackProgram], name: str, kill: Kill) -> None:
    time.sleep(kill.after_s)
    stack.kill(settings, name)
    time.sleep(kill.dead_s)
    stack.up(settings, everyone)


@contextmanager
def running(settings: Settings, everyone: Sequence[StackProgram]) -> Iterator[None]:
    """Start everything; stop the system afterwards, but not the stores."""
    stack.up(settings, everyone)
    try:
        yield
    finally:
        stack.down(settings, (*services(settings), *cluster(settings)))


def write(settings: Settings, records: Sequence[RecordedPayment]) -> None:
    """Append records in order, each once, although the broker may be killed meanwhile."""
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka_bootstrap,
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            "message.timeout.ms": int(PATIENCE_S * 1000),
        }
    )
    for record in records:
        producer.produce(topics(settings).payments_inbound, record.value, record.key, timestamp=record.timestamp_ms)
    if producer.flush(PATIENCE_S):
        raise ProgressStalled(f"payments were not acknowledged within {PATIENCE_S:.0f} s")


def settled(settings: Settings) -> dict[str, Any]:
    """Return the certificate once no record is pending. Raise ProgressStalled, also if anything differs."""
    begun, said = time.monotonic(), "nothing yet"
    while time.monotonic() - begun < PATIENCE_S:
        try:
            found = replay_system(settings, "kafka")
        except KafkaException as error:  # a broker that has just restarted
            said = str(error)
        else:
            if not found.is_lag:
                if found.problems:
                    raise ProgressStalled("\n".join(found.problems[:5]))
                return found.certificate
            said = "\n".join(found.problems[:5])
        time.sleep(0.5)
    raise ProgressStalled(f"not all is there after {PATIENCE_S:.0f} s: {said}")


def parsed(file: Path) -> dict[str, Any]:
    """Read a certificate from a file."""
    document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return document
