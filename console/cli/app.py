"""The command line, `fraudcase COMMAND`: the table of its commands. Their modules are imported when they are used."""

import sys
from importlib.metadata import metadata
from typing import Annotated, Final

import typer

from console.cli.lazy_group import LazyGroup

AREAS: Final[dict[str, dict[str, str]]] = {
    "console.cli.stack": {
        "up": "Start the whole system on this machine.",
        "down": "Stop the parts that `up` started.",
        "status": "Show the state of each part.",
        "doctor": "List problems of this machine and this system, each with its cure.",
        "reset": "Stop the system and delete everything that it stored.",
    },
    "console.cli.payments": {
        "generate": (
            "Generate synthetic payments: normal, high velocity, amount spikes, unusual places, late and out of order."
        ),
        "ingest": "Send the payments of a file through the running system and account for every row.",
        "flags": "Write the decision on every payment of the running system, in the order of intake.",
        "backtest": "Decide every payment of a file without a server, or of the recorded log.",
        "clock": (
            "Write clock ticks, which trigger the deadlines of cases, to the log: live until interrupted, "
            "or from a file."
        ),
        "labels": "Record confirmed frauds.",
    },
    "console.cli.replay": {
        "replay": "Derive every flag, case event and view from the log without Flink and compare with what is stored.",
        "digest": "Print the digest of everything that the running system has recorded.",
        "analytics": "Query the decisions in S3 with DuckDB.",
    },
    "console.cli.views": {
        "rebuild": "Build a new version of a view from the log, then switch to it.",
        "views": "List, switch and drop versions of the case views.",
    },
    "console.cli.cases": {
        "case": "List fraud cases, show them and act on them.",
    },
    "console.cli.rules": {
        "rules": "Manage rule packs: draft, approve by a second person, activate, retire.",
        "control": "Manage the control store, the database of users, rule packs and keys.",
    },
    "console.cli.engine": {
        "engine": "List and activate versions of the engine, the code that decides the logs.",
    },
    "console.cli.score": {
        "score": "Decide on a file of payments and report precision, recall and other figures against their labels.",
    },
    "console.cli.audit": {
        "export": (
            "Export an evidence pack: records with proofs that anybody can check with `verify.py` and the public key."
        ),
        "verify": "Check an evidence pack.",
        "audit": "Show the audit log's key and signed heads, and verify the log.",
    },
    "console.cli.explain": {
        "explain": (
            "Explain a decision: each rule's value, threshold and distance, and the smallest change that reverses it."
        ),
    },
    "console.cli.demo": {
        "demo": "Run payments through the real system into flags, cases, views and an audit log.",
    },
    "console.cli.bench": {
        "bench": "Measure rates and latencies on this machine, with references in the same run.",
    },
    "console.cli.users": {
        "users": "Manage the people who may sign in to the console.",
    },
    "console.cli.erase": {
        "erase": (
            "Destroy the keys of accounts, so that their sealed personal data cannot be read again, here or "
            "in any copy."
        ),
        "canary": "Search all stored data for a text, raw and decoded.",
        "subject": "Show the subjects whose personal data is sealed.",
    },
    "console.cli.whatif": {
        "whatif": (
            "Replay history under other rules and report the differences in cases, alerts, money, frauds and hours."
        ),
    },
}
"""Commands by the module that registers them, each with the first sentence of its help."""


class FraudcaseCommands(LazyGroup):
    """All commands of the program."""

    areas = AREAS


app = typer.Typer(
    name="fraudcase",
    cls=FraudcaseCommands,
    help="Watch payments, open and escalate fraud cases, and replay the history to the same bytes.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # locals can hold personal data
)


def print_version(is_wanted: bool) -> None:
    """Print the name and version of the installed package and exit, if this is wanted."""
    if is_wanted:
        package = metadata("fraudcase")
        sys.stdout.write(f"{package['Name']} {package['Version']}\n")
        raise typer.Exit


@app.callback()
def fraudcase(
    _: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    """Watch payments, open and escalate fraud cases, and replay the history to the same bytes."""


def main() -> None:
    """Run the command line: the entry point of the installed script."""
    app()


if __name__ == "__main__":
    main()
