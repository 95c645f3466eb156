"""Logs in memory, read like Kafka's: encoded records of any type at any time."""

from collections.abc import Iterator, Mapping
from typing import Any
from zlib import crc32

from domain.payment import FIELDS
from domain.record_types import to_fields
from domain.risk.events import RulesActivated
from domain.risk.packs import RulePack
from projections.logs.log import LogRecord
from schemas.codec import Decoder
from schemas.topics import Topics
from tests.support.records import ENCODER, TEXTS

TOPICS = Topics(prefix="")
PARTITIONS = 2


def decoder() -> Decoder:
    """Return a decoder that reads a Transaction as what-if and the risk job do."""
    return Decoder(TEXTS.get, {"Transaction": FIELDS})


class MemoryLog:
    """The input logs of decisions, each with a number of partitions."""

    def __init__(self, partitions: int = PARTITIONS) -> None:
        self.partitions = partitions
        self._records: dict[tuple[str, int], list[LogRecord]] = {
            (topic, number): []
            for topic in (TOPICS.payments_inbound, TOPICS.cases_inbox)
            for number in range(partitions)
        }

    def ends(self, topic: str) -> dict[int, int]:
        """Return the end offsets, as any log does."""
        return {number: len(found) for (name, number), found in self._records.items() if name == topic}

    def read(self, topic: str, partition: int, until: int) -> Iterator[LogRecord]:
        """Read records, as any log does."""
        yield from self._records[topic, partition][:until]

    def partition_of(self, account_id: str) -> int:
        """Return the partition of an account, in both logs."""
        return crc32(account_id.encode()) % self.partitions

    def add(self, topic: str, partition: int, name: str, data: Mapping[str, Any], at_ms: int) -> None:
        """Append a record to a partition."""
        found = self._records[topic, partition]
        found.append(LogRecord(topic, partition, len(found), at_ms, None, ENCODER.encode(name, data), ()))

    def everywhere(self, topic: str, name: str, data: Mapping[str, Any], at_ms: int) -> None:
        """Append the record to every partition."""
        for number in range(self.partitions):
            self.add(topic, number, name, data, at_ms)

    def activate(self, pack: RulePack, at_ms: int, mode: str = "active") -> None:
        """Activate a pack, or run it as a shadow, from here on."""
        record = RulesActivated(pack_id=pack.pack_id, pack=pack.canonical, activated_by="ana", mode=mode)
        self.everywhere(TOPICS.payments_inbound, "RulesActivated", to_fields(record), at_ms)

    def pay(self, transaction: Mapping[str, Any], at_ms: int) -> None:
        """Append a payment."""
        account = transaction["account_id"]
        self.add(TOPICS.payments_inbound, self.partition_of(account), "Transaction", transaction, at_ms)
