"""The clock of the cases: ticks, written once into each partition of cases.inbox, so that deadlines replay."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from domain.cases.events import ClockTicked
from domain.record_types import to_fields
from projections.logs.partition_writer import partitions_of, write_to_partitions
from projections.logs.worker import StopSignal, parser, serve_metrics
from schemas.codec import Encoder
from schemas.registry import SchemaRegistry


class BadTickFile(ValueError):
    """A line of a tick file that is no tick; the message says which, and what it must be."""


def live_ticks(every_s: float, stopped: Callable[[], bool]) -> Iterator[ClockTicked]:
    """A tick now, and then on every multiple of the period, until stopped. Ids are the times that they tell."""
    period_ms = max(1, int(every_s * 1000))
    while not stopped():
        now_ms = time.time_ns() // 1_000_000 // period_ms * period_ms
        yield ClockTicked(tick_id=f"tick-{now_ms}", now_ms=now_ms)
        while not stopped() and time.time_ns() // 1_000_000 < now_ms + period_ms:
            time.sleep(0.2)


def ticks_from(path: Path) -> Iterator[ClockTicked]:
    """The ticks in a file of JSON lines `{"now_ms": 1750000000000}`, in ascending order. Raises BadTickFile."""
    before = -1
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            now_ms = json.loads(line)["now_ms"]
        except (ValueError, KeyError, TypeError) as error:
            raise BadTickFile(f'{path}:{number}: not a tick; write {{"now_ms": 1750000000000}}') from error
        if not isinstance(now_ms, int) or now_ms <= before:
            raise BadTickFile(f"{path}:{number}: now_ms must be whole and greater than {before}, it is {now_ms!r}")
        before = now_ms
        yield ClockTicked(tick_id=f"tick-{now_ms}", now_ms=now_ms)


def write_ticks(bootstrap: str, registry_url: str, topic: str, ticks: Iterator[ClockTicked]) -> int:
    """Write each tick into every partition; returns how many ticks."""
    encoder = Encoder(SchemaRegistry(registry_url).ids())
    partitions = partitions_of(bootstrap, topic)
    count = 0
    for tick in ticks:
        value = encoder.encode("ClockTicked", to_fields(tick))
        write_to_partitions(bootstrap, topic, tick.tick_id.encode(), value, partitions)
        count += 1
    return count


def main() -> None:
    """Tick until told to stop: the clock service."""
    options = parser()
    options.add_argument("--every", type=float, required=True, help="seconds from one tick to the next")
    known = options.parse_args()
    stop = StopSignal()
    serve_metrics(known.metrics_port)
    ticks = live_ticks(known.every, lambda: stop.is_set)
    write_ticks(known.bootstrap, known.registry, known.topics.cases_inbox, ticks)


if __name__ == "__main__":
    main()
