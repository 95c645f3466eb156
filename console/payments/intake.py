"""Payments in, and the wait until each of them is answered."""

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
from console.wiring import topics, vault
from domain.payment import Refusal
from domain.quarantine import Quarantined, key_of
from domain.quarantine import report as quarantine_report
from domain.record_types import from_fields, to_fields
from domain.risk.events import DecisionsMade, DuplicateSeen, RiskScored
from generator.traffic import Behaviour, GeneratedPayment
from infra.settings import Settings
from projections.logs.log import KafkaLog
from projections.logs.partition_writer import AddressedRecord, PartitionWriter
from schemas.codec import MAX_BODY, Decoder, Encoder
from schemas.registry import SchemaRegistry

PATIENCE_S = 60.0
KEYS_AT_ONCE = 1_000
"""Rows whose keys are had in one step."""
LogPlace = tuple[int, int]
"""Partition and offset in payments.inbound."""


class AnswerTracker:
    """Follows what the risk job says, from the moment it is made.

    `places` are the records of payments.inbound that were answered, `answered_ms` Kafka's timestamps of the answers.
    """

    def __init__(self, settings: Settings) -> None:
        self.places: set[LogPlace] = set()
        self.answered_ms: dict[LogPlace, int] = {}
        names = topics(settings)
        starts = {
            (topic, number): end
            for topic in (names.risk_scored, names.quarantine)
            for number, end in end_offsets(settings.kafka_bootstrap, topic).items()
        }
        self._inbound = names.payments_inbound
        self._decoder = Decoder(SchemaRegistry(settings.registry_url).schema_text)
        self._follower = KafkaLog(settings.kafka_bootstrap).follow(starts)

    def poll(self, wait_s: float = 0.2) -> int:
        """Take in what has come; returns how many answers there are in all."""
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
        """Wait until all of these are answered. Raises Stalled."""
        before, moved = -1, time.monotonic()
        while not sent <= self.places:
            now = self.poll()
            seen(now)
            if now != before:
                before, moved = now, time.monotonic()
            elif time.monotonic() - moved > PATIENCE_S:
                left = len(sent - self.places)
                raise ProgressStalled(
                    f"{left} of {len(sent)} payments are not answered, and nothing came for {PATIENCE_S:.0f} s. "
                    "All of them are in the log. Look: fraudcase status"
                )
        self._follower.close()


@dataclass(slots=True)
class AcknowledgedRecords:
    """What one run wrote, as Kafka acknowledged it."""

    run: str
    places: set[LogPlace] = field(default_factory=set)
    sent_ms: dict[LogPlace, int] = field(default_factory=dict)

    def acknowledged(self, message: Message) -> None:
        """Told of each record that is in the log."""
        place = message.partition(), message.offset()
        self.places.add(place)
        self.sent_ms[place] = message.timestamp()[1]


def open_intake(settings: Settings, keys: Vault | None = None) -> tuple[IntakeWriter, AcknowledgedRecords]:
    """A door for one run, and the account of what passed it; `keys` are the subjects', if somebody has them open."""
    sent = AcknowledgedRecords(uuid.uuid4().hex[:12])
    encoder = Encoder(SchemaRegistry(settings.registry_url).ids())
    intake = IntakeWriter(
        settings.kafka_bootstrap,
        topics(settings).payments_inbound,
        encoder,
        sent.run,
        sealer=keys or vault(settings),
        location_decimals=settings.location_decimals,
        acknowledged=sent.acknowledged,
    )
    return intake, sent


def ingest(settings: Settings, path: Path) -> dict[str, object]:
    """Every row of a file into the log, and what became of each. Raises BadFile, NotWritten, Stalled."""
    rows, total = files.read_rows(path), files.count_rows(path)
    answers = AnswerTracker(settings)
    keys = vault(settings)
    intake, sent = open_intake(settings, keys)
    begun = time.monotonic()
    with progress("rows sent", total) as seen:
        for row in prepare_keys(rows, keys):
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
    return {**account_for(settings, sent.run, intake.rows), "seconds": round(seconds, 1),
            "rows_per_s": round(intake.rows / seconds)}  # fmt: skip


def prepare_keys(rows: Iterable[files.IntakeRow], keys: Vault) -> Iterator[files.IntakeRow]:
    """The rows, in order; the keys that they need are had for many of them at once."""
    rows = iter(rows)
    while chunk := list(islice(rows, KEYS_AT_ONCE)):
        keys.prepare(row.fields["account_id"] for row in chunk if row.refusal is None and row.fields["attributes"])
        yield from chunk


def account_for(settings: Settings, run: str, rows: int) -> dict[str, object]:
    """How the rows of a run ended; their sum is the number of rows, or something is wrong."""
    decoder = Decoder(SchemaRegistry(settings.registry_url).schema_text)
    log = KafkaLog(settings.kafka_bootstrap)
    everything = answered_rows(log, topics(settings), decoder)
    lines = [answer for answer in everything if answer.run == run]
    quarantined = sum(line.is_quarantined for line in lines)
    flagged = sum(bool(line.line["rules"]) for line in lines)
    passed = len(lines) - quarantined - flagged
    if len(lines) != rows:
        raise ProgressStalled(f"{rows} rows went in and {len(lines)} are accounted for")
    here = {line.where for line in lines}
    reused = {where: found for where, found in reused_ids(everything).items() if where in here}
    report_reused(settings, {where: each.detail for where, each in reused.items() if not each.on_own_account})
    return {
        "run": run,
        "rows": rows,
        "flagged": flagged,
        "passed": passed,
        "quarantined": quarantined,
        "duplicates": sum(line.is_duplicate for line in lines),
        "conflicts": len(reused),
    }


def report_reused(settings: Settings, reused: dict[LogPlace, str]) -> None:
    """Report ids to quarantine that another account had used. Raises NotAcknowledged."""
    names, log = topics(settings), KafkaLog(settings.kafka_bootstrap)
    encoder = Encoder(SchemaRegistry(settings.registry_url).ids())
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
    PartitionWriter(settings.kafka_bootstrap, names.quarantine).write(records)


def send_generated(
    intake: IntakeWriter,
    traffic: Iterable[GeneratedPayment],
    rate: float | None,
    truth: Callable[[GeneratedPayment], None],
) -> dict[Behaviour, int]:
    """Write traffic, at most so many a second; returns how many of each behaviour."""
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
