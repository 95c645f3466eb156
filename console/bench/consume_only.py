"""Reference of the replay benchmark: consume the same records, with or without fastavro decoding, and do nothing
else.

Written in the usual way with confluent-kafka, in the same number of processes as the replay. Each process reads whole
partitions.
"""

from concurrent.futures import ProcessPoolExecutor
from io import BytesIO
from multiprocessing import get_context
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition
from fastavro import parse_schema, schemaless_reader

BATCH = 5_000
HEADER = 5


def read_all(bootstrap: str, topic: str, ends: dict[int, int], schemas: dict[int, Any] | None, workers: int) -> int:
    """Read every partition and return the number of records. With schemas by id, decode each record."""
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        read = [pool.submit(read_partition, bootstrap, topic, number, end, schemas) for number, end in ends.items()]
        return sum(each.result() for each in read)


def read_partition(bootstrap: str, topic: str, partition: int, end: int, schemas: dict[int, Any] | None) -> int:
    """Read one partition up to an offset and return the number of records."""
    parsed = {number: parse_schema(schema) for number, schema in (schemas or {}).items()}
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "reference", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, partition, 0)])
    read = 0
    while read < end:
        for message in consumer.consume(min(BATCH, end - read), timeout=0.1):
            if message.error() is not None:
                raise KafkaException(message.error())
            value = message.value()
            if schemas is not None and len(value) > HEADER:
                schemaless_reader(BytesIO(value[HEADER:]), parsed[int.from_bytes(value[1:HEADER], "big")], None)
            read += 1
    consumer.close()
    return read
