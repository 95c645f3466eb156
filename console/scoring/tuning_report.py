"""Report of `fraudcase rules tune`: the numbers found for a pack, and how the pack does with them.

It is apart from the command because Optuna and scikit-learn are slow to import.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from console.display.formats import counted, figure_text
from console.payments.files import IntakeRow
from console.rules.files import load_pack
from console.scoring.report import date_of
from console.scoring.run import admit_rows
from console.scoring.truth import read_truth
from console.scoring.tune import (
    Objective,
    TuningResult,
    average_precision,
    f1,
    pack_yaml,
    ranges_of,
    recall_at,
    search,
    split,
    tunable_numbers,
)
from console.scoring.tuning_options import TuningGoal, TuningOptions
from console.terminal import messages, progress
from domain.durations import format_duration


def tune_and_report(
    rows: Iterable[IntakeRow], labels: Path, rules: str, out: Path, wanted: TuningOptions
) -> dict[str, Any]:
    """Search for better numbers, write the pack found to `out`, and return the report.

    Raises BadFile or BadRulePack for unusable input, and OSError if `out` cannot be written.
    """
    pack, ranges = load_pack(rules), ranges_of(rules)
    searched = tunable_numbers(pack, ranges, with_flag_at=wanted.aim is not TuningGoal.AVERAGE_PRECISION)
    payments = list(admit_rows(rows, read_truth(labels)))
    with progress("packs tried", wanted.trials + len(searched)) as seen:
        best_so_far = -1.0

        def show_progress(done: int, best: float) -> None:
            nonlocal best_so_far
            seen(done)
            if best > best_so_far:
                best_so_far = best
                messages.print(f"pack {done}: {wanted.aim.value} {best:.4f}", highlight=False)

        tuned = search(
            payments, pack, searched, _objective(wanted), first_judged_day=split(payments, wanted.earlier),
            feedback_ms=wanted.feedback_ms, trials=wanted.trials, seed=wanted.seed, report_progress=show_progress,
        )  # fmt: skip
    report = _report(tuned, wanted)
    best = replace(tuned.pack, version=pack.version + 1)
    out.write_text(pack_yaml(best, ranges, _remarks(report)), encoding="utf-8")
    load_pack(str(out))  # raises if the new file cannot be read
    return {**report, "out": str(out)}


def _objective(wanted: TuningOptions) -> Objective:
    if wanted.aim is TuningGoal.RECALL_AT_PRECISION:
        return recall_at(wanted.precision)
    return {TuningGoal.AVERAGE_PRECISION: average_precision, TuningGoal.F1: f1}[wanted.aim]


def _report(tuned: TuningResult, wanted: TuningOptions) -> dict[str, Any]:
    return {
        "pack": tuned.pack.name,
        "objective": wanted.aim.value,
        "trials": wanted.trials,
        "seed": wanted.seed,
        "feedback": None if wanted.feedback_ms is None else format_duration(wanted.feedback_ms),
        "learnt_before": date_of(tuned.first_judged_day),
        "learnt": {"before": tuned.learnt[0], "after": tuned.learnt[1]},
        "later": {"before": tuned.before, "after": tuned.after},
        "changes": {name: {"before": was, "after": now} for name, (was, now) in tuned.changes.items()},
    }


def _remarks(report: dict[str, Any]) -> list[str]:
    later = report["later"]["after"]
    trials = counted(report["trials"], "trial")
    found = ", ".join(f"{name} {figure_text(later[name])}" for name in ("precision", "recall", "average_precision"))
    return [
        f"Found by fraudcase rules tune: {report['objective']}, {trials}, seed {report['seed']}.",
        f"Learnt on payments before {report['learnt_before']}; on the later ones: {found}.",
    ]
