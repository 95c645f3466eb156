"""Prepares the logs of a new system: registered schemas and a first active rule pack."""

from collections.abc import Iterable

from console.waiting import end_offsets
from domain.record_types import to_fields
from domain.risk.events import RulesActivated
from domain.risk.packs import RulePack
from projections.logs.kafka_logs import KafkaLogs
from projections.logs.partition_writer import write_to_partitions
from schemas.codec import UnreadableRecord

ACTIVATIONS = ("RulesActivated", "EngineActivated")
MAX_ACTIVATIONS = 100
"""A partition with more records than this holds more than activations."""


def register_schemas(logs: KafkaLogs) -> None:
    """Register every schema that the registry lacks."""
    logs.registry().register_all()


def activate_first_rules(logs: KafkaLogs, topic: str, pack: RulePack) -> int:
    """Activate a rule pack in every partition of a topic that is still empty. Return the number of these partitions."""
    empty = [number for number, end in end_offsets(logs.bootstrap, topic).items() if end == 0]
    activate_rules(logs, topic, pack, activated_by="system", partitions=empty)
    return len(empty)


def activate_rules(logs: KafkaLogs, topic: str, pack: RulePack, *, activated_by: str, partitions: list[int]) -> None:
    """Write the activation of a rule pack once into each of these partitions; it decides on all later records."""
    event = RulesActivated(pack_id=pack.pack_id, pack=pack.canonical, activated_by=activated_by)
    value = logs.encoder().encode("RulesActivated", to_fields(event))
    write_to_partitions(logs.bootstrap, topic, pack.pack_id.encode(), value, partitions)


def is_untouched(logs: KafkaLogs, topics: Iterable[str]) -> bool:
    """Return True if these topics hold only activations, so that no decision was made yet."""
    log, decoder = logs.reader(), logs.decoder()
    for topic in topics:
        for partition, end in end_offsets(logs.bootstrap, topic).items():
            if end > MAX_ACTIVATIONS:
                return False
            for record in log.read(topic, partition, end):
                try:
                    if decoder.name_of(record.value or b"") not in ACTIVATIONS:
                        return False
                except UnreadableRecord:
                    return False
    return True
