"""Waits for the running system: reads topics outside consumer groups, and waits until a count is reached."""

import time
from collections.abc import Callable, Iterator, Mapping

from confluent_kafka import Consumer, KafkaException, TopicPartition

from projections.logs.log import end_offset

MAX_BATCH = 5_000


class ProgressStalled(RuntimeError):
    """A wait in which nothing moved for too long; the message says what is missing and where to look."""


def end_offsets(bootstrap: str, topic: str) -> dict[int, int]:
    """Return the offset after the last record, by partition of a topic."""
    consumer = _consumer(bootstrap)
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        return {number: end_offset(consumer, TopicPartition(topic, number)) for number in sorted(partitions)}
    finally:
        consumer.close()


def records(
    bootstrap: str, topic: str, start: Mapping[int, int], idle: Callable[[], None]
) -> Iterator[tuple[int, int, bytes | None]]:
    """Yield (partition, offset, value) of a topic from these offsets on, without end.

    `idle` is called whenever there is no new record.
    """
    consumer = _consumer(bootstrap)
    try:
        consumer.assign([TopicPartition(topic, number, offset) for number, offset in start.items()])
        while True:
            messages = consumer.consume(MAX_BATCH, timeout=0.2)
            if not messages:
                idle()
            for message in messages:
                if message.error() is not None:
                    raise KafkaException(message.error())
                yield message.partition(), message.offset(), message.value()
    finally:
        consumer.close()


def wait_until(
    count: Callable[[], int],
    wanted: int,
    what: str,
    *,
    patience_s: float = 60,
    every_s: float = 0.25,
    seen: Callable[[int], None] = lambda _: None,
) -> float:
    """Wait until `count()` reaches `wanted`. Return the seconds that it took.

    Raise ProgressStalled if the count does not move for `patience_s` seconds. `seen` is called with each new count.
    """
    begun = moved = time.monotonic()
    last = -1
    while (now := count()) < wanted:
        if now != last:
            last, moved = now, time.monotonic()
            seen(now)
        if time.monotonic() - moved > patience_s:
            raise ProgressStalled(
                f"{what}: {now} of {wanted}, and no progress for {patience_s:.0f} s. Look: fraudcase status"
            )
        time.sleep(every_s)
    seen(now)
    return time.monotonic() - begun


def _consumer(bootstrap: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "fraudcase-console",  # required by the client, never committed to
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
        }
    )
