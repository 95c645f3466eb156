"""The command line, `fraudcase COMMAND`. Each area registers its own commands; this module combines them."""

import sys
from importlib.metadata import metadata
from typing import Annotated

import typer

from console.cli import (
    audit,
    bench,
    cases,
    demo,
    engine,
    erase,
    explain,
    labels,
    payments,
    replay,
    rules,
    score,
    stack,
    tune,
    users,
    views,
    whatif,
)

app = typer.Typer(
    name="fraudcase",
    help="Watch payments, open and escalate fraud cases, and replay the history to the same bytes.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals can hold personal data
)
for area in (
    stack,
    payments,
    replay,
    views,
    cases,
    labels,
    rules,
    engine,
    score,
    tune,
    audit,
    explain,
    demo,
    bench,
    users,
    erase,
    whatif,
):
    area.register(app)


def print_version(is_wanted: bool) -> None:
    """Print the name and version of the installed package and exit, if this is wanted."""
    if is_wanted:
        package = metadata("fraudcase")
        sys.stdout.write(f"{package['Name']} {package['Version']}\n")
        raise typer.Exit


@app.callback()
def fraudcase(
    _: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    """Watch payments, open and escalate fraud cases, and replay the history to the same bytes."""


def main() -> None:
    """Run the command line: the entry point of the installed script."""
    app()


if __name__ == "__main__":
    main()
