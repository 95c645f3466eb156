"""Sends payments into the log and waits until each of them is answered."""

import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from confluent_kafka import Message

from console.payments import files
from console.payments.decisions import answered_rows, reused_ids
from console.payments.intake_writer import IntakeWriter
from console.privacy.vault import Vault
from console.terminal import progress
from console.waiting import ProgressStalled, end_offsets
from console.wiring import IntakeParts
from domain.payment import Refusal
from domain.quarantine import Quarantined, key_of
from domain.quarantine import report as quarantine_report
from domain.record_types import from_fields, to_fields
from domain.risk.events import DecisionsMade, DuplicateSeen, RiskScored
from generator.traffic import Behaviour, GeneratedPayment
from projections.logs.kafka_logs import KafkaLogs
from projections.logs.partition_writer import AddressedRecord
from schemas.codec import MAX_BODY

PATIENCE_S = 60.0
KEYS_AT_ONCE = 1_000
"""Rows whose keys are read or made in one step."""
LogPlace = tuple[int, int]
"""Partition and offset in payments.inbound."""


class AnswerTracker:
    """Answers of the risk job since this tracker was made.

    `places` are the answered records of payments.inbound, `answered_ms` the broker's timestamps of their answers.
    """

    def __init__(self, logs: KafkaLogs) -> None:
        self.places: set[LogPlace] = set()
        self.answered_ms: dict[LogPlace, int] = {}
        names = logs.topics
        starts = {
            (topic, number): end
            for topic in (names.risk_scored, names.quarantine)
            for number, end in end_offsets(logs.bootstrap, topic).items()
        }
        self._inbound = names.payments_inbound
        self._decoder = logs.decoder()
        self._follower = logs.reader().follow(starts)

    def poll(self, wait_s: float = 0.2) -> int:
        """Read the answers that arrive within `wait_s` seconds. Return the number of answered records so far."""
        for record in self._follower.poll(wait_s):
            event = from_fields(*self._decoder.decode(record.value))
            answers: list[RiskScored | DuplicateSeen | Quarantined] = []
            if isinstance(event, DecisionsMade):
                answers += event.answers()
            elif isinstance(event, Quarantined) and event.topic == self._inbound and not event.decided:
                answers.append(event)
            for answer in answers:
                self.places.add((answer.partition, answer.offset))
                self.answered_ms.setdefault((answer.partition, answer.offset), record.timestamp_ms)
        return len(self.places)

    def wait_for(self, sent: set[LogPlace], seen: Callable[[int], None] = lambda _: None) -> None:
        """Wait until all of `sent` are answered. Raise ProgressStalled if no answer comes for PATIENCE_S."""
        before, moved = -1, time.monotonic()
        while not sent <= self.places:
            now = self.poll()
            seen(now)
            if now != before:
                before, moved = now, time.monotonic()
            elif time.monotonic() - moved > PATIENCE_S:
                left = len(sent - self.places)
                raise ProgressStalled(
                    f"{left} of {len(sent)} payments have no answer, and none has arrived for {PATIENCE_S:.0f} s. "
                    "All of them are in the log. Look: fraudcase status"
                )
        self._follower.close()


@dataclass(slots=True)
class AcknowledgedRecords:
    """Records of one run that Kafka has acknowledged, with the broker's timestamps."""

    run: str
    places: set[LogPlace] = field(default_factory=set)
    sent_ms: dict[LogPlace, int] = field(default_factory=dict)

    def acknowledged(self, message: Message) -> None:
        """Note a record that Kafka has acknowledged."""
        place = message.partition(), message.offset()
        self.places.add(place)
        self.sent_ms[place] = message.timestamp()[1]


def open_intake(parts: IntakeParts) -> tuple[IntakeWriter, AcknowledgedRecords]:
    """Open an intake for one run. Return its writer, and the records that Kafka acknowledges."""
    sent = AcknowledgedRecords(uuid.uuid4().hex[:12])
    intake = IntakeWriter(
        parts.logs.bootstrap,
        parts.logs.topics.payments_inbound,
        parts.logs.encoder(),
        sent.run,
        sealer=parts.keys,
        location_decimals=parts.location_decimals,
        acknowledged=sent.acknowledged,
    )
    return intake, sent


def ingest(parts: IntakeParts, path: Path) -> dict[str, object]:
    """Send every row of a file and wait for the answers. Return the number of rows by outcome.

    Raise BadFile, NotWritten or ProgressStalled.
    """
    rows, total = files.read_rows(path), files.count_rows(path)
    answers = AnswerTracker(parts.logs)
    intake, sent = open_intake(parts)
    begun = time.monotonic()
    with progress("rows sent", total) as seen:
        for row in prepare_keys(rows, parts.keys):
            if row.refusal is None:
                intake.send(row.fields, path.name)
            else:
                intake.refuse(row.fields, row.refusal, path.name)
            if intake.rows % 1000 == 0:
                seen(intake.rows)
    intake.flush()
    with progress("rows answered", intake.rows) as seen:
        answers.wait_for(sent.places, seen)
    seconds = time.monotonic() - begun
    return {**account_for(parts.logs, sent.run, intake.rows), "seconds": round(seconds, 1),
            "rows_per_s": round(intake.rows / seconds)}  # fmt: skip


def prepare_keys(rows: Iterable[files.IntakeRow], keys: Vault) -> Iterator[files.IntakeRow]:
    """Yield the rows, in order; the keys that they need are read or made for KEYS_AT_ONCE rows at a time."""
    rows = iter(rows)
    while chunk := list(islice(rows, KEYS_AT_ONCE)):
        keys.prepare(row.fields["account_id"] for row in chunk if row.refusal is None and row.fields["attributes"])
        yield from chunk


def account_for(logs: KafkaLogs, run: str, rows: int) -> dict[str, object]:
    """Return the number of rows of a run by outcome. Raise ProgressStalled if they do not add up to `rows`."""
    everything = answered_rows(logs.reader(), logs.topics, logs.decoder())
    lines = [answer for answer in everything if answer.run == run]
    quarantined = sum(line.is_quarantined for line in lines)
    flagged = sum(bool(line.line["rules"]) for line in lines)
    passed = len(lines) - quarantined - flagged
    if len(lines) != rows:
        raise ProgressStalled(f"only {len(lines)} of {rows} rows have an outcome")
    here = {line.where for line in lines}
    reused = {where: found for where, found in reused_ids(everything).items() if where in here}
    report_reused(logs, {where: each.detail for where, each in reused.items() if not each.on_own_account})
    return {
        "run": run,
        "rows": rows,
        "flagged": flagged,
        "passed": passed,
        "quarantined": quarantined,
        "duplicates": sum(line.is_duplicate for line in lines),
        "conflicts": len(reused),
    }


def report_reused(logs: KafkaLogs, reused: dict[LogPlace, str]) -> None:
    """Report transaction ids that another account had used to quarantine. Raise NotAcknowledged."""
    names, log, encoder = logs.topics, logs.reader(), logs.encoder()
    records = []
    for partition in sorted({partition for partition, _ in reused}):
        for record in log.read(names.payments_inbound, partition, log.ends(names.payments_inbound)[partition]):
            detail = reused.get((partition, record.offset))
            if detail is not None:
                found = quarantine_report(
                    Refusal("conflict", detail), record.value, topic=names.payments_inbound, partition=partition,
                    offset=record.offset, most=MAX_BODY, decided=True,
                )  # fmt: skip
                records.append(AddressedRecord(0, key_of(found), encoder.encode("Quarantined", to_fields(found))))
    logs.writer(names.quarantine).write(records)


def send_generated(
    intake: IntakeWriter,
    traffic: Iterable[GeneratedPayment],
    rate: float | None,
    truth: Callable[[GeneratedPayment], None],
) -> dict[Behaviour, int]:
    """Send traffic, at most `rate` payments a second; call `truth` with each. Return the number by behaviour."""
    counts = dict.fromkeys(Behaviour, 0)
    begun = time.monotonic()
    for number, generated in enumerate(traffic):
        if rate is not None:
            ahead = number / rate - (time.monotonic() - begun)
            if ahead > 0.002:
                time.sleep(ahead)
        intake.send(generated.transaction, "generator")
        truth(generated)
        counts[generated.behaviour] += 1
    return counts
