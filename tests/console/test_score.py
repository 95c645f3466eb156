"""The scoreboard: every figure computed by hand, labels that become known late, and label files that do not match."""

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from console.cli.app import app
from console.payments import files
from console.payments.decisions import backtest
from console.payments.files import BadFile, IntakeRow
from console.scoring.figures import ScoringWindow, card_precision, figures, select_window, window_of
from console.scoring.run import NEVER, ScoredPayments, ScoringCounts, admit_rows, run
from console.scoring.truth import GroundTruth, TruthLabel, read_truth
from domain.durations import DAY_MS
from domain.risk.families.entity_risk import EntityRisk
from domain.risk.families.velocity import Velocity
from domain.risk.packs import RulePack
from generator.traffic import Traffic, TrafficOptions

NOON = 20_000 * DAY_MS + DAY_MS // 2


def scored(*rows: tuple[int, str, int, int, int], scenario: str = "") -> ScoredPayments:
    """Build payments from (day, card, fraud, score, flagged). The card's account has the card's name."""
    columns = list(zip(*rows, strict=True))
    days, cards, frauds, scores, flagged = columns
    times = np.array(days) * DAY_MS + np.arange(len(days))
    flags = np.array(flagged, bool)
    names = np.array(cards, object)
    return ScoredPayments(
        time_ms=times, account=names, card=names, fraud=np.array(frauds, bool),
        scenario=np.array([scenario] * len(days), object), score=np.array(scores), flagged=flags, flagged_first=flags,
        flagged_at_ms=np.where(flags, times, NEVER),
    )  # fmt: skip


def test_figures_of_five_payments() -> None:
    """Two frauds score 900 and 700, honest ones 800, 100 and 0; scores of at least 750 are flagged."""
    report = figures(
        scored((1, "a", 1, 900, 1), (1, "b", 0, 800, 1), (1, "c", 1, 700, 0), (2, "d", 0, 100, 0), (2, "e", 0, 0, 0)),
        ScoringWindow(1, 4),
    )
    assert report["precision"] == 1 / 2
    assert report["recall"] == 1 / 2
    assert report["auc_roc"] == 5 / 6  # of six pairs of a fraud and an honest one, only 700 against 800 is wrong
    assert report["average_precision"] == pytest.approx(1 / 2 * 1 / 1 + 1 / 2 * 2 / 3)
    assert report["alerts_per_day"] == 2 / 4
    assert report["card_precision_100"] == pytest.approx((2 / 100 + 0 / 100) / 2)  # days without payments do not count


def test_figure_with_a_zero_denominator_is_absent() -> None:
    report = figures(scored((1, "a", 0, 0, 0)), ScoringWindow(1, 1))
    assert [report[key] for key in ("precision", "recall", "auc_roc", "average_precision", "time_to_detect_s")] == (
        [None] * 5
    )


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        pytest.param([(1, "a", 1, 9, 1), (1, "b", 1, 8, 1), (1, "c", 1, 7, 1)], 2 / 2, id="no more than two a day"),
        pytest.param([(1, "a", 0, 9, 1), (1, "a", 1, 1, 0), (1, "b", 0, 5, 1)], 1 / 2, id="the riskiest payment ranks"),
        pytest.param(
            [(1, "a", 1, 9, 1), (2, "a", 1, 9, 1), (2, "b", 0, 8, 1), (2, "c", 1, 7, 1)],
            (1 / 2 + 1 / 2) / 2,
            id="a found card leaves, the next one moves up",
        ),
        pytest.param(
            [(1, "a", 0, 9, 1), (1, "b", 1, 0, 0), (2, "a", 1, 9, 1)],
            (1 / 2 + 1 / 2) / 2,
            id="an honest card is checked again",
        ),
        pytest.param([(1, "b", 0, 5, 1), (1, "c", 1, 5, 1), (1, "a", 0, 5, 1)], 0, id="equal scores by name"),
    ],
)  # fmt: skip
def test_card_precision_with_two_checks_a_day(rows: list[tuple[int, str, int, int, int]], expected: float) -> None:
    assert card_precision(scored(*rows), top=2) == pytest.approx(expected)


def test_known_cards_are_left_out_as_in_the_handbook() -> None:
    """The test days are 15 to 17 and the delay is 7 days: the training days are 1 to 7, and day 8 is known on day
    16.
    """
    frauds = [(0, "before"), (1, "first"), (7, "last"), (8, "day-8"), (9, "day-9"), (10, "day-10")]
    past = [(day, card, 1, 0, 0) for day, card in frauds]
    tested = [(day, card, 0, 0, 0) for day in (15, 16, 17) for _, card in frauds]
    left = select_window(scored(*past, *tested), ScoringWindow(15, 17), excluded_after_days=7)
    cards = {day: set(left.card[left.time_ms // DAY_MS == day]) for day in (15, 16, 17)}
    assert cards == {
        15: {"before", "day-8", "day-9", "day-10"},
        16: {"before", "day-9", "day-10"},
        17: {"before", "day-10"},
    }


def test_only_the_requested_days_are_scored() -> None:
    rows = [(day, "a", 0, 0, 0) for day in range(5)]
    assert list(select_window(scored(*rows), ScoringWindow(1, 3)).time_ms // DAY_MS) == [1, 2, 3]
    assert window_of(scored(*rows)) == ScoringWindow(0, 4)


# -- through the fold -------------------------------------------------------------------------------------

BURST = RulePack(
    name="burst",
    version=1,
    rules=(Velocity(name="burst", typology="t", points=500, window_ms=60_000, at_least=3),),
)
KNOWN_TERMINAL = RulePack(
    name="known",
    version=1,
    rules=(EntityRisk(name="known", typology="t", points=500, by="terminal", window_ms=30 * DAY_MS, at_least=1),),
)


def payment(transaction_id: str, at_ms: int = 0, **changed: Any) -> dict[str, Any]:
    return {
        "transaction_id": transaction_id, "account_id": "anna", "amount_minor": 100, "currency": "EUR",
        "event_time": NOON + at_ms, "merchant_id": "m", "payment_method": "CARD", "channel": "POS",
        "terminal_id": "till-1", **changed,
    }  # fmt: skip


def decided(
    rows: list[dict[str, Any]], frauds: dict[str, str], pack: RulePack, feedback_ms: int | None = None
) -> tuple[ScoredPayments, ScoringCounts]:
    """Fold rows; `frauds` maps transaction ids to the scenario of each fraud."""
    labels = {
        number: TruthLabel(
            row["transaction_id"], row["transaction_id"] in frauds, frauds.get(row["transaction_id"], "0")
        )
        for number, row in enumerate(rows)
    }
    return run(admit_rows((IntakeRow(row, None) for row in rows), GroundTruth(labels, {})), pack, feedback_ms)


@pytest.mark.parametrize(
    ("feedback_ms", "flagged"),
    [
        pytest.param(7 * DAY_MS, [False, False, True, True], id="known seven days later, to the millisecond"),
        pytest.param(8 * DAY_MS, [False, False, False, False], id="not known yet"),
        pytest.param(None, [False, False, False, False], id="never known"),
    ],
)
def test_fraud_is_known_after_the_delay(feedback_ms: int | None, flagged: list[bool]) -> None:
    week = 7 * DAY_MS
    rows = [
        payment("stolen"),
        payment("before", week - 1, account_id="bob"),
        payment("then", week, account_id="cleo"),
        payment("late", week - 1, account_id="dan"),  # arrives after the label, although it was made earlier
    ]
    result, counts = decided(rows, {"stolen": "1"}, KNOWN_TERMINAL, feedback_ms)
    assert list(result.flagged) == flagged
    assert counts.labels_entered == (feedback_ms == week)


def test_unscored_payments_are_counted() -> None:
    rows = [payment("one"), payment("one"), payment("bad", amount_minor=-1), payment("one", 1, amount_minor=7)]
    result, counts = decided(rows, {"one": "1", "bad": "1"}, BURST, 7 * DAY_MS)
    assert counts == ScoringCounts(rows=4, duplicates=1, quarantined=1, quarantined_fraud=1, conflicts=1)
    assert result.time_ms.size == 2


def test_time_to_detect_counts_from_the_first_fraud_in_stream_time() -> None:
    """Anna's burst is flagged at its third payment, 20 s in; Bob's only when a late payment completes it, at 50 s."""
    rows = [
        *(payment(f"a{at}", at * 1000) for at in (0, 10, 20)),
        payment("b0", 5_000, account_id="bob"),
        payment("b2", 15_000, account_id="bob"),
        payment("clock", 50_000, account_id="cleo"),
        payment("b1", 10_000, account_id="bob"),
        payment("missed", 50_000, account_id="dan"),
    ]
    frauds = {row["transaction_id"]: "burst" for row in rows if row["transaction_id"] != "clock"}
    result, counts = decided(rows, frauds, BURST)
    report = figures(result, window_of(result))
    assert counts.restated == 1
    assert report["time_to_detect_s"] == (20 + 45) / 2
    assert (report["compromises"], report["compromises_detected"]) == (3, 2)
    assert report["flagged"] == 2
    assert report["on_arrival"]["flagged"] == 1
    assert report["on_arrival"]["recall"] == 1 / 7


def test_entity_flags_across_accounts_count() -> None:
    """Three accounts at one terminal within a minute: the third payment is flagged, and a late one changes nothing."""
    rule = Velocity(name="till", typology="t", points=500, window_ms=60_000, at_least=3, by="terminal")
    rows = [payment(f"p{n}", 1_000 * n, account_id=f"a{n}") for n in range(3)]
    rows += [payment("late", 500, account_id="a2"), payment("elsewhere", 3_000, account_id="a4", terminal_id="till-2")]
    result, _ = decided(rows, {"p2": "1", "late": "1"}, replace(BURST, rules=(*BURST.rules, rule)))
    assert list(result.flagged) == list(result.flagged_first) == [False, False, True, False, False]
    assert list(result.score) == [0, 0, 500, 0, 0]
    assert list(result.flagged_at_ms) == [NEVER, NEVER, NOON + 2_000, NEVER, NEVER]


def test_campaigns_are_grouped_and_scenarios_are_separate() -> None:
    """Two bursts of campaign g1 on two accounts and one honest lookalike; each third payment is flagged."""
    rows = [payment(f"{who}{at}", at, account_id=who) for who in ("anna", "bob", "cleo") for at in (0, 1, 2)]
    labels = {
        number: TruthLabel(row["transaction_id"], row["account_id"] != "cleo", scenario)
        for number, row in enumerate(rows)
        for scenario in ["HARD|F02|g9" if row["account_id"] == "cleo" else "FRAUD|F02|g1"]
    }
    result, _ = run(admit_rows((IntakeRow(row, None) for row in rows), GroundTruth(labels, {})), BURST)
    report = figures(result, window_of(result))
    assert report["compromises"] == 1
    assert report["scenarios"] == {
        "FRAUD|F02": {
            "payments": 6, "fraud": 6, "flagged": 2, "recall": pytest.approx(1 / 3), "campaigns": 1,
            "campaigns_flagged": 1,
        },
        "HARD|F02": {
            "payments": 3, "fraud": 0, "flagged": 1, "recall": None, "campaigns": 1, "campaigns_flagged": 1,
        },
    }  # fmt: skip


def traffic(count: int) -> Iterator[dict[str, Any]]:
    made = Traffic(TrafficOptions(seed=7, accounts=40))
    return (generated.transaction for generated in islice(iter(made), count))


def test_flags_equal_those_of_a_backtest() -> None:
    rows = list(traffic(3_000))
    lines = list(backtest([IntakeRow(row, None) for row in rows], BURST))
    truth = GroundTruth({number: TruthLabel(row["transaction_id"], False, "") for number, row in enumerate(rows)}, {})
    result, counts = run(admit_rows((IntakeRow(row, None) for row in rows), truth), BURST)
    assert result.time_ms.size == 3_000 - counts.duplicates - counts.quarantined
    standing = {line["transaction_id"] for line in lines if line["rules"]}
    assert result.flagged.sum() == len(standing) > 0
    assert result.flagged_first.sum() == len({line["transaction_id"] for line in lines if line["first_rules"]})


# -- files and the command --------------------------------------------------------------------------------

LABELS = [
    {"row": 0, "transaction_id": "a", "fraud": 1, "scenario": "x"},
    {"row": 1, "transaction_id": "b", "fraud": 0, "scenario": None},
]


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        lines = [",".join(rows[0])] + [",".join("" if v is None else str(v) for v in row.values()) for row in rows]
        path.write_text("\n".join(lines))
    else:
        path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_labels_are_read_in_each_of_three_forms(tmp_path: Path, suffix: str) -> None:
    truth = read_truth(written(tmp_path / f"labels{suffix}", LABELS))
    assert truth.of(0, "a") == TruthLabel("a", True, "x")
    assert truth.of(1, "b") == TruthLabel("b", False, "")
    assert truth.of(2, "c") is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        pytest.param([{"transaction_id": "a"}], "fraud as 0 or 1", id="no truth"),
        pytest.param([{"fraud": 1}], "needs a transaction_id", id="no id"),
        pytest.param([{"transaction_id": "a", "fraud": 2}], "fraud as 0 or 1, not 2", id="neither"),
        pytest.param([LABELS[0], LABELS[0]], "row 0 already has a label", id="a row twice"),
        pytest.param([{**LABELS[0], "row": "x"}], "whole number, not 'x'", id="no row number"),
        pytest.param(
            [{"transaction_id": "a", "fraud": 0}, {"transaction_id": "a", "fraud": 1}], "two labels", id="ambiguous"
        ),
        pytest.param([LABELS[0], {"transaction_id": "a", "fraud": 0}], "or of none", id="some rows"),
    ],
)
def test_invalid_labels_give_the_reason(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(BadFile, match=message):
        read_truth(written(tmp_path / "labels.jsonl", rows))


def test_labels_in_another_order_are_refused() -> None:
    with pytest.raises(BadFile, match="another file, or to its rows in another order"):
        GroundTruth({0: TruthLabel("a", True, "")}, {}).of(0, "b")


def test_labels_without_row_numbers_are_matched_by_id() -> None:
    assert GroundTruth({}, {"a": TruthLabel("a", True, "")}).of(17, "a") == TruthLabel("a", True, "")


def test_command_reports_and_plots(tmp_path: Path) -> None:
    rows = [payment(f"p{at}", at, attributes={}) for at in range(6)]
    files.write_rows(tmp_path / "payments.parquet", rows)
    labels = [{"row": n, "transaction_id": row["transaction_id"], "fraud": int(n > 3)} for n, row in enumerate(rows)]
    picture = tmp_path / "curves.png"
    called = CliRunner().invoke(
        app,
        ["score", "--json", "--transactions", str(tmp_path / "payments.parquet"), "--feedback", "7d", "--from",
         "2024-10-04", "--to", "2024-10-04", "--exclude-known", "--plot", str(picture),
         "--labels", str(written(tmp_path / "labels.csv", labels))],
    )  # fmt: skip
    assert called.exit_code == 0, called.output
    report = json.loads(called.stdout)
    assert (report["rows"], report["fraud"], report["flagged"], report["recall"]) == (6, 2, 2, 1.0)  # 5th and 6th
    assert {"card_precision_100", "alerts_per_day", "time_to_detect_s", "scenarios"} <= report.keys()
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_command_reports_errors(tmp_path: Path) -> None:
    files.write_rows(tmp_path / "payments.parquet", [payment("a", attributes={})])
    options = ["--transactions", str(tmp_path / "payments.parquet"), "--labels", str(tmp_path / "none.csv")]
    called = CliRunner().invoke(app, ["score", *options])
    assert called.exit_code == 1
    assert "none.csvisnotafile" in "".join(
        called.stderr.split()
    )  # wherever the line breaks, which depends on the length of the path
    (tmp_path / "none.csv").write_text("transaction_id,fraud\nb,1\n")
    called = CliRunner().invoke(app, ["score", *options])
    assert called.exit_code == 1
    assert "no payment of 1 row has both a decision and a label" in called.stderr.replace("\n", " ")
    called = CliRunner().invoke(app, ["score", *options, "--feedback", "a week"])
    assert called.exit_code == 2
    assert "is not a duration" in called.stderr
