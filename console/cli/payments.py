"""Commands on payments: `fraudcase generate`, `ingest`, `flags`, `backtest`, `clock` and `labels ingest`."""

import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from console.cli.options import AsJson, read_settings
from console.cli.output import errors_as_messages, fail, report
from console.cli.row_files import read_prepared_rows
from console.display.formats import counted
from console.payments import files
from console.payments.decisions import answered_rows, derived_decisions
from console.payments.decisions import backtest as decide_rows
from console.payments.files import BadFile
from console.payments.intake import ingest as ingest_file
from console.payments.intake import open_intake, send_generated
from console.payments.labels import ingest_labels
from console.rules.files import load_pack
from console.terminal import messages, progress
from console.times import now_ms
from console.wiring import intake_parts, kafka_logs
from console.workers.clock import BadTickFile, live_ticks, ticks_from, write_ticks
from domain.risk.default_packs import DEFAULT
from domain.risk.packs import BadRulePack
from generator.traffic import START_MS, GeneratedPayment, Traffic, TrafficOptions, run_of
from generator.truth import truth_line, truth_path, write_truth
from infra.settings import Settings
from projections.logs.kafka_logs import KafkaLogs

Out = Annotated[
    Path | None,
    typer.Option(
        "--out", help="file to write: Parquet, CSV or JSON lines, by its suffix; default: JSON lines to standard output"
    ),
]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command in (generate, ingest, flags, backtest, clock):
        app.command()(command)
    labels = typer.Typer(no_args_is_help=True, help="Record confirmed frauds.")
    labels.command("ingest")(ingest_frauds)
    app.add_typer(labels, name="labels")


def generate(
    transactions: Annotated[int, typer.Option(help="number of payments")] = 100_000,
    seed: Annotated[int, typer.Option(help="random seed; the same seed gives the same payments")] = 1,
    accounts: Annotated[int, typer.Option(help="number of accounts that pay")] = 5_000,
    rate: Annotated[
        float | None, typer.Option(help="payments per second; default: as fast as possible, or 50 with --continuous")
    ] = None,
    continuous: Annotated[bool, typer.Option(help="send payments dated now until interrupted")] = False,
    start: Annotated[datetime | None, typer.Option(help="time of the first payment, UTC")] = None,
    out: Annotated[Path | None, typer.Option(help="file to write the payments to instead of sending them")] = None,
    truth: Annotated[Path | None, typer.Option(help="file to write the true behaviour of each payment to")] = None,
    as_json: AsJson = False,
) -> None:
    """Generate synthetic payments: normal, high velocity, amount spikes, unusual places, late and out of order."""
    settings = read_settings()
    per_second = rate or 50.0 if continuous else 10.0
    start_ms = int(start.replace(tzinfo=UTC).timestamp() * 1000) if start else START_MS
    if continuous and start is None:
        start_ms = now_ms()
    run = run_of(start_ms) if continuous else ""
    traffic: Iterator[GeneratedPayment] = iter(
        Traffic(TrafficOptions(seed=seed, accounts=accounts, start_ms=start_ms, per_second=per_second, run=run))
    )
    if not continuous:
        traffic = islice(traffic, transactions)
    with errors_as_messages():
        if out is not None:
            made = list(traffic)
            files.write_rows(out, (generated.transaction for generated in made))
            write_truth(truth or truth_path(out), made)
            report({"transactions": len(made), "file": str(out)}, as_json=as_json)
            return
        _send(
            settings, traffic, per_second if continuous else rate, truth, None if continuous else transactions, as_json
        )


def _send(
    settings: Settings,
    traffic: Iterator[GeneratedPayment],
    rate: float | None,
    truth: Path | None,
    total: int | None,
    as_json: bool,
) -> None:
    intake, sent = open_intake(intake_parts(settings))
    truth_file = truth or settings.home / "truth" / f"{sent.run}.jsonl"
    truth_file.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with truth_file.open("w", encoding="utf-8") as file, progress("payments sent", total) as seen:

        def note(generated: GeneratedPayment) -> None:
            file.write(json.dumps(truth_line(generated)) + "\n")
            if intake.rows % 500 == 0:
                seen(intake.rows)

        try:
            counts = send_generated(intake, traffic, rate, note)
        except KeyboardInterrupt:
            counts = {}
    intake.flush()
    seconds = time.monotonic() - started
    report(
        {
            "run": sent.run,
            "transactions": intake.rows,
            **{behaviour.value: count for behaviour, count in counts.items()},
            "seconds": round(seconds, 1),
            "truth": str(truth_file),
        },
        as_json=as_json,
    )


def ingest(
    file: Annotated[
        Path, typer.Argument(help="file of payments: Parquet, CSV or JSON lines with the columns of Transaction")
    ],
    as_json: AsJson = False,
) -> None:
    """Send the payments of a file through the running system and account for every row."""
    try:
        with errors_as_messages():
            report(ingest_file(intake_parts(read_settings()), file), as_json=as_json)
    except BadFile as error:
        raise fail(str(error)) from error


def flags(
    out: Out = None,
    run: Annotated[
        str | None, typer.Option(help="run of `ingest` or `generate` whose rows to write; default: all runs")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the decision on every payment of the running system, in the order of intake."""
    logs = kafka_logs(read_settings())
    lines = [answer.line for answer in answered_rows(logs.reader(), logs.topics, logs.decoder(), run)]
    _write_decisions(out, lines, as_json)


def backtest(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help="file of payments: Parquet, CSV or JSON lines with the columns of Transaction"
        ),
    ] = None,
    out: Out = None,
    transactions: Annotated[Path | None, typer.Option(help="another way to give FILE")] = None,
    from_log: Annotated[
        bool,
        typer.Option("--from-log", help="decide the recorded log with its activations and labels, instead of a file"),
    ] = False,
    rules: Annotated[
        str | None, typer.Option(help=f"rule pack: a file, or the name of a shipped pack; default: {DEFAULT.name}")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Decide every payment of a file without a server, or of the recorded log. Write one row per payment."""
    if (file is not None) + (transactions is not None) + from_log != 1:
        raise fail("give either a FILE or --from-log")
    transactions = file or transactions
    if transactions is None:
        if rules is not None:
            raise fail("--rules cannot be combined with --from-log, which uses the rule packs in the log")
        _write_decisions(out, _decided_again(kafka_logs(read_settings())), as_json)
        return
    try:
        pack = load_pack(rules or DEFAULT.name)
        rows = read_prepared_rows(transactions)
        with progress("rows", files.count_rows(transactions)) as seen:

            def rows_with_progress() -> Iterator[files.IntakeRow]:
                for number, row in enumerate(rows, start=1):
                    yield row
                    if number % 1000 == 0:
                        seen(number)

            lines = list(decide_rows(rows_with_progress(), pack))
        _write_decisions(out, lines, as_json)
    except (BadFile, BadRulePack) as error:
        raise fail(str(error)) from error


def _decided_again(logs: KafkaLogs) -> list[dict[str, object]]:
    log, names, decoder = logs.reader(), logs.topics, logs.decoder()
    decisions = derived_decisions(log, names, decoder)
    return [answer.line for answer in answered_rows(log, names, decoder, decisions=decisions)]


def _write_decisions(out: Path | None, lines: list[dict[str, object]], as_json: bool) -> None:
    if out is None:
        for line in lines:
            sys.stdout.write(files.json_line(line, files.DECISIONS))
        return
    try:
        rows = files.write_table(out, lines, files.DECISIONS)
    except (BadFile, OSError) as error:
        raise fail(str(error)) from error
    flagged = sum(bool(line["rules"]) for line in lines)
    report({"rows": rows, "flagged": flagged, "out": str(out)}, as_json=as_json)


def clock(
    every: Annotated[float, typer.Option(help="seconds between ticks")] = 60,
    source: Annotated[
        Path | None,
        typer.Option("--from", help='file of ticks, one {"now_ms": 1750000000000} per line; default: live ticks'),
    ] = None,
) -> None:
    """Write clock ticks, which trigger the deadlines of cases, to the log: live until interrupted, or from a file."""
    ticks = ticks_from(source) if source else live_ticks(every, lambda: False)
    try:
        with errors_as_messages():
            count = write_ticks(kafka_logs(read_settings()), ticks)
    except (BadTickFile, OSError) as error:
        raise fail(str(error)) from error
    messages.print(f"{counted(count, 'tick')} written", highlight=False)


def ingest_frauds(
    file: Annotated[
        Path,
        typer.Argument(
            help="Parquet, CSV or JSON lines with the columns transaction_id, fraud (0 or 1) and optionally account_id"
        ),
    ],
    actor: Annotated[str, typer.Option(help="name of the person or system that confirms the frauds")] = "system",
    as_json: AsJson = False,
) -> None:
    """Record the frauds of a file in the log. The risk of later payments with the same card or merchant rises."""
    try:
        with errors_as_messages():
            document = ingest_labels(kafka_logs(read_settings()), file, actor)
    except BadFile as error:
        raise fail(str(error)) from error
    report(document, as_json=as_json)
