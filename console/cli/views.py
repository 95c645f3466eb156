"""`fraudcase rebuild` and `fraudcase views`: versions of the case views, beside each other, one of them live."""

import json
import sys
from typing import Annotated, Literal

import typer
from botocore.exceptions import BotoCoreError, ClientError
from confluent_kafka import KafkaException

from console.cli.options import AsJson
from console.cli.output import errors_as_messages, fail, report
from console.history.rebuild import SHOWN, RebuildError, drop, old_versions, rebuild, switch
from console.terminal import messages
from console.times import iso_time
from console.views.versions import VIEWS, ViewVersionError
from console.wiring import view_versions
from infra.settings import Settings
from migrations.store import LockHeld

views = typer.Typer(name="views", help="Versions of the views: which there are, and which one is live.")


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command(name="rebuild")(rebuild_command)
    app.add_typer(views)


def rebuild_command(
    view: Annotated[str, typer.Argument(help=f"which view: {', '.join(VIEWS)}")],
    source: Annotated[Literal["kafka", "s3"], typer.Option("--from", help="kafka or s3")] = "kafka",
    keep_old: Annotated[
        bool, typer.Option("--keep-old/--drop", help="what to do with the version that was live")
    ] = True,
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="rebuild nothing: drop the versions that are old")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Build a view anew from the log, beside the live one; then switch to it. Killed, it goes on where it was."""
    if view not in VIEWS:
        raise fail(f"there is no view {view}: it is {' or '.join(VIEWS)}")
    settings = Settings()
    with errors_as_messages():
        try:
            if drop_old:
                dropped = [drop(settings, number) for number in old_versions(settings)]
                report({"view": view, "dropped": dropped}, as_json=as_json)
                return
            outcome = rebuild(settings, source, keep_old=keep_old)
        except (RebuildError, ViewVersionError, LockHeld, ClientError, BotoCoreError, KafkaException) as error:
            raise fail(str(error)) from error
    document = outcome.document
    report({name: value for name, value in document.items() if as_json or name != "differences"}, as_json=as_json)
    for problem in outcome.problems[:SHOWN]:
        messages.print(problem, highlight=False, markup=False)


@views.callback()
def _views() -> None:
    """Versions of the views: which there are, and which one is live."""


@views.command(name="list")
def list_versions(as_json: AsJson = False) -> None:
    """All versions of the case views, the dropped ones too."""
    settings = Settings()
    versions = view_versions(settings)
    rows = versions.every()
    if as_json:
        names = ("view", "version", "table_name", "state", "source", "items", "digest", "begun_at_ms", "built_at_ms",
                 "live_at_ms", "ended_at_ms")  # fmt: skip
        sys.stdout.write(json.dumps([{name: getattr(row, name) for name in names} for row in rows], indent=2) + "\n")
        return
    if not rows:
        live = versions.live()
        sys.stdout.write(f"{VIEWS[0]} {live.number:>3}  live      {live.table}\n")
    for row in rows:
        origin = f", from {row.source} since {iso_time(row.begun_at_ms)}" if row.source else ""
        sys.stdout.write(f"{row.view} {row.version:>3}  {row.state:<9} {row.table_name}{origin}\n")


@views.command(name="switch")
def switch_version(version: Annotated[int, typer.Argument(help="its number", min=1)]) -> None:
    """Make another version the live one, an old one too: it catches up with the log first."""
    with errors_as_messages():
        try:
            switch(Settings(), version)
        except (ViewVersionError, LockHeld, ClientError, BotoCoreError, KafkaException) as error:
            raise fail(str(error)) from error
    messages.print(f"version {version} is live", highlight=False)


@views.command(name="drop")
def drop_version(version: Annotated[int, typer.Argument(help="its number", min=1)]) -> None:
    """Do away with a version that is not live, and with its table."""
    with errors_as_messages():
        try:
            drop(Settings(), version)
        except (ViewVersionError, LockHeld, ClientError, BotoCoreError, KafkaException) as error:
            raise fail(str(error)) from error
    messages.print(f"version {version} is dropped", highlight=False)
