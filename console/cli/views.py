"""`fraudcase rebuild` and `fraudcase views`: versions of the case views, of which one is live."""

import json
import sys
from typing import Annotated, Literal

import typer
from botocore.exceptions import BotoCoreError, ClientError
from confluent_kafka import KafkaException

from console.cli.options import AsJson, read_settings
from console.cli.output import errors_as_messages, fail, report
from console.history.rebuild import SHOWN, RebuildError, drop, old_versions, rebuild, switch
from console.terminal import messages
from console.times import iso_time
from console.views.versions import VIEWS, ViewVersionError
from console.wiring import rebuild_parts, view_versions
from migrations.store import LockHeld

views = typer.Typer(name="views", help="List, switch and drop versions of the case views.")


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command(name="rebuild")(rebuild_command)
    app.add_typer(views)


def rebuild_command(
    view: Annotated[str, typer.Argument(help=f"view to rebuild: {', '.join(VIEWS)}")],
    source: Annotated[
        Literal["kafka", "s3"],
        typer.Option("--from", help="source of the events: the logs in Kafka, or the archive in S3"),
    ] = "kafka",
    keep_old: Annotated[
        bool, typer.Option("--keep-old/--drop", help="keep the version that was live, or drop it after the switch")
    ] = True,
    drop_old: Annotated[bool, typer.Option("--drop-old", help="drop all old versions instead of rebuilding")] = False,
    as_json: AsJson = False,
) -> None:
    """Build a new version of a view from the log, then switch to it. A rebuild that was killed resumes."""
    if view not in VIEWS:
        raise fail(f"there is no view {view}. Views: {', '.join(VIEWS)}")
    parts = rebuild_parts(read_settings())
    with errors_as_messages():
        try:
            if drop_old:
                dropped = [drop(parts, number) for number in old_versions(parts.versions)]
                report({"view": view, "dropped": dropped}, as_json=as_json)
                return
            outcome = rebuild(parts, source, keep_old=keep_old)
        except (RebuildError, ViewVersionError, LockHeld, ClientError, BotoCoreError, KafkaException) as error:
            raise fail(str(error)) from error
    document = outcome.document
    report({name: value for name, value in document.items() if as_json or name != "differences"}, as_json=as_json)
    for problem in outcome.problems[:SHOWN]:
        messages.print(problem, highlight=False, markup=False)


@views.callback()
def _views() -> None:
    """List, switch and drop versions of the case views."""


@views.command(name="list")
def list_versions(as_json: AsJson = False) -> None:
    """List all versions of the case views, dropped versions too."""
    settings = read_settings()
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
def switch_version(version: Annotated[int, typer.Argument(help="number of the version", min=1)]) -> None:
    """Make another version live, once it has caught up with the log. Old versions are allowed."""
    with errors_as_messages():
        try:
            switch(rebuild_parts(read_settings()), version)
        except (ViewVersionError, LockHeld, ClientError, BotoCoreError, KafkaException) as error:
            raise fail(str(error)) from error
    messages.print(f"version {version} is live", highlight=False)


@views.command(name="drop")
def drop_version(version: Annotated[int, typer.Argument(help="number of the version", min=1)]) -> None:
    """Drop a version that is not live, with its table."""
    with errors_as_messages():
        try:
            drop(rebuild_parts(read_settings()), version)
        except (ViewVersionError, LockHeld, ClientError, BotoCoreError, KafkaException) as error:
            raise fail(str(error)) from error
    messages.print(f"version {version} is dropped", highlight=False)
