"""`fraudcase score`: judge a rule pack on labelled payments."""

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
    show(report, as_json=as_json)


def show(report: dict[str, Any], *, as_json: bool) -> None:
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
