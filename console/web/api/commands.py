"""API routes of the analyst acts: one route for each act, many commands at once, and taking the next case."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, Literal, Union

from fastapi import FastAPI, Header, Request, Response
from pydantic import BaseModel, Field, create_model

from console.cases.act_catalog import ACTS, AnalystAct
from console.cases.board import FREE_STATUSES, QueueFilter, TakeNextOrder
from console.web.act_bodies import BODIES
from console.web.api.cases import CaseDocument, case_document, current_view
from console.web.command_handling import MAX_SEQUENCE, act_on, answer_once, etag_of, seen_sequence
from console.web.idempotency import StoredAnswer
from console.web.inputs import MAX_NAMES, CaseId, RequestBody, ScoreBound, Token, Word
from console.web.problems import PROBLEMS, Problem, answer
from console.web.services import board_of, person_of

MAX_BULK: Final = 100
"""Maximum number of commands in one request."""
MAX_BULK_BODY: Final = 1 << 20
"""Maximum size of a bulk request, in bytes."""
MAX_TAKE_ATTEMPTS: Final = 20
"""Maximum number of cases that take-next tries while other people take them at the same moment."""
IdempotencyKeyHeader = Annotated[Token | None, Header(alias="Idempotency-Key")]
"""A key that the client chooses. A retry with the same key gets the same answer."""
IfMatchHeader = Annotated[str | None, Header(alias="If-Match", max_length=32)]
"""The ETag of the case that the client saw."""


class CommandAnswer(BaseModel):
    """The event that answers a command."""

    answer: str
    sequence: int | None
    event: dict[str, Any]


class BulkOutcome(BaseModel):
    """Outcome of one of several commands: its answer, or the problem."""

    case_id: str
    status: int
    body: dict[str, Any]


class BulkOutcomes(BaseModel):
    """Outcomes of several commands, in the order of the commands."""

    outcomes: list[BulkOutcome]


class TakeNextBody(RequestBody):
    """Filters for the case to take next. A filter that is left out does not narrow the choice."""

    typology: Annotated[list[Word], Field(max_length=MAX_NAMES, default_factory=list)]
    escalated: bool | None = None
    score_from: ScoreBound | None = None
    sort: TakeNextOrder = "-score"


def register(app: FastAPI) -> None:
    """Add the routes of this module."""
    shared: dict[str, Any] = {"tags": ["commands"], "responses": PROBLEMS}
    for act in ACTS.values():
        app.post(
            f"/api/v1/cases/{{case_id}}/{act.name}", summary=act.summary, response_model=CommandAnswer,
            operation_id=act.name, **shared,
        )(_endpoint(act))  # fmt: skip
    app.post("/api/v1/commands", response_model=BulkOutcomes, max_body_size=MAX_BULK_BODY, **shared)(bulk)
    app.post("/api/v1/queue/take-next", response_model=CaseDocument, **shared)(take_next)


def _endpoint(act: AnalystAct) -> Callable[..., Awaitable[Response]]:
    async def command(
        request: Request,
        case_id: CaseId,
        body: RequestBody,
        idempotency_key: IdempotencyKeyHeader = None,
        if_match: IfMatchHeader = None,
    ) -> Response:
        view = await current_view(request, case_id)
        seen = seen_sequence(if_match)

        async def send(made: str, again: bool) -> StoredAnswer:
            return await act_on(request, view, act, body, seen, made, again)

        return await answer_once(request, idempotency_key, (seen, body.model_dump()), send)

    command.__annotations__["body"] = BODIES[act.name]
    command.__doc__ = act.summary
    return command


def _bulk_item_model(act: AnalystAct) -> type[BaseModel]:
    """Return the body of an act together with the act's name, the case, and the version that was seen."""
    more: Any = {
        "command": (Literal[act.name], ...),
        "case_id": (CaseId, ...),
        "seen_sequence": (Annotated[int, Field(ge=0, le=MAX_SEQUENCE)], ...),
    }
    made: type[BaseModel] = create_model(f"{act.command.__name__}Item", __base__=BODIES[act.name], **more)
    return made


_ITEMS: Final = {name: _bulk_item_model(act) for name, act in ACTS.items()}
BulkCommandItem: Any = Annotated[Union[tuple(_ITEMS.values())], Field(discriminator="command")]  # noqa: UP007 - made from a table


class BulkCommandsBody(RequestBody):
    """Several commands, each with its case and the version that was seen."""

    commands: Annotated[list[BulkCommandItem], Field(min_length=1, max_length=MAX_BULK)]


async def bulk(request: Request, asked: BulkCommandsBody, idempotency_key: IdempotencyKeyHeader = None) -> Response:
    """Send several commands at once. Each has its own outcome; one that fails does not stop the others."""
    outcomes = await asyncio.gather(
        *(_run_bulk_item(request, item, idempotency_key, number) for number, item in enumerate(asked.commands))
    )
    return Response(json.dumps({"outcomes": outcomes}), media_type="application/json")


async def _run_bulk_item(request: Request, item: Any, key: str | None, number: int) -> dict[str, Any]:
    act = ACTS[item.command]
    body = BODIES[act.name].model_validate(item.model_dump(exclude={"command", "case_id", "seen_sequence"}))
    try:
        view = await current_view(request, item.case_id)

        async def send(made: str, again: bool) -> StoredAnswer:
            return await act_on(request, view, act, body, item.seen_sequence, made, again)

        numbered = None if key is None else f"{key}\x1f{number}"
        response = await answer_once(request, numbered, (item.model_dump(),), send)
    except Problem as problem:
        response = answer(problem)
    return {"case_id": item.case_id, "status": response.status_code, "body": json.loads(bytes(response.body))}


async def take_next(request: Request, asked: TakeNextBody, idempotency_key: IdempotencyKeyHeader = None) -> Response:
    """Take the first case that nobody works on and return it. Return 404 if there is none."""
    wanted = QueueFilter(
        statuses=FREE_STATUSES,
        assignee="",
        typologies=tuple(asked.typology),
        is_escalated=asked.escalated,
        score_from=asked.score_from,
        sort=asked.sort,
    )

    async def take(made: str, _: bool) -> StoredAnswer:
        return await _take_first(request, wanted, made)

    return await answer_once(request, idempotency_key, (asked.model_dump(),), take)


async def _take_first(request: Request, wanted: QueueFilter, made: str) -> StoredAnswer:
    """Take the first matching case that no other person takes at the same moment, and return it."""
    board, act = board_of(request), ACTS["take"]
    for view in board.first(wanted, MAX_TAKE_ATTEMPTS, reserved_for=person_of(request).name):
        found = await act_on(request, view, act, BODIES[act.name](), view.sequence, made, False)
        if found.status == 200:
            taken = await current_view(request, view.case_id)
            return StoredAnswer(200, etag_of(taken.sequence), json.dumps(case_document(taken)))
    problem = answer(Problem(404, "no case is left that nobody works on and that matches the filters"))
    return StoredAnswer(404, None, bytes(problem.body).decode())
