"""The command line: `fraudcase COMMAND`. Each area registers its own commands; this module only puts them together."""

import typer

from console import (
    bench_commands,
    case_commands,
    demo_commands,
    engine_commands,
    erase_commands,
    evidence_commands,
    explain_commands,
    intake_commands,
    label_commands,
    projection_commands,
    rebuild_commands,
    rules_commands,
    score_commands,
    stack_commands,
    tune_commands,
    user_commands,
    whatif_commands,
)

app = typer.Typer(
    name="fraudcase",
    help="Watches payments, opens and escalates fraud cases, and replays its history to the same bytes.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals can hold personal data
)
for area in (
    stack_commands,
    intake_commands,
    projection_commands,
    rebuild_commands,
    case_commands,
    label_commands,
    rules_commands,
    engine_commands,
    score_commands,
    tune_commands,
    evidence_commands,
    explain_commands,
    demo_commands,
    bench_commands,
    user_commands,
    erase_commands,
    whatif_commands,
):
    area.register(app)


def main() -> None:
    """The entry point of the console script."""
    app()


if __name__ == "__main__":
    main()
