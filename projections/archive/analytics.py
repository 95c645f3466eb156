"""The analytics table of risk.scored: `{prefix}analytics/risk_scored/partition={p}/{first offset}.parquet`.

One row for each answer of the risk job, and one object for each flush, so that a flush is stored completely or not at
all. Redelivered answers are left out: each partition notes the highest offset of payments.inbound that it has answered.
"""

import json
from collections.abc import Iterator
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq

from domain.risk.events import DuplicateSeen
from projections.archive.bucket import Bucket
from projections.archive.segments import segments, to_parquet
from projections.logs.log import LogRecord, decode_answers
from schemas.codec import Decoder

FOLDER = "analytics/risk_scored/"
SCHEMA = pa.schema(
    [
        pa.field("account_id", pa.string(), nullable=False),
        pa.field("transaction_id", pa.string(), nullable=False),
        pa.field("content_digest", pa.binary(16), nullable=False),
        pa.field("is_duplicate", pa.bool_(), nullable=False),
        pa.field("event_time", pa.timestamp("ms", tz="UTC")),
        pa.field("amount_minor", pa.int64()),
        pa.field("currency", pa.string()),
        pa.field("merchant_id", pa.string()),
        pa.field("payment_method", pa.string()),
        pa.field("channel", pa.string()),
        pa.field("country", pa.string()),
        pa.field("score", pa.int32()),
        pa.field("rules", pa.list_(pa.string())),
        pa.field("pack_id", pa.string()),
        pa.field("partition", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
    ]
)
"""`partition` and `offset` are those of the payment in payments.inbound."""
_LAST, _ANSWERED = "last-offset", "answered"


class AnalyticsWriter:
    """Writer of one partition of risk.scored. It reads its position and its answered offsets from its last object."""

    def __init__(self, bucket: Bucket, partition: int, decoder: Decoder) -> None:
        self._bucket, self._decoder = bucket, decoder
        self._folder = f"{FOLDER}partition={partition:03d}/"
        self.position = 0
        self._answered: dict[int, int] = {}
        self._resume()

    def _resume(self) -> None:
        found = segments(self._bucket, self._folder)
        if found:
            metadata = self._bucket.metadata(found[-1].key)
            self.position = int(metadata[_LAST]) + 1
            self._answered = {int(number): offset for number, offset in json.loads(metadata[_ANSWERED]).items()}

    def write(self, records: list[LogRecord]) -> None:
        """Store the answers in these records that are new. Idempotent: call again after a failure."""
        fresh = [record for record in records if record.offset >= self.position]
        if not fresh:
            return
        answered = dict(self._answered)
        rows = []
        for answer in (answer for record in fresh for answer in decode_answers(record, self._decoder)):
            if answer.offset > answered.get(answer.partition, -1):
                answered[answer.partition] = answer.offset
                rows.append({**answer._asdict(), "is_duplicate": isinstance(answer, DuplicateSeen)})
        metadata = {_LAST: str(fresh[-1].offset), _ANSWERED: json.dumps(answered)}
        key = f"{self._folder}{fresh[0].offset:020d}.parquet"
        if self._bucket.put_new(key, to_parquet(rows, SCHEMA), metadata):
            self.position, self._answered = fresh[-1].offset + 1, answered
        else:
            self._resume()
            self.write(fresh)


def read_table(bucket: Bucket) -> pa.Table:
    """Return the whole table."""
    tables = list(_tables(bucket))
    return pa.concat_tables(tables) if tables else SCHEMA.empty_table()


def _tables(bucket: Bucket) -> Iterator[pa.Table]:
    for key in bucket.keys(FOLDER):
        yield pq.read_table(BytesIO(bucket.get(key) or b"")).cast(SCHEMA)
