"""`fraudcase score` and `rules tune`: judge a rule pack on labelled payments, and search for better numbers in it."""

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from console.cli.options import AsJson, Feedback, LabelsFile, TransactionsFile
from console.cli.output import fail, print_wide
from console.cli.row_files import read_prepared_rows
from console.display.formats import figure_text
from console.payments.files import BadFile, count_rows
from console.rules.files import load_pack
from console.scoring.tuning_options import TuningGoal, TuningOptions
from console.terminal import messages
from domain.durations import format_duration
from domain.risk.default_packs import DEFAULT
from domain.risk.packs import BadRulePack


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(score)


FirstDay = Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="first day to score, UTC")]
LastDay = Annotated[
    datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="last day to score (inclusive), UTC")
]


def score(
    transactions: TransactionsFile,
    labels: LabelsFile,
    rules: Annotated[str, typer.Option(help="rule pack: a file, or the name of a shipped pack")] = DEFAULT.name,
    feedback: Feedback = None,
    first: FirstDay = None,
    last: LastDay = None,
    exclude_known: Annotated[
        bool,
        typer.Option(
            "--exclude-known",
            help="leave out payments of cards already known as compromised, as the Fraud Detection Handbook does",
        ),
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="file to draw the curves to")] = None,
    as_json: AsJson = False,
) -> None:
    """Decide on a file of payments and report precision, recall and other figures against their labels."""
    from console.scoring.report import report_of  # slow to import: scikit-learn

    try:
        pack, payments = load_pack(rules), read_prepared_rows(transactions)
        total = count_rows(transactions)
        report = report_of(pack, payments, total, labels, feedback, (first, last), exclude_known, plot)
    except (BadFile, BadRulePack) as error:
        raise fail(str(error)) from error
    _show_score(report, as_json=as_json)


def _show_score(report: dict[str, Any], *, as_json: bool) -> None:
    """Print the report: JSON for programs, tables for people."""
    if as_json:
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in report.items():
        if name == "on_arrival":
            for inner, figure in value.items():
                table.add_row(f"{inner} on arrival", figure_text(figure))
        elif name not in ("scenarios", "pack_id"):
            table.add_row(name.replace("_", " "), figure_text(value))
    print_wide(table)
    if report["scenarios"]:
        print_wide(_scenario_table(report["scenarios"]))


def _scenario_table(scenarios: dict[str, dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    columns = list(dict.fromkeys(name for each in scenarios.values() for name in each))
    for name in ("scenario", *columns):
        table.add_column(name.replace("_", " "), justify="left" if name == "scenario" else "right")
    for name, each in scenarios.items():
        table.add_row(name, *(figure_text(each.get(column)) for column in columns))
    return table


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

    options = TuningOptions(objective, precision, trials, seed, earlier, feedback)
    try:
        report = tune_and_report(read_prepared_rows(transactions), labels, rules, out, options)
    except (BadFile, BadRulePack, OSError) as error:
        raise fail(str(error)) from error
    _show_tuning(report, as_json=as_json)


def _show_tuning(report: dict[str, Any], *, as_json: bool) -> None:
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
        table.add_row(name, *(_change_text(name, change[when]) for when in ("before", "after")))
    print_wide(table)
    if not report["later"]["after"]["fraud"]:
        messages.print(
            f"no fraud happened on {report['learnt_before']} or later, so the later figures say nothing",
            highlight=False,
        )
    print_wide(f"written: {report['out']}")


def _change_text(name: str, value: int) -> str:
    return format_duration(value) if name.endswith("_ms") else figure_text(value)
