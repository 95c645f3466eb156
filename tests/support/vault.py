"""An archive for tests, with signed heads: the real writers over objects in a dict."""

from collections.abc import Iterable, Mapping

from domain.cases.events import CaseEvent, CommandRejected, NoteAdded
from domain.record_types import to_fields
from projections.archive.bucket import MemoryBucket
from projections.archive.heads import Head, HeadWriter
from projections.archive.signing import Signer
from projections.archive.worker import ArchiveWriter, RecordDescriber
from projections.logs.log import LogRecord
from schemas.catalog import all_schemas, latest
from schemas.codec import Encoder
from tests.support.cases import flag, history

NAMES = sorted({schema.name for schema in all_schemas()})
ENCODER = Encoder({name: number for number, name in enumerate(NAMES, start=1)})
SIGNER = Signer(bytes(range(32)))
EVENTS, INBOX, PAYMENTS = "cases.events", "cases.inbox", "payments.inbound"


def schema_text(schema_id: int) -> str | None:
    return latest(NAMES[schema_id - 1]).text if 1 <= schema_id <= len(NAMES) else None


def case_events(account_id: str, notes: int = 1) -> list[CaseEvent]:
    """Return the events of a case: opened, linked to, escalated, with notes, and a command that was rejected."""
    flags = (
        flag(
            n, account_id=account_id, flag_id=f"flag-{account_id}-{n}", transaction_id=f"tx-{account_id}-{n}", score=950
        )
        for n in (1, 2)
    )
    events: list[CaseEvent] = list(history(*flags)[1])
    last = events[-1]
    for number in range(1, notes + 1):
        events.append(
            NoteAdded(
                account_id=account_id, case_id=last.case_id, sequence=len(events) + 1, actor="ana",
                command_id=f"note-{account_id}-{number}", note_id=f"n{number}",
                text=f"<b>secret</b> of {account_id} №{number}", attachments=(), added_at_ms=9_000 + number,
            )
        )  # fmt: skip
    events.append(
        CommandRejected(
            account_id=account_id, case_id=last.case_id, command_id=f"c-{account_id}", actor="ben", reason="no",
            rejected_at_ms=9_900,
        )
    )  # fmt: skip
    return events


def payment(account_id: str, number: int, **changed: object) -> dict[str, object]:
    return {
        "transaction_id": f"tx-{account_id}-{number}", "account_id": account_id, "card_id": "card-7",
        "amount_minor": 100 + number, "currency": "EUR", "event_time": 1_000 + number, "merchant_id": "m1",
        "country": "DE", "latitude": 52.5, "longitude": 13.4, "payment_method": "CARD", "channel": "POS",
        "attributes": {"email": f"{account_id}@example.com"}, **changed,
    }  # fmt: skip


class Vault:
    """A bucket, the writers of its partitions, and the heads over them."""

    def __init__(self, signer: Signer | None = SIGNER, bucket: MemoryBucket | None = None) -> None:
        self.bucket, self.signer = bucket or MemoryBucket(), signer
        self.writers: dict[tuple[str, int], ArchiveWriter] = {}
        self._heads: HeadWriter | None = None

    def writer(self, topic: str, partition: int = 0) -> ArchiveWriter:
        if (topic, partition) not in self.writers:
            describer = RecordDescriber(self.bucket, schema_text, None if self.signer is None else self.signer.salt_key)
            self.writers[topic, partition] = ArchiveWriter(self.bucket, topic, partition, describer)
        return self.writers[topic, partition]

    def write(
        self, topic: str, values: Iterable[tuple[str | None, bytes | None]], partition: int = 0
    ) -> list[LogRecord]:
        """Store keyed values as the next records of a partition, as one segment."""
        writer = self.writer(topic, partition)
        records = [
            LogRecord(topic, partition, offset, 10_000 + offset, key.encode() if key is not None else None, value, ())
            for offset, (key, value) in enumerate(values, start=writer.position)
        ]
        writer.write(records)
        return records

    def events(self, events: Iterable[CaseEvent], partition: int = 0) -> None:
        self.write(EVENTS, [(e.account_id, ENCODER.encode(type(e).__name__, to_fields(e))) for e in events], partition)

    def payments(self, payments: Iterable[Mapping[str, object]], partition: int = 0) -> None:
        self.write(PAYMENTS, [(str(p["account_id"]), ENCODER.encode("Transaction", p)) for p in payments], partition)

    def head(self) -> Head:
        """Sign the stored state."""
        assert self.signer is not None
        if self._heads is None:
            self._heads = HeadWriter(self.bucket, self.signer, self.writers.values())
        self._heads._writers = list(self.writers.values())
        self._heads.write()
        assert self._heads.last is not None
        return self._heads.last
