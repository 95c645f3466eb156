"""`fraudcase bench`: figures that anybody can repeat."""

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
from console.cli.output import errors_as_messages, report
from console.rules.files import load_pack
from console.system import lifecycle as system
from console.terminal import messages, print_status_line
from infra import stack
from infra.services import services
from infra.settings import Settings

PACKS = "three,default"
bench = typer.Typer(name="bench", help="Figures of this machine, each against something else in the same run.")


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(bench)


@bench.callback()
def _bench() -> None:
    """Figures of this machine, each against something else in the same run."""


@contextmanager
def _stores(home: Settings) -> Iterator[None]:
    """The stores; programs of the system that run as well are named, since they take their part of the machine."""
    running = [each.name for each in stack.status(home, services(home)) if each.pid is not None]
    if running:
        messages.print(f"beside {', '.join(running)}, which take part of the machine. Without them: fraudcase down")
    started = system.up(home, report=print_status_line, only_stores=True)
    try:
        yield
    finally:
        if started:
            system.down(home, lambda _, __: None)


@bench.command()
def stream(
    out: Annotated[Path | None, typer.Option("--json", help="write the report to this file too")] = None,
    transactions: Annotated[int, typer.Option(min=10_000, help="how many payments")] = 1_200_000,
    seed: Annotated[int, typer.Option(help="the same seed, the same payments")] = 1,
    rules: Annotated[
        str, typer.Option(help="a pack's name, or a file; the references know the pack `three`")
    ] = "three",
) -> None:
    """Our risk job beside the same rules in Flink SQL and in textbook PyFlink; then latencies at half load."""
    home = Settings()
    settings = bench_settings(home, f"{time.time_ns() // 1_000_000_000:x}")
    with errors_as_messages(), _stores(home):
        document = bench_stream(settings, transactions, seed, load_pack(rules))
    if out is not None:
        out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    report(document, as_json=False)


@bench.command()
def console(
    out: Annotated[Path | None, typer.Option("--json", help="write the report to this file too")] = None,
    cases: Annotated[int, typer.Option(min=100, help="how many cases are in the table")] = 100_000,
    readers: Annotated[int, typer.Option(min=1, max=20, help="how many read at once")] = 20,
    seconds: Annotated[float, typer.Option(min=1, help="how long")] = 30,
    pause_ms: Annotated[float, typer.Option(min=0, help="between a reader's answer and its next question")] = 100,
    payments: Annotated[float, typer.Option(min=0, help="that come in each second meanwhile")] = 100,
    seed: Annotated[int, typer.Option(help="the same seed, the same cases and requests")] = 1,
    run: Annotated[str, typer.Option(help="a name; the cases of an earlier run of that name are used again")] = "",
) -> None:
    """How fast queue and case pages answer with many cases and readers, while payments come in."""
    home = Settings()
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
    out: Annotated[Path | None, typer.Option("--json", help="write the report to this file too")] = None,
    transactions: Annotated[int, typer.Option(min=10_000, help="how many payments")] = 1_000_000,
    seed: Annotated[int, typer.Option(help="the same seed, the same payments")] = 1,
    workers: Annotated[int | None, typer.Option(min=1, help="processes side by side; by default one a core")] = None,
) -> None:
    """How fast history is derived again, beside consuming and decoding the same records with nothing done to them."""
    home = Settings()
    settings = bench_settings(home, f"{time.time_ns() // 1_000_000_000:x}")
    with errors_as_messages(), _stores(home):
        document = bench_replay(settings, transactions, seed, workers)
    if out is not None:
        out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    report(document, as_json=False)


@bench.command()
def rules(
    out: Annotated[Path | None, typer.Option("--json", help="write the report to this file too")] = None,
    packs: Annotated[str, typer.Option(help="names or files, with commas; rates are compared with the first")] = PACKS,
    transactions: Annotated[int, typer.Option(min=1_000, help="how many payments")] = 1_000_000,
    accounts: Annotated[int, typer.Option(min=1, help="how many accounts pay")] = 100_000,
    seed: Annotated[int, typer.Option(help="the same seed, the same payments")] = 1,
) -> None:
    """What rule packs cost: payments a second, memory in all and for each account; without Flink or Kafka."""
    with errors_as_messages():
        document = bench_rules(packs.split(","), transactions, accounts, seed)
    if out is not None:
        out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    for name, figures in document.pop("packs").items():
        report({"pack": name, **figures}, as_json=False)
    report(document, as_json=False)
