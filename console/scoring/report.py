"""Report of `fraudcase score`: how well a rule pack decides on labelled payments.

It is apart from the command because scikit-learn is slow to import.
"""

from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from console.display.formats import counted
from console.payments.files import BadFile, IntakeRow
from console.scoring.figures import TRAINING_DAYS, ScoringWindow, figures, select_window, window_of
from console.scoring.run import admit_rows, run
from console.scoring.truth import read_truth
from console.terminal import progress
from domain.durations import DAY_MS, format_duration
from domain.risk.packs import RulePack


def report_of(
    pack: RulePack,
    rows: Iterable[IntakeRow],
    total: int | None,
    labels: Path,
    feedback: int | None,
    days: tuple[datetime | None, datetime | None],
    exclude_known: bool,
    plot: Path | None,
) -> dict[str, Any]:
    """Decide on labelled payments and return the figures, by the keys of docs/scoreboard.md.

    `rows` are the payments, `total` their number if it is known. `days` are the first and the last day to score.
    Raise BadFile if no payment has both a decision and a label.
    """
    payments = admit_rows(rows, read_truth(labels))
    with progress("payments", total) as report_progress:
        everything, counts = run(payments, pack, feedback, report_progress)
    if not everything.time_ms.size:
        raise BadFile(
            f"no payment of {counted(counts.rows, 'row')} has both a decision and a label. "
            f"Check that {labels} holds their labels"
        )
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
        raise BadFile(f"there is no day from {date_of(window.first_day)} to {date_of(window.last_day)}")
    return window


def _day(date: datetime | None, otherwise: int) -> int:
    return otherwise if date is None else int(date.replace(tzinfo=UTC).timestamp() * 1000) // DAY_MS


def date_of(day: int) -> str:
    """Return the ISO date of a day counted from 1970-01-01."""
    return datetime.fromtimestamp(day * DAY_MS / 1000, UTC).date().isoformat()


def _days(feedback_ms: int | None) -> int:
    """Round a feedback delay up to whole days; without one, return the seven days of the handbook."""
    return TRAINING_DAYS if feedback_ms is None else -(-feedback_ms // DAY_MS)
