"""A log read record by record from the archive's segments."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from projections.archive.bucket import Bucket
from projections.archive.segments import (
    Alteration,
    archived_schema,
    next_offset,
    partition_folder,
    read_segment,
    record_sha256,
    row_record,
    segments,
)
from projections.logs.log import LogRecord


class ArchivedLog:
    """The logs in the archive: the records of Kafka, each checked against its stored SHA-256."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._schema_sha256: dict[int, str] = {}
        self.altered: list[Alteration] = []

    def partitions(self, topic: str) -> list[int]:
        """Return the partitions of a topic that have archived records."""
        folder = f"log/{topic}/"
        names = {key.removeprefix(folder).partition("/")[0] for key in self._bucket.keys(folder)}
        return sorted(int(name.removeprefix("partition=")) for name in names)

    def ends(self, topic: str) -> dict[int, int]:
        """Return the offset after the last archived record, by partition."""
        return {number: next_offset(self._bucket, partition_folder(topic, number)) for number in self.partitions(topic)}

    def read(self, topic: str, partition: int, until: int) -> Iterator[LogRecord]:
        """Yield the records of a partition from its start up to offset `until`; add altered ones to `altered`."""
        for segment in segments(self._bucket, partition_folder(topic, partition)):
            if segment.first_offset >= until:
                return
            body = self._bucket.get(segment.key)
            try:
                rows = read_segment(body).to_pylist()
            except (pa.ArrowException, OSError, ValueError) as error:
                detail = f"segment {segment.key} cannot be read: {error}"
                self.altered.append(Alteration(topic, partition, None, detail))
                continue
            for row in rows:
                record = self._record(row)
                where = (record.topic, record.partition, row["offset"])
                if record_sha256(record) != row["sha256"] or where[:2] != (topic, partition):
                    detail = f"the record at {topic} partition {partition} offset {row['offset']} was altered"
                    self.altered.append(Alteration(topic, partition, row["offset"], detail))
                if record.offset < until:
                    yield record

    def _record(self, row: dict[str, Any]) -> LogRecord:
        if row["schema_id"] is not None and row["schema_sha256"] is not None:
            self._schema_sha256[row["schema_id"]] = row["schema_sha256"]
        return row_record(self._bucket, row)

    def schema_text(self, schema_id: int) -> str | None:
        """Return the archived writer's schema of an id, or None if the registry had none at archiving time.

        Knows the ids of the records read so far.
        """
        return archived_schema(self._bucket, schema_id, self._schema_sha256.get(schema_id), self.altered)
