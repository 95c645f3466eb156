"""`fraudcase replay`, `digest`, `analytics`: the recorded history derived, fingerprinted and queried."""

import json
from pathlib import Path
from typing import Annotated

import duckdb
import typer

from console.cli.options import AsJson, parse_instant, read_settings
from console.cli.output import errors_as_messages, fail, report
from console.history.replay import SHOWN, cores
from console.history.replay import replay as run_replay
from console.terminal import messages, progress
from console.wiring import bucket, case_table, replay_source, topics
from projections.archive.analytics import read_table
from projections.replay.replay import read_recorded_history

COUNTS = """
    SELECT count(*) FILTER (NOT is_duplicate) AS payments, count(*) FILTER (len(rules) > 0) AS flagged,
           count(*) FILTER (is_duplicate) AS duplicates
    FROM risk_scored"""


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (replay, digest, analytics):
        app.command()(command)


def replay(
    source: Annotated[str, typer.Option("--from", help="source of the records: kafka or s3")] = "kafka",
    until: Annotated[
        str | None, typer.Option(help="replay the records written by this time: ISO 8601, or UTC milliseconds")
    ] = None,
    certificate: Annotated[Path | None, typer.Option(help="file to write the certificate to")] = None,
    expect: Annotated[
        Path | None, typer.Option(help="earlier report (--json) or certificate that must have the same digests")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="number of processes; default: chosen by the size of the logs")
    ] = None,
    live_views: Annotated[bool, typer.Option(help="also compare the stored case views")] = True,
    as_json: AsJson = False,
) -> None:
    """Derive every flag, case event and view from the log without Flink and compare with what is stored.

    Exit 1 if something differs, 3 if stored results are still missing.
    """
    if source not in ("kafka", "s3"):
        raise fail(f"--from: {source} is not a source. Sources: kafka, s3")
    until_ms = parse_instant(until)
    with errors_as_messages():
        settings = read_settings()
        result = run_replay(
            replay_source(settings, source), topics(settings),
            (lambda: case_table(settings).scan()) if live_views else None, until_ms=until_ms, workers=workers,
        )  # fmt: skip
    if certificate is not None:
        text = json.dumps(result.certificate, indent=2, ensure_ascii=False, sort_keys=True)
        certificate.write_text(text + "\n", encoding="utf-8", newline="\n")
    document = result.document
    problems = list(result.problems)
    if expect is not None:
        wanted = json.loads(expect.read_text(encoding="utf-8"))
        problems += [
            f"{name} is {document.get(name)}, but {expect} has {wanted[name]}"
            for name in ("root", "live_digest", "replay_digest", "replay_views_digest")
            if name in wanted and wanted[name] != document.get(name)
        ]
    shown = {name: value for name, value in document.items() if as_json or name != "problems"}
    report(shown, as_json=as_json)
    for problem in problems[:SHOWN]:
        messages.print(problem, highlight=False, markup=False)
    if result.exit_code or problems:
        raise typer.Exit(result.exit_code or 1)


def digest(as_json: AsJson = False) -> None:
    """Print the digest of everything that the running system has recorded."""
    settings = read_settings()
    with errors_as_messages(), progress("records read", None) as seen:
        live = read_recorded_history(replay_source(settings, "kafka"), topics(settings), cores(), seen)
    report(
        {"payments": live.payments, "audit_events": live.digest.events, "live_digest": live.digest.hexdigest()},
        as_json=as_json,
    )


def analytics(
    query: Annotated[str, typer.Option("--sql", help="DuckDB query on the table risk_scored")] = COUNTS,
    as_json: AsJson = False,
) -> None:
    """Query the decisions in S3 with DuckDB."""
    connection = duckdb.connect()
    connection.register("risk_scored", read_table(bucket(read_settings())))
    try:
        result = connection.execute(query)
        names = [column[0] for column in result.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in result.fetchall()]
    except duckdb.Error as error:
        raise fail(str(error)) from error
    for row in rows:
        report(row, as_json=as_json)
