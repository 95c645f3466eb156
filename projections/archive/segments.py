"""The audit log in S3: the raw records of each log in immutable Parquet segments, readable without a registry.

Segments are `{prefix}log/{topic}/partition={p}/{first offset}.parquet`; the writers' schemas are
`{prefix}schemas/{sha256}.avsc`. Values are stored uncompressed, so that a flipped byte is found in its record and not
only in its file.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from projections.archive.bucket import Bucket
from projections.archive.merkle import Frontier
from projections.archive.record_leaf import DIGEST, UNSALTED, RecordParts, cut_value, leaf_of, shape_of
from projections.logs.log import LogRecord

SCHEMA = pa.schema(
    [
        pa.field("topic", pa.string(), nullable=False),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("timestamp_ms", pa.int64(), nullable=False),
        pa.field("key", pa.binary()),
        pa.field("value", pa.binary()),
        pa.field("headers", pa.list_(pa.struct([("name", pa.string()), ("value", pa.binary())]))),
        pa.field("record_type", pa.string()),
        pa.field("schema_id", pa.int32()),
        pa.field("schema_sha256", pa.string()),
        pa.field("identity", pa.string()),
        pa.field("stored_at", pa.string()),
        pa.field("sha256", pa.binary(32), nullable=False),
        pa.field("salt", pa.binary(32)),
        pa.field("leaf", pa.binary(32)),
    ]
)
"""Early segments have no `salt` and `leaf` (see record_leaf.py)."""
_PLAIN = {"key", "value", "sha256", "salt", "leaf"}
_LAST, _COUNT, _TREE = "last-offset", "records", "tree"


class RecordDescription(NamedTuple):
    """Metadata that the archive stores with a record, to read it without a registry and to prove it."""

    parts: RecordParts
    salt: bytes | None
    record_type: str | None = None
    schema_id: int | None = None
    schema_sha256: str | None = None
    identity: str | None = None


@dataclass(frozen=True, slots=True)
class ArchivePosition:
    """Position of a partition's archive: its tree, the last offset that it covers, its largest timestamp."""

    tree: Frontier
    last_offset: int = -1
    time_ms: int = 0


class Segment(NamedTuple):
    """One object of the archive."""

    key: str
    first_offset: int


@dataclass(frozen=True, slots=True)
class Alteration:
    """Archived content that differs from its hash; `offset` is None if a whole segment cannot be read."""

    topic: str
    partition: int
    offset: int | None
    detail: str


def partition_folder(topic: str, partition: int) -> str:
    """Return the folder of a partition's segments."""
    return f"log/{topic}/partition={partition:03d}/"


def segments(bucket: Bucket, folder: str) -> list[Segment]:
    """Return the segments in a folder, in order."""
    return [
        Segment(key, int(key.removeprefix(folder).removesuffix(".parquet")))
        for key in bucket.keys(folder)
        if key.endswith(".parquet")
    ]


def next_offset(bucket: Bucket, folder: str) -> int:
    """Return the offset after the last one archived in a folder, from the metadata of its last segment."""
    found = segments(bucket, folder)
    return int(bucket.metadata(found[-1].key)[_LAST]) + 1 if found else 0


def archive_position(bucket: Bucket, folder: str) -> ArchivePosition:
    """Return the archive position of a folder from its last segment; read early segments, which lack it, in full."""
    found = segments(bucket, folder)
    if not found:
        return ArchivePosition(Frontier())
    return segment_position(bucket, found[-1]) or _read_position(bucket, found)


def segment_position(bucket: Bucket, segment: Segment) -> ArchivePosition | None:
    """Return the archive position after a segment, or None for an early segment without a tree."""
    metadata = bucket.metadata(segment.key)
    if _TREE not in metadata:
        return None
    size, time_ms, peaks = metadata[_TREE].split(" ")
    raw = base64.b64decode(peaks)
    tree = Frontier(int(size), (raw[n : n + 32] for n in range(0, len(raw), 32)))
    return ArchivePosition(tree, int(metadata[_LAST]), int(time_ms))


def _read_position(bucket: Bucket, found: Sequence[Segment]) -> ArchivePosition:
    tree, time_ms = Frontier(), 0
    schemas = SchemaArchive(bucket)
    for segment in found:
        for row in read_segment(bucket.get(segment.key)).to_pylist():
            tree.add(row_leaf(row_record(bucket, row), row, schemas))
            time_ms = max(time_ms, row["timestamp_ms"])
    return ArchivePosition(tree, int(bucket.metadata(found[-1].key)[_LAST]), time_ms)


def _tree_text(position: ArchivePosition) -> str:
    return f"{position.tree.size} {position.time_ms} {base64.b64encode(b''.join(position.tree.peaks)).decode()}"


def record_sha256(record: LogRecord) -> bytes:
    """Return the SHA-256 over a whole record. Each variable part is preceded by its length, a missing one by -1."""
    numbers = f"{record.partition} {record.offset} {record.timestamp_ms}".encode()
    parts = [record.topic.encode(), numbers, record.key, record.value]
    for name, value in record.headers:
        parts += name.encode(), value
    pieces = [
        _MISSING if part is None else len(part).to_bytes(8, "big") + part  # joined, for one call into hashlib
        for part in parts
    ]
    return hashlib.sha256(b"".join(pieces)).digest()


_MISSING = (-1).to_bytes(8, "big", signed=True)


def oversize_key(value: bytes) -> str:
    """Return the key of a value too large for a segment; quarantine reports name the same key."""
    return f"oversize/{hashlib.sha256(value).hexdigest()}"


def write_segment(
    bucket: Bucket,
    records: Sequence[LogRecord],
    described: Sequence[RecordDescription],
    before: ArchivePosition,
    last_offset: int,
) -> ArchivePosition | None:
    """Store records of one partition as a segment up to `last_offset`; return None if the key is taken."""
    leaves = [
        leaf_of(
            record,
            notes.schema_id,
            notes.schema_sha256,
            notes.parts or cut_value(record.value, None),
            notes.salt or UNSALTED,
        )
        for record, notes in zip(records, described, strict=True)
    ]
    time_ms = max(before.time_ms, *(record.timestamp_ms for record in records))
    after = ArchivePosition(before.tree.copy().extend(leaves), last_offset, time_ms)
    first = records[0]
    metadata = {_LAST: str(last_offset), _COUNT: str(len(records)), _TREE: _tree_text(after)}
    key = f"{partition_folder(first.topic, first.partition)}{first.offset:020d}.parquet"
    body = table_to_parquet(_table(bucket, records, described, leaves))
    return after if bucket.put_new(key, body, metadata) else None


def stored_identities(bucket: Bucket, segment: Segment) -> list[tuple[str, bytes]]:
    """Return the identities of the events in a segment, each with the SHA-256 of its value."""
    table = pq.read_table(BytesIO(bucket.get(segment.key) or b""), columns=["identity", "value"])
    return [
        (identity, hashlib.sha256(value or b"").digest())
        for identity, value in zip(table["identity"].to_pylist(), table["value"].to_pylist(), strict=True)
        if identity
    ]


def _table(
    bucket: Bucket, records: Sequence[LogRecord], described: Sequence[RecordDescription], leaves: Sequence[bytes]
) -> pa.Table:
    """Build the segment's table column by column; rows as dicts cost three times as much."""
    count, first = len(records), records[0]
    stored_at: list[str | None] = [None] * count
    values = [record.value for record in records]
    for number, notes in enumerate(described):
        if notes.parts.form == DIGEST:
            value = values[number] or b""
            stored_at[number], values[number] = oversize_key(value), None
            bucket.put_new(oversize_key(value), value)
    _, salts, names, ids, schemas, identities = zip(*described, strict=True)
    columns: dict[str, Any] = {
        "topic": pa.repeat(pa.scalar(first.topic), count),
        "partition": pa.repeat(pa.scalar(first.partition, pa.int32()), count),
        "offset": [record.offset for record in records],
        "timestamp_ms": [record.timestamp_ms for record in records],
        "key": [record.key for record in records],
        "value": values,
        "headers": _headers(records),
        "record_type": names,
        "schema_id": ids,
        "schema_sha256": schemas,
        "identity": identities,
        "stored_at": stored_at,
        "sha256": [record_sha256(record) for record in records],
        "salt": salts,
        "leaf": leaves,
    }
    arrays = [
        made if isinstance(made := columns[field.name], pa.Array) else pa.array(made, field.type) for field in SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _headers(records: Sequence[LogRecord]) -> pa.Array:
    kind = SCHEMA.field("headers").type
    if not any(record.headers for record in records):  # the usual case, a hundred times faster
        return pa.ListArray.from_arrays(
            pa.repeat(pa.scalar(0, pa.int32()), len(records) + 1), pa.array([], kind.value_type)
        )
    return pa.array(
        [[{"name": name, "value": content} for name, content in record.headers] for record in records], kind
    )


def read_segment(body: bytes | None) -> pa.Table:
    """Read a segment of any version as a table of SCHEMA. Raises ArrowException, OSError or ValueError."""
    table = pq.read_table(BytesIO(body or b""))
    for name in SCHEMA.names[len(table.column_names) :]:
        table = table.append_column(SCHEMA.field(name), pa.nulls(table.num_rows, SCHEMA.field(name).type))
    return table.cast(SCHEMA)


def row_record(bucket: Bucket, row: Mapping[str, Any]) -> LogRecord:
    """Return the record in a row of a segment."""
    value = row["value"] if row["stored_at"] is None else bucket.get(row["stored_at"])
    headers = tuple((header["name"], header["value"]) for header in row["headers"] or ())
    return LogRecord(row["topic"], row["partition"], row["offset"], row["timestamp_ms"], row["key"], value, headers)


def archived_schema(bucket: Bucket, schema_id: int, sha256: str | None, altered: list[Alteration]) -> str | None:
    """Return the archived text of a schema, or None if there is none; one that was altered goes to `altered`."""
    text = bucket.get(f"schemas/{sha256}.avsc") if sha256 else None
    if text is None:
        return None
    if hashlib.sha256(text).hexdigest() != sha256:
        altered.append(Alteration("schemas", 0, None, f"schema {schema_id} is not what was stored: {sha256}"))
    return text.decode()


class SchemaArchive:
    """The archived writers' schemas by their SHA-256."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._texts: dict[str, str | None] = {}

    def text(self, sha256: str | None) -> str | None:
        """Return a schema, or None if it is missing or does not match its SHA-256."""
        if sha256 is not None and sha256 not in self._texts:
            body = self._bucket.get(f"schemas/{sha256}.avsc")
            is_it = body is not None and hashlib.sha256(body).hexdigest() == sha256
            self._texts[sha256] = body.decode() if body is not None and is_it else None
        return None if sha256 is None else self._texts[sha256]

    def cut_value(self, value: bytes | None, sha256: str | None) -> RecordParts:
        """Split a value into parts by its writer's schema."""
        text = self.text(sha256)
        return cut_value(value, None if text is None else shape_of(text))


def row_leaf(record: LogRecord, row: Mapping[str, Any], schemas: SchemaArchive) -> bytes:
    """Recompute the hash of a record's leaf from its row in the archive."""
    value_parts = schemas.cut_value(record.value, row["schema_sha256"])
    return leaf_of(record, row["schema_id"], row["schema_sha256"], value_parts, row["salt"] or UNSALTED)


def to_parquet(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> bytes:
    """Write rows as one Parquet file; equal rows give equal bytes."""
    return table_to_parquet(pa.Table.from_pylist(list(rows), schema=schema))


def table_to_parquet(table: pa.Table) -> bytes:
    """Write a table as one Parquet file; equal tables give equal bytes."""
    sink, schema = BytesIO(), table.schema
    pq.write_table(
        table,
        sink,
        compression={name: "none" if name in _PLAIN else "zstd" for name in _leaves(schema)},
        use_dictionary=[name for name in _leaves(schema) if name not in _PLAIN],
        write_statistics=["offset"] if "offset" in schema.names else True,
    )
    return sink.getvalue()


def _leaves(schema: pa.Schema) -> list[str]:
    return [
        leaf
        for name in schema.names
        for leaf in (("headers.list.element.name", "headers.list.element.value") if name == "headers" else (name,))
    ]
