"""The page of a case, now or as of a time as it was known at another, and the routes of its acts."""

import json
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import FastAPI, Request, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile

from console.cases.act_catalog import ACTS, AnalystAct
from console.cases.attachments import MAX_BYTES, TYPES, UnacceptableFile
from console.cases.board import CaseBoard
from console.cases.board_row import entities_of
from console.cases.seen_payment import SeenPayment
from console.cases.timelines import TimelineOrder, has_events_up_to
from console.web.act_bodies import BODIES
from console.web.api.cases import current_view
from console.web.command_handling import act_on, parse_sequence
from console.web.guard import MAX_BODY
from console.web.inputs import CaseId, RequestBody, TimeMs
from console.web.pages.case_actions import actions_for, confirmation_of, undo_of
from console.web.pages.case_evidence import CaseFlag, build_evidence, count_merged_flags, flags_of, unknown_payments
from console.web.pages.parts import offered_choices, page_services_of
from console.web.pages.rendering import page
from console.web.pages.shortcuts import act_shortcuts
from console.web.pages.timeline import notes, timeline
from console.web.problems import Problem
from console.web.services import board_of, person_of, services_of
from domain.cases.answers import MAX_NOTE_ATTACHMENTS
from domain.cases.events import DISPOSITIONS, SequencedCaseEvent
from domain.durations import HOUR_MS
from projections.logs.known import KnownEvent
from projections.views.case_history import case_as_of, events_known_at, is_visible_at, known_events
from projections.views.case_view import CaseView, Item, event_place

BRIEF, WHOLE = (40, 6), (1_000, 100)
"""Maximum number of timeline entries and of explained flags: in the brief page, and in the whole page."""
MAX_RELATED, MAX_OF_ACCOUNT = 4, 8
"""Maximum number of related cases for one shared entity, and of the same account."""
BEHIND_S: Final = 1.0
"""Longest wait of a page until the table has caught up with the board, in seconds."""
_STEP_S: Final = 0.03
MAX_UPLOAD: Final = MAX_NOTE_ATTACHMENTS * MAX_BYTES // 2
"""Maximum size of a form with files, in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CasePageQuery:
    """The moment that a page shows (None is now), the order of the timeline, and whether all of it is shown."""

    as_of_ms: int | None
    known_at_ms: int | None
    by: TimelineOrder
    whole: bool

    @property
    def is_now(self) -> bool:
        """Return True if the page shows the present state."""
        return self.as_of_ms is None and self.known_at_ms is None

    def query(self, **changed: str) -> str:
        """Return the query of a URL, with some fields changed."""
        whole = "true" if self.whole else None
        said = {"as_of_ms": self.as_of_ms, "known_at_ms": self.known_at_ms, "by": self.by, "whole": whole, **changed}
        return urlencode({name: value for name, value in said.items() if value is not None})


@dataclass(frozen=True, slots=True, kw_only=True)
class RelatedCases:
    """An entity that cases share, and some of those cases."""

    kind: str
    value: str
    cases: list[CaseView]
    more: int


def register(app: FastAPI) -> None:
    """Add these routes."""
    app.get("/cases/{case_id}", include_in_schema=False)(case_page)
    for act in ACTS.values():
        size = MAX_UPLOAD if "attachments" in act.fields else MAX_BODY
        app.post(f"/cases/{{case_id}}/{act.name}", include_in_schema=False, max_body_size=size)(_endpoint(act))


# -- reading --------------------------------------------------------------------------------------------


async def case_page(
    request: Request,
    case_id: CaseId,
    as_of_ms: TimeMs | None = None,
    known_at_ms: TimeMs | None = None,
    by: TimelineOrder = "known",
    past: bool = False,
    whole: bool = False,
) -> Response:
    """Show a case with its evidence."""
    now = await current_view(request, case_id)
    then = CasePageQuery(as_of_ms=as_of_ms, known_at_ms=known_at_ms, by=by, whole=whole)
    items = await _items(request, now)
    kept = [item for item in items if is_visible_at(item, as_of_ms, known_at_ms)]
    known = known_events(items)
    events = _events(known, kept, known_at_ms)
    flags = flags_of(events)
    context = {
        "case": now if then.is_now else case_as_of(known, as_of_ms, known_at_ms),
        "now": now,
        "then": then,
        "past": past,
        "evidence": build_evidence(flags, await _counted_payments(request, now, flags, kept, past)),
        "merged_in": count_merged_flags(events),
        "stops": _stops(items),
        **_timeline_context(kept, then),
        **await _choices_context(request, now, then),
    }
    return page(request, "case.html", **context)


def _events(known: Sequence[KnownEvent], kept: Sequence[Item], known_at_ms: int | None) -> list[SequencedCaseEvent]:
    places = {item["sk"] for item in kept}
    return [event for event in events_known_at(known, known_at_ms) if event_place(event.sequence) in places]


def _timeline_context(kept: Sequence[Item], then: CasePageQuery) -> dict[str, Any]:
    most, flags = WHOLE if then.whole else BRIEF
    return {
        "entries": timeline(kept, then.by, most),
        "entries_total": len(kept),
        "notes": notes(kept, then.by),
        "most_flags": flags,
    }


async def _choices_context(request: Request, now: CaseView, then: CasePageQuery) -> dict[str, Any]:
    board, (people, known_typologies) = board_of(request), await offered_choices(request)
    return {
        "people": people,
        "typologies": known_typologies,
        "actions": actions_for(now, person_of(request)) if then.is_now else [],
        "dialogs": [act for act in ACTS.values() if act.controls],
        "act_keys": act_shortcuts(),
        "related": related(board, now),
        "account_cases": _others_of_account(board, now),
        "dispositions": DISPOSITIONS,
        "file_types": ",".join(TYPES),
    }


async def _counted_payments(
    request: Request, now: CaseView, flags: Sequence[CaseFlag], items: Sequence[Item], past: bool
) -> dict[str, SeenPayment]:
    """Return the payments counted by the flags' reasons that are in memory or, for a past page, in the archive."""
    wanted = unknown_payments(flags, {})
    return await run_in_threadpool(_look_up_payments, request, now, wanted, items, past) if wanted else {}


def _look_up_payments(
    request: Request, now: CaseView, wanted: Sequence[str], items: Sequence[Item], past: bool
) -> dict[str, SeenPayment]:
    parts = page_services_of(request)
    found = parts.figures.payments(now.account_id, wanted)
    missing = [name for name in wanted if name not in found]
    if missing and past:
        known_ms = max(item["known_at_ms"] for item in items if item.get("known_at_ms"))
        return {**found, **parts.past.look_up(now.account_id, missing, known_ms)}
    return {**found, **parts.past.known(now.account_id, missing)}


async def _items(request: Request, now: CaseView) -> list[Item]:
    """Return the items of the case up to the version that the board shows."""
    kept = services_of(request).timelines.kept_items(now.case_id, now.sequence)
    return await run_in_threadpool(_read, request, now) if kept is None else kept


def _read(request: Request, now: CaseView) -> list[Item]:
    """Read the items of the case from the table, which a view worker may not have brought up to date."""
    timelines, parts = services_of(request).timelines, page_services_of(request)
    items = timelines.read_items(now.case_id)
    for _ in range(int(BEHIND_S / _STEP_S)):
        if has_events_up_to(items, now.sequence):
            break
        parts.wait(_STEP_S)
        items = timelines.read_items(now.case_id)
    return items


def _stops(items: list[Item]) -> dict[str, list[int]]:
    """Return the moments at which events happened and became known: the stops of the sliders."""
    return {
        name: sorted({item[name] for item in items if item.get(name)}) for name in ("happened_at_ms", "known_at_ms")
    }


def related(board: CaseBoard, view: CaseView) -> list[RelatedCases]:
    """Return the entities that the case shares with others, rarest first: an entity that many share says little."""
    found = []
    for kind, value in entities_of(view):
        others = [case_id for case_id in board.of_entity(kind, value) if case_id != view.case_id]
        if others:
            cases = board.views(others[:MAX_RELATED])
            found.append(RelatedCases(kind=kind, value=value, cases=cases, more=len(others) - len(cases)))
    return sorted(found, key=lambda shared: (len(shared.cases) + shared.more, shared.kind, shared.value))


def _others_of_account(board: CaseBoard, view: CaseView) -> list[CaseView]:
    others = [case_id for case_id in board.of_account(view.account_id)[::-1] if case_id != view.case_id]
    return board.views(others[:MAX_OF_ACCOUNT])


# -- acting ---------------------------------------------------------------------------------------------


def _endpoint(act: AnalystAct) -> Callable[[Request, CaseId], Awaitable[Response]]:
    async def handle(request: Request, case_id: CaseId) -> Response:
        view = await current_view(request, case_id)
        form = await request.form()
        try:
            body = await _body(request, act, view, form)
            answer = await act_on(request, view, act, body, _seen_sequence(form), str(uuid.uuid4()), False)
        except (ValidationError, Problem, UnacceptableFile) as error:
            return page(request, "_not_done.html", case=view, why=_error_text(error))
        said = json.loads(answer.body)
        if answer.status != 200:
            return page(request, "_conflict.html", case=view, command=act.name, refused=said)
        response = page(
            request, "_done.html", case=view, said=confirmation_of(said["answer"]), undo=undo_of(said),
            sequence=said["sequence"],
        )  # fmt: skip
        seen = {"case": view.case_id, "sequence": said["sequence"]}
        response.headers["HX-Trigger"] = json.dumps({"acted": seen})
        return response

    handle.__name__ = f"act_{act.name.replace('-', '_')}"
    return handle


def _error_text(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg'].lower()}"
    return error.detail if isinstance(error, Problem) else str(error)


def _seen_sequence(form: FormData) -> int:
    sequence = parse_sequence(str(form.get("seen_sequence", "")))
    if sequence is None:
        raise Problem(428, "the page did not say which version of the case it showed: load it again")
    return sequence


async def _body(request: Request, act: AnalystAct, view: CaseView, form: FormData) -> RequestBody:
    """Return the body of an act from the form of its dialog. Raise ValidationError, Problem, UnacceptableFile."""
    fields: dict[str, Any] = {}
    for name in act.fields:
        if name == "attachments":
            fields[name] = await _store_files(request, view, form)
        elif name == "until_ms":
            fields[name] = services_of(request).now_ms() + _snooze_hours(form) * HOUR_MS
        elif name in ("into_case_id", "other_case_id"):
            account_id, case_id = await _find_other_case(request, view, str(form.get("other", "")).strip())
            fields |= {name: case_id, name.replace("case", "account"): account_id}
        elif form.get(name) and not (name == "typology" and form[name] == view.typology):
            fields[name] = str(form[name])
    return BODIES[act.name].model_validate(fields)


def _snooze_hours(form: FormData) -> int:
    hours = str(form.get("hours", ""))
    return int(hours) if hours.isdigit() and len(hours) <= 4 else 1


async def _find_other_case(request: Request, view: CaseView, text: str) -> tuple[str, str]:
    """Return the account and id of the other case; of a linked case both are in this case's links."""
    for link in view.links:
        if link["case_id"] == text:
            return link["account_id"], text
    try:
        other = await current_view(request, str(uuid.UUID(text)))
    except ValueError as error:
        raise Problem(422, "this is not the id of a case") from error
    return other.account_id, other.case_id


async def _store_files(request: Request, view: CaseView, form: FormData) -> list[str]:
    """Store the files of a form and return their digests."""
    digests = []
    for value in form.getlist("files"):
        if isinstance(value, UploadFile) and value.filename:
            body = await value.read(MAX_BYTES + 1)
            stored = await run_in_threadpool(
                services_of(request).attachments.store, view.case_id, view.account_id, value.filename, body
            )
            digests.append(stored.sha256)
    return digests
