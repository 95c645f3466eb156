"""Write the same record into every partition of a log.

A record that concerns all accounts reaches each deciding fold in this way. See docs/decisions/0001: each partition
holds everything that can change a decision in it.
"""

from collections.abc import Iterable
from typing import NamedTuple

from confluent_kafka import Consumer, Producer

DELIVERY_S, FLUSH_S = 20.0, 30.0
"""Seconds that Kafka may take for one record, and for all. The second is longer: no record arrives after its retry."""


class NotAcknowledged(RuntimeError):
    """Error: Kafka did not acknowledge some records. The message says how many, of which log, and why."""


BY_KEY = -1
"""In place of a partition number: the partition that Kafka assigns to the record's key."""


class AddressedRecord(NamedTuple):
    """A record with its target partition."""

    partition: int
    key: bytes
    value: bytes


class PartitionWriter:
    """A producer that writes records to partitions of one topic by number, in the order given."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._topic = topic
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",  # Java clients use the same partitioner
                "enable.idempotence": True,
                "log_level": 3,  # errors only: a starting broker causes warnings and retries
                "acks": "all",
                "linger.ms": 5,
                "message.timeout.ms": int(DELIVERY_S * 1000),
            }
        )

    def write(self, records: Iterable[AddressedRecord]) -> None:
        """Write the records and wait until all are acknowledged.

        Raises NotAcknowledged: then write all of them again.
        """
        failures: list[str] = []

        def delivered(error: object, _: object) -> None:
            if error is not None:
                failures.append(str(error))

        for record in records:
            while True:
                try:
                    self._producer.produce(
                        self._topic, record.value, record.key, record.partition, on_delivery=delivered
                    )
                    break
                except BufferError:
                    self._producer.poll(0.1)
        left = self._producer.flush(FLUSH_S)
        if failures or left:
            why = failures[0] if failures else f"no answer within {FLUSH_S:.0f} s"
            raise NotAcknowledged(f"{self._topic}: {len(failures) + left} records are not written: {why}")


def write_to_partitions(bootstrap: str, topic: str, key: bytes, value: bytes, partitions: Iterable[int]) -> None:
    """Write the same record into each of these partitions. Raises NotAcknowledged unless all are acknowledged."""
    PartitionWriter(bootstrap, topic).write(AddressedRecord(partition, key, value) for partition in partitions)


def partitions_of(bootstrap: str, topic: str) -> list[int]:
    """Return the partitions of a topic in ascending order."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "partitions", "enable.auto.commit": False})
    try:
        return sorted(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
    finally:
        consumer.close()
