"""`fraudcase whatif`: the cases that other rules would have opened."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from console.cli.options import AsJson, read_settings
from console.cli.output import errors_as_messages, fail
from console.display.formats import counted, money
from console.history.whatif import MINUTES_PER_CASE, Progress, Source, WhatifRequest, period_text, run
from console.history.whatif_job import OUTAGE_ERRORS, carry_out
from console.history.whatif_runs import WhatifRuns
from console.rules.files import load_pack
from console.rules.store import RulePackActionError
from console.terminal import messages, progress
from console.times import iso_time, now_ms, parse_time
from console.wiring import archive_source, control_database, control_store, kafka_logs
from domain.risk.packs import BadRulePack, RulePack, parse_pack
from infra.settings import Settings
from projections.replay.whatif import WhatifPeriod

SHOWN: Final = 12
"""Maximum number of changed cases shown on the terminal; the files have all."""
WIDTH: Final = 110
"""Width of tables in columns when the output is not a terminal."""
LABELS: Final = {
    "opened": "opened only by the new rules", "lost": "no longer opened",
    "earlier": "opened earlier", "later": "opened later",
    "escalated": "newly escalated", "not_escalated": "no longer escalated",
    "escalated_earlier": "escalated earlier", "escalated_later": "escalated later", "typology": "with another typology",
    "flags": "with other flags", "reasons": "with other reasons only", "same": "unchanged",
}  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command()(whatif)


def parse_moment_option(text: str) -> int:
    """Parse the time of an option into UTC milliseconds. Raise BadParameter."""
    try:
        return parse_time(text)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(f"{text!r} is not a time. Write 2026-01-31, or 2026-01-31T12:00, in UTC") from error


def whatif(
    rules: Annotated[str, typer.Option(help="rule pack: a file, NAME, NAME@VERSION, or the start of its id")],
    first: Annotated[
        int | None,
        typer.Option(
            "--from", parser=parse_moment_option, metavar="TIME", help="first time of the payments to compare, UTC"
        ),
    ] = None,
    last: Annotated[
        int | None,
        typer.Option(
            "--to", parser=parse_moment_option, metavar="TIME", help="end of the payments to compare (exclusive), UTC"
        ),
    ] = None,
    source: Annotated[str, typer.Option(help="source of the history: kafka or s3")] = "kafka",
    minutes: Annotated[
        int, typer.Option("--minutes-per-case", min=0, max=10_000, help="minutes of an analyst's work per case")
    ] = MINUTES_PER_CASE,
    html: Annotated[Path | None, typer.Option(help="file to write a self-contained HTML report to")] = None,
    out: Annotated[Path | None, typer.Option(help="file to write the JSON report to, with every changed case")] = None,
    actor: Annotated[str, typer.Option(help="name recorded with the run")] = "command line",
    as_json: AsJson = False,
) -> None:
    """Replay history under other rules and report the differences in cases, alerts, money, frauds and hours."""
    if source not in ("kafka", "s3"):
        raise typer.BadParameter(f"{source!r} is not a source. Sources: kafka, s3", param_hint="--source")
    if first is not None and last is not None and first >= last:
        raise typer.BadParameter("--from must be before --to")
    settings = read_settings()
    where: Source = "s3" if source == "s3" else "kafka"
    request = WhatifRequest(where, WhatifPeriod(first, last), minutes)
    with errors_as_messages():
        pack = pack_of(settings, rules)
        found = _run(settings, pack, request, actor)
    _write(found, html, out)
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        show(found)


def pack_of(settings: Settings, reference: str) -> RulePack:
    """Return the pack from a file, the control store or the shipped packs. End the command if there is none."""
    try:
        if not Path(reference).is_file():
            try:
                return parse_pack(control_store(settings).pack(reference).document)
            except (RulePackActionError, SQLAlchemyError):
                pass  # not a drafted pack; perhaps a shipped one
        return load_pack(reference)
    except BadRulePack as error:
        drafted = "" if Path(reference).is_file() else ", or a drafted pack (fraudcase rules list)"
        raise fail(f"{error}{drafted}") from error


def _run(settings: Settings, pack: RulePack, request: WhatifRequest, actor: str) -> dict[str, Any]:
    """Run the what-if and keep it in the control store for approvals. Without a store, return the result only."""
    work = partial(run, kafka_logs(settings), archive_source(settings))
    try:
        with _progress() as report_progress:
            runs = _begin_run(settings, pack, request, actor)
            if runs is None:
                return work(pack, request, report_progress)
            return carry_out(*runs, work, report_progress)
    except OUTAGE_ERRORS as error:
        raise fail(f"{error}. Cure: check fraudcase status; or read the archive with --source s3") from error
    except SchemaRegistryError as error:
        raise fail(f"the schema registry failed: {error}. Cure: check fraudcase status, or use --source s3") from error


def _begin_run(settings: Settings, pack: RulePack, request: WhatifRequest, actor: str) -> tuple[WhatifRuns, str] | None:
    runs = WhatifRuns(control_database(settings), now_ms)
    try:
        return runs, runs.begin(pack, request, actor)
    except SQLAlchemyError:
        messages.print(
            "the control store cannot be reached, so this run is not kept. Cure: fraudcase control upgrade",
            highlight=False,
        )
        return None


@contextmanager
def _progress() -> Iterator[Progress]:
    """Yield a function that shows progress. The bar starts with its first call, which brings the number of records."""
    with ExitStack() as stack:
        bars: list[Callable[[int], None]] = []

        def report_progress(done: int, total: int) -> None:
            if not bars:
                bars.append(stack.enter_context(progress("records replayed by both packs", total)))
            bars[0](done)

        yield report_progress


def _write(found: dict[str, Any], html: Path | None, out: Path | None) -> None:
    try:
        if out is not None:
            out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        if html is not None:
            from console.display.whatif_report import report  # templates are slow to import, and rarely wanted

            html.write_text(report(found), encoding="utf-8")
    except OSError as error:
        raise fail(f"{error.filename}: {error.strerror}") from error


# -- for people -----------------------------------------------------------------------------------------------


def show(found: dict[str, Any]) -> None:
    """Print the result as tables."""
    out = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    rules = found["rules"]
    known = ", ".join(f"{each['name']}@{each['version']}" for each in found["baseline_rules"]) or "nothing"
    out.print(f"[b]{escape(rules['name'])}@{rules['version']}[/] instead of {escape(known)}, {period_text(found)}",
              highlight=False)  # fmt: skip
    out.print(
        f"{counted(found['payments'], 'payment')}; analysts' commands are left out on both sides", highlight=False
    )
    out.print(_figures(found))
    out.print(_changes(found["cases"]))
    if found["changed"]:
        out.print(_cases(found["changed"][:SHOWN]))
    if len(found["changed"]) > SHOWN:
        out.print(f"and {len(found['changed']) - SHOWN:,} more: --html or --out", highlight=False)
    for problem in found["problems"][:SHOWN]:
        messages.print(problem, highlight=False)


def _figures(found: dict[str, Any]) -> Table:
    table = Table("", "recorded rules", "new rules", "difference", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    fraud = found["fraud"]
    rows = {
        "cases": found["cases"], "escalated": found["cases"]["escalations"], "alerts": found["alerts"],
        "alerts per day": found["alerts"]["per_day"], "analyst hours": found["analyst_hours"],
    }  # fmt: skip
    if fraud["known"]:
        rows[f"frauds caught, of {fraud['known']:,}"] = fraud["caught"]
    for name, each in rows.items():
        table.add_row(name, f"{each['baseline']:,}", f"{each['new']:,}", f"{each['difference']:+,}")
    for title, amounts in (("flagged", found["money_minor"]), ("fraud caught", fraud["caught_minor"])):
        for currency, each in amounts.items():
            change = ("+" if each["difference"] > 0 else "") + money(each["difference"], currency)
            table.add_row(title, money(each["baseline"], currency), money(each["new"], currency), change)
    return table


def _changes(cases: dict[str, Any]) -> Table:
    table = Table("cases", "", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for name, words in LABELS.items():
        if cases[name]:
            table.add_row(words, f"{cases[name]:,}")
    return table


def _cases(changed: list[dict[str, Any]]) -> Table:
    table = Table("case", "account", "typology", "change", "opened", "first differing event", box=None, pad_edge=False)
    for each in changed:
        one = each["baseline"] or each["new"]
        first = each["first_difference"]
        kinds = [first[side]["kind"] if first[side] else "-" for side in ("baseline", "new")]
        table.add_row(
            one["case_id"][:8], escape(each["account_id"]), each["typology"], ", ".join(each["changes"]),
            iso_time(one["opened_at_ms"]).removesuffix("+00:00"), f"{first['position']}: {kinds[0]} / {kinds[1]}",
        )  # fmt: skip
    return table
