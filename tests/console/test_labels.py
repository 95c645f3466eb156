"""Confirmed frauds from a closed case and from a file: each payment gets one label, however often it is reported."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from console.payments.files import BadFile
from console.payments.labels import LabelLookup, LabelRow, LabelRowCounts, match, read_labels
from domain.cases.events import CaseClosed
from domain.risk.events import FraudConfirmed, label_id
from projections.logs.log import LogRecord
from projections.process_worker import case_labels, label_records
from schemas.codec import Decoder
from tests.support.cases import ACCOUNT, NOON, close, flag, history
from tests.support.records import ENCODER, TEXTS, TX


def closed(**changed: object) -> CaseClosed:
    flags = [flag(1, terminal_id="till", device_id="phone", card_id="card"), flag(2)]
    event = history(*flags, close(seen_sequence=2, **changed))[1][-1]
    assert isinstance(event, CaseClosed)
    return event


def test_confirmed_case_labels_each_of_its_payments() -> None:
    first, second = case_labels(closed())
    assert first == FraudConfirmed(
        label_id=label_id(ACCOUNT, "tx-1", "00"),
        account_id=ACCOUNT,
        transaction_id="tx-1",
        event_time=NOON,
        merchant_id="bakery",
        terminal_id="till",
        device_id="phone",
        card_id="card",
        source="case",
        cause_id="cmd-close",
        actor="ana",
        confirmed_at_ms=NOON + 9,
    )
    assert (second.transaction_id, second.terminal_id) == ("tx-2", None)
    assert first.label_id != second.label_id


@pytest.mark.parametrize("disposition", ["false_positive", "inconclusive"])
def test_any_other_case_makes_no_label(disposition: str) -> None:
    assert case_labels(closed(disposition=disposition)) == []


def test_two_flags_on_one_payment_are_one_label() -> None:
    twice = history(flag(1), flag(2, transaction_id="tx-1"), close(seen_sequence=2))[1][-1]
    assert isinstance(twice, CaseClosed)
    assert len(twice.payments) == 2
    assert len(case_labels(twice)) == 1


def test_a_label_goes_into_every_partition() -> None:
    records = label_records([*history(flag(1))[1], closed()], [0, 1, 2], ENCODER)
    assert [record.partition for record in records] == [0, 1, 2, 0, 1, 2]
    names = [Decoder(TEXTS.get).decode(record.value) for record in records]
    assert {name for name, _ in names} == {"FraudConfirmed"}
    assert [data["transaction_id"] for _, data in names] == ["tx-1"] * 3 + ["tx-2"] * 3
    assert {record.key.decode() for record in records} == {data["label_id"] for _, data in names}


ROWS = [
    {"transaction_id": "tx-1", "fraud": 1, "scenario": "a"},
    {"transaction_id": "2", "fraud": 0, "scenario": ""},
    {"transaction_id": "tx-3", "fraud": 1, "account_id": "acct"},
]
READ = [LabelRow("tx-1", None, True), LabelRow("2", None, False), LabelRow("tx-3", "acct", True)]


def test_labels_are_read_from_parquet_csv_and_json_lines(tmp_path: Path) -> None:
    parquet, csv, lines = (tmp_path / name for name in ("l.parquet", "l.csv", "l.jsonl"))
    schema = pa.schema([("transaction_id", pa.string()), ("fraud", pa.int8()), ("account_id", pa.string())])
    pq.write_table(pa.Table.from_pylist(ROWS, schema=schema), parquet)
    csv.write_text("account_id,fraud,transaction_id\n,1,tx-1\n,0,2\nacct,1,tx-3\n")
    lines.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for path in (parquet, csv, lines):
        assert list(read_labels(path)) == READ, path


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.csv", "transaction_id,fraud\ntx-1,1\ntx-2,maybe\n", "row 2: .* not .*maybe"),
        ("l.csv", "fraud\n1\n", "row 1: it needs a transaction_id"),
        ("l.jsonl", '{"transaction_id": "a", "fraud": 1}\n[1]\n', "line 2: not a JSON object"),
        ("l.parquet", "no parquet", "is not a Parquet file"),
        ("l.txt", "", "the suffix must be"),
    ],
)
def test_file_without_labels_is_refused_with_the_place(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadFile, match=message):
        list(read_labels(tmp_path / name))
    with pytest.raises(BadFile, match="is not a file"):
        list(read_labels(tmp_path / "missing.csv"))


def looked_up(*transactions: dict[str, Any]) -> LabelLookup:
    lookup = LabelLookup({"tx-1", "tx-2"})
    for offset, transaction in enumerate(transactions):
        lookup.add("Transaction", transaction, LogRecord("t", 0, offset, 2_000_000_000_000, None, None, ()))
    return lookup


@pytest.mark.parametrize(
    ("log", "given", "counts", "labelled"),
    [
        pytest.param([TX], [LabelRow("tx-1", None, True)], (1, 1, 1, 0, 0), 1, id="found"),
        pytest.param([TX, TX], [LabelRow("tx-1", None, True)] * 2, (2, 2, 2, 0, 0), 1, id="reported twice"),
        pytest.param([TX], [LabelRow("tx-1", "a", True)], (1, 1, 1, 0, 0), 1, id="by account"),
        pytest.param([TX], [LabelRow("tx-1", "b", True)], (1, 1, 0, 1, 0), 0, id="of another account"),
        pytest.param([TX], [LabelRow("tx-2", None, True)], (1, 1, 0, 1, 0), 0, id="unknown"),
        pytest.param([TX], [LabelRow("tx-1", None, False)], (1, 0, 0, 0, 0), 0, id="no fraud"),
        pytest.param([{**TX, "amount_minor": -1}], [LabelRow("tx-1", None, True)], (1, 1, 0, 1, 0), 0, id="refused"),
        pytest.param(
            [TX, {**TX, "amount_minor": 7}],
            [LabelRow("tx-1", None, True)],
            (1, 1, 1, 0, 0),
            2,
            id="two contents of one id",
        ),
        pytest.param(
            [TX, {**TX, "account_id": "b"}], [LabelRow("tx-1", None, True)], (1, 1, 0, 0, 1), 0, id="of two accounts"
        ),
        pytest.param(
            [TX, {**TX, "account_id": "b"}], [LabelRow("tx-1", "b", True)], (1, 1, 1, 0, 0), 1, id="of two, one named"
        ),
    ],
)
def test_labels_find_their_payments(
    log: list[dict[str, Any]], given: list[LabelRow], counts: tuple[int, ...], labelled: int
) -> None:
    found, payments = match(given, looked_up(*log))
    assert found == LabelRowCounts(*counts)
    assert len(payments) == labelled
    assert {label_id(p.account_id, p.transaction_id, p.digest.hex()) for p in payments.values()} == set(payments)


def test_label_in_the_log_is_known() -> None:
    lookup = looked_up(TX)
    for partition in (0, 2):
        lookup.add("FraudConfirmed", {"label_id": "l"}, LogRecord("t", partition, 9, 0, None, None, ()))
    assert lookup.labelled == {"l": {0, 2}}
