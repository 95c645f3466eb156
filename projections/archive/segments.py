"""The audit log in S3: each log's records, raw, in immutable Parquet segments, with all it takes to read them again.

`{prefix}log/{topic}/partition={p}/{first offset}.parquet`, beside `{prefix}schemas/{sha256}.avsc` with the writers'
schemas. Values lie in the file as they are, uncompressed: a flipped byte is found in its record, not only in its file.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from projections.archive.bucket import Bucket
from projections.archive.merkle import Frontier
from projections.archive.record_leaf import DIGEST, UNSALTED, RecordParts, cut, leaf_of, shape_of
from projections.logs.log import LogRecord

if TYPE_CHECKING:
    pass

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
"""`salt` and `leaf`, of the record in the tree of its partition (see leaf.py), are missing in segments of old."""
_PLAIN = {"key", "value", "sha256", "salt", "leaf"}
_LAST, _COUNT, _TREE = "last-offset", "records", "tree"


class RecordDescription(NamedTuple):
    """What the archive notes beside a record, so that it can be read without a registry, and proved."""

    cut: RecordParts
    salt: bytes | None
    record_type: str | None = None
    schema_id: int | None = None
    schema_sha256: str | None = None
    identity: str | None = None


@dataclass(frozen=True, slots=True)
class ArchivePosition:
    """How far the archive of a partition is: its tree, the last offset that it covers, the largest timestamp in it."""

    tree: Frontier
    last_offset: int = -1
    time_ms: int = 0


class Segment(NamedTuple):
    """One object of the archive."""

    key: str
    first_offset: int


@dataclass(frozen=True, slots=True)
class Alteration:
    """Something in the archive is not what was written; `offset` is None where a whole segment cannot be read."""

    topic: str
    partition: int
    offset: int | None
    detail: str


def partition_folder(topic: str, partition: int) -> str:
    """Where the segments of a partition lie."""
    return f"log/{topic}/partition={partition:03d}/"


def segments(bucket: Bucket, folder: str) -> list[Segment]:
    """The segments in a folder, in order."""
    return [
        Segment(key, int(key.removeprefix(folder).removesuffix(".parquet")))
        for key in bucket.keys(folder)
        if key.endswith(".parquet")
    ]


def next_offset(bucket: Bucket, folder: str) -> int:
    """Where the segments of a folder end: the store itself says how far it is, nobody else needs to remember."""
    found = segments(bucket, folder)
    return int(bucket.metadata(found[-1].key)[_LAST]) + 1 if found else 0


def mark_of(bucket: Bucket, folder: str) -> ArchivePosition:
    """How far the archive of a folder is, as noted beside its last segment; segments of old are read through."""
    found = segments(bucket, folder)
    if not found:
        return ArchivePosition(Frontier())
    return segment_mark(bucket, found[-1]) or _mark_by_reading(bucket, found)


def segment_mark(bucket: Bucket, segment: Segment) -> ArchivePosition | None:
    """How far the archive is with a segment; None if it is one of old, without a tree."""
    metadata = bucket.metadata(segment.key)
    if _TREE not in metadata:
        return None
    size, time_ms, peaks = metadata[_TREE].split(" ")
    raw = base64.b64decode(peaks)
    tree = Frontier(int(size), (raw[n : n + 32] for n in range(0, len(raw), 32)))
    return ArchivePosition(tree, int(metadata[_LAST]), int(time_ms))


def _mark_by_reading(bucket: Bucket, found: Sequence[Segment]) -> ArchivePosition:
    tree, time_ms = Frontier(), 0
    schemas = SchemaArchive(bucket)
    for segment in found:
        for row in read_segment(bucket.get(segment.key)).to_pylist():
            tree.add(row_leaf(row_record(bucket, row), row, schemas))
            time_ms = max(time_ms, row["timestamp_ms"])
    return ArchivePosition(tree, int(bucket.metadata(found[-1].key)[_LAST]), time_ms)


def _tree_text(mark: ArchivePosition) -> str:
    return f"{mark.tree.size} {mark.time_ms} {base64.b64encode(b''.join(mark.tree.peaks)).decode()}"


def record_sha256(record: LogRecord) -> bytes:
    """SHA-256 over all of a record; each variable part is preceded by its length, a missing one by -1."""
    numbers = f"{record.partition} {record.offset} {record.timestamp_ms}".encode()
    parts = [record.topic.encode(), numbers, record.key, record.value]
    for name, value in record.headers:
        parts += name.encode(), value
    pieces = [
        _MISSING if part is None else len(part).to_bytes(8, "big") + part  # joined: one call into the library
        for part in parts
    ]
    return hashlib.sha256(b"".join(pieces)).digest()


_MISSING = (-1).to_bytes(8, "big", signed=True)


def oversize_key(value: bytes) -> str:
    """Where a value lies that is too large for a segment; quarantine reports name the same place."""
    return f"oversize/{hashlib.sha256(value).hexdigest()}"


def write_segment(
    bucket: Bucket,
    records: Sequence[LogRecord],
    described: Sequence[RecordDescription],
    before: ArchivePosition,
    last_offset: int,
) -> ArchivePosition | None:
    """Store records of one partition as a segment that reaches to an offset; None if that place is taken."""
    leaves = [
        leaf_of(
            record, notes.schema_id, notes.schema_sha256, notes.cut or cut(record.value, None), notes.salt or UNSALTED
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
    """The identities of the events in a segment, with the SHA-256 of their values."""
    table = pq.read_table(BytesIO(bucket.get(segment.key) or b""), columns=["identity", "value"])
    return [
        (identity, hashlib.sha256(value or b"").digest())
        for identity, value in zip(table["identity"].to_pylist(), table["value"].to_pylist(), strict=True)
        if identity
    ]


def _table(
    bucket: Bucket, records: Sequence[LogRecord], described: Sequence[RecordDescription], leaves: Sequence[bytes]
) -> pa.Table:
    """Column by column: rows as dicts cost three times as much."""
    count, first = len(records), records[0]
    stored_at: list[str | None] = [None] * count
    values = [record.value for record in records]
    for number, notes in enumerate(described):
        if notes.cut.form == DIGEST:
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
    if not any(record.headers for record in records):  # nearly always, and a hundred times as fast
        return pa.ListArray.from_arrays(
            pa.repeat(pa.scalar(0, pa.int32()), len(records) + 1), pa.array([], kind.value_type)
        )
    return pa.array(
        [[{"name": name, "value": content} for name, content in record.headers] for record in records], kind
    )


def read_segment(body: bytes | None) -> pa.Table:
    """A segment, of old or of now, as a table of SCHEMA. Raises ArrowException, OSError or ValueError."""
    table = pq.read_table(BytesIO(body or b""))
    for name in SCHEMA.names[len(table.column_names) :]:
        table = table.append_column(SCHEMA.field(name), pa.nulls(table.num_rows, SCHEMA.field(name).type))
    return table.cast(SCHEMA)


def row_record(bucket: Bucket, row: Mapping[str, Any]) -> LogRecord:
    """The record that a row of a segment holds."""
    value = row["value"] if row["stored_at"] is None else bucket.get(row["stored_at"])
    headers = tuple((header["name"], header["value"]) for header in row["headers"] or ())
    return LogRecord(row["topic"], row["partition"], row["offset"], row["timestamp_ms"], row["key"], value, headers)


class SchemaArchive:
    """The writers' schemas beside the segments, by their SHA-256."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._texts: dict[str, str | None] = {}

    def text(self, sha256: str | None) -> str | None:
        """A schema, None if there is none or it is not what was stored."""
        if sha256 is not None and sha256 not in self._texts:
            body = self._bucket.get(f"schemas/{sha256}.avsc")
            is_it = body is not None and hashlib.sha256(body).hexdigest() == sha256
            self._texts[sha256] = body.decode() if body is not None and is_it else None
        return None if sha256 is None else self._texts[sha256]

    def cut(self, value: bytes | None, sha256: str | None) -> RecordParts:
        """A value in parts, by its writer's schema."""
        text = self.text(sha256)
        return cut(value, None if text is None else shape_of(text))


def row_leaf(record: LogRecord, row: Mapping[str, Any], schemas: SchemaArchive) -> bytes:
    """The hash of a record's leaf, made again from what the archive has of it."""
    parted = schemas.cut(record.value, row["schema_sha256"])
    return leaf_of(record, row["schema_id"], row["schema_sha256"], parted, row["salt"] or UNSALTED)


def to_parquet(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> bytes:
    """Rows as one Parquet file, the same rows always as the same bytes."""
    return table_to_parquet(pa.Table.from_pylist(list(rows), schema=schema))


def table_to_parquet(table: pa.Table) -> bytes:
    """A table as one Parquet file, the same table always as the same bytes."""
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
