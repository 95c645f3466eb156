"""Files of payments (Parquet, CSV, JSON lines) with the columns of Transaction; and tables of decisions."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from domain.payment import Refusal
from schemas.catalog import latest

_BATCH = 10_000
_FIELDS: dict[str, Any] = {field["name"]: field for field in json.loads(latest("Transaction").text)["fields"]}
REQUIRED = tuple(name for name, field in _FIELDS.items() if "default" not in field)
_INTEGERS, _NUMBERS = {"amount_minor", "event_time"}, {"latitude", "longitude", "home_latitude", "home_longitude"}


class BadFile(ValueError):
    """File that cannot be read or written; the message gives the reason and the cure."""


class IntakeRow(NamedTuple):
    """Row of a file: the fields of Transaction, or the raw fields with the reason of their refusal."""

    fields: dict[str, Any]
    refusal: Refusal | None


def read_rows(path: Path) -> Iterator[IntakeRow]:
    """Return the rows of a file, in order.

    Raise BadFile before the first row if the file cannot be read or lacks a column.
    """
    return map(_row, _raw_rows(path))


def count_rows(path: Path) -> int | None:
    """Return the number of rows if the file states it, else None."""
    return int(pq.ParquetFile(path).metadata.num_rows) if path.suffix == ".parquet" else None


def _raw_rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise BadFile(f"{path} is not a file")
    if path.suffix == ".parquet":
        try:
            file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise BadFile(f"{path} is not a Parquet file: {error}") from error
        _check_columns(path, file.schema_arrow.names)
        return (row for batch in file.iter_batches(_BATCH) for row in _plain_times(batch).to_pylist())
    if path.suffix == ".csv":
        return _csv_rows(path)
    if path.suffix in (".jsonl", ".ndjson", ".json"):
        return _json_rows(path)
    raise BadFile(f"{path}: the suffix must be .parquet, .csv or .jsonl")


def _check_columns(path: Path, names: Iterable[str]) -> None:
    missing = [name for name in REQUIRED if name not in set(names)]
    if missing:
        raise BadFile(f"{path} lacks the columns {', '.join(missing)}; it needs the fields of Transaction")


def _plain_times(batch: pa.RecordBatch) -> pa.RecordBatch:
    table = pa.Table.from_batches([batch])
    index = table.schema.get_field_index("event_time")
    if pa.types.is_timestamp(table.schema.field(index).type):
        times = table.column(index).cast(pa.timestamp("ms", tz="UTC"), safe=False).cast(pa.int64())
        table = table.set_column(index, "event_time", times)
    return table


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        _check_columns(path, reader.fieldnames or ())
    return _csv_lines(path)


def _csv_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            yield {name: value for name, value in row.items() if name in _FIELDS and value not in ("", None)}


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            yield row if isinstance(row, dict) else {"unreadable": line.rstrip("\n")}


def _row(raw: Mapping[str, Any]) -> IntakeRow:
    fields: dict[str, Any] = {}
    for name in _FIELDS:
        value = raw.get(name)
        try:
            fields[name] = _value(name, value)
        except (ValueError, TypeError, ArithmeticError):
            return IntakeRow(dict(raw), Refusal("bad_fields", f"{name} has a value that it cannot have"))
    missing = [name for name in REQUIRED if fields[name] is None and name != "attributes"]
    if missing:
        return IntakeRow(dict(raw), Refusal("bad_fields", f"{', '.join(missing)} must not be empty"))
    return IntakeRow(fields, None)


def _value(name: str, value: Any) -> Any:
    if name == "attributes":
        pairs = json.loads(value) if isinstance(value, str) else value or {}
        return {str(key): str(inner) for key, inner in dict(pairs).items() if inner is not None}
    if value is None:
        return None
    if name == "event_time":
        return _milliseconds(value)
    if name in _INTEGERS:
        return _to_minor_units(value)
    if name in _NUMBERS:
        return float(value)
    if isinstance(value, str):
        value.encode()  # raises UnicodeEncodeError for a lone surrogate
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise TypeError(name)


def _to_minor_units(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError("a boolean is not an amount")
    number = Decimal(str(value))
    if number != number.to_integral_value() or abs(number) >= 2**63:
        raise ValueError("not a whole number of minor units")
    return int(number)


def _milliseconds(value: Any) -> int:
    if isinstance(value, str) and not value.lstrip("-").isdigit():
        value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        zoned = value if value.tzinfo else value.replace(tzinfo=UTC)
        since = zoned - datetime(1970, 1, 1, tzinfo=UTC)
        return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000
    return _to_minor_units(value)


DECISIONS = pa.schema(
    [
        ("transaction_id", pa.string()),
        ("score", pa.int32()),
        ("rules", pa.list_(pa.string())),
        ("first_rules", pa.list_(pa.string())),
        ("reasons", pa.list_(pa.string())),
    ]
)
"""Columns of the tables that `fraudcase backtest` and `fraudcase flags` write, one row per payment."""

PAYMENTS = pa.schema(
    [
        (name, pa.int64() if name in _INTEGERS else pa.float64() if name in _NUMBERS else pa.string())
        for name in _FIELDS
        if name != "attributes"
    ]
    + [("attributes", pa.map_(pa.string(), pa.string()))]
)
"""Columns of a file of payments: the fields of Transaction."""


@contextmanager
def _atomic_file(path: Path) -> Iterator[Path]:
    """Yield the path of a partial file that replaces `path` only if the block succeeds."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def write_table(path: Path, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> int:
    """Write rows in the format of the file's suffix and return their number. CSV holds lists as JSON. Raise BadFile."""
    count = 0
    with _atomic_file(path) as partial:
        if path.suffix == ".parquet":
            with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
                for chunk in _chunks(rows):
                    writer.write_table(pa.Table.from_pylist(chunk, schema=schema))
                    count += len(chunk)
        elif path.suffix == ".csv":
            with partial.open("w", encoding="utf-8", newline="") as file:
                out = csv.DictWriter(file, schema.names)
                out.writeheader()
                for row in rows:
                    out.writerow({name: _csv_cell(row[name]) for name in schema.names})
                    count += 1
        elif path.suffix in (".jsonl", ".ndjson", ".json"):
            with partial.open("w", encoding="utf-8") as file:
                for row in rows:
                    file.write(json_line(row, schema))
                    count += 1
        else:
            raise BadFile(f"{path}: the suffix must be .parquet, .csv or .jsonl")
    return count


def json_line(row: Mapping[str, Any], schema: pa.Schema) -> str:
    """Return a row as a line of JSON, with its columns in the order of the schema."""
    return json.dumps({name: row[name] for name in schema.names}, ensure_ascii=False) + "\n"


def _csv_cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


def _chunks(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    chunk: list[dict[str, Any]] = []
    for row in rows:
        chunk.append(dict(row))
        if len(chunk) == _BATCH:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def write_rows(path: Path, transactions: Iterable[Mapping[str, Any]]) -> int:
    """Write payments to a file that `read_rows` reads, and return their number. Raise BadFile."""
    return write_table(path, ({**row, "attributes": list(row["attributes"].items())} for row in transactions), PAYMENTS)
