"""`fraudcase up`, `down`, `status`, `doctor`, `reset`: the whole system on this machine."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Column, Table

from console.cli.options import AsJson, read_settings
from console.cli.output import LIST_WIDTH, errors_as_messages, fail, print_sign_ins, print_wide
from console.system import lifecycle as system
from console.terminal import messages, print_status_line
from console.wiring import people
from infra import stack


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (up, down, status, doctor, reset):
        app.command()(command)


def up(
    only_stores: Annotated[
        bool, typer.Option("--only-stores", help="start the stores only, without jobs, workers and the clock")
    ] = False,
) -> None:
    """Start the whole system on this machine. Parts that already run are left alone."""
    with errors_as_messages():
        settings = read_settings()
        started = system.up(settings, report=print_status_line, only_stores=only_stores)
    messages.print(f"started: {', '.join(started)}" if started else "everything was already running", highlight=False)
    if not only_stores:
        print_sign_ins(settings, system.first_sign_ins(people(settings)))


def down() -> None:
    """Stop the parts that `up` started. Stored data is kept."""
    with errors_as_messages():
        stopped = system.down(read_settings(), print_status_line)
    messages.print(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running", highlight=False)


def status(as_json: AsJson = False) -> None:
    """Show the state of each part. Exit 1 if a part is not ready."""
    settings = read_settings()
    found = stack.status(settings, system.all_programs(settings))
    if as_json:
        sys.stdout.write(json.dumps([asdict(each) for each in found], indent=2) + "\n")
    else:
        table = Table("part", "state", "process", "memory", "ports", Column("log", overflow="fold"))
        for each in found:
            state = (
                "[green]ready[/]" if each.is_ready else "[red]stopped[/]" if each.pid is None else "[yellow]silent[/]"
            )
            ports = " ".join(map(str, each.ports))
            table.add_row(each.name, state, str(each.pid or ""), f"{each.memory_mb} MB", ports, each.log)
        print_wide(table, LIST_WIDTH)
    if not all(each.is_ready for each in found):
        raise typer.Exit(1)


def doctor(as_json: AsJson = False) -> None:
    """List problems of this machine and this system, each with its cure. Exit 1 if there are any."""
    problems = system.diagnose(read_settings())
    if as_json:
        sys.stdout.write(json.dumps(problems, indent=2) + "\n")
    for problem in [] if as_json else problems or ["no problems found"]:
        sys.stdout.write(f"{problem}\n")
    if problems:
        raise typer.Exit(1)


def reset(yes: Annotated[bool, typer.Option("--yes", help="do not ask for confirmation")] = False) -> None:
    """Stop the system and delete everything that it stored. Downloaded jars are kept."""
    settings = read_settings()
    if not yes and not typer.confirm(f"Delete every payment, case and archive under {settings.home}?", err=True):
        raise fail("nothing was deleted")
    with errors_as_messages():
        system.down(settings, print_status_line)
        stack.reset(settings, system.all_programs(settings))
    messages.print("deleted", highlight=False)
