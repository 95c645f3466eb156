"""The audit log in S3: each log's records, raw, in immutable Parquet segments, with all it takes to read them again.

`{prefix}log/{topic}/partition={p}/{first offset}.parquet`, beside `{prefix}schemas/{sha256}.avsc` with the writers'
schemas. Values lie in the file as they are, uncompressed: a flipped byte is found in its record, not only in its file.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from botocore.exceptions import ClientError

from projections.log import LogRecord
from schemas.codec import MAX_BODY

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

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
    ]
)
_PLAIN = {"key", "value", "sha256"}
_LAST, _COUNT = "last-offset", "records"


class Described(NamedTuple):
    """What the archive notes beside a record, so that it can be read without a registry."""

    record_type: str | None = None
    schema_id: int | None = None
    schema_sha256: str | None = None
    identity: str | None = None


class Segment(NamedTuple):
    """One object of the archive."""

    key: str
    first_offset: int


@dataclass(frozen=True, slots=True)
class Altered:
    """Something in the archive is not what was written; `offset` is None where a whole segment cannot be read."""

    topic: str
    partition: int
    offset: int | None
    detail: str


class Bucket:
    """The objects of one system under its prefix."""

    def __init__(self, client: "S3Client", bucket: str, prefix: str) -> None:
        self._client, self._bucket, self._prefix = client, bucket, prefix

    def put_new(self, key: str, body: bytes, metadata: Mapping[str, str] | None = None) -> bool:
        """Store an object under a key that must be free; False if it is not."""
        try:
            self._client.put_object(
                Bucket=self._bucket, Key=self._prefix + key, Body=body, Metadata=dict(metadata or {}), IfNoneMatch="*"
            )
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("PreconditionFailed", "ConditionalRequestConflict"):
                raise
            return False
        return True

    def get(self, key: str) -> bytes | None:
        """An object's content, None if there is none."""
        try:
            return self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("NoSuchKey", "404"):
                raise
            return None

    def metadata(self, key: str) -> dict[str, str]:
        """What was noted beside an object."""
        return dict(self._client.head_object(Bucket=self._bucket, Key=self._prefix + key)["Metadata"])

    def keys(self, under: str) -> Iterator[str]:
        """The keys that begin so, ascending."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix + under)
        for page in pages:
            for entry in page.get("Contents", []):
                yield entry["Key"].removeprefix(self._prefix)


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


def record_sha256(record: LogRecord) -> bytes:
    """SHA-256 over all of a record; each variable part is preceded by its length, a missing one by -1."""
    digest = hashlib.sha256()
    numbers = f"{record.partition} {record.offset} {record.timestamp_ms}".encode()
    headers = [part for name, value in record.headers for part in (name.encode(), value)]
    for part in (record.topic.encode(), numbers, record.key, record.value, *headers):
        digest.update((-1 if part is None else len(part)).to_bytes(8, "big", signed=True))
        digest.update(part or b"")
    return digest.digest()


def oversize_key(value: bytes) -> str:
    """Where a value lies that is too large for a segment; quarantine reports name the same place."""
    return f"oversize/{hashlib.sha256(value).hexdigest()}"


def write_segment(
    bucket: Bucket, records: Sequence[LogRecord], last_offset: int, describe: Callable[[LogRecord], Described]
) -> bool:
    """Store records of one partition as a segment that reaches to an offset; False if that place is taken."""
    rows = [_row(bucket, record, describe(record)) for record in records]
    body = to_parquet(rows, SCHEMA)
    first = records[0]
    metadata = {_LAST: str(last_offset), _COUNT: str(len(rows))}
    return bucket.put_new(
        f"{partition_folder(first.topic, first.partition)}{first.offset:020d}.parquet", body, metadata
    )


def stored_identities(bucket: Bucket, segment: Segment) -> dict[str, bytes]:
    """The identities of the events in a segment, with the SHA-256 of their values."""
    table = pq.read_table(BytesIO(bucket.get(segment.key) or b""), columns=["identity", "value"])
    return {
        row["identity"]: hashlib.sha256(row["value"] or b"").digest() for row in table.to_pylist() if row["identity"]
    }


def _row(bucket: Bucket, record: LogRecord, described: Described) -> dict[str, Any]:
    stored_at, value = None, record.value
    if value is not None and len(value) > MAX_BODY:
        stored_at, value = oversize_key(value), None
        bucket.put_new(stored_at, record.value or b"")
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        "key": record.key,
        "value": value,
        "headers": [{"name": name, "value": content} for name, content in record.headers],
        **described._asdict(),
        "stored_at": stored_at,
        "sha256": record_sha256(record),
    }


def to_parquet(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> bytes:
    """Rows as one Parquet file, the same rows always as the same bytes."""
    sink = BytesIO()
    pq.write_table(
        pa.Table.from_pylist(list(rows), schema=schema),
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


class ArchivedLog:
    """The logs as the archive has them: the same records as from Kafka, each checked against its own SHA-256."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._schema_sha256: dict[int, str] = {}
        self.altered: list[Altered] = []

    def partitions(self, topic: str) -> list[int]:
        """The partitions of which anything is archived."""
        folder = f"log/{topic}/"
        names = {key.removeprefix(folder).partition("/")[0] for key in self._bucket.keys(folder)}
        return sorted(int(name.removeprefix("partition=")) for name in names)

    def ends(self, topic: str) -> dict[int, int]:
        """The offset after the last archived record, by partition."""
        return {number: next_offset(self._bucket, partition_folder(topic, number)) for number in self.partitions(topic)}

    def read(self, topic: str, partition: int, until: int) -> Iterator[LogRecord]:
        """The records of a partition from its start up to an offset; what is not as written goes to `altered`."""
        for segment in segments(self._bucket, partition_folder(topic, partition)):
            if segment.first_offset >= until:
                return
            body = self._bucket.get(segment.key)
            try:
                rows = pq.read_table(BytesIO(body or b"")).cast(SCHEMA).to_pylist()
            except (pa.ArrowException, OSError, ValueError) as error:
                detail = f"segment {segment.key} cannot be read: {error}"
                self.altered.append(Altered(topic, partition, None, detail))
                continue
            for row in rows:
                record = self._record(row)
                where = (record.topic, record.partition, row["offset"])
                if record_sha256(record) != row["sha256"] or where[:2] != (topic, partition):
                    detail = f"the record at {topic} partition {partition} offset {row['offset']} was altered"
                    self.altered.append(Altered(topic, partition, row["offset"], detail))
                if record.offset < until:
                    yield record

    def _record(self, row: dict[str, Any]) -> LogRecord:
        if row["schema_id"] is not None and row["schema_sha256"] is not None:
            self._schema_sha256[row["schema_id"]] = row["schema_sha256"]
        value = row["value"] if row["stored_at"] is None else self._bucket.get(row["stored_at"])
        headers = tuple((header["name"], header["value"]) for header in row["headers"] or ())
        return LogRecord(row["topic"], row["partition"], row["offset"], row["timestamp_ms"], row["key"], value, headers)

    def schema_text(self, schema_id: int) -> str | None:
        """The writer's schema of an id, from beside the segments; None if the registry knew none when it was read."""
        sha256 = self._schema_sha256.get(schema_id)
        text = self._bucket.get(f"schemas/{sha256}.avsc") if sha256 else None
        if text is None:
            return None
        if hashlib.sha256(text).hexdigest() != sha256:
            self.altered.append(Altered("schemas", 0, None, f"schema {schema_id} is not what was stored: {sha256}"))
        return text.decode()
