"""Codec of records in Confluent's wire format: a zero byte, the writer schema's id, the Avro body."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BytesIO
from types import MappingProxyType
from typing import Any

from fastavro import schemaless_reader, schemaless_writer
from fastavro.schema import SchemaParseException

from schemas.catalog import latest, parse
from schemas.compiled import Reader, UnsupportedSchema, Writer, compile_reader, compile_writer

MAX_RECORD = 1 << 20
"""Maximum size in bytes of a record; a larger one is refused without being read."""
MAX_BODY = 1 << 19
"""Maximum size in bytes of a record inside another one; for a larger one the other names its place in the archive."""
_MAGIC = 0
_HEADER = 5


class UnreadableRecord(Exception):
    """Bytes that cannot be decoded. `reason` is a code that can be counted; the message gives the detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Encoder:
    """Encoder of each record type by its newest schema in the catalogue; `ids` are the registry's, by record name.

    `tuples` names the nested records that are given as tuples instead of dicts, with the order of their fields.
    """

    def __init__(self, ids: Mapping[str, int], tuples: Mapping[str, Sequence[str]] = MappingProxyType({})) -> None:
        self._writers = {
            name: (bytes([_MAGIC]) + schema_id.to_bytes(4, "big"), _writer(parse(latest(name).text)[1], tuples))
            for name, schema_id in ids.items()
        }

    def encode(self, name: str, data: Mapping[str, Any]) -> bytes:
        """Return the wire bytes of a record.

        Raise KeyError, TypeError, AttributeError, ValueError or OverflowError if the data does not fit the schema.
        """
        header, write = self._writers[name]
        return header + write(data)


class Decoder:
    """Decoder of each record by the schema that it was written with.

    `lookup` returns the text of a writer schema by id, or None for an unknown id. `tuples` names the records, nested
    ones too, that are returned as tuples instead of dicts, with the fields to return.
    """

    def __init__(
        self, lookup: Callable[[int], str | None], tuples: Mapping[str, Sequence[str]] = MappingProxyType({})
    ) -> None:
        self._lookup = lookup
        self._tuples = tuples
        self._readers: dict[bytes, tuple[str, Reader]] = {}

    def decode(self, value: bytes | None) -> tuple[str, Any]:
        """Return the record's name and fields. Raise UnreadableRecord."""
        if not value:
            raise UnreadableRecord("empty", "the record has no value")
        if len(value) > MAX_RECORD:
            raise UnreadableRecord("too_large", f"{len(value)} bytes, {MAX_RECORD} are allowed")
        name, read = self._readers.get(value[:_HEADER]) or self._reader(value[:_HEADER])
        try:
            data, end = read(value, _HEADER)
        except Exception as error:  # any error of the reader means that the bytes do not fit the schema
            raise UnreadableRecord("bad_avro", f"not a {name}: {type(error).__name__} {str(error)[:200]}") from error
        if end > len(value):
            raise UnreadableRecord("bad_avro", f"not a {name}: it ends {end - len(value)} bytes too early")
        if end < len(value):
            raise UnreadableRecord("trailing_bytes", f"{len(value) - end} bytes after the end of a {name}")
        return name, data

    def name_of(self, value: bytes) -> str:
        """Return the record's name by its schema id alone. Raise UnreadableRecord."""
        return (self._readers.get(value[:_HEADER]) or self._reader(value[:_HEADER]))[0]

    def _reader(self, header: bytes) -> tuple[str, Reader]:
        if len(header) < _HEADER or header[0] != _MAGIC:
            raise UnreadableRecord("not_confluent_avro", "no zero byte and schema id at the start")
        schema_id = int.from_bytes(header[1:], "big")
        text = self._lookup(schema_id)
        if text is None:
            raise UnreadableRecord("unknown_schema", f"the registry knows no schema {schema_id}")
        try:
            name, schema = parse(text)
        except (SchemaParseException, ValueError, TypeError, KeyError) as error:
            raise UnreadableRecord("unknown_schema", f"schema {schema_id} is no Avro record: {error}") from error
        self._readers[header] = name, _read_by(schema, self._tuples)
        return self._readers[header]


def _read_by(schema: Mapping[str, Any], tuples: Mapping[str, Sequence[str]]) -> Reader:
    try:
        return compile_reader(schema, tuples)
    except UnsupportedSchema:
        return partial(_read_interpreted, schema, tuples.get(schema["name"].rpartition(".")[2]))


def _read_interpreted(
    schema: Mapping[str, Any], order: Sequence[str] | None, value: bytes, position: int
) -> tuple[Any, int]:
    stream = BytesIO(value)
    stream.seek(position)
    data: Any = schemaless_reader(stream, schema, None)
    return (data if order is None else tuple(map(data.get, order))), stream.tell()


def _writer(schema: Mapping[str, Any], tuples: Mapping[str, Sequence[str]]) -> Writer:
    try:
        return compile_writer(schema, tuples)
    except UnsupportedSchema:
        return partial(_encode_interpreted, schema)


def _encode_interpreted(schema: Mapping[str, Any], data: Mapping[str, Any]) -> bytes:
    stream = BytesIO()
    schemaless_writer(stream, schema, data)
    return stream.getvalue()
