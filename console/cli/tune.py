"""`fraudcase rules tune`: search for better numbers in a rule pack."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from console.cli.options import AsJson, Feedback, LabelsFile, TransactionsFile
from console.cli.output import fail, print_wide
from console.cli.row_files import read_prepared_rows
from console.cli.rules import rules as rules_app
from console.display.formats import figure_text
from console.payments.files import BadFile
from console.scoring.tuning_options import TuningGoal, TuningOptions
from console.terminal import messages
from domain.durations import format_duration
from domain.risk.packs import BadRulePack


def register(_: typer.Typer) -> None:
    """Add the command to `fraudcase rules`."""
    rules_app.command()(tune)


def tune(
    transactions: TransactionsFile,
    labels: LabelsFile,
    rules: Annotated[str, typer.Option(help="rule pack to start from: a file, or the name of a shipped pack")],
    out: Annotated[Path, typer.Option(help="YAML file to write the best pack to")],
    trials: Annotated[int, typer.Option(min=1, help="number of packs to try")] = 50,
    seed: Annotated[int, typer.Option(help="seed of the search; the same seed gives the same result")] = 1,
    objective: Annotated[TuningGoal, typer.Option(help="figure to maximise")] = TuningGoal.AVERAGE_PRECISION,
    precision: Annotated[
        float, typer.Option(min=0, max=1, help="minimum precision, for the objective recall_at_precision")
    ] = 0.95,
    earlier: Annotated[
        float, typer.Option(min=0.05, max=0.95, help="fraction of the days to learn on; the rest are judged")
    ] = 0.7,
    feedback: Feedback = None,
    as_json: AsJson = False,
) -> None:
    """Search for better numbers in a pack on the earlier payments of a file, and judge them on the later payments."""
    from console.scoring.tuning_report import tune_and_report  # slow to import: Optuna and scikit-learn

    wanted = TuningOptions(objective, precision, trials, seed, earlier, feedback)
    try:
        report = tune_and_report(read_prepared_rows(transactions), labels, rules, out, wanted)
    except (BadFile, BadRulePack, OSError) as error:
        raise fail(str(error)) from error
    show(report, as_json=as_json)


def show(report: dict[str, Any], *, as_json: bool) -> None:
    """Print the report: JSON for programs, a table for people."""
    if as_json:
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("", "before", "after"):
        table.add_column(name, justify="right" if name else "left")
    learnt = report["learnt"]
    table.add_row(f"{report['objective']}, learnt", figure_text(learnt["before"]), figure_text(learnt["after"]))
    for name, value in report["later"]["before"].items():
        label = f"{name.replace('_', ' ')}, from {report['learnt_before']}"
        table.add_row(label, figure_text(value), figure_text(report["later"]["after"][name]))
    for name, change in report["changes"].items():
        table.add_row(name, *(_number(name, change[when]) for when in ("before", "after")))
    print_wide(table)
    if not report["later"]["after"]["fraud"]:
        messages.print(
            f"no fraud happened on {report['learnt_before']} or later, so the later figures say nothing",
            highlight=False,
        )
    print_wide(f"written: {report['out']}")


def _number(name: str, value: int) -> str:
    return format_duration(value) if name.endswith("_ms") else figure_text(value)
