"""What a new system needs before its first payment: schemas registered, rules in force, tables and a bucket."""

from console.progress import end_offsets
from domain.events import RulesActivated, to_fields
from domain.rules import RulePack
from projections.every_partition import write_to_partitions
from schemas.codec import Encoder
from schemas.registry import Registry


def register_schemas(registry_url: str) -> None:
    """Register every schema that the registry lacks."""
    Registry(registry_url).register_all()


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
    value = Encoder(Registry(registry_url).ids()).encode("RulesActivated", to_fields(event))
    write_to_partitions(bootstrap, topic, pack.pack_id.encode(), value, partitions)
