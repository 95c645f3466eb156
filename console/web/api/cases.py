"""API routes of one case: its current state, its state as of a time, and its timeline."""

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
from console.web.inputs import CaseId, TimeMs
from console.web.problems import PROBLEMS, Problem
from console.web.services import ConsoleServices, board_of, services_of
from projections.views.case_history import case_as_of, known_events
from projections.views.case_view import CaseView

MAX_ENTRIES = 1_000
"""Maximum number of timeline entries on a page."""


class CaseDocument(BaseModel):
    """A case. Amounts are in minor units by currency, times in UTC milliseconds."""

    model_config = ConfigDict(extra="allow")

    case_id: str
    account_id: str
    typology: str
    status: str
    sequence: int
    is_done: bool


class TimelineEvent(BaseModel):
    """One event of a case, or the rejection of a command, which has no sequence."""

    sequence: int | None
    kind: str
    happened_at_ms: int | None
    """Event time. A flag happened when its payment did."""
    known_at_ms: int | None
    """Time when the log got the event."""
    event: dict[str, Any]


class TimelinePage(BaseModel):
    """One page of a timeline."""

    entries: list[TimelineEvent]
    total: int
    next: int | None
    """Value of `after` for the next page; null on the last page."""


def register(app: FastAPI) -> None:
    """Add the routes of this module."""
    shared: dict[str, Any] = {"tags": ["cases"], "responses": PROBLEMS}
    app.get("/api/v1/cases/{case_id}", response_model=CaseDocument, **shared)(case)
    app.get("/api/v1/cases/{case_id}/timeline", response_model=TimelinePage, **shared)(timeline)


async def case(
    request: Request,
    case_id: CaseId,
    as_of_ms: TimeMs | None = None,
    known_at_ms: TimeMs | None = None,
    if_none_match: Annotated[str | None, Header(max_length=64)] = None,
) -> Response:
    """Return the case with its version as the ETag, or without an ETag as of a time, as it was known at another."""
    if as_of_ms is None and known_at_ms is None:
        view = await current_view(request, case_id)
        etag = etag_of(view.sequence)
        if if_none_match == etag:
            return Response(status_code=304, headers={"ETag": etag})
        return Response(json.dumps(case_document(view)), headers={"ETag": etag}, media_type="application/json")
    then = await past_view(services_of(request), case_id, as_of_ms, known_at_ms)
    if then is None:
        raise Problem(404, "this case did not exist at that time, or was not known then")
    return Response(json.dumps(case_document(then)), media_type="application/json")


async def timeline(
    request: Request,
    case_id: CaseId,
    order: TimelineOrder = "known",
    after: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_ENTRIES)] = 200,
) -> Response:
    """Return the events of the case, in the order in which they became known or in which they happened."""
    now = await current_view(request, case_id)
    timelines = services_of(request).timelines
    found = timelines.kept(case_id, now.sequence)
    entries = sorted_texts(await run_in_threadpool(timelines.read, case_id) if found is None else found, order)
    page, total = entries[after : after + limit], len(entries)
    following = str(after + limit) if after + limit < total else "null"
    body = f'{{"entries":[{",".join(page)}],"total":{total},"next":{following}}}'
    return Response(body, media_type="application/json")


async def current_view(request: Request, case_id: str) -> CaseView:
    """Return the view of a case from the board, or from the table if the board lacks it. Raise Problem."""
    view = board_of(request).view(case_id) or await run_in_threadpool(services_of(request).table.view, case_id)
    if view is None:
        raise Problem(404, "there is no such case")
    return view


async def past_view(
    services: ConsoleServices, case_id: str, as_of_ms: int | None, known_at_ms: int | None
) -> CaseView | None:
    """Return the case as of a time, as it was known at another, or None if it did not exist."""

    def read() -> CaseView | None:
        view = services.board.view(case_id)
        items = services.timelines.items(case_id, view.sequence if view else 0)
        return case_as_of(known_events(items), as_of_ms, known_at_ms)

    return await run_in_threadpool(read)


def case_document(view: CaseView) -> dict[str, Any]:
    """Return the case with every field of its view."""
    return {**{name: getattr(view, name) for name in _NAMES}, "is_done": is_done(view)}


_NAMES: Sequence[str] = tuple(each.name for each in dataclasses.fields(CaseView))
