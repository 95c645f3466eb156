"""A log, record by record: from Kafka here, from the archive in `archive.py`."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from domain.record_types import from_fields
from domain.risk.events import DecisionsMade, DuplicateSeen, RiskScored
from schemas.codec import Decoder

MAX_BATCH = 5_000
_MUCH = 262_144
"""Bytes for which a fetch that gathers does not wait any longer."""
LEADERLESS_S, ASK_AGAIN_S = 30.0, 0.2
"""How long a broker that has just started may take until it leads a partition: it looks after thousands one by one."""
_LEADERLESS = frozenset({KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE})


class LogRecord(NamedTuple):
    """One record as it stands in a log."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


class ColumnBatch(NamedTuple):
    """Records of one partition that follow each other, by column."""

    offsets: Sequence[int]
    timestamps_ms: Sequence[int]
    values: Sequence[bytes | None]


def end_of(consumer: Consumer, partition: TopicPartition) -> int:
    """The offset after the last record of a partition; a broker that does not lead it yet is asked again."""
    begun = time.monotonic()
    while True:
        try:
            return int(consumer.get_watermark_offsets(partition, timeout=10)[1])
        except KafkaException as error:
            if error.args[0].code() not in _LEADERLESS or time.monotonic() - begun > LEADERLESS_S:
                raise
        time.sleep(ASK_AGAIN_S)


class KafkaLog:
    """The logs of a broker, read without a consumer group: what was read is for the reader to remember."""

    def __init__(self, bootstrap: str, queued_kbytes: int = 65_536) -> None:
        """`queued_kbytes` is what one reader may hold that nobody has asked for yet: little where many read at once."""
        self._bootstrap = bootstrap
        self._queued_kbytes = queued_kbytes
        self._asking: Consumer | None = None

    def ends(self, topic: str) -> dict[int, int]:
        """The offset after the last record, by partition."""
        asking = self._asking = self._asking or self._consumer()  # kept: to connect takes longer than all the answers
        partitions = asking.list_topics(topic, timeout=10).topics[topic].partitions
        marks = {number: TopicPartition(topic, number) for number in sorted(partitions)}
        return {number: end_of(asking, mark) for number, mark in marks.items()}

    def read(self, topic: str, partition: int, until: int, start: int = 0) -> Iterator[LogRecord]:
        """The records of a partition from its start, or another offset, up to an offset."""
        if until <= start:
            return
        consumer = self._consumer()
        try:
            consumer.assign([TopicPartition(topic, partition, start)])
            following = start
            while following < until:
                for message in _left(consumer, until - following):
                    record = to_log_record(message)
                    following = record.offset + 1
                    if following <= until:
                        yield record
        finally:
            consumer.close()

    def batches(self, topic: str, partition: int, until: int) -> Iterator[ColumnBatch]:
        """The same by column, and as they come: for readers to whom a tuple for every record is dear."""
        if until <= 0:
            return
        consumer = self._consumer()  # of its own: one at a partition's end has asked for more, and waits half a second
        try:
            consumer.assign([TopicPartition(topic, partition, 0)])
            last = -1
            while last < until - 1:
                messages = _left(consumer, until - 1 - last)
                if not messages:
                    continue
                offsets = [message.offset() for message in messages]
                for message in messages if min(offsets) < 0 or any(message.error() for message in messages) else ():
                    to_log_record(message)  # raises what it carries
                last = offsets[-1]
                if last >= until:
                    messages = [message for message in messages if message.offset() < until]
                    offsets = offsets[: len(messages)]
                times = [message.timestamp()[1] for message in messages]
                yield ColumnBatch(offsets, times, [message.value() for message in messages])
        finally:
            consumer.close()

    def cut(self, topic: str, partition: int, until_ms: int) -> int | None:
        """The offset of the first record that is later than a time, None where there is none."""
        consumer = self._consumer()
        try:
            found = consumer.offsets_for_times([TopicPartition(topic, partition, until_ms + 1)], timeout=10)[0]
            return found.offset if found.offset >= 0 else None
        finally:
            consumer.close()

    def follow(self, starts: Mapping[tuple[str, int], int], gathers_ms: int = 0) -> "LogFollower":
        """The records of many partitions from these offsets on, as they come.

        `gathers_ms` is how long the broker may wait for more of them: for readers who are not in a hurry, since to
        answer for every record costs it more than the records do.
        """
        gathers = {"fetch.wait.max.ms": gathers_ms, "fetch.min.bytes": _MUCH} if gathers_ms else {}
        return LogFollower(self._consumer(gathers), starts)

    def _consumer(self, more: Mapping[str, Any] | None = None) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": "fraudcase-reader",  # required by the client, never committed to
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "queued.max.messages.kbytes": self._queued_kbytes,
                **(more or {}),
            }
        )


class LogFollower:
    """A consumer at the tail of partitions."""

    def __init__(self, consumer: Consumer, starts: Mapping[tuple[str, int], int]) -> None:
        self._consumer = consumer
        self._consumer.assign([TopicPartition(topic, number, offset) for (topic, number), offset in starts.items()])

    def poll(self, wait_s: float) -> list[LogRecord]:
        """What comes within this time, at most MAX_BATCH records, after which it does not wait any longer."""
        return [to_log_record(message) for message in self._consumer.consume(MAX_BATCH, timeout=wait_s)]

    def next(self, wait_s: float) -> list[LogRecord]:
        """The same, as soon as anything has come: for whom somebody waits."""
        return [to_log_record(message) for message in poll_messages(self._consumer, wait_s)]

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Read a partition on from another offset."""
        self._consumer.seek(TopicPartition(topic, partition, offset))

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()


def _left(consumer: Consumer, records: int) -> list[Message]:
    """The next messages of so many that are left: asked for more than there are, `consume` waits for its whole time."""
    messages: list[Message] = consumer.consume(min(MAX_BATCH, records), timeout=0.1)
    return messages


def poll_messages(consumer: Consumer, wait_s: float, most: int = MAX_BATCH) -> list[Message]:
    """What has come, at most so many messages, as soon as there is one; empty after the wait.

    `consume` alone waits for its whole time, unless it gets as many as it may take.
    """
    first = consumer.poll(wait_s)
    return [] if first is None else [first, *consumer.consume(most - 1, timeout=0)]


def to_log_record(message: Message) -> LogRecord:
    """A message of the client library as ours; raises KafkaException where it carries an error."""
    error = message.error()
    if error is not None:
        raise KafkaException(error)
    headers = tuple((name, value or b"") for name, value in message.headers() or ())
    return LogRecord(
        message.topic(),
        message.partition(),
        message.offset(),
        message.timestamp()[1],
        message.key(),
        message.value(),
        headers,
    )


def answers_in(record: LogRecord, decoder: Decoder) -> list[RiskScored | DuplicateSeen]:
    """The answers in a record of risk.scored, in the order of the log that they are about."""
    made = from_fields(*decoder.decode(record.value))
    assert isinstance(made, DecisionsMade), f"{record.topic} {record.partition} {record.offset} holds a {type(made)}"
    return made.answers()
