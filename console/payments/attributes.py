"""Reads the personal attributes of an account's payments, opened for a user who may see them."""

from typing import Any

from console.privacy.vault import Vault
from projections.logs.kafka_logs import KafkaLogs
from schemas.codec import UnreadableRecord

MAX_PAYMENTS = 1_000


def payments_of(logs: KafkaLogs, keys: Vault, account_id: str) -> list[dict[str, Any]]:
    """Return the last MAX_PAYMENTS payments of an account that have attributes, oldest first, with these opened."""
    log, decoder = logs.reader(), logs.decoder()
    topic, found = logs.topics.payments_inbound, []
    for partition, end in log.ends(topic).items():
        for record in log.read(topic, partition, end):
            if record.key != account_id.encode():
                continue
            try:
                name, data = decoder.decode(record.value)
            except UnreadableRecord:
                continue  # it is in quarantine
            if name == "Transaction" and data["attributes"]:
                attributes = {field: keys.opened(value) for field, value in data["attributes"].items()}
                found.append({"transaction_id": data["transaction_id"], "attributes": attributes})
    return found[-MAX_PAYMENTS:]
