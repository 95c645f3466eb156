"""`fraudcase rules tune`."""

import json
import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from console import files
from console.files import BadFile
from console.rule_files import load_pack
from console.rules_commands import rules as rules_app
from console.score_commands import Feedback, LabelsFile, TransactionsFile, date_of, printed, text_of
from console.score_run import admitted
from console.score_truth import read_truth
from console.stack_commands import AsJson
from console.tune import Objective, Tuned, average_precision, f1, pack_yaml, places, ranges_of, recall_at, search, split
from console.work import fail, messages, progress
from domain.durations import duration
from domain.rules import BadRulePack


class Aim(StrEnum):
    """What a search makes as large as it can."""

    AVERAGE_PRECISION = "average_precision"
    F1 = "f1"
    RECALL_AT_PRECISION = "recall_at_precision"


def register(_: typer.Typer) -> None:
    """Add the command to `fraudcase rules`."""
    rules_app.command()(tune)


def tune(
    transactions: TransactionsFile,
    labels: LabelsFile,
    rules: Annotated[str, typer.Option(help="the pack to begin with: its name, or a file")],
    out: Annotated[Path, typer.Option(help="where to write the pack that was found, as YAML")],
    trials: Annotated[int, typer.Option(min=1, help="packs to try")] = 50,
    seed: Annotated[int, typer.Option(help="the same seed, the same search")] = 1,
    objective: Annotated[Aim, typer.Option(help="what to make as large as possible")] = Aim.AVERAGE_PRECISION,
    precision: Annotated[float, typer.Option(min=0, max=1, help="at least, for recall_at_precision")] = 0.95,
    earlier: Annotated[float, typer.Option(min=0.05, max=0.95, help="share of the days to learn on")] = 0.7,
    feedback: Feedback = None,
    as_json: AsJson = False,
) -> None:
    """Search better numbers for a pack on the earlier payments of a file, and say how they do on the later ones."""
    try:
        pack, ranges = load_pack(rules), ranges_of(rules)
        searched = places(pack, ranges, with_flag_at=objective is not Aim.AVERAGE_PRECISION)
        payments = list(admitted(files.read_rows(transactions), read_truth(labels)))
        with progress("packs tried", trials + len(searched)) as seen:
            best_so_far = -1.0

            def told(done: int, best: float) -> None:
                nonlocal best_so_far
                seen(done)
                if best > best_so_far:
                    best_so_far = best
                    messages.print(f"pack {done}: {objective.value} {best:.4f}", highlight=False)

            tuned = search(
                payments, pack, searched, _objective(objective, precision), first_judged_day=split(payments, earlier),
                feedback_ms=feedback, trials=trials, seed=seed, seen=told,
            )  # fmt: skip
        report = _report(tuned, objective, trials, seed, feedback)
        best = replace(tuned.pack, version=pack.version + 1)
        out.write_text(pack_yaml(best, ranges, _remarks(report)), encoding="utf-8")
        load_pack(str(out))  # it can be read again
    except (BadFile, BadRulePack, OSError) as error:
        raise fail(str(error)) from error
    _show(report, out, as_json=as_json)


def _objective(aim: Aim, precision: float) -> Objective:
    return {Aim.AVERAGE_PRECISION: average_precision, Aim.F1: f1, Aim.RECALL_AT_PRECISION: recall_at(precision)}[aim]


def _report(tuned: Tuned, aim: Aim, trials: int, seed: int, feedback: int | None) -> dict[str, Any]:
    return {
        "pack": tuned.pack.name,
        "objective": aim.value,
        "trials": trials,
        "seed": seed,
        "feedback": None if feedback is None else duration(feedback),
        "learnt_before": date_of(tuned.first_judged_day),
        "learnt": {"before": tuned.learnt[0], "after": tuned.learnt[1]},
        "later": {"before": tuned.before, "after": tuned.after},
        "changes": {name: {"before": was, "after": now} for name, (was, now) in tuned.changes.items()},
    }


def _remarks(report: dict[str, Any]) -> list[str]:
    later = report["later"]["after"]
    found = ", ".join(f"{name} {text_of(later[name])}" for name in ("precision", "recall", "average_precision"))
    return [
        f"Found by fraudcase rules tune: {report['objective']}, {report['trials']} trials, seed {report['seed']}.",
        f"Learnt on payments before {report['learnt_before']}; on the later ones: {found}.",
    ]


def _show(report: dict[str, Any], out: Path, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps({**report, "out": str(out)}, indent=2) + "\n")
        return
    table = Table(box=None, pad_edge=False)
    for name in ("", "before", "after"):
        table.add_column(name, justify="right" if name else "left")
    learnt = report["learnt"]
    table.add_row(f"{report['objective']}, learnt", text_of(learnt["before"]), text_of(learnt["after"]))
    for name, value in report["later"]["before"].items():
        label = f"{name.replace('_', ' ')}, from {report['learnt_before']}"
        table.add_row(label, text_of(value), text_of(report["later"]["after"][name]))
    for name, change in report["changes"].items():
        table.add_row(name, *(_number(name, change[when]) for when in ("before", "after")))
    printed(table)
    if not report["later"]["after"]["fraud"]:
        messages.print(f"no fraud is on {report['learnt_before']} or later: nothing to judge by", highlight=False)
    printed(f"written: {out}")


def _number(name: str, value: int) -> str:
    return duration(value) if name.endswith("_ms") else text_of(value)
