"""`fraudcase case list`, `show`, `act`, `close`, `escalate`.

A command is written to the log; the case job's answer is found by the command's id.
"""

import json
import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from console.cases.act_catalog import AnalystAct
from console.cases.acts import BadAct, make_command
from console.cases.board_row import is_done
from console.cases.desk import AnswerTimeout, CaseDesk, CommandNotSent
from console.cli.act_commands import CaseId, parse_fields, register_acts
from console.cli.options import AsJson, parse_instant, read_settings
from console.cli.output import errors_as_messages, fail, report
from console.times import iso_time
from console.wiring import case_table, kafka_logs, vault
from domain.cases.commands import Command
from domain.cases.events import CaseClosed, CaseEvent, CommandRejected
from domain.cases.status import STATUSES
from domain.record_types import to_fields
from infra.settings import Settings
from projections.views.case_history import case_as_of, is_visible_at, known_events
from projections.views.case_view import CaseView, Item, view_of

SORTS = ("sequence", "event-time", "known")
AsOf = Annotated[
    str | None,
    typer.Option("--as-of", help="show what had happened by this time: 2026-01-31T12:00:00Z, or UTC milliseconds"),
]
KnownAt = Annotated[
    str | None, typer.Option("--known-at", help="show what the log had recorded by this time, written as for --as-of")
]


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    case = typer.Typer(no_args_is_help=True, help="List fraud cases, show them and act on them.")
    case.command("list")(list_cases)
    case.command()(show)
    register_acts(case, _run_act)
    app.add_typer(case, name="case")


def list_cases(
    status: Annotated[
        str | None,
        typer.Option(help=f"status of the cases: {', '.join(STATUSES)}, or active for all open cases"),
    ] = None,
    assignee: Annotated[str | None, typer.Option(help="person to whom the cases are assigned")] = None,
    account: Annotated[str | None, typer.Option(help="account of the cases")] = None,
    limit: Annotated[int, typer.Option(help="maximum number of cases to list")] = 50,
    as_of_time: AsOf = None,
    known_at: KnownAt = None,
    as_json: AsJson = False,
) -> None:
    """List cases, highest score first. With --as-of or --known-at, list them as they were; this reads every event."""
    items = case_table(read_settings()).scan()
    if as_of_time is None and known_at is None:
        views = [view_of(item) for item in items if item["sk"] == "view"]
    else:
        views = _views_as_of(items, parse_instant(as_of_time), parse_instant(known_at))
    chosen = [
        view
        for view in views
        if (status in (None, view.status) or (status == "active" and not is_done(view)))
        and assignee in (None, view.assignee)
        and account in (None, view.account_id)
    ]
    chosen.sort(key=lambda view: (-view.score_max, view.opened_at_ms, view.case_id))
    lines = [_line(view) for view in chosen[:limit]]
    if as_json:
        sys.stdout.write(json.dumps(lines, indent=2) + "\n")
        return
    table = Table(*_HEADS, box=None, pad_edge=False)
    for line in lines:
        table.add_row(*("" if value is None else str(value) for value in line.values()))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 200, highlight=False).print(table)


def _views_as_of(items: Iterable[Item], at_ms: int | None, known_at_ms: int | None) -> list[CaseView]:
    by_case: dict[str, list[Item]] = {}
    for item in items:
        if item["sk"].startswith("event#"):
            by_case.setdefault(item["pk"], []).append(item)
    in_order = (sorted(each, key=lambda item: str(item["sk"])) for each in by_case.values())
    found = (case_as_of(known_events(each), at_ms, known_at_ms) for each in in_order)
    return [view for view in found if view is not None]


_HEADS = ("case_id", "status", "score", "flags", "typology", "account_id", "sequence", "assignee")


def _line(view: CaseView) -> dict[str, object]:
    values = (
        view.case_id, view.disposition or view.status, view.score_max, view.flags, view.typology, view.account_id,
        view.sequence, view.assignee,
    )  # fmt: skip
    return dict(zip(_HEADS, values, strict=True))


def show(
    case_id: CaseId,
    as_of_time: AsOf = None,
    known_at: KnownAt = None,
    sort: Annotated[str, typer.Option(help=f"order of the timeline: {', '.join(SORTS)}")] = "sequence",
    as_json: AsJson = False,
) -> None:
    """Show a case with its timeline: the current state, or the state at one time as known at another."""
    if sort not in SORTS:
        raise fail(f"--sort: {sort} is not an order. Orders: {', '.join(SORTS)}")
    settings, at_ms, known_ms = read_settings(), parse_instant(as_of_time), parse_instant(known_at)
    items = case_table(settings).items_of(case_id)
    if at_ms is None and known_ms is None:
        view = _view(settings, case_id)
    else:
        found = case_as_of(known_events(items), at_ms, known_ms)
        if found is None:
            raise fail(f"case {case_id} did not exist or was not known at that time")
        view = found
        items = [item for item in items if is_visible_at(item, at_ms, known_ms)]
    fields = {name: getattr(view, name) for name in CaseView.__slots__}
    document = {name: value for name, value in fields.items() if value is not None}
    timeline = [_entry(item) for item in _sort_items(items, sort)]
    document, timeline = _unseal_texts(settings, [document, timeline])
    if as_json:
        sys.stdout.write(json.dumps({**document, "timeline": timeline}, indent=2) + "\n")
        return
    report(document, as_json=False)
    for event in timeline:
        times = (iso_time(event[name]) if name in event else "?" for name in ("happened_at_ms", "known_at_ms"))
        sys.stdout.write(f"{event.get('sequence', ''):>4}  {'  '.join(times)}  {event['type']}\n")


def _entry(item: Item) -> dict[str, Any]:
    times = {name: item[name] for name in ("happened_at_ms", "known_at_ms") if name in item}
    return {**json.loads(item["body"]), **times}


def _sort_items(items: Iterable[Item], sort: str) -> list[Item]:
    timeline = [item for item in items if item["sk"] != "view"]
    if sort == "sequence":
        return timeline
    name = "known_at_ms" if sort == "known" else "happened_at_ms"
    return sorted(timeline, key=lambda item: int(item.get(name, 0)))


def _run_act(
    act: AnalystAct, case_id: str, actor: str, values: dict[str, str | None], seen: int | None, as_json: bool
) -> None:
    settings = read_settings()
    view = _view(settings, case_id)
    fields = parse_fields(values, lambda other: _view(settings, other).account_id)
    try:
        sequence = view.sequence if seen is None else seen
        command = make_command(act.name, view.account_id, case_id, actor, sequence, fields)
    except BadAct as error:
        raise fail(str(error)) from error
    answer = ask(settings, command)
    report(_unseal_texts(settings, _answer_fields(answer)), as_json=as_json)
    if isinstance(answer, CommandRejected):
        missed = "".join(f"\n  {event.sequence:>4}  {event.kind}" for event in answer.missed)
        raise fail(f"rejected: {vault(settings).opened(answer.reason)}{missed}")


def _unseal_texts(settings: Settings, document: Any) -> Any:
    """Decrypt the sealed texts of a document."""
    return json.loads(vault(settings).opened_json(json.dumps(document)))


def _answer_fields(answer: CaseEvent) -> dict[str, Any]:
    fields = to_fields(answer)
    if isinstance(answer, CaseClosed):
        fields["payments"] = len(answer.payments)
    return {"answer": type(answer).__name__, **fields}


def _view(settings: Settings, case_id: str) -> CaseView:
    view = case_table(settings).view(case_id)
    if view is None:
        raise fail(f"there is no case {case_id}. List the cases with: fraudcase case list")
    return view


def ask(settings: Settings, command: Command) -> CaseEvent:
    """Write a command to the log and wait for its answer. End the program with a message if none arrives."""
    with errors_as_messages():
        try:
            with CaseDesk(kafka_logs(settings), vault(settings)) as desk:
                return desk.ask(command)
        except (AnswerTimeout, CommandNotSent) as error:
            raise fail(str(error)) from error
