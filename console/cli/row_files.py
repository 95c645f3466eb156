"""Rows of a file, prepared as the intake of this system prepares them."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from console.cli.options import read_settings
from console.payments import files
from console.payments.admission import prepare_rows
from console.wiring import existing_keys


def read_prepared_rows(path: Path) -> Iterator[files.IntakeRow]:
    """Yield the rows of a file as they would enter this system: attributes sealed, locations rounded. Raise BadFile."""
    settings = read_settings()
    return prepare_rows(files.read_rows(path), partial(existing_keys, settings), settings.location_decimals)
