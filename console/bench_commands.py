"""`fraudcase bench`: figures that anybody can repeat."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from console import system
from console.bench_rules import bench_rules
from console.benchmark import bench_settings, bench_stream
from console.rule_files import load_pack
from console.stack_commands import tell
from console.work import explained, report
from infra.settings import Settings

PACKS = "three,default"
bench = typer.Typer(name="bench", help="Figures of this machine, each against something else in the same run.")


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.add_typer(bench)


@bench.callback()
def _bench() -> None:
    """Figures of this machine, each against something else in the same run."""


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
    with explained():
        started = system.up(home, report=tell, only_stores=True)
        try:
            document = bench_stream(settings, transactions, seed, load_pack(rules))
        finally:
            if started:
                system.down(home, lambda _, __: None)
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
    with explained():
        document = bench_rules(packs.split(","), transactions, accounts, seed)
    if out is not None:
        out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    for name, figures in document.pop("packs").items():
        report({"pack": name, **figures}, as_json=False)
    report(document, as_json=False)
