"""Claims about the packs on labelled streams. The streams are not part of the project; without them these tests are
left out.
"""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from console.cli.app import app
from console.payments import files
from console.rules.files import load_pack
from console.scoring.figures import figures, window_of
from console.scoring.run import ScoredPayments, ScoringCounts, admit_rows, run
from console.scoring.truth import read_truth
from domain.durations import DAY_MS
from tests.support.collection import STREAMS

pytestmark = pytest.mark.no_cover  # line counting makes folds three times slower, and other tests cover this code

HOUR_MS = 3_600_000


def judged(
    pack: str, stream: str, feedback_ms: int | None = None
) -> tuple[ScoredPayments, ScoringCounts, dict[str, Any]]:
    payments = admit_rows(
        files.read_rows(STREAMS / f"{stream}.parquet"), read_truth(STREAMS / f"{stream}.labels.parquet")
    )
    scored, counts = run(payments, load_pack(pack), feedback_ms)
    return scored, counts, figures(scored, window_of(scored))


def test_synccfd_is_precise_without_labels_and_finds_more_with_them() -> None:
    _, _, alone = judged("synccfd", "synccfd")
    assert alone["precision"] >= 0.95
    assert alone["recall"] >= 0.60
    assert alone["scenarios"]["3"]["recall"] >= 0.97
    _, _, fed_back = judged("synccfd", "synccfd", 7 * DAY_MS)
    assert fed_back["precision"] >= 0.95
    assert fed_back["recall"] >= 0.74


def test_default_stays_precise_when_labels_are_fed_back() -> None:
    _, _, report = judged("default", "synccfd", 7 * DAY_MS)
    assert report["precision"] >= 0.95
    assert report["recall"] >= 0.45
    assert report["alerts_per_day"] < 50


def test_fraudtwin_bursts_are_all_flagged_and_no_background_payment_is() -> None:
    _, _, report = judged("fraudtwin", "fraudtwin_clean")
    bursts = [report["scenarios"][name] for name in ("FRAUD|F02", "FRAUD|F05")]
    assert sum(each["campaigns_flagged"] for each in bursts) == sum(each["campaigns"] for each in bursts) == 16
    assert report["scenarios"]["BACKGROUND"]["flagged"] == 0


def test_sparkov_loses_no_payment_and_beats_the_plain_rules() -> None:
    scored, counts, report = judged("sparkov", "sparkov")
    assert counts.rows == scored.time_ms.size == 65_053
    assert counts.conflicts == 65_053 - 60_442
    assert report["precision"] >= 0.80
    assert report["recall"] >= 0.74


def standing(file: Path, pack: str) -> dict[str, list[str]]:
    """Return the rules of each flagged payment of a file, after all restatements."""
    out = file.with_suffix(".flags.jsonl")
    result = CliRunner().invoke(app, ["backtest", str(file), "--out", str(out), "--rules", pack])
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return {row["transaction_id"]: row["rules"] for row in rows if row["rules"]}


@pytest.mark.parametrize("seed", [1, 2])
def test_fraudtwin_disturbed_has_the_flags_of_the_clean_stream(tmp_path: Path, seed: int) -> None:
    """One in twenty payments comes twice, one in ten an hour late, one in ten up to five minutes out of order."""
    draw = random.Random(seed)
    clean = [row.fields for row in files.read_rows(STREAMS / "fraudtwin_clean.parquet")]
    arrivals: list[tuple[int, dict[str, Any]]] = []
    for row in clean:
        kind, at_ms = draw.random(), int(row["event_time"])
        at_ms += HOUR_MS if kind < 0.1 else draw.randrange(5 * 60_000) if kind < 0.2 else 0
        arrivals.append((at_ms, row))
        if draw.random() < 0.05:
            arrivals.append((at_ms + draw.randrange(HOUR_MS), row))
    disturbed = [row for _, row in sorted(arrivals, key=lambda pair: pair[0])]
    assert disturbed != clean
    files.write_rows(tmp_path / "clean.parquet", clean)
    files.write_rows(tmp_path / "disturbed.parquet", disturbed)
    wanted = standing(tmp_path / "clean.parquet", "fraudtwin")
    assert len(wanted) > 400
    assert standing(tmp_path / "disturbed.parquet", "fraudtwin") == wanted
