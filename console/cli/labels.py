"""`fraudcase labels ingest`."""

from pathlib import Path
from typing import Annotated

import typer

from console.cli.options import AsJson
from console.cli.output import errors_as_messages, fail, report
from console.payments.files import BadFile
from console.payments.labels import ingest_labels
from infra.settings import Settings


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    labels = typer.Typer(no_args_is_help=True, help="Confirmed frauds: what is known of payments afterwards.")
    labels.command()(ingest)
    app.add_typer(labels, name="labels")


def ingest(
    file: Annotated[Path, typer.Argument(help="Parquet, CSV or JSON lines: transaction_id, fraud 0/1, [account_id]")],
    actor: Annotated[str, typer.Option(help="who says so")] = "system",
    as_json: AsJson = False,
) -> None:
    """Enter the frauds of a file into the log: from then on they raise the risk of what was paid with and to whom."""
    try:
        with errors_as_messages():
            document = ingest_labels(Settings(), file, actor)
    except BadFile as error:
        raise fail(str(error)) from error
    report(document, as_json=as_json)
