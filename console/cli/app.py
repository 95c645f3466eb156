"""The command line, `fraudcase COMMAND`. Each area registers its own commands; this module combines them."""

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
    help="watch payments, open and escalate fraud cases, and replay the history to the same bytes",
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


def main() -> None:
    """Run the command line: the entry point of the installed script."""
    app()


if __name__ == "__main__":
    main()
