"""`fraudcase up`, `down`, `status`, `doctor`, `reset`."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from console.cli.options import AsJson
from console.cli.output import errors_as_messages, fail, print_sign_ins
from console.system import lifecycle as system
from console.terminal import messages, print_status_line
from infra import stack
from infra.settings import Settings


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (up, down, status, doctor, reset):
        app.command()(command)


def up(
    only_stores: Annotated[bool, typer.Option("--only-stores", help="without the jobs, workers and the clock")] = False,
) -> None:
    """Start the whole system on this machine; what runs already stays as it is."""
    with errors_as_messages():
        settings = Settings()
        started = system.up(settings, report=print_status_line, only_stores=only_stores)
    messages.print(f"started: {', '.join(started)}" if started else "all of it ran already", highlight=False)
    if not only_stores:
        print_sign_ins(settings, system.first_sign_ins(settings))


def down() -> None:
    """Stop exactly what `up` started; what was stored stays."""
    with errors_as_messages():
        stopped = system.down(Settings(), print_status_line)
    messages.print(f"stopped: {', '.join(stopped)}" if stopped else "nothing ran", highlight=False)


def status(as_json: AsJson = False) -> None:
    """How each part is; exit 1 if one is not well."""
    settings = Settings()
    found = stack.status(settings, system.all_programs(settings))
    if as_json:
        sys.stdout.write(json.dumps([asdict(each) for each in found], indent=2) + "\n")
    else:
        table = Table("part", "state", "process", "memory", "ports", "log")
        for each in found:
            state = (
                "[green]ready[/]" if each.is_ready else "[red]stopped[/]" if each.pid is None else "[yellow]silent[/]"
            )
            ports = " ".join(map(str, each.ports))
            table.add_row(each.name, state, str(each.pid or ""), f"{each.memory_mb} MB", ports, each.log)
        messages.print(table)
    if not all(each.is_ready for each in found):
        raise typer.Exit(1)


def doctor(as_json: AsJson = False) -> None:
    """What is wrong with this machine or this system, each with its cure; exit 1 if anything is."""
    problems = system.diagnose(Settings())
    if as_json:
        sys.stdout.write(json.dumps(problems, indent=2) + "\n")
    for problem in [] if as_json else problems or ["all is well"]:
        messages.print(problem, highlight=False)
    if problems:
        raise typer.Exit(1)


def reset(yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False) -> None:
    """Stop the system and wipe everything that it stored; downloaded jars stay."""
    settings = Settings()
    if not yes and not typer.confirm(f"Wipe every payment, case and archive under {settings.home}?", err=True):
        raise fail("nothing was wiped")
    with errors_as_messages():
        system.down(settings, print_status_line)
        stack.reset(settings, system.all_programs(settings))
    messages.print("wiped", highlight=False)
