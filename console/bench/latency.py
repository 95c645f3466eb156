"""How long a payment takes to its flag and to the case view, from the moment at which it was due to be sent."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context

from confluent_kafka import Producer

from console.terminal import progress
from console.waiting import ProgressStalled, end_offsets
from console.wiring import case_table, topics
from domain.cases.events import CaseOpened, RiskLinked
from domain.record_types import from_fields
from domain.risk.events import RiskFlagged
from generator.traffic import GeneratedPayment
from infra.settings import Settings
from projections.logs.log import KafkaLog
from schemas.codec import Decoder, Encoder
from schemas.registry import SchemaRegistry

POLL_S, POLLED = 0.02, 50
"""How often the views of so many cases are looked at, those that wait longest first: asking must not be the load."""
START_S, AFTER_S = 3.0, 10.0
"""How long the watcher may take to start, and the last view to come."""
SHARES = {"p50": 0.50, "p99": 0.99, "p999": 0.999}
Payment = tuple[str, str]
"""Account and transaction id."""


@dataclass(slots=True)
class LatencyTimestamps:
    """When the flag on a payment was appended to its log, and when the view of its case spoke of it (milliseconds)."""

    flagged_ms: dict[Payment, int] = field(default_factory=dict)
    stored_ms: dict[Payment, int] = field(default_factory=dict)


def percentiles(milliseconds: Sequence[int]) -> dict[str, int]:
    """The usual three, each the least value that so large a share does not exceed."""
    ordered = sorted(milliseconds)
    last = len(ordered) - 1
    return {name: ordered[min(last, int(len(ordered) * share))] for name, share in SHARES.items()}


def measure(
    settings: Settings,
    traffic: Iterator[GeneratedPayment],
    rate: float,
    warm_s: float,
    seconds: float,
    *,
    with_views: bool = True,
) -> LatencyTimestamps:
    """Send traffic at a steady rate; latencies of the payments due after the warm-up, from the times they were due.

    What leads to flags must run, and to views unless `with_views` is off. Raises Stalled if any are missing in the end.
    """
    total, warm = int(rate * (warm_s + seconds)), int(rate * warm_s)
    encode = Encoder(SchemaRegistry(settings.registry_url).ids()).encode
    made = [each.transaction for each in islice(traffic, total)]
    values = [encode("Transaction", each) for each in made]
    payments = [(each["account_id"], each["transaction_id"]) for each in made]
    del made
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        ends = {
            (topic, number): end
            for topic in (topics(settings).cases_inbox, topics(settings).cases_events)
            for number, end in end_offsets(settings.kafka_bootstrap, topic).items()
        }
        watching = pool.submit(watch, settings, ends, START_S + warm_s + seconds + AFTER_S)
        time.sleep(START_S)  # the watcher's own start is not the system's load
        due_ms = _send(settings, values, payments, rate)
        seen = watching.result()
    counted = dict(zip(payments[warm:], due_ms[warm:], strict=True))
    flagged = {payment: at - counted[payment] for payment, at in seen.flagged_ms.items() if payment in counted}
    stored = {payment: at - counted[payment] for payment, at in seen.stored_ms.items() if payment in counted}
    if not flagged or (with_views and flagged.keys() - stored.keys()):
        raise ProgressStalled(f"{len(flagged)} payments were flagged, and {len(stored)} of them reached a view")
    return LatencyTimestamps(flagged, stored)


def _send(settings: Settings, values: Sequence[bytes], payments: Sequence[Payment], rate: float) -> list[int]:
    """Each payment at its time, or as soon after it as it goes; returns the times at which they were due."""
    topic = topics(settings).payments_inbound
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka_bootstrap,
            "partitioner": "murmur2_random",
            "linger.ms": 40,
            "delivery.report.only.error": True,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    begun, begun_ms = time.monotonic(), time.time_ns() // 1_000_000
    due_ms = [begun_ms + int(number * 1000 / rate) for number in range(len(values))]
    with progress("payments sent", len(values)) as seen:
        for number, (value, payment) in enumerate(zip(values, payments, strict=True)):
            if number % 50 == 0:
                ahead = number / rate - (time.monotonic() - begun)
                if ahead > 0.001:
                    time.sleep(ahead)
                producer.poll(0)
            producer.produce(topic, value, payment[0].encode())
            if number % 1000 == 0:
                seen(number)
    if producer.flush(AFTER_S):
        raise ProgressStalled(f"not all payments were acknowledged within {AFTER_S:.0f} s")
    return due_ms


def watch(settings: Settings, ends: dict[tuple[str, int], int], seconds: float) -> LatencyTimestamps:
    """Follow flags and case events, and look at the views of cases until they have come as far.

    Runs in a process of its own, so that it does not wait for the sender.
    """
    seen = LatencyTimestamps()
    waiting: dict[tuple[str, int], Payment] = {}
    decoder = Decoder(SchemaRegistry(settings.registry_url).schema_text)
    follower, table = KafkaLog(settings.kafka_bootstrap).follow(ends), case_table(settings)
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        for record in follower.poll(POLL_S):
            event = from_fields(*decoder.decode(record.value))
            if isinstance(event, RiskFlagged):
                seen.flagged_ms.setdefault((event.account_id, event.transaction_id), record.timestamp_ms)
            elif isinstance(event, CaseOpened | RiskLinked):
                waiting[event.case_id, event.sequence] = event.account_id, event.transaction_id
        there = table.sequences(list(dict.fromkeys(case_id for case_id, _ in waiting))[:POLLED])
        now_ms = time.time_ns() // 1_000_000
        for case_id, sequence in [place for place in waiting if there.get(place[0], 0) >= place[1]]:
            seen.stored_ms.setdefault(waiting.pop((case_id, sequence)), now_ms)
    follower.close()
    return seen
