"""API routes of the queue, of the search, and of the entities that cases share."""

import base64
import binascii
import json
from typing import Annotated, Any, Literal, TypeAlias

from fastapi import FastAPI, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from console.cases.board import MAX_SHARED, PAGE_SIZE, CaseBoard, PageCursor, QueueFilter, SortOrder
from console.cases.board_row import EntityKind, entities_of, row_of
from console.web.inputs import MAX_NAMES, MAX_PAGE, CaseId, Cursor, PersonFilter, ScoreBound, TimeMs, Token, Word
from console.web.problems import PROBLEMS, Problem
from console.web.services import board_of

SearchKey: TypeAlias = Literal["account", EntityKind, "transaction", "case"]
"""Kind of id that a search looks for."""


class QueueRow(BaseModel):
    """A case in a list. Amounts are in minor units by currency, times in UTC milliseconds."""

    model_config = ConfigDict(extra="allow")

    case_id: str
    account_id: str
    typology: str
    status: str
    sequence: int
    opened_at_ms: int
    last_event_ms: int
    escalated: bool
    flags: int
    score_max: int
    value_minor: dict[str, int]
    assignee: str | None = None
    due_at_ms: int | None = None
    disposition: str | None = None


class QueuePage(BaseModel):
    """One page of the queue."""

    cases: list[QueueRow]
    total: int
    """Number of matching cases on all pages."""
    next: str | None
    """Value of `cursor` for the next page; null on the last page."""


class StatusCounts(BaseModel):
    """Number of cases by status."""

    statuses: dict[str, int]


class CaseSearchResult(BaseModel):
    """Cases that a search found, newest first."""

    cases: list[QueueRow]
    is_complete: bool
    """False if there are more cases than are listed."""


class SharedEntity(BaseModel):
    """An entity that cases share, and some of those cases."""

    kind: str
    value: str
    cases: list[QueueRow]
    is_complete: bool


class CaseNeighbours(BaseModel):
    """Entities that a case shares with other cases."""

    shared: list[SharedEntity]


class QueueQuery(BaseModel):
    """Filters and sort order of the queue. A filter that is left out does not narrow it."""

    model_config = ConfigDict(extra="forbid")

    status: Annotated[list[Word], Field(max_length=MAX_NAMES, default_factory=list)]
    typology: Annotated[list[Word], Field(max_length=MAX_NAMES, default_factory=list)]
    disposition: Annotated[list[Word], Field(max_length=MAX_NAMES, default_factory=list)]
    assignee: PersonFilter | None = None
    """Name of the assignee; empty for cases without one."""
    escalated: bool | None = None
    score_from: ScoreBound | None = None
    opened_from_ms: TimeMs | None = None
    opened_until_ms: TimeMs | None = None
    due_until_ms: TimeMs | None = None
    sort: SortOrder = "-score"
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = PAGE_SIZE
    cursor: Cursor | None = None

    def wanted(self) -> QueueFilter:
        """Return the filter for the board."""
        return QueueFilter(
            statuses=tuple(self.status),
            typologies=tuple(self.typology),
            dispositions=tuple(self.disposition),
            assignee=self.assignee,
            is_escalated=self.escalated,
            score_from=self.score_from,
            opened_from_ms=self.opened_from_ms,
            opened_until_ms=self.opened_until_ms,
            due_until_ms=self.due_until_ms,
            sort=self.sort,
        )


def register(app: FastAPI) -> None:
    """Add the routes of this module."""
    shared: dict[str, Any] = {"tags": ["cases"], "responses": PROBLEMS}
    app.get("/api/v1/queue", response_model=QueuePage, **shared)(queue)
    app.get("/api/v1/queue/counts", **shared)(counts)
    app.get("/api/v1/search", response_model=CaseSearchResult, **shared)(search)
    app.get("/api/v1/cases/{case_id}/neighbours", **shared)(neighbours)


async def queue(request: Request, asked: Annotated[QueueQuery, Query()]) -> Response:
    """Return one page of the cases that match the filters, in the given order."""
    place = place_of(asked.cursor, asked.sort) if asked.cursor else None
    page = board_of(request).page(asked.wanted(), asked.limit, place)
    following = json.dumps(cursor_of(page.after, asked.sort) if page.after else None).encode()
    body = b'{"cases":[%s],"total":%d,"next":%s}' % (b",".join(page.rows), page.total, following)
    return Response(body, media_type="application/json")


async def counts(request: Request) -> StatusCounts:
    """Return the number of cases by status."""
    return StatusCounts(statuses=board_of(request).counts())


async def search(
    request: Request,
    by: SearchKey,
    value: Annotated[Token, Query()],
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = PAGE_SIZE,
) -> Response:
    """Return the cases of an account, card, device, merchant, terminal or payment, or the case with an id."""
    board = board_of(request)
    ids = case_ids_by(board, by, value)
    rows = board.rows(ids[:limit])
    complete = len(ids) <= limit and (by in ("account", "transaction", "case") or len(ids) < MAX_SHARED)
    body = b'{"cases":[%s],"is_complete":%s}' % (b",".join(rows), json.dumps(complete).encode())
    return Response(body, media_type="application/json")


def case_ids_by(board: CaseBoard, by: SearchKey, value: str) -> list[str]:
    """Return the ids of the cases that a search finds, newest first."""
    if by == "account":
        return board.of_account(value)[::-1]
    if by == "transaction":
        found = board.of_transaction(value)
        return [found] if found else []
    if by == "case":
        return [value] if board.view(value) else []
    return board.of_entity(by, value)


async def neighbours(
    request: Request, case_id: CaseId, limit: Annotated[int, Query(ge=1, le=50)] = 20
) -> CaseNeighbours:
    """Return the cards, devices, merchants and terminals that a case shares with other cases, with some of those
    cases.
    """
    board = board_of(request)
    view = board.view(case_id)
    if view is None:
        raise Problem(404, "there is no such case")
    shared = []
    for kind, value in entities_of(view):
        others = [each for each in board.of_entity(kind, value) if each != case_id]
        if others:
            rows = [QueueRow.model_validate(row_of(other)) for other in board.views(others[:limit])]
            complete = len(others) <= limit and len(others) < MAX_SHARED - 1
            shared.append(SharedEntity(kind=kind, value=value, cases=rows, is_complete=complete))
    return CaseNeighbours(shared=sorted(shared, key=lambda each: (len(each.cases), each.kind, each.value)))


def cursor_of(place: PageCursor, sort: SortOrder) -> str:
    """Return a cursor of the board as text, together with its sort order."""
    return base64.urlsafe_b64encode(json.dumps([sort, *place]).encode()).decode().rstrip("=")


def place_of(cursor: str, sort: SortOrder) -> PageCursor:
    """Return the cursor in a text. Raise Problem if it is malformed or belongs to another sort order."""
    try:
        found, key, case_id = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, TypeError, binascii.Error, RecursionError) as error:
        raise Problem(400, "the cursor is malformed: start at the first page") from error
    if found != sort or type(key) is not int or not isinstance(case_id, str) or abs(key) >= 2**62:
        raise Problem(400, "the cursor belongs to another sort order: start at the first page")
    return PageCursor(key, case_id)
