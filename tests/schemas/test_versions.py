"""Kept bytes of every version of every record: every later version still reads them.

Write the fixture of a new version with `python -m tests.schemas.test_versions`. It writes only missing files.
"""

import json
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from fastavro import schemaless_reader, schemaless_writer

from domain.digest import canonical_bytes
from domain.record_types import TYPES, from_fields
from schemas.catalog import RecordSchema, all_schemas, parse
from schemas.codec import Decoder
from tests.support.records import sample_fields

FOLDER = Path(__file__).with_name("fixtures")
SCHEMAS = all_schemas()
PAIRS = [pair for pair in product(SCHEMAS, SCHEMAS) if pair[0].name == pair[1].name and pair[0] != pair[1]]


def label(schema: RecordSchema) -> str:
    return f"{schema.name}.v{schema.version}"


def pair_label(value: object) -> str:
    return label(value) if isinstance(value, RecordSchema) else str(value)


def fixture(schema: RecordSchema) -> dict[str, str]:
    """Return the bytes of a record in hexadecimal, with schema id 1, and the canonical text of its meaning."""
    file = FOLDER / f"{label(schema)}.json"
    assert file.exists(), f"{label(schema)} has no kept bytes; write them: python -m tests.schemas.test_versions"
    kept: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return kept


def meaning(name: str, data: dict[str, Any]) -> str:
    """Return a record as text: a payment by its fields, any other record by the event that is made of it."""
    return canonical_bytes(from_fields(name, data)).decode() if name in TYPES else json.dumps(data, sort_keys=True)


@pytest.mark.parametrize("schema", SCHEMAS, ids=label)
def test_kept_bytes_keep_their_meaning(schema: RecordSchema) -> None:
    kept = fixture(schema)
    name, data = Decoder({1: schema.text}.get).decode(bytes.fromhex(kept["bytes"]))
    assert name == schema.name
    assert meaning(name, data) == kept["says"]


@pytest.mark.parametrize("written,read", PAIRS, ids=pair_label)
def test_every_version_reads_every_other(written: RecordSchema, read: RecordSchema) -> None:
    """FULL_TRANSITIVE, in both directions: fields that the reader lacks are left out, and fields that the writer
    lacked get their default.
    """
    body = bytes.fromhex(fixture(written)["bytes"])[5:]
    own = schemaless_reader(BytesIO(body), parse(written.text)[1], None)
    data = schemaless_reader(BytesIO(body), parse(written.text)[1], parse(read.text)[1])
    wrote = {field["name"]: field for field in json.loads(written.text)["fields"]}
    for field in json.loads(read.text)["fields"]:
        if field["name"] not in wrote:
            assert data[field["name"]] == field["default"]
        elif field["type"] == wrote[field["name"]]["type"]:
            assert data[field["name"]] == own[field["name"]]


def write_missing() -> None:
    """Write the bytes of versions that have none yet."""
    for schema in SCHEMAS:
        file = FOLDER / f"{label(schema)}.json"
        if not file.exists():
            parsed = parse(schema.text)[1]
            stream = BytesIO(b"\x00\x00\x00\x00\x01")
            stream.seek(5)
            schemaless_writer(stream, parsed, sample_fields(schema.text))
            said = meaning(*Decoder({1: schema.text}.get).decode(stream.getvalue()))
            kept = {"bytes": stream.getvalue().hex(), "says": said}
            file.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_missing()
