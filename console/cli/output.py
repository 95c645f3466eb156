"""Output of commands: reports, error messages, sign-in addresses."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from console.payments.intake_writer import NotWritten
from console.privacy.scrubbing import ScrubbingError
from console.privacy.vault import VaultError
from console.terminal import messages
from console.times import iso_time
from console.waiting import ProgressStalled
from infra.errors import StackError
from infra.settings import Settings
from projections.logs.partition_writer import NotAcknowledged

TABLE_WIDTH: Final = 100
"""Columns of a report when the output is not a terminal."""
LIST_WIDTH: Final = 160
"""Columns of a list when the output is not a terminal."""


def fail(message: str, code: int = 1) -> typer.Exit:
    """Print an error message and return the exit to raise."""
    messages.print(f"[bold red]{escape(message)}[/]" if messages.is_terminal else message, markup=messages.is_terminal)
    return typer.Exit(code)


@contextmanager
def errors_as_messages() -> Iterator[None]:
    """End the command with a message, without a traceback, on an error that its user can cure."""
    try:
        yield
    except (StackError, ProgressStalled, NotWritten, NotAcknowledged, VaultError, ScrubbingError) as error:
        raise fail(str(error)) from error


def report(document: dict[str, Any], *, as_json: bool) -> None:
    """Print the result of a command: JSON, or one figure per line."""
    if as_json:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return
    width = max(len(name) for name in document)
    for name, value in document.items():
        if name.endswith("_at_ms"):
            name, value = name.removesuffix("_ms"), iso_time(value)
        text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
        sys.stdout.write(f"{name.replace('_', ' '):<{width}}  {text}\n")


def print_wide(what: Table | str, width: int = TABLE_WIDTH) -> None:
    """Print to standard output: as wide as the terminal, or `width` columns elsewhere."""
    out = Console() if sys.stdout.isatty() else Console(width=width)
    out.print(what, highlight=False)


def print_sign_ins(settings: Settings, made: dict[str, str]) -> None:
    """Print the console's address and the passwords just made. They are shown only this once."""
    messages.print(f"console: {settings.console_url}", highlight=False)
    for name, password in made.items():
        messages.print(f"  sign in as {name:<8} password {password}", highlight=False, markup=False)
    if not made:
        messages.print("  forgotten password? fraudcase users reset-password NAME", highlight=False)
