"""Sample records, and an encoder that knows every schema without a registry."""

import json
from typing import Any

from schemas.catalog import all_schemas
from schemas.codec import Encoder

IDS = {schema.name: number for number, schema in enumerate(all_schemas(), start=100)}
TEXTS = {number: schema.text for number, schema in enumerate(all_schemas(), start=100)}
ENCODER = Encoder(IDS)
TRANSACTION = {
    "transaction_id": "tx-1",
    "account_id": "acct",
    "amount_minor": 5,
    "currency": "EUR",
    "event_time": 1_750_000_000_123,
    "merchant_id": "m",
    "payment_method": "CARD",
    "channel": "POS",
    "latitude": 1.5,
    "longitude": -2.5,
    "attributes": {"a": "b"},
}


ITEMS: dict[str, dict[str, Any]] = {
    "Reason": {
        "rule": "velocity", "measure": "payments", "value": 5, "threshold": 5, "points": 600,
        "contributing": ["a", "b"], "severity": "high", "reason_code": "R1",
    },
    "ShadowScore": {"pack_id": "abc", "score": 5, "rules": ["velocity"]},
    "FlaggedPayment": {
        "transaction_id": "tx-1", "content_digest": "00", "event_time": 5, "merchant_id": "m", "terminal_id": None,
        "device_id": "d", "card_id": None, "account_id": "other",
    },
    "MergedFlag": {
        "flag_id": "f", "score": 600, "account_id": "acct", "transaction_id": "tx-1", "content_digest": "00",
        "event_time": 5, "merchant_id": "m", "terminal_id": None, "device_id": "d", "card_id": None,
    },
    "Amount": {"currency": "EUR", "amount_minor": 5},
    "Attachment": {
        "file_name": "a.png", "size": 5, "media_type": "image/png", "sha256": "00" * 32, "storage_key": "files/1",
    },
    "MissedEvent": {"sequence": 3, "kind": "NoteAdded"},
    "Scored": {
        "account_id": "acct", "transaction_id": "tx-1", "content_digest": b"\x01", "event_time": 5, "amount_minor": 7,
        "currency": "EUR", "merchant_id": "m", "payment_method": "CARD", "channel": "POS", "country": None,
        "score": 600, "rules": ["velocity"], "pack_id": "abc", "offset": 9,
        "shadow": [{"pack_id": "abc", "score": 5, "rules": ["velocity"]}],
    },
    "Duplicate": {"account_id": "acct", "transaction_id": "tx-0", "content_digest": b"\x01", "offset": 8},
}  # fmt: skip
"""Items of arrays of records, by the record's name."""


def sample_fields(schema: str) -> dict[str, Any]:
    """Return a value for each field, by its type in the schema."""
    values: dict[str, Any] = {
        "string": "text", "long": 2**40, "int": 7, "double": 1.5, "boolean": True, "bytes": b"\x00\x01",
        "map": {"a": "b"},
    }  # fmt: skip
    data: dict[str, Any] = {}
    for field in json.loads(schema)["fields"]:
        kind = field["type"]
        if isinstance(kind, list):
            kind = kind[1]
        if isinstance(kind, dict) and kind["type"] == "array":
            data[field["name"]] = ["x", "y"] if kind["items"] == "string" else [item(kind["items"])]
        else:
            data[field["name"]] = values[kind["type"] if isinstance(kind, dict) else kind]
    return data


def item(schema: dict[str, Any]) -> dict[str, Any]:
    """Return an item of an array, with the fields of this version."""
    names = {field["name"] for field in schema["fields"]}
    return {name: value for name, value in ITEMS[schema["name"]].items() if name in names}


TX = {**TRANSACTION, "transaction_id": "tx-1", "account_id": "a", "attributes": {}}
