"""`fraudcase engine …`: the version of the folds that decides the logs."""

import json
import sys
from typing import Annotated, Any

import typer
from confluent_kafka import KafkaException
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from console.cli.options import AsJson, read_settings
from console.cli.output import LIST_WIDTH, errors_as_messages, fail, print_wide, report
from console.rules.store import RulePackActionError
from console.times import iso_time
from console.wiring import engine_log, engines
from domain.engines import ENGINES, LATEST

engine = typer.Typer(
    no_args_is_help=True, help="List and activate versions of the engine, the code that decides the logs."
)


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    engine.command("list")(list_engines)
    for command in (activate, show):
        engine.command()(command)
    app.add_typer(engine, name="engine")


def list_engines(as_json: AsJson = False) -> None:
    """List the engines of this fraudcase version, with the changes of each."""
    active = _active()
    shown = [
        {"engine": each.number, "state": _state(each.number, active), "says": each.description}
        for each in ENGINES.values()
    ]
    if as_json:
        sys.stdout.write(json.dumps(shown, indent=2) + "\n")
        return
    table = Table("engine", "state", "change")
    for row in shown:
        table.add_row(str(row["engine"]), str(row["state"]), str(row["says"]))
    print_wide(table, LIST_WIDTH)


def activate(
    version: Annotated[int, typer.Argument(metavar="VERSION", help="number of the engine")],
    actor: Annotated[str, typer.Option("--actor", help="name of the person who activates it")],
    as_json: AsJson = False,
) -> None:
    """Activate an engine for all records from now on, in every partition. This cannot be undone.

    If the command is interrupted, run it again: it completes the activation.
    """
    settings = read_settings()
    try:
        with errors_as_messages():
            written = engines(settings).activate(version, actor, engine_log(settings))
    except RulePackActionError as refused:
        raise fail(str(refused)) from refused
    except KafkaException as error:
        raise fail(f"cannot reach Kafka at {settings.kafka_bootstrap}: {error}. Cure: fraudcase up") from error
    except SQLAlchemyError as error:
        raise _store_failed(error) from error
    report({"engine": version, "says": ENGINES[version].description, "partitions_written": written}, as_json=as_json)


def show(as_json: AsJson = False) -> None:
    """Show the active engine and the history of activations."""
    active = _active()
    try:
        rows = engines(read_settings()).rows()
    except SQLAlchemyError as error:
        raise _store_failed(error) from error
    steps: list[dict[str, Any]] = [
        {
            "engine": row.engine,
            "actor": row.actor,
            "begun_at_ms": row.begun_at_ms,
            "activated_at_ms": row.activated_at_ms,
        }
        for row in rows
    ]
    if as_json:
        document = {"engine": active, "newest": LATEST.number, "says": ENGINES[active].description, "history": steps}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return
    report({"engine": active, "newest": LATEST.number, "says": ENGINES[active].description}, as_json=False)
    for row in rows:
        done = "activated" if row.activated_at_ms is not None else "activating, unfinished"
        at_ms = row.activated_at_ms or row.begun_at_ms
        sys.stdout.write(f"{iso_time(at_ms)}  engine {row.engine} {done} by {row.actor}\n")


def _active() -> int:
    try:
        return engines(read_settings()).active()
    except SQLAlchemyError as error:
        raise _store_failed(error) from error


def _state(number: int, active: int) -> str:
    return "active" if number == active else "former" if number < active else "available"


def _store_failed(error: SQLAlchemyError) -> typer.Exit:
    cause = str(getattr(error, "orig", None) or error).strip()
    return fail(f"the control store failed: {cause}. Cure: fraudcase control upgrade, or check FRAUDCASE_CONTROL_URL")
