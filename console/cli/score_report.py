"""The report of `fraudcase score`. Apart from the command, since scikit-learn is slow to import."""

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from console.payments import files
from console.payments.admission import prepare_rows
from console.payments.files import BadFile
from console.scoring.figures import DAY_MS, TRAINING_DAYS, ScoringWindow, figures, select_window, window_of
from console.scoring.run import admit_rows, run
from console.scoring.truth import read_truth
from console.terminal import progress
from domain.durations import format_duration
from domain.risk.packs import RulePack
from infra.settings import Settings

_WIDTH: Final = 100  # of a table where nobody looks


def report_of(
    pack: RulePack,
    transactions: Path,
    labels: Path,
    feedback: int | None,
    days: tuple[datetime | None, datetime | None],
    exclude_known: bool,
    plot: Path | None,
) -> dict[str, Any]:
    """All that `fraudcase score` says, by the keys of docs/scoreboard.md. Raises BadFile."""
    payments = admit_rows(prepare_rows(files.read_rows(transactions), Settings()), read_truth(labels))
    with progress("payments", files.count_rows(transactions)) as seen:
        everything, counts = run(payments, pack, feedback, seen)
    if not everything.time_ms.size:
        raise BadFile(f"none of the {counts.rows} payments was decided on and has a label: is {labels} theirs?")
    window = _window(window_of(everything), *days)
    scored = select_window(everything, window, _days(feedback) if exclude_known else None)
    report = {
        "pack": pack.name,
        "version": pack.version,
        "pack_id": pack.pack_id,
        "feedback": None if feedback is None else format_duration(feedback),
        "from": date_of(window.first_day),
        "to": date_of(window.last_day),
        "exclude_known": exclude_known,
        **asdict(counts),
        **figures(scored, window),
    }
    if plot is not None:
        from console.scoring.plot import draw  # slow to import, and rarely wanted

        draw(plot, scored, window, report)
        report["plot"] = str(plot)
    return report


def _window(whole: ScoringWindow, first: datetime | None, last: datetime | None) -> ScoringWindow:
    window = ScoringWindow(_day(first, whole.first_day), _day(last, whole.last_day))
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


def show(report: dict[str, Any], *, as_json: bool) -> None:
    """Print it: JSON for programs, tables for people."""
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
    print_wide(table)
    if report["scenarios"]:
        print_wide(_scenario_table(report["scenarios"]))


def print_wide(what: Table | str) -> None:
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
