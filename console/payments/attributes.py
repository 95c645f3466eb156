"""What payments say of a person, read again by somebody who may: an account's attributes, opened."""

from typing import Any

from console.privacy.vault import Vault
from console.wiring import topics
from infra.settings import Settings
from projections.logs.log import KafkaLog
from schemas.codec import Decoder, UnreadableRecord
from schemas.registry import SchemaRegistry

MAX_PAYMENTS = 1_000


def payments_of(settings: Settings, keys: Vault, account_id: str) -> list[dict[str, Any]]:
    """The last payments of an account that say something of it, oldest first."""
    log, decoder = KafkaLog(settings.kafka_bootstrap), Decoder(SchemaRegistry(settings.registry_url).schema_text)
    topic, found = topics(settings).payments_inbound, []
    for partition, end in log.ends(topic).items():
        for record in log.read(topic, partition, end):
            if record.key != account_id.encode():
                continue
            try:
                name, data = decoder.decode(record.value)
            except UnreadableRecord:
                continue  # it is in quarantine
            if name == "Transaction" and data["attributes"]:
                said = {field: keys.opened(value) for field, value in data["attributes"].items()}
                found.append({"transaction_id": data["transaction_id"], "attributes": said})
    return found[-MAX_PAYMENTS:]
