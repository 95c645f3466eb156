"""`fraudcase replay`, `digest`, `analytics`."""

import json
from pathlib import Path
from typing import Annotated

import duckdb
import typer

from console.replaying import SHOWN
from console.replaying import replay as run_replay
from console.stack_commands import AsJson
from console.work import bucket, explained, fail, messages, report, topics
from infra.settings import Settings
from projections.analytics import read_table
from projections.log import KafkaLog
from projections.replay import decisions_in, recorded
from schemas.codec import Decoder
from schemas.registry import Registry

COUNTS = """
    SELECT count(*) FILTER (NOT is_duplicate) AS payments, count(*) FILTER (len(rules) > 0) AS flagged,
           count(*) FILTER (is_duplicate) AS duplicates
    FROM risk_scored"""


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (replay, digest, analytics):
        app.command()(command)


def replay(
    source: Annotated[str, typer.Option("--from", help="kafka or s3")] = "kafka",
    expect: Annotated[Path | None, typer.Option(help="an earlier report (--json) whose digests must come out")] = None,
    live_views: Annotated[bool, typer.Option(help="compare the stored case views too")] = True,
    as_json: AsJson = False,
) -> None:
    """Derive every flag, case event and view again, without Flink, and compare; exit 1 if it differs, 3 if late."""
    if source not in ("kafka", "s3"):
        raise fail(f"--from is kafka or s3, not {source}")
    with explained():
        result = run_replay(Settings(), source, with_views=live_views)
    document = result.document
    problems = list(result.problems)
    if expect is not None:
        wanted = json.loads(expect.read_text(encoding="utf-8"))
        problems += [
            f"{name} is {document.get(name)}, {expect} says {wanted[name]}"
            for name in ("live_digest", "replay_digest", "replay_views_digest")
            if name in wanted and wanted[name] != document.get(name)
        ]
    shown = {name: value for name, value in document.items() if as_json or name != "problems"}
    report(shown, as_json=as_json)
    for problem in problems[:SHOWN]:
        messages.print(problem, highlight=False, markup=False)
    if result.exit_code or problems:
        raise typer.Exit(result.exit_code or 1)


def digest(as_json: AsJson = False) -> None:
    """The digest of what the running system has recorded."""
    settings = Settings()
    log, names = KafkaLog(settings.kafka_bootstrap), topics(settings)
    decoder = Decoder(Registry(settings.registry_url).schema_text)
    live = recorded(log, names, decoder, decisions_in(log, names, decoder), lambda _: None)
    report(
        {"payments": live.payments, "audit_events": live.digest.events, "live_digest": live.digest.hexdigest()},
        as_json=as_json,
    )


def analytics(
    query: Annotated[str, typer.Option("--sql", help="any query of DuckDB on the table risk_scored")] = COUNTS,
    as_json: AsJson = False,
) -> None:
    """Ask DuckDB about the decisions in S3."""
    connection = duckdb.connect()
    connection.register("risk_scored", read_table(bucket(Settings())))
    try:
        result = connection.execute(query)
        names = [column[0] for column in result.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in result.fetchall()]
    except duckdb.Error as error:
        raise fail(str(error)) from error
    for row in rows:
        report(row, as_json=as_json)
