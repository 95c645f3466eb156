"""`fraudcase bench`: measurements that anybody can repeat."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from console.bench.console import ConsoleLoad, bench_console, console_settings
from console.bench.replay import bench_replay
from console.bench.rules import bench_rules
from console.bench.stream import bench_settings, bench_stream
from console.cli.options import read_settings
from console.cli.output import errors_as_messages, report
from console.rules.files import load_pack
from console.system import lifecycle as system
from console.terminal import messages, print_status_line
from infra import stack
from infra.services import services
from infra.settings import Settings

PACKS = "three,default"
bench = typer.Typer(name="bench", help="Measure rates and latencies on this machine, with references in the same run.")


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(bench)


@bench.callback()
def _bench() -> None:
    """Measure rates and latencies on this machine, with references in the same run."""


@contextmanager
def _stores(home: Settings) -> Iterator[None]:
    """Start the stores, and stop them afterwards if they did not run before.

    Name the other parts that run: they use some of the machine.
    """
    running = [each.name for each in stack.status(home, services(home)) if each.pid is not None]
    if running:
        messages.print(
            f"these parts run too and make the figures worse: {', '.join(running)}. Stop them with: fraudcase down"
        )
    started = system.up(home, report=print_status_line, only_stores=True)
    try:
        yield
    finally:
        if started:
            system.down(home, lambda _, __: None)


@bench.command()
def stream(
    out: Annotated[Path | None, typer.Option("--json", help="file to write the report to as JSON")] = None,
    transactions: Annotated[int, typer.Option(min=10_000, help="number of payments")] = 1_200_000,
    seed: Annotated[int, typer.Option(help="random seed; the same seed gives the same payments")] = 1,
    rules: Annotated[
        str,
        typer.Option(
            help="rule pack: a file, or the name of a shipped pack; the references implement the pack `three`"
        ),
    ] = "three",
) -> None:
    """Compare the risk job with the same rules in Flink SQL and plain PyFlink, then measure latencies at half load."""
    home = read_settings()
    settings = bench_settings(home, f"{time.time_ns() // 1_000_000_000:x}")
    with errors_as_messages(), _stores(home):
        document = bench_stream(settings, transactions, seed, load_pack(rules))
    if out is not None:
        out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    report(document, as_json=False)


@bench.command()
def console(
    out: Annotated[Path | None, typer.Option("--json", help="file to write the report to as JSON")] = None,
    cases: Annotated[int, typer.Option(min=100, help="number of cases in the table")] = 100_000,
    readers: Annotated[int, typer.Option(min=1, max=20, help="number of concurrent readers")] = 20,
    seconds: Annotated[float, typer.Option(min=1, help="length of the measurement in seconds")] = 30,
    pause_ms: Annotated[
        float, typer.Option(min=0, help="pause of a reader between an answer and its next request, in milliseconds")
    ] = 100,
    payments: Annotated[float, typer.Option(min=0, help="payments per second during the measurement")] = 100,
    seed: Annotated[int, typer.Option(help="random seed; the same seed gives the same cases and requests")] = 1,
    run: Annotated[str, typer.Option(help="name of the run; a later run with this name reuses its cases")] = "",
) -> None:
    """Measure how fast the queue and case pages answer with many cases and readers, while payments arrive."""
    home = read_settings()
    settings = console_settings(home, run or f"{time.time_ns() // 1_000_000_000:x}")
    load = ConsoleLoad(
        cases=cases, readers=readers, seconds=seconds, payments_per_s=payments, pause_ms=pause_ms, seed=seed
    )
    with errors_as_messages(), _stores(home):
        document = bench_console(settings, load)
    if out is not None:
        out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    for kind, figures in document.pop("pages").items():
        report({"page": kind, **figures}, as_json=False)
    report(document, as_json=False)
    if not document["within_aim"]:
        raise typer.Exit(1)


@bench.command()
def replay(
    out: Annotated[Path | None, typer.Option("--json", help="file to write the report to as JSON")] = None,
    transactions: Annotated[int, typer.Option(min=10_000, help="number of payments")] = 1_000_000,
    seed: Annotated[int, typer.Option(help="random seed; the same seed gives the same payments")] = 1,
    workers: Annotated[int | None, typer.Option(min=1, help="number of processes; default: one per core")] = None,
) -> None:
    """Measure how fast a replay derives the history, compared with only consuming and decoding its records."""
    home = read_settings()
    settings = bench_settings(home, f"{time.time_ns() // 1_000_000_000:x}")
    with errors_as_messages(), _stores(home):
        document = bench_replay(settings, transactions, seed, workers)
    if out is not None:
        out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    report(document, as_json=False)


@bench.command()
def rules(
    out: Annotated[Path | None, typer.Option("--json", help="file to write the report to as JSON")] = None,
    packs: Annotated[
        str, typer.Option(help="rule packs (names or files), separated by commas; rates are compared with the first")
    ] = PACKS,
    transactions: Annotated[int, typer.Option(min=1_000, help="number of payments")] = 1_000_000,
    accounts: Annotated[int, typer.Option(min=1, help="number of accounts that pay")] = 100_000,
    seed: Annotated[int, typer.Option(help="random seed; the same seed gives the same payments")] = 1,
) -> None:
    """Measure the cost of rule packs without Flink or Kafka: payments per second, memory in total and per account."""
    with errors_as_messages():
        document = bench_rules(packs.split(","), transactions, accounts, seed)
    if out is not None:
        out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    for name, figures in document.pop("packs").items():
        report({"pack": name, **figures}, as_json=False)
    report(document, as_json=False)
