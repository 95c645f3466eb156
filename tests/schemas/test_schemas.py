"""Schemas and the wire format: every event is read back as written, and stray bytes are refused."""

import pytest

from domain.digest import canonical_bytes
from domain.record_types import TYPES, Event, from_fields, to_fields
from schemas.catalog import all_schemas, latest
from schemas.codec import MAX_RECORD, Decoder, UnreadableRecord
from tests.support.records import ENCODER, TEXTS, TRANSACTION, sample_fields


def sample(name: str) -> Event:
    """Return an event of this type, with every field of its newest schema."""
    return from_fields(name, sample_fields(latest(name).text))


def test_every_schema_but_the_payment_has_its_event() -> None:
    assert {schema.name for schema in all_schemas()} == {*TYPES, "Transaction"}


@pytest.mark.parametrize("name", sorted(TYPES))
def test_every_event_is_read_back_as_written(name: str) -> None:
    event = sample(name)
    read_name, data = Decoder(TEXTS.get).decode(ENCODER.encode(name, to_fields(event)))
    assert (read_name, from_fields(read_name, data)) == (name, event)
    assert canonical_bytes(from_fields(read_name, data)) == canonical_bytes(event)


def test_time_is_written_and_read_as_an_integer() -> None:
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
def test_unreadable_bytes_give_the_reason(value: bytes | None, reason: str) -> None:
    with pytest.raises(UnreadableRecord) as caught:
        Decoder(TEXTS.get).decode(value)
    assert caught.value.reason == reason


@pytest.mark.parametrize("text", ['"string"', '{"type": "nonsense"}', "not json", '["null", "string"]'])
def test_a_writer_schema_that_is_no_record_is_unknown(text: str) -> None:
    with pytest.raises(UnreadableRecord) as caught:
        Decoder(lambda _: text).decode(GOOD)
    assert caught.value.reason == "unknown_schema"


def test_foreign_schema_with_one_of_our_names_is_refused() -> None:
    text = '{"type":"record","name":"Transaction","namespace":"acme","fields":[{"name":"a","type":"string"}]}'
    assert Decoder(lambda _: text).decode(b"\x00\x00\x00\x00\x01\x02x")[0] == "acme.Transaction"
