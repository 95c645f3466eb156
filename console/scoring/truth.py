"""Ground truth: the labels of a file of payments."""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from console.payments.files import BadFile

_COLUMNS: Final = ("row", "transaction_id", "fraud", "scenario")
_FRAUD: Final = {"0": False, "1": True, "false": False, "true": True}


class TruthLabel(NamedTuple):
    """Label of a payment: whether it is a fraud, and its scenario as `class|scenario|campaign` or a name."""

    transaction_id: str
    is_fraud: bool
    scenario: str


class GroundTruth:
    """Labels of a file of payments, by row if the labels have rows, otherwise by transaction id."""

    def __init__(self, by_row: dict[int, TruthLabel], by_id: dict[str, TruthLabel]) -> None:
        self._by_row = by_row
        self._by_id = by_id

    def of(self, row: int, transaction_id: object) -> TruthLabel | None:
        """Return the label of a payment's row, or None. Raises BadFile if labels and payments disagree."""
        if not self._by_row:
            return self._by_id.get(str(transaction_id))
        label = self._by_row.get(row)
        if label is not None and label.transaction_id != transaction_id:
            raise BadFile(
                f"row {row} is {transaction_id!r}, but its label is for {label.transaction_id!r}: "
                "these labels belong to another file, or to its rows in another order"
            )
        return label


def read_truth(path: Path) -> GroundTruth:
    """Read labels from Parquet, CSV or JSON lines: transaction_id, fraud (0 or 1), and optionally row (from 0) and
    scenario.

    Raises BadFile at the first invalid label, with its number.
    """
    by_row: dict[int, TruthLabel] = {}
    by_id: dict[str, TruthLabel] = {}
    for number, (row, transaction_id, fraud, scenario) in enumerate(_cells(path)):
        is_fraud = _FRAUD.get(str(fraud).lower())
        if is_fraud is None or transaction_id in (None, ""):
            raise BadFile(f"{path}, label {number}: needs a transaction_id, and fraud as 0 or 1, not {fraud!r}")
        label = TruthLabel(str(transaction_id), is_fraud, "" if scenario is None else str(scenario))
        if row in (None, ""):
            if by_id.setdefault(label.transaction_id, label) != label:
                raise BadFile(f"{path}: {label.transaction_id!r} has two labels; distinguish them by a column row")
        elif by_row.setdefault(_row_number(path, number, row), label) is not label:
            raise BadFile(f"{path}, label {number}: row {row} already has a label")
    if by_row and by_id:
        raise BadFile(f"{path}: give the row of every label, or of none")
    return GroundTruth(by_row, by_id)


def _row_number(path: Path, number: int, row: Any) -> int:
    try:
        return int(row)
    except (TypeError, ValueError) as error:
        raise BadFile(f"{path}, label {number}: row must be a whole number, not {row!r}") from error


def _cells(path: Path) -> Iterable[tuple[Any, ...]]:
    if not path.is_file():
        raise BadFile(f"{path} is not a file")
    if path.suffix == ".parquet":
        return _parquet_cells(path)
    if path.suffix == ".csv":
        return _csv_cells(path)
    if path.suffix in (".jsonl", ".ndjson", ".json"):
        return _json_cells(path)
    raise BadFile(f"{path}: the suffix must be .parquet, .csv or .jsonl")


def _parquet_cells(path: Path) -> Iterable[tuple[Any, ...]]:
    try:
        names = pq.ParquetFile(path).schema_arrow.names
        table = pq.read_table(path, columns=[name for name in _COLUMNS if name in names])
    except (pa.ArrowException, OSError) as error:
        raise BadFile(f"{path} is not a Parquet file: {error}") from error
    missing = [None] * table.num_rows
    return zip(*(table.column(name).to_pylist() if name in names else missing for name in _COLUMNS), strict=True)


def _csv_cells(path: Path) -> Iterator[tuple[Any, ...]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        for line in csv.DictReader(file):
            yield tuple(line.get(name) for name in _COLUMNS)


def _json_cells(path: Path) -> Iterator[tuple[Any, ...]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                fields = dict(json.loads(line))
            except (ValueError, TypeError) as error:
                raise BadFile(f"{path}, line {number}: not a JSON object") from error
            yield tuple(fields.get(name) for name in _COLUMNS)
