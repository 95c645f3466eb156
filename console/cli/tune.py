"""`fraudcase rules tune`."""

from pathlib import Path
from typing import Annotated

import typer

from console.cli.options import AsJson, Feedback, LabelsFile, TransactionsFile
from console.cli.output import fail
from console.cli.rules import rules as rules_app
from console.payments.files import BadFile
from console.scoring.tune import TuningGoal, TuningOptions
from domain.risk.packs import BadRulePack


def register(_: typer.Typer) -> None:
    """Add the command to `fraudcase rules`."""
    rules_app.command()(tune)


def tune(
    transactions: TransactionsFile,
    labels: LabelsFile,
    rules: Annotated[str, typer.Option(help="the pack to begin with: its name, or a file")],
    out: Annotated[Path, typer.Option(help="where to write the pack that was found, as YAML")],
    trials: Annotated[int, typer.Option(min=1, help="packs to try")] = 50,
    seed: Annotated[int, typer.Option(help="the same seed, the same search")] = 1,
    objective: Annotated[
        TuningGoal, typer.Option(help="what to make as large as possible")
    ] = TuningGoal.AVERAGE_PRECISION,
    precision: Annotated[float, typer.Option(min=0, max=1, help="at least, for recall_at_precision")] = 0.95,
    earlier: Annotated[float, typer.Option(min=0.05, max=0.95, help="share of the days to learn on")] = 0.7,
    feedback: Feedback = None,
    as_json: AsJson = False,
) -> None:
    """Search better numbers for a pack on the earlier payments of a file, and say how they do on the later ones."""
    from console.cli.tune_report import show, tune_and_report  # it takes seconds, which no other command needs to wait

    wanted = TuningOptions(objective, precision, trials, seed, earlier, feedback)
    try:
        report = tune_and_report(transactions, labels, rules, out, wanted)
    except (BadFile, BadRulePack, OSError) as error:
        raise fail(str(error)) from error
    show(report, as_json=as_json)
