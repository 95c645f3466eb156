"""The same record into every partition of a log: how what concerns all accounts reaches each deciding fold.

See docs/decisions/0001: what can change a decision stands in the very partition that decides.
"""

from collections.abc import Iterable
from typing import NamedTuple

from confluent_kafka import Consumer, Producer

DELIVERY_S, FLUSH_S = 20.0, 30.0
"""How long Kafka may take for a record, and the wait for all: longer, so that none arrives beside the next attempt."""


class NotAcknowledged(RuntimeError):
    """Kafka did not acknowledge some records; the message says how many, of which log, and why."""


BY_KEY = -1
"""Instead of a partition: the one that the record's key belongs to."""


class AddressedRecord(NamedTuple):
    """A record on its way into one partition."""

    partition: int
    key: bytes
    value: bytes


class PartitionWriter:
    """Writes records to partitions of one topic by number, in the order given."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._topic = topic
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",  # the same as Java's
                "enable.idempotence": True,
                "log_level": 3,  # a broker that has just started makes it warn and ask again
                "acks": "all",
                "linger.ms": 5,
                "message.timeout.ms": int(DELIVERY_S * 1000),
            }
        )

    def write(self, records: Iterable[AddressedRecord]) -> None:
        """Write these, and wait until every one is acknowledged. Raises NotAcknowledged: then write all of it again."""
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
    """The same record into each of these partitions. Raises NotAcknowledged unless every one was acknowledged."""
    PartitionWriter(bootstrap, topic).write(AddressedRecord(partition, key, value) for partition in partitions)


def partitions_of(bootstrap: str, topic: str) -> list[int]:
    """The partitions of a topic, ascending."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "partitions", "enable.auto.commit": False})
    try:
        return sorted(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
    finally:
        consumer.close()
