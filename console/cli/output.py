"""Reports and errors on the command line."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.markup import escape

from console.payments.intake_writer import NotWritten
from console.privacy.scrubbing import ScrubbingError
from console.privacy.vault import VaultError
from console.terminal import messages
from console.times import iso_time
from console.waiting import ProgressStalled
from infra.errors import StackError
from projections.logs.partition_writer import NotAcknowledged


def fail(message: str, code: int = 1) -> typer.Exit:
    """Say what happened, and the exit to raise."""
    messages.print(f"[bold red]{escape(message)}[/]" if messages.is_terminal else message, markup=messages.is_terminal)
    return typer.Exit(code)


@contextmanager
def errors_as_messages() -> Iterator[None]:
    """Errors that people can cure end a command with a message instead of a traceback."""
    try:
        yield
    except (StackError, ProgressStalled, NotWritten, NotAcknowledged, VaultError, ScrubbingError) as error:
        raise fail(str(error)) from error


def report(document: dict[str, Any], *, as_json: bool) -> None:
    """The result of a command: JSON, or one figure a line."""
    if as_json:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return
    width = max(len(name) for name in document)
    for name, value in document.items():
        if name.endswith("_at_ms"):
            name, value = name.removesuffix("_ms"), iso_time(value)
        text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
        sys.stdout.write(f"{name.replace('_', ' '):<{width}}  {text}\n")
