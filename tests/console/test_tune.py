"""The search for better parameters: which may change, how they are written, and that only the past is used."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from console.cli.app import app
from console.payments import files
from console.payments.files import IntakeRow
from console.rules.files import load_pack, parse_file
from console.scoring.run import AdmittedRow, admit_rows, run
from console.scoring.truth import GroundTruth, TruthLabel
from console.scoring.tune import (
    TunableNumber,
    average_precision,
    change_numbers,
    f1,
    pack_yaml,
    recall_at,
    search,
    split,
    tunable_numbers,
)
from domain.durations import DAY_MS
from domain.risk.families.expression import Expression as ExpressionRule
from domain.risk.families.velocity import Velocity
from domain.risk.packs import BadRulePack, RulePack

START = 20_000 * DAY_MS
LARGE = ExpressionRule(
    name="large", typology="t", value="amount_minor", at_least=400, points='if(count(account, "24h") > 3, 900, 500)'
)
PACK = RulePack(
    name="toy",
    version=1,
    rules=(LARGE, Velocity(name="burst", typology="t", points=600, window_ms=60_000, at_least=5)),
)


def rows_of(days: int) -> list[dict[str, Any]]:
    """Return ten payments of a day: 100, 200, ... 1000."""
    return [
        {
            "transaction_id": f"p{number}", "account_id": f"a{number % 10}", "amount_minor": 100 * (number % 10 + 1),
            "currency": "EUR", "event_time": START + number // 10 * DAY_MS + number, "merchant_id": "m",
            "payment_method": "CARD", "channel": "POS",
        }
        for number in range(days * 10)
    ]  # fmt: skip


def payments(days: int, limits: list[int]) -> list[AdmittedRow]:
    """Return payments whose amounts are frauds from each day's limit on."""
    rows = rows_of(days)
    labels = {
        number: TruthLabel(row["transaction_id"], row["amount_minor"] >= limits[number // 10], "")
        for number, row in enumerate(rows)
    }
    return list(admit_rows((IntakeRow(row, None) for row in rows), GroundTruth(labels, {})))


def found(ranges: dict[str, list[Any]], **limits: Any) -> list[TunableNumber]:
    return tunable_numbers(PACK, ranges, **{"with_flag_at": True, **limits})


def test_parameters_are_searched_from_half_to_twice() -> None:
    searched = {place.name: (place.least, place.most, place.unit) for place in found({})}
    assert searched == {
        "flag_at": (1, 2, 1),
        "large.at_least": (200, 800, 1),
        "burst.points": (300, 1_000, 1),
        "burst.window_ms": (30_000, 120_000, 1_000),  # in a unit of which it has at least four: seconds, not minutes
        "burst.at_least": (2, 10, 1),
    }
    assert "flag_at" not in {place.name for place in found({}, with_flag_at=False)}


def test_named_numbers_in_expressions_are_searched() -> None:
    (hours, points) = found({"large.points.0": ["6h", "48h"], "large.points.2": [700, 1000]})
    assert (hours.now, hours.least, hours.most, hours.unit) == (
        24 * 3_600_000,
        6 * 3_600_000,
        48 * 3_600_000,
        3_600_000,
    )
    pack = change_numbers(PACK, {hours: 36 * 3_600_000, points: 777})
    assert pack.rules[0] == replace(LARGE, points='if(count(account, "36h") > 3, 777, 500)')


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        pytest.param(
            {"large.at_most": [1, 2]}, "has no number large.at_most; it has flag_at, large.at_least", id="name"
        ),
        pytest.param({"large.at_least": [2, 1]}, "2 to 1 is not a valid range", id="end before start"),
        pytest.param({"large.at_least": [2]}, "needs a minimum and a maximum", id="one end"),
        pytest.param({"burst.window_ms": ["soon", "later"]}, "needs a minimum and a maximum", id="no durations"),
    ],
)
def test_impossible_range_gives_the_reason(ranges: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(BadRulePack, match=message):
        found(ranges)


def test_objectives_by_hand() -> None:
    """Amounts of 100 to 1000, frauds from 900 on, flagged from 800 on: two of three flags are right, and all frauds
    are found.
    """
    scored, _ = run(payments(1, [900]), replace(PACK, rules=(replace(LARGE, at_least=800, points=500),)))
    assert f1(scored) == pytest.approx(2 * (2 / 3) * 1 / (2 / 3 + 1))
    assert average_precision(scored) == pytest.approx(2 / 3)  # three payments have the score that finds both frauds
    assert recall_at(0.6)(scored) == 1
    assert recall_at(0.7)(scored) == pytest.approx(2 / 3 - 0.7)


def tuned(stream: list[AdmittedRow], **options: Any) -> Any:
    searched = found({"large.at_least": [100, 1000], "burst.at_least": [2, 9]})
    given = {"objective": f1, "first_judged_day": 20_007, "feedback_ms": None, "trials": 25, "seed": 3, **options}
    return search(stream, PACK, searched, **given)


def test_the_search_finds_the_limit_and_changes_nothing_else() -> None:
    result = tuned(payments(10, [800] * 10))
    assert list(result.changes) == ["large.at_least"]
    assert 700 < result.changes["large.at_least"][1] <= 800
    assert result.learnt == (pytest.approx(2 * (3 / 7) / (3 / 7 + 1)), 1)
    assert (result.before["precision"], result.after["precision"]) == (3 / 7, 1)


def test_equal_seeds_give_equal_results() -> None:
    stream = payments(10, [800] * 10)
    assert tuned(stream) == tuned(stream)


def test_search_uses_no_later_payments() -> None:
    """From day 7 on frauds have another limit: the result of the search stays, but its score on the test days
    changes.
    """
    calm, turned = tuned(payments(10, [800] * 10)), tuned(payments(10, [800] * 7 + [300] * 3))
    assert calm.pack == turned.pack
    assert calm.after["recall"] == 1
    assert turned.after["recall"] == 3 / 8


def test_the_split_is_in_time() -> None:
    stream = payments(10, [800] * 10)
    assert split(stream, 0.7) == 20_007
    assert split(stream, 0.99) == 20_009
    with pytest.raises(BadRulePack, match="of one day"):
        split(stream[:10], 0.7)


def test_written_pack_is_read_back() -> None:
    ranges = {"large.points.0": ["6h", "48h"]}
    text = pack_yaml(PACK, ranges, ["made by hand"])
    assert text.startswith("# made by hand\nname: toy\nversion: 1\nrules:\n- name: large\n  family: expression\n")
    assert "window_ms: 1m" in text
    assert parse_file(text, "toy.yaml") == PACK


def test_the_command_writes_a_pack(tmp_path: Path) -> None:
    rows = rows_of(10)
    empty: dict[str, Any] = {**dict.fromkeys(files.PAYMENTS.names), "attributes": {}}
    files.write_rows(tmp_path / "payments.jsonl", [{**empty, **row} for row in rows])
    labels = "\n".join(
        json.dumps({"transaction_id": row["transaction_id"], "fraud": int(row["amount_minor"] >= 800)}) for row in rows
    )
    (tmp_path / "labels.jsonl").write_text(labels)
    (tmp_path / "toy.yaml").write_text(pack_yaml(PACK, {"large.at_least": [100, 1000]}, []))
    called = CliRunner().invoke(
        app,
        ["rules", "tune", "--transactions", str(tmp_path / "payments.jsonl"), "--labels",
         str(tmp_path / "labels.jsonl"), "--rules", str(tmp_path / "toy.yaml"), "--out", str(tmp_path / "out.yaml"),
         "--trials", "15", "--objective", "f1", "--json"],
    )  # fmt: skip
    assert called.exit_code == 0, called.output
    report = json.loads(called.stdout)
    assert list(report["changes"]) == ["large.at_least"]
    assert report["later"]["after"]["fraud"] == 9
    pack = load_pack(str(tmp_path / "out.yaml"))
    assert (pack.name, pack.version) == ("toy", 2)
