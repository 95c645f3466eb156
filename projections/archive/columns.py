"""The archive by column, one segment at a time, for replays: no dict or tuple for each record.

It returns the records of `ArchivedLog`, each checked against its stored SHA-256.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import islice, repeat
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from projections.archive.analytics import FOLDER
from projections.archive.bucket import Bucket
from projections.archive.segments import Alteration, Segment, archived_schema, next_offset, partition_folder, segments
from projections.logs.log import ColumnBatch

_RECORD_COLUMNS = [
    "topic", "partition", "offset", "timestamp_ms", "key", "value", "headers", "schema_id", "schema_sha256",
    "stored_at", "sha256",
]  # fmt: skip
_SCORED = (
    "offset", "account_id", "transaction_id", "content_digest", "event_time", "amount_minor", "currency",
    "merchant_id", "payment_method", "channel", "country", "score", "rules", "pack_id",
)  # fmt: skip
_DUPLICATE = _SCORED[:4]
_MISSING = (-1).to_bytes(8, "big", signed=True)
Rows = list[tuple[Any, ...]]
Answers = tuple[int, Rows, Rows]
"""A partition of payments.inbound with its answers: rows of decisions, then of duplicates, each row's offset first."""


class ArchiveColumns:
    """The archived logs of one system."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._schema_sha256: dict[int, str] = {}
        self._unknown: set[int] = set()
        self._unsearched: Iterator[tuple[Segment, str, int]] | None = None
        self.altered: list[Alteration] = []

    def ends(self, topic: str) -> dict[int, int]:
        """Return the offset after the last archived record, by partition."""
        return self._ends(f"log/{topic}/")

    def answer_ends(self, _: str) -> dict[int, int]:
        """Return the offset after the last risk.scored record in the analytics table, by partition."""
        return self._ends(FOLDER)

    def _ends(self, folder: str) -> dict[int, int]:
        numbers = self._partitions(folder)
        return {number: next_offset(self._bucket, f"{folder}partition={number:03d}/") for number in numbers}

    def _partitions(self, folder: str) -> list[int]:
        names = {key.removeprefix(folder).partition("/")[0] for key in self._bucket.keys(folder)}
        return sorted(int(name.removeprefix("partition=")) for name in names)

    def _segments(self, topics: Sequence[str]) -> Iterator[tuple[Segment, str, int]]:
        """Yield every segment with its topic and partition, newest first within a partition."""
        for topic in topics:
            for partition in self._partitions(f"log/{topic}/"):
                for segment in reversed(segments(self._bucket, partition_folder(topic, partition))):
                    yield segment, topic, partition

    def offset_after(self, topic: str, partition: int, until_ms: int) -> int | None:
        """Return the offset of the first record later than `until_ms`, or None if there is none."""
        for segment in segments(self._bucket, partition_folder(topic, partition)):
            table = self._read(segment, topic, partition, ["offset", "timestamp_ms"])
            if table is None:
                continue
            for offset, at_ms in zip(table["offset"].to_pylist(), table["timestamp_ms"].to_pylist(), strict=True):
                if at_ms > until_ms:
                    return int(offset)
        return None

    def batches(self, topic: str, partition: int, until: int) -> Iterator[ColumnBatch]:
        """Yield the records of a partition from its start up to offset `until`; add altered ones to `altered`."""
        for segment in segments(self._bucket, partition_folder(topic, partition)):
            if segment.first_offset >= until:
                return
            table = self._read(segment, topic, partition, _RECORD_COLUMNS)
            if table is None:
                continue
            self._learn_schemas(table)
            offsets, values = table["offset"].to_pylist(), self._values(table)
            self._check(table, topic, partition, values)
            kept = sum(offset < until for offset in offsets)
            yield ColumnBatch(offsets[:kept], table["timestamp_ms"].to_pylist()[:kept], values[:kept])

    def batches_of_key(self, topic: str, partition: int, key: bytes, until_ms: int) -> Iterator[ColumnBatch]:
        """Yield the records of one key up to `until_ms`, one batch per segment, newest segment first.

        A batch is empty if its segment has no record of the key. Altered records are left out and added to `altered`.
        """
        found = segments(self._bucket, partition_folder(topic, partition))
        begun = bisect_right(found, until_ms, key=lambda segment: self._start_ms(segment, topic, partition))
        for segment in reversed(found[:begun]):
            table = self._read(segment, topic, partition, _RECORD_COLUMNS)
            if table is None:
                continue
            self._learn_schemas(table)
            wanted = [
                own == key and at_ms <= until_ms
                for own, at_ms in zip(table["key"].to_pylist(), table["timestamp_ms"].to_pylist(), strict=True)
            ]
            table = table.filter(pa.array(wanted, pa.bool_()))
            values, before = self._values(table), len(self.altered)
            self._check(table, topic, partition, values)
            bad = {each.offset for each in self.altered[before:]}
            rows = zip(table["offset"].to_pylist(), table["timestamp_ms"].to_pylist(), values, strict=True)
            good = [row for row in rows if row[0] not in bad]
            yield (
                ColumnBatch(*(list(column) for column in zip(*good, strict=True))) if good else ColumnBatch([], [], [])
            )

    def _start_ms(self, segment: Segment, topic: str, partition: int) -> int:
        """Return the time of a segment's first record in milliseconds, or -1 if the segment cannot be read."""
        table = self._read(segment, topic, partition, ["timestamp_ms"])
        return int(table["timestamp_ms"][0].as_py()) if table is not None and len(table) else -1

    def _read(self, segment: Segment, topic: str, partition: int, columns: Sequence[str]) -> pa.Table | None:
        try:
            body = BytesIO(self._bucket.get(segment.key) or b"")
            return pq.read_table(body, columns=list(columns)).combine_chunks().unify_dictionaries()
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            detail = f"segment {segment.key} cannot be read: {error}"
            self.altered.append(Alteration(topic, partition, None, detail))
            return None

    def _learn_schemas(self, table: pa.Table) -> None:
        for number, sha256 in set(zip(table["schema_id"].to_pylist(), table["schema_sha256"].to_pylist(), strict=True)):
            if number is not None and sha256 is not None:
                self._schema_sha256[number] = sha256
            elif number is not None:
                self._unknown.add(number & 0xFFFFFFFF)

    def _values(self, table: pa.Table) -> list[bytes | None]:
        values: list[bytes | None] = table["value"].to_pylist()
        if table["stored_at"].null_count < len(table):
            for number, stored_at in enumerate(table["stored_at"].to_pylist()):
                if stored_at is not None:
                    values[number] = self._bucket.get(stored_at)
        return values

    def _check(self, table: pa.Table, topic: str, partition: int, values: list[bytes | None]) -> None:
        """Add each record whose content does not match its stored SHA-256 to `altered`."""
        names = ("topic", "partition", "offset", "timestamp_ms", "key", "sha256")
        columns = (table[name].to_pylist() for name in names)
        for found_topic, number, offset, at_ms, key, stored, value, headers in zip(
            *columns, values, _headers(table), strict=True
        ):
            made = _sha256(found_topic, number, offset, at_ms, key, value, headers)
            if made != stored or found_topic != topic or number != partition:
                detail = f"the record at {found_topic} partition {number} offset {offset} was altered"
                self.altered.append(Alteration(topic, partition, offset, detail))

    def schema_text(self, schema_id: int) -> str | None:
        """Return the archived writer's schema of an id, or None if the registry had none at archiving time."""
        return archived_schema(self._bucket, schema_id, self._schema_sha256.get(schema_id), self.altered)

    def find_schema(self, topics: Sequence[str], schema_id: int) -> str | None:
        """Return the writer's schema of an id, searching unread segments for it. Raises LookupError if no record has
        the id.

        Reads each segment at most once, for any number of ids.
        """
        if self._unsearched is None:
            self._unsearched = self._segments(topics)
        while schema_id not in self._schema_sha256 and (place := next(self._unsearched, None)) is not None:
            table = self._read(place[0], place[1], place[2], ["schema_id", "schema_sha256"])
            if table is not None:
                self._learn_schemas(table)
        if schema_id not in self._schema_sha256 and schema_id not in self._unknown:
            raise LookupError(f"no record of the archive has schema {schema_id}")
        return self.schema_text(schema_id)

    def answers(self, _: str, partition: int, __: int) -> Iterator[Answers]:
        """Yield the answers in a partition of the analytics table, one object at a time."""
        for segment in segments(self._bucket, f"{FOLDER}partition={partition:03d}/"):
            table = self._read(segment, FOLDER, partition, [*_SCORED, "partition", "is_duplicate"])
            if table is None:
                continue
            times = table["event_time"].cast(pa.int64())
            table = table.set_column(table.column_names.index("event_time"), "event_time", times)
            for number in sorted(set(table["partition"].to_pylist())):
                chosen = [where == number for where in table["partition"].to_pylist()]
                of_one = table.filter(pa.array(chosen)) if not all(chosen) else table
                is_duplicate = of_one["is_duplicate"]
                fresh = pa.array([not each for each in is_duplicate.to_pylist()])
                yield number, _rows(of_one.filter(fresh), _SCORED), _rows(of_one.filter(is_duplicate), _DUPLICATE)


def _rows(table: pa.Table, names: Sequence[str]) -> Rows:
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))


def _headers(table: pa.Table) -> Iterator[list[bytes]]:
    """Yield, for each record, the hashed form of its headers: a name and a value per header."""
    column = table["headers"].combine_chunks() if len(table) else None
    if column is None or column.null_count == len(column):
        return repeat([], len(table))
    flat, lengths = column.flatten(), column.value_lengths().fill_null(0).to_pylist()
    names, contents = flat.field("name").to_pylist(), flat.field("value").to_pylist()
    pieces = iter([_piece(part) for pair in zip((n.encode() for n in names), contents, strict=True) for part in pair])
    return (list(islice(pieces, 2 * length)) for length in lengths)


def _piece(part: bytes | None) -> bytes:
    return _MISSING if part is None else len(part).to_bytes(8, "big") + part


def _sha256(
    topic: str, partition: int, offset: int, at_ms: int, key: bytes | None, value: bytes | None, headers: list[bytes]
) -> bytes:
    numbers = f"{partition} {offset} {at_ms}".encode()
    pieces = [_piece(topic.encode()), _piece(numbers), _piece(key), _piece(value), *headers]
    return hashlib.sha256(b"".join(pieces)).digest()
