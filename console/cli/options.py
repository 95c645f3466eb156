"""Options and arguments that several commands share."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from console.cli.output import fail
from domain.durations import duration_ms

AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


TransactionsFile = Annotated[Path, typer.Option(help="Parquet, CSV or JSON lines with the columns of Transaction")]


LabelsFile = Annotated[Path, typer.Option(help="transaction_id, fraud (0 or 1), and if there are: row, scenario")]


def delay_of(text: str) -> int:
    """The milliseconds of a delay, for an option."""
    try:
        return duration_ms(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


Feedback = Annotated[
    int | None, typer.Option(parser=delay_of, metavar="DURATION", help="frauds become known so long after, as in 7d")
]


def parse_instant(text: str | None) -> int | None:
    """UTC milliseconds of a time that somebody typed; without an offset it is taken for UTC."""
    if text is None:
        return None
    if text.isdecimal():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise fail(f"{text} is no time: 2026-01-31T12:00:00Z, or UTC milliseconds") from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)


def parse_time_ms(text: str) -> int:
    """UTC milliseconds; a time that names no zone is UTC."""
    if text.isdecimal():
        return int(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise fail(f"--until is a time in ISO 8601 or UTC milliseconds, not {text}") from None
    return (at.replace(tzinfo=at.tzinfo or UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
