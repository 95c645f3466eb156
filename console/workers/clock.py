"""The clock of the cases: writes each tick once into every partition of cases.inbox, so that deadlines replay."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from console.times import now_ms
from domain.cases.events import ClockTicked
from domain.record_types import to_fields
from projections.logs.kafka_logs import KafkaLogs
from projections.logs.partition_writer import partitions_of, write_to_partitions
from projections.logs.worker import StopSignal, logs_of, parser, serve_metrics


class BadTickFile(ValueError):
    """A line of a tick file that is not a tick; the message names the line and what it must hold."""


def live_ticks(every_s: float, stopped: Callable[[], bool]) -> Iterator[ClockTicked]:
    """Yield a tick now, and one at every multiple of the period until `stopped`. A tick's id contains its time."""
    period_ms = max(1, int(every_s * 1000))
    while not stopped():
        at_ms = now_ms() // period_ms * period_ms
        yield ClockTicked(tick_id=f"tick-{at_ms}", now_ms=at_ms)
        while not stopped() and now_ms() < at_ms + period_ms:
            time.sleep(0.2)


def ticks_from(path: Path) -> Iterator[ClockTicked]:
    """Yield the ticks of a file of JSON lines `{"now_ms": 1750000000000}`, in ascending order. Raise BadTickFile."""
    before = -1
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            at_ms = json.loads(line)["now_ms"]
        except (ValueError, KeyError, TypeError) as error:
            raise BadTickFile(f'{path}:{number}: not a tick; write {{"now_ms": 1750000000000}}') from error
        if not isinstance(at_ms, int) or at_ms <= before:
            raise BadTickFile(f"{path}:{number}: now_ms must be whole and greater than {before}, it is {at_ms!r}")
        before = at_ms
        yield ClockTicked(tick_id=f"tick-{at_ms}", now_ms=at_ms)


def write_ticks(logs: KafkaLogs, ticks: Iterator[ClockTicked]) -> int:
    """Write each tick into every partition of cases.inbox. Return the number of ticks."""
    encoder, topic = logs.encoder(), logs.topics.cases_inbox
    partitions = partitions_of(logs.bootstrap, topic)
    count = 0
    for tick in ticks:
        value = encoder.encode("ClockTicked", to_fields(tick))
        write_to_partitions(logs.bootstrap, topic, tick.tick_id.encode(), value, partitions)
        count += 1
    return count


def main() -> None:
    """Tick until stopped by SIGTERM or SIGINT."""
    options = parser()
    options.add_argument("--every", type=float, required=True, help="seconds from one tick to the next")
    known = options.parse_args()
    stop = StopSignal()
    serve_metrics(known.metrics_port)
    ticks = live_ticks(known.every, lambda: stop.is_set)
    write_ticks(logs_of(known), ticks)


if __name__ == "__main__":
    main()
