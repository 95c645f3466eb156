"""`fraudcase score`."""

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from console.cli.options import AsJson, Feedback, LabelsFile, TransactionsFile
from console.cli.output import fail
from console.payments.files import BadFile
from console.rules.files import load_pack
from domain.risk.packs import DEFAULT, BadRulePack


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(score)


FirstDay = Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="first day scored, UTC")]
LastDay = Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="last day scored, included")]


def score(
    transactions: TransactionsFile,
    labels: LabelsFile,
    rules: Annotated[str, typer.Option(help="a pack's name, or a file")] = DEFAULT.name,
    feedback: Feedback = None,
    first: FirstDay = None,
    last: LastDay = None,
    exclude_known: Annotated[
        bool, typer.Option("--exclude-known", help="without cards known as compromised, as the handbook does")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="draw the curves to this file")] = None,
    as_json: AsJson = False,
) -> None:
    """Decide on a file of payments and say how good that was, against what they really were."""
    from console.cli.score_report import report_of, show  # it takes a second, which no other command needs to wait

    try:
        report = report_of(load_pack(rules), transactions, labels, feedback, (first, last), exclude_known, plot)
    except (BadFile, BadRulePack) as error:
        raise fail(str(error)) from error
    show(report, as_json=as_json)
