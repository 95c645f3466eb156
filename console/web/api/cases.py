"""One case: as it is, as it was as of a time, as it was known at another, and all that happened to it."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import FastAPI, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool

from console.cases.board_row import is_done
from console.cases.timelines import TimelineOrder, sorted_texts
from console.web.command_handling import etag_of
from console.web.inputs import CaseId
from console.web.problems import PROBLEMS, Problem
from console.web.services import ConsoleServices, board_of, services_of
from domain.payment import LAST_EVENT_TIME_MS
from projections.views.case_history import case_as_of, known_events
from projections.views.case_view import CaseView

MAX_PAGE = 1_000
Time = Annotated[int | None, Query(ge=0, le=LAST_EVENT_TIME_MS)]


class CaseDocument(BaseModel):
    """A case; amounts in minor units by currency, times in UTC milliseconds."""

    model_config = ConfigDict(extra="allow")

    case_id: str
    account_id: str
    typology: str
    status: str
    sequence: int
    is_done: bool


class TimelineEvent(BaseModel):
    """Something that happened to a case, or an answer to a command that was refused (without a sequence)."""

    sequence: int | None
    kind: str
    happened_at_ms: int | None
    """When it happened: a flag's time is its payment's."""
    known_at_ms: int | None
    """When the log knew it."""
    event: dict[str, Any]


class TimelinePage(BaseModel):
    """A page of what happened."""

    entries: list[TimelineEvent]
    total: int
    next: int | None
    """The `after` of the next page."""


def register(app: FastAPI) -> None:
    """Add these routes."""
    shared: dict[str, Any] = {"tags": ["cases"], "responses": PROBLEMS}
    app.get("/api/v1/cases/{case_id}", response_model=CaseDocument, **shared)(case)
    app.get("/api/v1/cases/{case_id}/timeline", response_model=TimelinePage, **shared)(timeline)


async def case(
    request: Request,
    case_id: CaseId,
    as_of_ms: Time = None,
    known_at_ms: Time = None,
    if_none_match: Annotated[str | None, Header(max_length=64)] = None,
) -> Response:
    """The case now, with its version as the ETag; or as of a time, as it was known at another, without one."""
    if as_of_ms is None and known_at_ms is None:
        view = await current_view(request, case_id)
        etag = etag_of(view.sequence)
        if if_none_match == etag:
            return Response(status_code=304, headers={"ETag": etag})
        return Response(json.dumps(case_document(view)), headers={"ETag": etag}, media_type="application/json")
    then = await past_view(services_of(request), case_id, as_of_ms, known_at_ms)
    if then is None:
        raise Problem(404, "this case did not exist then, as far as was known")
    return Response(json.dumps(case_document(then)), media_type="application/json")


async def timeline(
    request: Request,
    case_id: CaseId,
    order: TimelineOrder = "known",
    after: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 200,
) -> Response:
    """What happened to the case, in the order in which it was known or in which it happened."""
    now = await current_view(request, case_id)
    timelines = services_of(request).timelines
    found = timelines.kept(case_id, now.sequence)
    entries = sorted_texts(await run_in_threadpool(timelines.read, case_id) if found is None else found, order)
    page, total = entries[after : after + limit], len(entries)
    following = str(after + limit) if after + limit < total else "null"
    body = f'{{"entries":[{",".join(page)}],"total":{total},"next":{following}}}'
    return Response(body, media_type="application/json")


async def current_view(request: Request, case_id: str) -> CaseView:
    """The case as the log has it; from the table if it is too old for the board. Raises Problem."""
    view = board_of(request).view(case_id) or await run_in_threadpool(services_of(request).table.view, case_id)
    if view is None:
        raise Problem(404, "there is no such case")
    return view


async def past_view(
    doors: ConsoleServices, case_id: str, as_of_ms: int | None, known_at_ms: int | None
) -> CaseView | None:
    """The case as of a time, as it was known at another."""

    def read() -> CaseView | None:
        view = doors.board.view(case_id)
        items = doors.timelines.items(case_id, view.sequence if view else 0)
        return case_as_of(known_events(items), as_of_ms, known_at_ms)

    return await run_in_threadpool(read)


def case_document(view: CaseView) -> dict[str, Any]:
    """The case with all that its view holds."""
    return {**{name: getattr(view, name) for name in _NAMES}, "is_done": is_done(view)}


_NAMES: Sequence[str] = tuple(each.name for each in dataclasses.fields(CaseView))
