"""Latency from a payment's due time to its flag and to the case view."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context
from typing import TypeVar

from confluent_kafka import Producer

from console.terminal import progress
from console.times import now_ms
from console.waiting import ProgressStalled, end_offsets
from domain.cases.events import CaseOpened, RiskLinked
from domain.record_types import from_fields
from domain.risk.events import RiskFlagged
from generator.traffic import GeneratedPayment
from projections.logs.kafka_logs import KafkaLogs
from projections.views.case_table import DynamoCaseTable

POLL_S, POLLED_CASES = 0.02, 50
"""Seconds between two polls of views, and cases per poll, longest wait first: few, so that polling is not the load."""
START_S, AFTER_S = 3.0, 10.0
"""Seconds for the start of the watcher, and for the last view after the last payment."""
PERMILLE = {"p50": 500, "p95": 950, "p99": 990, "p999": 999}
PATH_PERCENTILES = ("p50", "p99", "p999")
Number = TypeVar("Number", int, float)
Payment = tuple[str, str]
"""Account and transaction id."""


@dataclass(slots=True)
class LatencyTimestamps:
    """Append time of the flag on each payment, and the time at which its case view included it, in milliseconds."""

    flagged_ms: dict[Payment, int] = field(default_factory=dict)
    stored_ms: dict[Payment, int] = field(default_factory=dict)


def percentiles(values: Sequence[Number], names: Sequence[str]) -> dict[str, Number]:
    """Return the percentiles with these names of PERMILLE. The values must not be empty."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return {name: ordered[min(last, len(ordered) * PERMILLE[name] // 1000)] for name in names}


def measure(
    logs: KafkaLogs,
    open_table: Callable[[], DynamoCaseTable],
    traffic: Iterator[GeneratedPayment],
    rate: float,
    warm_s: float,
    seconds: float,
    *,
    with_views: bool = True,
) -> LatencyTimestamps:
    """Send traffic at a steady rate and return the latencies of the payments after the warm-up, from their due
    times.

    The jobs that flag must run, and those that update views unless `with_views` is false. Raises ProgressStalled if
    flags or views are missing at the end. `open_table` opens the table of case views; it is sent to another process.
    """
    total, warm = int(rate * (warm_s + seconds)), int(rate * warm_s)
    encode = logs.encoder().encode
    made = [each.transaction for each in islice(traffic, total)]
    values = [encode("Transaction", each) for each in made]
    payments = [(each["account_id"], each["transaction_id"]) for each in made]
    del made
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        ends = {
            (topic, number): end
            for topic in (logs.topics.cases_inbox, logs.topics.cases_events)
            for number, end in end_offsets(logs.bootstrap, topic).items()
        }
        watching = pool.submit(watch, logs, open_table, ends, START_S + warm_s + seconds + AFTER_S)
        time.sleep(START_S)  # so that the watcher's start does not slow the system down
        due_ms = _send(logs, values, payments, rate)
        seen = watching.result()
    counted = dict(zip(payments[warm:], due_ms[warm:], strict=True))
    flagged = {payment: at - counted[payment] for payment, at in seen.flagged_ms.items() if payment in counted}
    stored = {payment: at - counted[payment] for payment, at in seen.stored_ms.items() if payment in counted}
    if not flagged or (with_views and flagged.keys() - stored.keys()):
        raise ProgressStalled(f"{len(flagged)} payments were flagged, but only {len(stored)} of them reached a view")
    return LatencyTimestamps(flagged, stored)


def _send(logs: KafkaLogs, values: Sequence[bytes], payments: Sequence[Payment], rate: float) -> list[int]:
    """Send each payment at its due time or as soon as possible after it; return the due times."""
    topic = logs.topics.payments_inbound
    producer = Producer(
        {
            "bootstrap.servers": logs.bootstrap,
            "partitioner": "murmur2_random",
            "linger.ms": 40,
            "delivery.report.only.error": True,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    begun, begun_ms = time.monotonic(), now_ms()
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


def watch(
    logs: KafkaLogs, open_table: Callable[[], DynamoCaseTable], ends: dict[tuple[str, int], int], seconds: float
) -> LatencyTimestamps:
    """Follow flags and case events, and poll the views of the cases until they include the events.

    Runs in a separate process, so that it does not wait for the sender.
    """
    seen = LatencyTimestamps()
    waiting: dict[tuple[str, int], Payment] = {}
    follower, decoder, table = logs.reader().follow(ends), logs.decoder(), open_table()
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        for record in follower.poll(POLL_S):
            event = from_fields(*decoder.decode(record.value))
            if isinstance(event, RiskFlagged):
                seen.flagged_ms.setdefault((event.account_id, event.transaction_id), record.timestamp_ms)
            elif isinstance(event, CaseOpened | RiskLinked):
                waiting[event.case_id, event.sequence] = event.account_id, event.transaction_id
        sequences = table.sequences(list(dict.fromkeys(case_id for case_id, _ in waiting))[:POLLED_CASES])
        at_ms = now_ms()
        for case_id, sequence in [place for place in waiting if sequences.get(place[0], 0) >= place[1]]:
            seen.stored_ms.setdefault(waiting.pop((case_id, sequence)), at_ms)
    follower.close()
    return seen
