"""`fraudcase rules …`: rule packs from draft to retirement; and `fraudcase control upgrade`."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from console.cli.options import AsJson, read_settings
from console.cli.output import LIST_WIDTH, errors_as_messages, fail, print_wide, report
from console.cli.score import tune
from console.rules.files import load_pack
from console.rules.store import RulePackActionError
from console.terminal import messages
from console.times import iso_time
from console.wiring import control_database, control_store, rules_log
from domain.risk.packs import BadRulePack
from migrations.models import RulePackLogRow, RulePackRow
from migrations.store import upgrade

rules = typer.Typer(
    no_args_is_help=True, help="Manage rule packs: draft, approve by a second person, activate, retire."
)
control = typer.Typer(
    no_args_is_help=True, help="Manage the control store, the database of users, rule packs and keys."
)
File = Annotated[str, typer.Argument(metavar="FILE", help="rule pack: a file, or the name of a shipped pack")]
Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="rule pack: NAME (its highest version), NAME@VERSION, or the start of its id"),
]
Actor = Annotated[str, typer.Option("--actor", help="name of the person who acts")]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (validate, draft, approve, activate, shadow, retire, show):
        rules.command()(command)
    rules.command("list")(list_packs)
    rules.command()(tune)
    app.add_typer(rules, name="rules")
    control.callback()(_control)
    control.command("upgrade")(upgrade_store)
    app.add_typer(control, name="control")


def _control() -> None:
    """Manage the control store, the database of users, rule packs and keys."""


@contextmanager
def _errors_as_messages() -> Iterator[None]:
    """End the command with a message if an action is refused or the control store fails."""
    try:
        with errors_as_messages():
            yield
    except (RulePackActionError, BadRulePack) as error:
        raise fail(str(error)) from error
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).strip()
        raise fail(
            f"the control store failed: {cause}. Cure: fraudcase control upgrade, or check FRAUDCASE_CONTROL_URL"
        ) from error


def validate(file: File, as_json: AsJson = False) -> None:
    """Check a rule pack without storing it."""
    with _errors_as_messages():
        pack = load_pack(file)
    report({"name": pack.name, "version": pack.version, "rules": len(pack.rules), "pack_id": pack.pack_id},
           as_json=as_json)  # fmt: skip


def draft(file: File, actor: Actor, as_json: AsJson = False) -> None:
    """Store a rule pack as a draft. Another person has to approve it."""
    with _errors_as_messages():
        report(_pack_fields(control_store(read_settings()).draft(load_pack(file), actor)), as_json=as_json)


def approve(name: Name, actor: Actor, as_json: AsJson = False) -> None:
    """Approve a draft of another person."""
    with _errors_as_messages():
        report(_pack_fields(control_store(read_settings()).approve(name, actor)), as_json=as_json)


def activate(name: Name, actor: Actor, as_json: AsJson = False) -> None:
    """Activate an approved pack: every partition decides by it from now on.

    If the command is interrupted, run it again: it completes the activation.
    """
    settings = read_settings()
    with _errors_as_messages():
        row, written = control_store(settings).activate(name, actor, rules_log(settings))
    report({**_pack_fields(row), "partitions_written": written}, as_json=as_json)


def shadow(name: Name, actor: Actor, as_json: AsJson = False) -> None:
    """Run a pack as a shadow: it scores every payment beside the active pack and decides nothing."""
    settings = read_settings()
    with _errors_as_messages():
        row, written = control_store(settings).shadow(name, actor, rules_log(settings))
    report({**_pack_fields(row), "partitions_written": written}, as_json=as_json)


def retire(name: Name, actor: Actor, as_json: AsJson = False) -> None:
    """Retire a pack. The active pack retires when another pack is activated."""
    settings = read_settings()
    with _errors_as_messages():
        row, written = control_store(settings).retire(name, actor, rules_log(settings))
    report({**_pack_fields(row), "partitions_written": written}, as_json=as_json)


def list_packs(as_json: AsJson = False) -> None:
    """List all rule packs with their states."""
    with _errors_as_messages():
        rows = control_store(read_settings()).packs()
    if as_json:
        sys.stdout.write(json.dumps([_pack_fields(row) for row in rows], indent=2) + "\n")
        return
    table = Table("pack", "state", "author", "approver", "since", "id")
    for row in rows:
        since = row.retired_at_ms or row.activated_at_ms or row.approved_at_ms or row.drafted_at_ms
        state = f"{row.state}, shadow" if row.shadow else row.state
        table.add_row(f"{row.name}@{row.version}", state, row.author, row.approver, iso_time(since), row.pack_id[:12])
    print_wide(table, LIST_WIDTH)


def show(name: Name, as_json: AsJson = False) -> None:
    """Show a rule pack with its history."""
    with _errors_as_messages():
        store = control_store(read_settings())
        row = store.pack(name)
        history = store.history(row.pack_id)
    document = json.loads(row.document)
    if as_json:
        steps = [
            {"action": step.action, "actor": step.actor, "at_ms": step.at_ms, **_whatif_fields(step)}
            for step in history
        ]
        sys.stdout.write(json.dumps({**_pack_fields(row), "document": document, "history": steps}, indent=2) + "\n")
        return
    report(_pack_fields(row), as_json=False)
    for step in history:
        tried = "".join(f", based on what-if {run_id}" for run_id in _whatif_fields(step).values())
        sys.stdout.write(f"{iso_time(step.at_ms)}  {step.action} by {step.actor}{tried}\n")
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def _whatif_fields(step: RulePackLogRow) -> dict[str, str]:
    """Return the what-if run that an approval is based on, if there is one."""
    found = json.loads(step.detail).get("whatif_run")
    return {"whatif_run": found} if found else {}


def upgrade_store() -> None:
    """Create the tables of the control store, or upgrade them to this version."""
    with _errors_as_messages():
        upgrade(control_database(read_settings()))
    messages.print("the control store is up to date", highlight=False)


def _pack_fields(row: RulePackRow) -> dict[str, Any]:
    columns = (
        "name", "version", "pack_id", "state", "shadow", "author", "approver",
        "drafted_at_ms", "approved_at_ms", "activated_at_ms", "retired_at_ms",
    )  # fmt: skip
    return {name: value for name in columns if (value := getattr(row, name)) is not None}
