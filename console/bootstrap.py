"""What a new system needs before its first payment: schemas registered, rules in force, tables and a bucket."""

from confluent_kafka import Consumer, Producer, TopicPartition

from domain.events import RulesActivated, to_fields
from domain.rules import DEFAULT, RulePack
from schemas.codec import Encoder
from schemas.registry import Registry


def register_schemas(registry_url: str) -> None:
    """Register every schema that the registry lacks."""
    Registry(registry_url).register_all()


def activate_first_rules(bootstrap: str, registry_url: str, topic: str, pack: RulePack = DEFAULT) -> int:
    """Put a rule pack in force in every partition of the inbound log that is still empty; returns how many were."""
    empty = _empty_partitions(bootstrap, topic)
    activate_rules(bootstrap, registry_url, topic, pack, activated_by="system", partitions=empty)
    return len(empty)


def activate_rules(
    bootstrap: str, registry_url: str, topic: str, pack: RulePack, *, activated_by: str, partitions: list[int]
) -> None:
    """Write a pack's activation once into each of these partitions: what follows there is decided by it."""
    event = RulesActivated(pack_id=pack.pack_id, pack=pack.canonical, activated_by=activated_by)
    value = Encoder(Registry(registry_url).ids()).encode("RulesActivated", to_fields(event))
    write_to_partitions(bootstrap, topic, pack.pack_id.encode(), value, partitions)


def write_to_partitions(bootstrap: str, topic: str, key: bytes, value: bytes, partitions: list[int]) -> None:
    """The same record into each of these partitions; raises RuntimeError unless every one was acknowledged."""
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 0})
    failures: list[str] = []

    def delivered(error: object, _: object) -> None:
        if error is not None:
            failures.append(str(error))

    for partition in partitions:
        producer.produce(topic, value, key, partition, on_delivery=delivered)
    left = producer.flush(30)
    if failures or left:
        raise RuntimeError(f"{topic}: {len(failures) + left} of {len(partitions)} records not written: {failures[:1]}")


def partitions_of(bootstrap: str, topic: str) -> list[int]:
    """The partitions of a topic, ascending."""
    consumer = _consumer(bootstrap)
    try:
        return sorted(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
    finally:
        consumer.close()


def _empty_partitions(bootstrap: str, topic: str) -> list[int]:
    partitions = partitions_of(bootstrap, topic)
    consumer = _consumer(bootstrap)
    try:
        ends = {number: consumer.get_watermark_offsets(TopicPartition(topic, number))[1] for number in partitions}
    finally:
        consumer.close()
    return [number for number, end in ends.items() if end == 0]


def _consumer(bootstrap: str) -> Consumer:
    return Consumer({"bootstrap.servers": bootstrap, "group.id": "bootstrap", "enable.auto.commit": False})
