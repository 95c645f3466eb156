"""`fraudcase labels ingest`: confirmed frauds from a file."""

from pathlib import Path
from typing import Annotated

import typer

from console.cli.options import AsJson, read_settings
from console.cli.output import errors_as_messages, fail, report
from console.payments.files import BadFile
from console.payments.labels import ingest_labels
from console.wiring import kafka_logs


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    labels = typer.Typer(no_args_is_help=True, help="Record confirmed frauds.")
    labels.command()(ingest)
    app.add_typer(labels, name="labels")


def ingest(
    file: Annotated[
        Path,
        typer.Argument(
            help="Parquet, CSV or JSON lines with the columns transaction_id, fraud (0 or 1) and optionally account_id"
        ),
    ],
    actor: Annotated[str, typer.Option(help="name of the person or system that confirms the frauds")] = "system",
    as_json: AsJson = False,
) -> None:
    """Record the frauds of a file in the log. The risk of later payments with the same card or merchant rises."""
    try:
        with errors_as_messages():
            document = ingest_labels(kafka_logs(read_settings()), file, actor)
    except BadFile as error:
        raise fail(str(error)) from error
    report(document, as_json=as_json)
