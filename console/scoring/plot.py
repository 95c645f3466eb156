"""Plots of `fraudcase score --plot`: the results of every threshold, and of the pack's own."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from console.display.formats import counted
from console.payments.files import BadFile
from console.scoring.figures import ScoringWindow
from console.scoring.run import ScoredPayments
from domain.durations import DAY_MS

_INK, _BLUE, _RED, _GREY = "#222222", "#2f6db3", "#c8442c", "#b8bcc2"
MAX_BARS = 16
"""Maximum number of scenarios in the plot; the report has all of them."""


def draw(path: Path, scored: ScoredPayments, window: ScoringWindow, report: dict[str, Any]) -> None:
    """Write the plots to a file in the format of its suffix. Raises BadFile."""
    figure = Figure(figsize=(11, 8), layout="constrained")
    title = (
        f"{report['pack']}: {counted(report['fraud'], 'fraud')} in {counted(report['transactions'], 'payment')}, "
        f"{counted(report['days'], 'day')}"
    )
    figure.suptitle(title, color=_INK)
    (top_left, top_right), (bottom_left, bottom_right) = figure.subplots(2, 2)
    _precision_recall(top_left, scored, report)
    _roc(top_right, scored, report)
    _alerts(bottom_left, scored, window, report)
    _recalls(bottom_right, report)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    try:
        figure.savefig(path, dpi=120)
    except (ValueError, OSError) as error:
        raise BadFile(f"{path} cannot be drawn: {error}") from error


def _precision_recall(axes: Axes, scored: ScoredPayments, report: dict[str, Any]) -> None:
    axes.set(title="Precision and recall", xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    if report["average_precision"] is None:
        return _write_empty_note(axes)
    precision, recall, _ = precision_recall_curve(scored.fraud, scored.score)
    axes.step(
        recall, precision, where="post", color=_BLUE, label=f"average precision {report['average_precision']:.3f}"
    )
    fraction = report["fraud"] / report["transactions"]
    axes.axhline(fraction, color=_GREY, linestyle="--", label=f"by chance {fraction:.3f}")
    if report["precision"] is not None:
        label = f"flagged: precision {report['precision']:.3f}, recall {report['recall']:.3f}"
        axes.plot(report["recall"], report["precision"], "o", color=_RED, clip_on=False, label=label)
    axes.legend(loc="best", frameon=False)
    return None


def _roc(axes: Axes, scored: ScoredPayments, report: dict[str, Any]) -> None:
    axes.set(title="ROC", xlabel="false positive rate", ylabel="true positive rate", xlim=(0, 1.02), ylim=(0, 1.02))
    if report["auc_roc"] is None:
        return _write_empty_note(axes)
    honest, frauds, _ = roc_curve(scored.fraud, scored.score)
    axes.plot(honest, frauds, color=_BLUE, label=f"area {report['auc_roc']:.3f}")
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", label="by chance")
    axes.legend(loc="lower right", frameon=False)
    return None


def _alerts(axes: Axes, scored: ScoredPayments, window: ScoringWindow, report: dict[str, Any]) -> None:
    axes.set(title=f"Alerts per day, mean {report['alerts_per_day']:.1f}", ylabel="alerts", xlabel="day (UTC)")
    day = scored.time_ms // DAY_MS - window.first_day
    good = np.bincount(day[scored.flagged & scored.fraud], minlength=window.days)
    bad = np.bincount(day[scored.flagged & ~scored.fraud], minlength=window.days)
    dates = np.datetime64(window.first_day, "D") + np.arange(window.days)
    axes.bar(dates, good, width=0.9, color=_BLUE, label="fraud")
    axes.bar(dates, bad, width=0.9, bottom=good, color=_RED, label="no fraud")
    axes.set_ylim(0, max(1, int((good + bad).max(initial=0)) * 1.15))
    axes.tick_params(axis="x", rotation=30)
    axes.legend(loc="upper left", ncols=2, frameon=False)


def _recalls(axes: Axes, report: dict[str, Any]) -> None:
    found = [(name, each) for name, each in report["scenarios"].items() if each["recall"] is not None][:MAX_BARS]
    axes.set(title="Fraction of frauds flagged, by scenario", xlim=(0, 1.02))
    if not found:
        return _write_empty_note(axes)
    names = [name for name, _ in reversed(found)]
    values = [each["recall"] for _, each in reversed(found)]
    bars = axes.barh(names, values, color=_BLUE)
    counts = [f"{round(each['recall'] * each['fraud']):,} of {each['fraud']:,}" for _, each in reversed(found)]
    axes.bar_label(bars, counts, padding=4, color=_INK)
    axes.set_xlim(0, 1.25)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    return None


def _write_empty_note(axes: Axes) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, "not enough labels for this plot", transform=axes.transAxes, ha="center", color=_INK)
