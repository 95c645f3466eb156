"""What a new system needs before its first payment: schemas registered, rules in force, tables and a bucket."""

from collections.abc import Iterable

from console.waiting import end_offsets
from domain.record_types import to_fields
from domain.risk.events import RulesActivated
from domain.risk.packs import RulePack
from projections.logs.log import KafkaLog
from projections.logs.partition_writer import write_to_partitions
from schemas.codec import Decoder, Encoder, UnreadableRecord
from schemas.registry import SchemaRegistry

ACTIVATIONS = ("RulesActivated", "EngineActivated")
MAX_ACTIVATIONS = 100
"""Records of a partition among which there is certainly more than activations."""


def register_schemas(registry_url: str) -> None:
    """Register every schema that the registry lacks."""
    SchemaRegistry(registry_url).register_all()


def activate_first_rules(bootstrap: str, registry_url: str, topic: str, pack: RulePack) -> int:
    """Put a rule pack in force in every partition of a log that is still empty; returns how many were."""
    empty = [number for number, end in end_offsets(bootstrap, topic).items() if end == 0]
    activate_rules(bootstrap, registry_url, topic, pack, activated_by="system", partitions=empty)
    return len(empty)


def activate_rules(
    bootstrap: str, registry_url: str, topic: str, pack: RulePack, *, activated_by: str, partitions: list[int]
) -> None:
    """Write a pack's activation once into each of these partitions: what follows there is decided by it."""
    event = RulesActivated(pack_id=pack.pack_id, pack=pack.canonical, activated_by=activated_by)
    value = Encoder(SchemaRegistry(registry_url).ids()).encode("RulesActivated", to_fields(event))
    write_to_partitions(bootstrap, topic, pack.pack_id.encode(), value, partitions)


def is_untouched(bootstrap: str, registry_url: str, topics: Iterable[str]) -> bool:
    """Whether these logs hold nothing but activations: nothing has been decided by them yet."""
    log, decoder = KafkaLog(bootstrap), Decoder(SchemaRegistry(registry_url).schema_text)
    for topic in topics:
        for partition, end in end_offsets(bootstrap, topic).items():
            if end > MAX_ACTIVATIONS:
                return False
            for record in log.read(topic, partition, end):
                try:
                    if decoder.name_of(record.value or b"") not in ACTIVATIONS:
                        return False
                except UnreadableRecord:
                    return False
    return True
