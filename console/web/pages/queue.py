"""The page of the queue: its filters and order are in the URL, so that a link reproduces them."""

import asyncio
import json
import uuid
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlencode

from fastapi import FastAPI, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from console.cases.act_catalog import ACTS, AnalystAct
from console.cases.board import FREE_STATUSES, PAGE_SIZE, SORT_LABELS, CaseBoard, PageCursor, QueueFilter, SortOrder
from console.web.act_bodies import BODIES
from console.web.api.cases import current_view
from console.web.api.commands import MAX_BULK, MAX_TAKE_ATTEMPTS
from console.web.api.queue import cursor_of, place_of
from console.web.command_handling import act_on
from console.web.inputs import Cursor, PersonFilter, RequestBody, ScoreBound, Token, Word
from console.web.pages.parts import offered_choices
from console.web.pages.rendering import page
from console.web.problems import Problem
from console.web.services import board_of, services_of
from domain.cases.answers import MAX_REASON_CHARS
from domain.cases.status import OPEN_STATUSES, STATUSES, CaseStatus
from domain.currencies import DECIMALS
from domain.durations import HOUR_MS
from projections.views.case_view import CaseView

FILTER_ERROR: Final = "A filter has a value that is not allowed: correct it, or clear the filters."
NOTHING_TO_TAKE: Final = "No case is left that nobody works on and that matches the filters."
MAX_LOOKED_AT: Final = 5_000
"""Maximum number of cases that one page reads to filter by account or value, which the board cannot do."""
BULK_ACTS: Final = {act.name: act for act in ACTS.values() if act.bulk_label}
"""Acts that the queue offers for many cases at once."""
BulkActName: Any = Literal[tuple(BULK_ACTS)]


class QueueFilterForm(BaseModel):
    """Filters of the queue, as its form sends them. An empty field does not narrow the queue."""

    model_config = ConfigDict(extra="ignore")

    status: Annotated[list[CaseStatus], Field(max_length=len(STATUSES))] = []
    typology: Word | Literal[""] = ""
    assignee: PersonFilter = ""
    """A name, "-" for nobody, "" for anybody."""
    escalated: Literal["", "yes", "no"] = ""
    score_from: ScoreBound | Literal[""] = ""
    value_from: Annotated[float, Field(ge=0, le=1e12)] | Literal[""] = ""
    """Minimum value in major units of one currency."""
    age_h: Annotated[int, Field(ge=0, le=100_000)] | Literal[""] = ""
    """Minimum age in hours."""
    due_h: Annotated[int, Field(ge=0, le=100_000)] | Literal[""] = ""
    """Maximum time to the deadline, in hours."""
    account: Token | Literal[""] = ""
    sort: SortOrder = "-score"
    cursor: Cursor = ""

    def wanted(self, now_ms: int) -> QueueFilter:
        """Return the filter in the form that the board takes."""
        return QueueFilter(
            statuses=tuple(self.status) or OPEN_STATUSES,
            typologies=(self.typology,) if self.typology else (),
            assignee=None if not self.assignee else self.assignee.removeprefix("-"),
            is_escalated={"": None, "yes": True, "no": False}[self.escalated],
            score_from=None if self.score_from == "" else self.score_from,
            opened_until_ms=None if self.age_h == "" else now_ms - self.age_h * HOUR_MS,
            due_until_ms=None if self.due_h == "" else now_ms + self.due_h * HOUR_MS,
            sort=self.sort,
        )

    def fits(self, view: CaseView) -> bool:
        """Check the conditions that the board does not filter by."""
        if self.account and view.account_id != self.account:
            return False
        if self.value_from == "":
            return True
        least = self.value_from
        return any(value >= least * 10 ** DECIMALS.get(unit, 2) for unit, value in view.value_minor.items())

    @property
    def is_narrow(self) -> bool:
        """Return True if a condition requires a look at every case."""
        return bool(self.account) or self.value_from != ""

    def query(self, **changed: Any) -> str:
        """Return the filter as the query of a URL."""
        fields = {**self.model_dump(), "cursor": "", **changed}
        return urlencode(
            [(name, one) for name, value in fields.items() for one in (value if isinstance(value, list) else [value])
             if one != "" and not (name == "sort" and one == "-score")]
        )  # fmt: skip


class QueueResult(BaseModel):
    """A page of the queue."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    cases: list[Any]
    total: int
    is_exact: bool
    next: str


class BulkForm(RequestBody):
    """A form that applies one act to many cases."""

    slug: BulkActName
    case: Annotated[list[str], Field(min_length=1, max_length=MAX_BULK)]
    """Case ids with the version that was seen, such as ID@7."""
    reason: Annotated[str, Field(max_length=MAX_REASON_CHARS)] = ""
    assignee: PersonFilter = ""
    hours: Annotated[int, Field(ge=1, le=1_000)] = 4


def register(app: FastAPI) -> None:
    """Add these routes."""
    app.get("/queue", include_in_schema=False)(queue_page)
    app.post("/queue/take-next", include_in_schema=False)(take_next)
    app.post("/queue/bulk", include_in_schema=False)(bulk)


async def queue_page(request: Request, asking: Annotated[QueueFilterForm, Query()]) -> Response:
    """Show the cases that match the filter."""
    board = board_of(request)
    names, known = await offered_choices(request)
    now_ms = services_of(request).now_ms()
    found = find(board, asking, now_ms)
    return page(
        request, "queue.html", asking=asking, found=found, counts=board.counts(), analysts=names, typologies=known,
        sorts=SORT_LABELS, bulk_acts=BULK_ACTS.values(),
    )  # fmt: skip


def find(board: CaseBoard, asking: QueueFilterForm, now_ms: int) -> QueueResult:
    """Find one page of matching cases."""
    place = place_of(asking.cursor, asking.sort) if asking.cursor else None
    wanted = asking.wanted(now_ms)
    if not asking.is_narrow:
        got = board.page(wanted, PAGE_SIZE, place)
        cases = board.views(got.case_ids)
        after = cursor_of(got.after, asking.sort) if got.after else ""
        return QueueResult(cases=cases, total=got.total, is_exact=True, next=after)
    return _look_through(board, asking, wanted, place)


def _look_through(
    board: CaseBoard, asking: QueueFilterForm, wanted: QueueFilter, place: PageCursor | None
) -> QueueResult:
    cases: list[CaseView] = []
    looked_at, is_end = 0, False
    while len(cases) < PAGE_SIZE and looked_at < MAX_LOOKED_AT and not is_end:
        got = board.page(wanted, 500, place)
        views = board.views(got.case_ids)
        cases += [view for view in views if asking.fits(view)]
        looked_at, place, is_end = looked_at + len(got.rows), got.after, got.after is None
    after = "" if place is None else cursor_of(place, asking.sort)
    return QueueResult(cases=cases, total=len(cases), is_exact=is_end, next=after)


async def take_next(request: Request) -> Response:
    """Take the first case of these that nobody works on, and go there."""
    board, act, form = board_of(request), ACTS["take"], await request.form()
    fields = {name: str(value) for name, value in form.items() if name != "status"}
    try:
        asking = QueueFilterForm.model_validate({**fields, "status": [str(each) for each in form.getlist("status")]})
    except ValidationError:
        return page(
            request,
            "_not_done.html",
            case=None,
            why=FILTER_ERROR,
        )
    wanted = asking.wanted(services_of(request).now_ms())
    free = QueueFilter(**{name: getattr(wanted, name) for name in QueueFilter.__dataclass_fields__}
                  | {"statuses": FREE_STATUSES, "assignee": ""})  # fmt: skip
    for view in _first_matches(board, free, asking):
        answer = await act_on(request, view, act, BODIES[act.name](), view.sequence, str(uuid.uuid4()), False)
        if answer.status == 200:
            return Response(status_code=200, headers={"HX-Redirect": f"/cases/{view.case_id}"})
    return page(request, "_not_done.html", case=None, why=NOTHING_TO_TAKE)


def _first_matches(board: CaseBoard, wanted: QueueFilter, asking: QueueFilterForm) -> list[CaseView]:
    found = board.page(wanted, 500 if asking.is_narrow else MAX_TAKE_ATTEMPTS).case_ids
    return [view for view in board.views(found) if asking.fits(view)][:MAX_TAKE_ATTEMPTS]


async def bulk(request: Request) -> Response:
    """Apply one act to many cases; each gets its own answer."""
    form = await request.form()
    fields = {name: str(form[name]) for name in ("slug", "reason", "assignee", "hours") if form.get(name)}
    try:
        asked = BulkForm.model_validate({**fields, "case": [str(each) for each in form.getlist("case")]})
        act, body = _bulk_body(asked, services_of(request).now_ms())
    except ValidationError as error:
        first = error.errors()[0]
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"
        return page(request, "_not_done.html", case=None, why=why)
    outcomes = await asyncio.gather(*(_run_on_case(request, act, body, each) for each in asked.case))
    response = page(request, "_bulk.html", outcomes=outcomes, label=act.bulk_label)
    response.headers["HX-Trigger"] = "acted"
    return response


def _bulk_body(asked: BulkForm, now_ms: int) -> tuple[AnalystAct, RequestBody]:
    act = BULK_ACTS[asked.slug]
    fields = {"reason": asked.reason, "assignee": asked.assignee, "until_ms": now_ms + asked.hours * HOUR_MS}
    return act, BODIES[act.name].model_validate({name: fields[name] for name in act.fields})


async def _run_on_case(request: Request, act: AnalystAct, body: RequestBody, chosen: str) -> dict[str, Any]:
    case_id, _, seen = chosen.partition("@")
    try:
        view = await current_view(request, case_id)
        answer = await act_on(request, view, act, body, int(seen), str(uuid.uuid4()), False)
    except Problem as problem:
        return {"case_id": case_id, "is_done": False, "why": problem.detail}
    except ValueError:
        return {"case_id": case_id, "is_done": False, "why": "this version is not a number"}
    said = json.loads(answer.body)
    return {"case_id": case_id, "is_done": answer.status == 200, "why": said.get("detail", "")}
