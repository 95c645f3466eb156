"""`fraudcase score`."""

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from console import files
from console.files import BadFile
from console.rule_files import load_pack
from console.score import DAY_MS, TRAINING_DAYS, Window, figures, window_of, within
from console.score_run import admitted, run
from console.score_truth import read_truth
from console.stack_commands import AsJson
from console.work import fail, progress
from domain.durations import duration, duration_ms
from domain.rules import DEFAULT, BadRulePack, RulePack

TransactionsFile = Annotated[Path, typer.Option(help="Parquet, CSV or JSON lines with the columns of Transaction")]
LabelsFile = Annotated[Path, typer.Option(help="transaction_id, fraud (0 or 1), and if there are: row, scenario")]
_WIDTH = 100  # of the table where nobody looks


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command()(score)


def delay_of(text: str) -> int:
    """The milliseconds of a delay, for an option."""
    try:
        return duration_ms(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


Feedback = Annotated[
    int | None, typer.Option(parser=delay_of, metavar="DURATION", help="frauds become known so long after, as in 7d")
]
FirstDay = Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="first day scored, UTC")]
LastDay = Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="last day scored, included")]


def score(
    transactions: TransactionsFile,
    labels: LabelsFile,
    rules: Annotated[str, typer.Option(help="a pack's name, or a file")] = DEFAULT.name,
    feedback: Feedback = None,
    first: FirstDay = None,
    last: LastDay = None,
    exclude_known: Annotated[
        bool, typer.Option("--exclude-known", help="without cards known as compromised, as the handbook does")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="draw the curves to this file")] = None,
    as_json: AsJson = False,
) -> None:
    """Decide on a file of payments and say how good that was, against what they really were."""
    try:
        report = _report(load_pack(rules), transactions, labels, feedback, (first, last), exclude_known, plot)
    except (BadFile, BadRulePack) as error:
        raise fail(str(error)) from error
    _show(report, as_json=as_json)


def _report(
    pack: RulePack,
    transactions: Path,
    labels: Path,
    feedback: int | None,
    days: tuple[datetime | None, datetime | None],
    exclude_known: bool,
    plot: Path | None,
) -> dict[str, Any]:
    payments = admitted(files.read_rows(transactions), read_truth(labels))
    with progress("payments", files.count_rows(transactions)) as seen:
        everything, counts = run(payments, pack, feedback, seen)
    if not everything.time_ms.size:
        raise BadFile(f"none of the {counts.rows} payments was decided on and has a label: is {labels} theirs?")
    window = _window(window_of(everything), *days)
    scored = within(everything, window, _days(feedback) if exclude_known else None)
    report = {
        "pack": pack.name,
        "version": pack.version,
        "pack_id": pack.pack_id,
        "feedback": None if feedback is None else duration(feedback),
        "from": date_of(window.first_day),
        "to": date_of(window.last_day),
        "exclude_known": exclude_known,
        **asdict(counts),
        **figures(scored, window),
    }
    if plot is not None:
        from console.score_plot import draw  # slow to import, and rarely wanted

        draw(plot, scored, window, report)
        report["plot"] = str(plot)
    return report


def _window(whole: Window, first: datetime | None, last: datetime | None) -> Window:
    window = Window(_day(first, whole.first_day), _day(last, whole.last_day))
    if window.days < 1:
        raise BadFile(f"no day is between {date_of(window.first_day)} and {date_of(window.last_day)}")
    return window


def _day(date: datetime | None, otherwise: int) -> int:
    return otherwise if date is None else int(date.replace(tzinfo=UTC).timestamp() * 1000) // DAY_MS


def date_of(day: int) -> str:
    """A day counted from 1970-01-01, as people write it."""
    return datetime.fromtimestamp(day * DAY_MS / 1000, UTC).date().isoformat()


def _days(feedback_ms: int | None) -> int:
    """Whole days until a card is known; without feedback, the handbook's seven."""
    return TRAINING_DAYS if feedback_ms is None else -(-feedback_ms // DAY_MS)


def _show(report: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in report.items():
        if name == "on_arrival":
            for inner, figure in value.items():
                table.add_row(f"{inner} on arrival", text_of(figure))
        elif name not in ("scenarios", "pack_id"):
            table.add_row(name.replace("_", " "), text_of(value))
    printed(table)
    if report["scenarios"]:
        printed(_scenario_table(report["scenarios"]))


def printed(what: Table | str) -> None:
    """Write to standard output, as wide as a terminal is, or as wide as a table needs."""
    out = Console() if sys.stdout.isatty() else Console(width=_WIDTH)
    out.print(what, highlight=False)


def _scenario_table(scenarios: dict[str, dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    columns = list(dict.fromkeys(name for each in scenarios.values() for name in each))
    for name in ("scenario", *columns):
        table.add_column(name.replace("_", " "), justify="left" if name == "scenario" else "right")
    for name, each in scenarios.items():
        table.add_row(name, *(text_of(each.get(column)) for column in columns))
    return table


def text_of(value: Any) -> str:
    """A figure as it stands in a table."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4f}" if isinstance(value, float) else str(value)
