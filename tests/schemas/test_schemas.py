"""Schemas and the wire format: every event survives the round trip, and no stray byte passes unseen."""

import json
from typing import Any

import pytest

from domain.digest import canonical_bytes
from domain.record_types import TYPES, Event, from_fields, to_fields
from schemas.catalog import all_schemas, latest
from schemas.codec import MAX_RECORD, Decoder, Encoder, UnreadableRecord

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
"""What arrays of records hold, by the record's name."""


def sample(name: str) -> Event:
    """An event of this type, with every field that its newest schema has."""
    return from_fields(name, sample_fields(latest(name).text))


def sample_fields(schema: str) -> dict[str, Any]:
    """Each field filled by the type that the schema gives it."""
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
    """What an array holds, with the fields that this version of it has."""
    names = {field["name"] for field in schema["fields"]}
    return {name: value for name, value in ITEMS[schema["name"]].items() if name in names}


def test_every_schema_but_the_payment_has_its_event() -> None:
    assert {schema.name for schema in all_schemas()} == {*TYPES, "Transaction"}


@pytest.mark.parametrize("name", sorted(TYPES))
def test_every_event_survives_the_wire(name: str) -> None:
    event = sample(name)
    read_name, data = Decoder(TEXTS.get).decode(ENCODER.encode(name, to_fields(event)))
    assert (read_name, from_fields(read_name, data)) == (name, event)
    assert canonical_bytes(from_fields(read_name, data)) == canonical_bytes(event)


def test_a_time_is_written_and_read_as_the_integer_that_it_is() -> None:
    data = Decoder(TEXTS.get).decode(ENCODER.encode("Transaction", TRANSACTION))[1]
    assert data["event_time"] == 1_750_000_000_123
    assert data["card_id"] is None


GOOD = ENCODER.encode("Transaction", TRANSACTION)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b"\x00\x00", "not_confluent_avro"),
        (b'{"json": 1}', "not_confluent_avro"),
        (b"\x01" + GOOD[1:], "not_confluent_avro"),
        (b"\x00\x00\x00\xff\xff" + GOOD[5:], "unknown_schema"),
        (GOOD[:-1], "bad_avro"),
        (GOOD[:20], "bad_avro"),
        (GOOD[:5], "bad_avro"),
        (GOOD + b"\x00", "trailing_bytes"),
        (GOOD[:5] + b"\x03" + GOOD[6:], "bad_avro"),
        (bytes(MAX_RECORD + 1), "too_large"),
    ],
)
def test_what_cannot_be_read_says_why(value: bytes | None, reason: str) -> None:
    with pytest.raises(UnreadableRecord) as caught:
        Decoder(TEXTS.get).decode(value)
    assert caught.value.reason == reason


@pytest.mark.parametrize("text", ['"string"', '{"type": "nonsense"}', "not json", '["null", "string"]'])
def test_a_writer_schema_that_is_no_record_is_unknown(text: str) -> None:
    with pytest.raises(UnreadableRecord) as caught:
        Decoder(lambda _: text).decode(GOOD)
    assert caught.value.reason == "unknown_schema"


def test_a_stranger_of_the_same_name_is_not_ours() -> None:
    text = '{"type":"record","name":"Transaction","namespace":"acme","fields":[{"name":"a","type":"string"}]}'
    assert Decoder(lambda _: text).decode(b"\x00\x00\x00\x00\x01\x02x")[0] == "acme.Transaction"
