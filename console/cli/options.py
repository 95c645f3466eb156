"""Options and arguments that several commands share."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from console.cli.output import fail
from domain.durations import duration_ms

AsJson = Annotated[bool, typer.Option("--json", help="print the result as JSON")]


TransactionsFile = Annotated[
    Path, typer.Option(help="file of payments: Parquet, CSV or JSON lines with the columns of Transaction")
]


LabelsFile = Annotated[
    Path,
    typer.Option(help="file of labels with the columns transaction_id and fraud (0 or 1), optionally row and scenario"),
]


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
    if text is None:
        return None
    if text.isdecimal():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise fail(f"{text} is not a time. Write 2026-01-31T12:00:00Z, or milliseconds since 1970 in UTC") from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)


def parse_time_ms(text: str) -> int:
    """Parse the time of --until into UTC milliseconds. A time without an offset is UTC."""
    if text.isdecimal():
        return int(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise fail(
            f"--until: {text} is not a time. Write 2026-01-31T12:00:00Z, or milliseconds since 1970 in UTC"
        ) from None
    return (at.replace(tzinfo=at.tzinfo or UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
