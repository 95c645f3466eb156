"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from console.cli.output import fail
from console.times import parse_time
from domain.durations import duration_ms
from infra.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="print the result as JSON")]


TransactionsFile = Annotated[
    Path, typer.Option(help="file of payments: Parquet, CSV or JSON lines with the columns of Transaction")
]


LabelsFile = Annotated[
    Path,
    typer.Option(help="file of labels with the columns transaction_id and fraud (0 or 1), optionally row and scenario"),
]


def read_settings() -> Settings:
    """Read the settings of this machine, once for each command: from the environment, or from `fraudcase.env`."""
    return Settings()


def delay_of(text: str) -> int:
    """Parse the duration of an option into milliseconds. Raise BadParameter."""
    try:
        return duration_ms(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


Feedback = Annotated[
    int | None,
    typer.Option(parser=delay_of, metavar="DURATION", help="delay until a fraud label becomes known, e.g. 7d"),
]


def parse_instant(text: str | None) -> int | None:
    """Parse a time into UTC milliseconds. A time without an offset is UTC. End the command if it is not a time."""
    try:
        return None if text is None else parse_time(text)
    except ValueError as error:
        raise fail(str(error)) from error
