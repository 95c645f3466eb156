"""Leaf of a record in its partition's tree: salted hashes of its parts, so that some can be withheld from a proof.

The parts are the record's key, its headers, and the bytes of each field of its value; joined, the fields are the value.
Each part is hashed behind its own salt. All of them derive from the record's salt, which the archive stores. A reader
who gets the salts of some parts and only the hashes of the others can neither read nor guess the others. A value that
no schema describes is one part. A value too large for a segment is represented by its SHA-256.
"""

import hashlib
import hmac
import json
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple

from fastavro.schema import SchemaParseException

from projections.archive.merkle import leaf_hash
from projections.logs.log import LogRecord
from schemas.catalog import parse
from schemas.codec import MAX_BODY
from schemas.compiled import Splitter, UnsupportedSchema, compile_splitter

NONE, WHOLE, FIELDS, DIGEST = "none", "whole", "fields", "digest"
"""Forms of a value: missing, one part, its fields, or its SHA-256."""
UNSALTED = bytes(32)
"""The salt of records archived before salts existed: they can be proved, but no part can be withheld."""
PART_SALT_BYTES = 16
_HEADER = 5


class RecordShape(NamedTuple):
    """Shape of a value according to its writer's schema: record name, field names, and a splitter."""

    name: str
    fields: tuple[str, ...]
    split: Splitter
    sha256: str


class RecordParts(NamedTuple):
    """A value in parts, with the values of the fields in WANTED."""

    form: str
    parts: tuple[bytes, ...]
    wanted: tuple[Any, ...] = ()


WANTED = ("case_id", "sequence", "command_id")
"""Fields that identify a case event."""


@lru_cache(maxsize=4096)
def shape_of(schema_text: str) -> RecordShape | None:
    """Return the shape of the records of a schema, or None if we cannot split such records."""
    try:
        name, schema = parse(schema_text)
        split = compile_splitter(schema, WANTED)
    except (SchemaParseException, UnsupportedSchema, ValueError, TypeError, KeyError):
        return None
    fields = tuple(field["name"] for field in schema["fields"])
    return RecordShape(name, fields, split, sha256(schema_text.encode()).hexdigest())


def cut_value(value: bytes | None, shape: RecordShape | None) -> RecordParts:
    """Split a value into its fields if it has the shape; else keep it as one part or as its SHA-256."""
    if value is None:
        return RecordParts(NONE, ())
    if len(value) > MAX_BODY:
        return RecordParts(DIGEST, (sha256(value).digest(),))
    if shape is not None:
        try:
            parts, wanted, end = shape.split(value, _HEADER)
        except Exception:  # any error of the splitter means that the bytes do not fit the schema
            return RecordParts(WHOLE, (value,))
        if end == len(value):
            return RecordParts(FIELDS, parts, wanted)
    return RecordParts(WHOLE, (value,))


def record_salt(salt_key: bytes, record: LogRecord) -> bytes:
    """Return the salt of a record: secret without the key, and the same at each attempt to archive the record."""
    return hmac.digest(salt_key, f"{record.topic} {record.partition} {record.offset}".encode(), "sha256")


def part_salts(salt: bytes, count: int) -> list[bytes]:
    """Derive `count` salts for a record's parts; no salt reveals another."""
    stream = hashlib.shake_256(b"fraudcase salts v1\n" + salt).digest(PART_SALT_BYTES * count)
    return [stream[n : n + PART_SALT_BYTES] for n in range(0, len(stream), PART_SALT_BYTES)]


def key_part(key: bytes | None) -> bytes:
    """Return a record's key as a part."""
    return b"" if key is None else b"k" + key


def headers_part(headers: tuple[tuple[str, bytes], ...]) -> bytes:
    """Return a record's headers as a part."""
    if not headers:
        return b"[]"
    return json.dumps([[name, content.hex()] for name, content in headers], separators=(",", ":")).encode()


def part_hash(salt: bytes, part: bytes) -> bytes:
    """Return the hash that a proof shows of a withheld part."""
    return sha256(b"\x02" + salt + part).digest()


def leaf_of(
    record: LogRecord, schema_id: int | None, schema_sha256: str | None, value_parts: RecordParts, salt: bytes
) -> bytes:
    """Return the hash of a record's leaf in the tree of its partition."""
    contents = (key_part(record.key), headers_part(record.headers), *value_parts.parts)
    hashes = [part_hash(each, part) for each, part in zip(part_salts(salt, len(contents)), contents, strict=True)]
    head = (
        f"fraudcase record v1\n{record.topic}\n{record.partition}\n{record.offset}\n{record.timestamp_ms}\n"
        f"{value_parts.form}\n{'' if schema_id is None else schema_id}\n{schema_sha256 or ''}\n{len(hashes)}\n"
    )
    return leaf_hash(head.encode() + b"".join(hashes))
