"""Records to bytes and back, in Confluent's wire format: a zero byte, the writer schema's id, the Avro body."""

from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

from fastavro import schemaless_reader, schemaless_writer
from fastavro.schema import SchemaParseException

from schemas.catalog import latest, parse

MAX_RECORD = 1 << 20
"""Bytes of a record that may be decided on; a larger one is refused unread."""
MAX_BODY = 1 << 19
"""Bytes of a record that other records may carry along; of a larger one they name where the archive keeps it."""
_MAGIC = 0
_HEADER = 5


class Unreadable(Exception):
    """Bytes that are no record of ours: `reason` is a code for counting, the message says what was found."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Encoder:
    """Writes each record type with the newest schema that we have of it; `ids` are the registry's, by record name."""

    def __init__(self, ids: Mapping[str, int]) -> None:
        self._writers = {
            name: (bytes([_MAGIC]) + schema_id.to_bytes(4, "big"), parse(latest(name).text)[1])
            for name, schema_id in ids.items()
        }

    def encode(self, name: str, data: Mapping[str, Any]) -> bytes:
        """The wire bytes of a record. Raises ValueError or TypeError if the data does not fit its schema."""
        header, schema = self._writers[name]
        stream = BytesIO()
        stream.write(header)
        schemaless_writer(stream, schema, data)
        return stream.getvalue()


class Decoder:
    """Reads each record with the schema that it was written with.

    `lookup` gives the text of a writer schema by id, or None if the registry knows none.
    """

    def __init__(self, lookup: Callable[[int], str | None]) -> None:
        self._lookup = lookup
        self._readers: dict[bytes, tuple[str, dict[str, Any]]] = {}

    def decode(self, value: bytes | None) -> tuple[str, dict[str, Any]]:
        """The record's name and fields. Raises Unreadable."""
        if not value:
            raise Unreadable("empty", "the record has no value")
        if len(value) > MAX_RECORD:
            raise Unreadable("too_large", f"{len(value)} bytes, {MAX_RECORD} are allowed")
        reader = self._readers.get(value[:_HEADER]) or self._reader(value[:_HEADER])
        stream = BytesIO(value)
        stream.seek(_HEADER)
        try:
            data: dict[str, Any] = schemaless_reader(stream, reader[1], None)
        except Exception as error:  # fastavro raises whatever its C code met: all of it means bytes that do not fit
            raise Unreadable("bad_avro", f"not a {reader[0]}: {type(error).__name__} {str(error)[:200]}") from error
        if stream.tell() != len(value):
            raise Unreadable("trailing_bytes", f"{len(value) - stream.tell()} bytes after the end of a {reader[0]}")
        return reader[0], data

    def name_of(self, value: bytes) -> str:
        """The record's name by its schema alone. Raises Unreadable."""
        return (self._readers.get(value[:_HEADER]) or self._reader(value[:_HEADER]))[0]

    def _reader(self, header: bytes) -> tuple[str, dict[str, Any]]:
        if len(header) < _HEADER or header[0] != _MAGIC:
            raise Unreadable("not_confluent_avro", "no zero byte and schema id at the start")
        schema_id = int.from_bytes(header[1:], "big")
        text = self._lookup(schema_id)
        if text is None:
            raise Unreadable("unknown_schema", f"the registry knows no schema {schema_id}")
        try:
            self._readers[header] = parse(text)
        except (SchemaParseException, ValueError, TypeError, KeyError) as error:
            raise Unreadable("unknown_schema", f"schema {schema_id} is no Avro record: {error}") from error
        return self._readers[header]
