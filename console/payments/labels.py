"""Writes confirmed frauds of a file into the log: finds each payment there, and writes its label to every partition."""

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from console.payments.files import BadFile
from console.terminal import progress
from console.times import now_ms
from console.waiting import end_offsets
from domain.payment import Payment, Refusal, admit
from domain.record_types import to_fields
from domain.risk.events import FraudConfirmed, label_id
from projections.logs.kafka_logs import KafkaLogs
from projections.logs.log import KafkaLog, LogRecord
from projections.logs.partition_writer import AddressedRecord
from schemas.codec import Decoder, UnreadableRecord

REQUIRED = ("transaction_id", "fraud")
_TRUTH = {"0": False, "1": True, "false": False, "true": True}


class LabelRow(NamedTuple):
    """A row of a file of labels."""

    transaction_id: str
    account_id: str | None
    is_fraud: bool


def read_labels(path: Path) -> Iterator[LabelRow]:
    """Yield the labels of a Parquet, CSV or JSON lines file: transaction_id, fraud (0 or 1), and account_id if
    given.

    Raise BadFile, naming the row, at the first row that is not a label.
    """
    for number, row in enumerate(_rows(path), start=1):
        is_fraud = _TRUTH.get(str(row.get("fraud")).lower())
        transaction_id, account_id = row.get("transaction_id"), row.get("account_id")
        if is_fraud is None or transaction_id in (None, ""):
            raise BadFile(f"{path}, row {number}: it needs a transaction_id, and fraud as 0 or 1, not {_row_text(row)}")
        yield LabelRow(str(transaction_id), None if account_id in (None, "") else str(account_id), is_fraud)


def _row_text(row: dict[str, Any]) -> str:
    return str({name: row.get(name) for name in REQUIRED})[:200]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise BadFile(f"{path} is not a file")
    if path.suffix == ".parquet":
        try:
            names = pq.ParquetFile(path).schema_arrow.names
            wanted = [name for name in (*REQUIRED, "account_id") if name in names]
            yield from pq.read_table(path, columns=wanted).to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise BadFile(f"{path} is not a Parquet file: {error}") from error
    elif path.suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from csv.DictReader(file)
    elif path.suffix in (".jsonl", ".ndjson", ".json"):
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield dict(json.loads(line))
                except (ValueError, TypeError) as error:
                    raise BadFile(f"{path}, line {number}: not a JSON object") from error
    else:
        raise BadFile(f"{path}: the suffix must be .parquet, .csv or .jsonl")


@dataclass(slots=True)
class LabelLookup:
    """Payments of payments.inbound that a file's labels name, and the labels that the log already holds."""

    wanted: set[str]
    payments: dict[str, dict[tuple[str, bytes], Payment]] = field(default_factory=dict)
    """By transaction id; payments with other content or another account under the same id are kept apart."""
    labelled: dict[str, set[int]] = field(default_factory=dict)
    """Partitions that hold a label, by label id."""

    def add(self, name: str, data: dict[str, Any], record: LogRecord) -> None:
        """Add a record of the log."""
        if name == "FraudConfirmed":
            self.labelled.setdefault(data["label_id"], set()).add(record.partition)
        elif name == "Transaction" and data["transaction_id"] in self.wanted:
            payment = admit(data, record.timestamp_ms)
            if not isinstance(payment, Refusal):
                identity = payment.account_id, payment.digest
                self.payments.setdefault(payment.transaction_id, {}).setdefault(identity, payment)

    def find(self, label: LabelRow) -> list[Payment]:
        """Return the payments that a label names."""
        found = self.payments.get(label.transaction_id, {}).values()
        return [payment for payment in found if label.account_id in (None, payment.account_id)]


class LabelRowCounts(NamedTuple):
    """Number of a file's rows by outcome; each fraud is found, unknown or ambiguous."""

    rows: int
    frauds: int
    found: int
    unknown: int
    ambiguous: int
    """Frauds without an account whose id several accounts use; nothing is written for them."""


def match(labels: Iterable[LabelRow], lookup: LabelLookup) -> tuple[LabelRowCounts, dict[str, Payment]]:
    """Match labels with payments. Return the counts, and the payments to label, by label id."""
    rows = frauds = found = unknown = ambiguous = 0
    payments: dict[str, Payment] = {}
    for label in labels:
        rows += 1
        if not label.is_fraud:
            continue
        frauds += 1
        candidates = lookup.find(label)
        if not candidates:
            unknown += 1
        elif len({payment.account_id for payment in candidates}) > 1:
            ambiguous += 1
        else:
            found += 1
            for payment in candidates:
                payments[label_id(payment.account_id, payment.transaction_id, payment.digest.hex())] = payment
    return LabelRowCounts(rows, frauds, found, unknown, ambiguous), payments


def label_record(label: str, payment: Payment, cause_id: str, actor: str, at_ms: int) -> FraudConfirmed:
    """Return the record of a label from a file."""
    return FraudConfirmed(
        label_id=label,
        account_id=payment.account_id,
        transaction_id=payment.transaction_id,
        event_time=payment.event_time_ms,
        merchant_id=payment.merchant_id,
        terminal_id=payment.terminal_id,
        device_id=payment.device_id,
        card_id=payment.card_id,
        source="file",
        cause_id=cause_id,
        actor=actor,
        confirmed_at_ms=at_ms,
    )


def ingest_labels(logs: KafkaLogs, path: Path, actor: str) -> dict[str, object]:
    """Write the frauds of a file into every partition that lacks them. Raise BadFile or NotAcknowledged."""
    labels = list(read_labels(path))
    inbound = logs.topics.payments_inbound
    ends = end_offsets(logs.bootstrap, inbound)
    lookup = LabelLookup({label.transaction_id for label in labels if label.is_fraud})
    _look_up(logs.reader(), inbound, ends, logs.decoder(), lookup)
    counts, payments = match(labels, lookup)
    encoder = logs.encoder()
    cause_id, at_ms = hashlib.sha256(path.read_bytes()).hexdigest(), now_ms()
    missing = {label: ends.keys() - lookup.labelled.get(label, set()) for label in payments}
    records = (
        AddressedRecord(partition, label.encode(), value)
        for label, payment in payments.items()
        if missing[label]
        for value in [encoder.encode("FraudConfirmed", to_fields(label_record(label, payment, cause_id, actor, at_ms)))]
        for partition in sorted(missing[label])
    )
    logs.writer(inbound).write(records)
    written = sum(bool(partitions) for partitions in missing.values())
    return {**counts._asdict(), "written": written, "known_already": len(missing) - written, "partitions": len(ends)}


def _look_up(log: KafkaLog, topic: str, ends: dict[int, int], decoder: Decoder, lookup: LabelLookup) -> None:
    done = 0
    with progress("records read", sum(ends.values())) as seen:
        for partition, end in ends.items():
            for record in log.read(topic, partition, end):
                with suppress(UnreadableRecord):  # not a payment: the risk job has quarantined it
                    lookup.add(*decoder.decode(record.value), record)
                done += 1
                if done % 1000 == 0:
                    seen(done)
