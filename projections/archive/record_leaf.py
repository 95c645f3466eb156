"""What the tree holds of a record: salted hashes of its parts, so that one can be withheld and the others proved.

The parts are the record's key, its headers, and its value cut into the bytes of its fields: these, joined, are it.
Each is hashed behind a salt of its own; all salts come from the record's, which lies beside it in the archive. Who
is shown the salts of some parts, and of the others only the hashes, can neither read those nor guess at them. A value
that no schema reads is one part, and of a value that is too large for a segment its SHA-256 is.
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
"""How a value is cut: it is missing, one part, its fields, or its SHA-256."""
UNSALTED = bytes(32)
"""The salt of records that were archived before there were salts: they can be proved, and not withheld in part."""
PART_SALT_BYTES = 16
_HEADER = 5


class RecordShape(NamedTuple):
    """What a writer's schema says of a value: the record's name, its fields, and how to cut it."""

    name: str
    fields: tuple[str, ...]
    split: Splitter
    sha256: str


class RecordParts(NamedTuple):
    """A value in parts, and the values of the fields that were wanted."""

    form: str
    parts: tuple[bytes, ...]
    wanted: tuple[Any, ...] = ()


WANTED = ("case_id", "sequence", "command_id")
"""What tells a case event from another."""


@lru_cache(maxsize=4096)
def shape_of(schema_text: str) -> RecordShape | None:
    """The shape of records of a schema, None for what is no record that we can cut."""
    try:
        name, schema = parse(schema_text)
        split = compile_splitter(schema, WANTED)
    except (SchemaParseException, UnsupportedSchema, ValueError, TypeError, KeyError):
        return None
    fields = tuple(field["name"] for field in schema["fields"])
    return RecordShape(name, fields, split, sha256(schema_text.encode()).hexdigest())


def cut(value: bytes | None, shape: RecordShape | None) -> RecordParts:
    """A value in parts: its fields, if it has the shape."""
    if value is None:
        return RecordParts(NONE, ())
    if len(value) > MAX_BODY:
        return RecordParts(DIGEST, (sha256(value).digest(),))
    if shape is not None:
        try:
            parts, wanted, end = shape.split(value, _HEADER)
        except Exception:  # whatever the reader met on its way: all of it means bytes that do not fit
            return RecordParts(WHOLE, (value,))
        if end == len(value):
            return RecordParts(FIELDS, parts, wanted)
    return RecordParts(WHOLE, (value,))


def record_salt(salt_key: bytes, record: LogRecord) -> bytes:
    """The salt of a record: nobody without the key can say it, and it is the same in every attempt to archive it."""
    return hmac.digest(salt_key, f"{record.topic} {record.partition} {record.offset}".encode(), "sha256")


def part_salts(salt: bytes, count: int) -> list[bytes]:
    """The salts of a record's parts; one of them says nothing about another."""
    stream = hashlib.shake_256(b"fraudcase salts v1\n" + salt).digest(PART_SALT_BYTES * count)
    return [stream[n : n + PART_SALT_BYTES] for n in range(0, len(stream), PART_SALT_BYTES)]


def key_part(key: bytes | None) -> bytes:
    """A record's key as a part."""
    return b"" if key is None else b"k" + key


def headers_part(headers: tuple[tuple[str, bytes], ...]) -> bytes:
    """A record's headers as a part."""
    if not headers:
        return b"[]"
    return json.dumps([[name, content.hex()] for name, content in headers], separators=(",", ":")).encode()


def part_hash(salt: bytes, part: bytes) -> bytes:
    """What is shown of a part that is withheld."""
    return sha256(b"\x02" + salt + part).digest()


def leaf_of(
    record: LogRecord, schema_id: int | None, schema_sha256: str | None, parted: RecordParts, salt: bytes
) -> bytes:
    """The hash of a record's leaf in the tree of its partition."""
    contents = (key_part(record.key), headers_part(record.headers), *parted.parts)
    hashes = [part_hash(each, part) for each, part in zip(part_salts(salt, len(contents)), contents, strict=True)]
    head = (
        f"fraudcase record v1\n{record.topic}\n{record.partition}\n{record.offset}\n{record.timestamp_ms}\n"
        f"{parted.form}\n{'' if schema_id is None else schema_id}\n{schema_sha256 or ''}\n{len(hashes)}\n"
    )
    return leaf_hash(head.encode() + b"".join(hashes))
