"""What analysts do: one route for each command, several commands at once, and the next case to work on."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, Literal, Union

from fastapi import FastAPI, Header, Request, Response
from pydantic import BaseModel, Field, create_model

from console.cases.board import QueueFilter
from console.web.api.cases import CaseDocument, case_document, current_view
from console.web.command_handling import act_on, answer_once, etag_of, seen_sequence
from console.web.commands import KINDS, CommandKind
from console.web.idempotency import StoredAnswer
from console.web.inputs import CaseId, RequestBody, Token, Word
from console.web.problems import PROBLEMS, Problem, answer
from console.web.services import board_of, person_of

MAX_BULK: Final = 100
TRIES: Final = 20
"""How many cases take-next tries that others take at the same moment."""
IdempotencyKeyHeader = Annotated[Token | None, Header(alias="Idempotency-Key")]
"""The same key is the same command: sent again, it gets the same answer."""
IfMatchHeader = Annotated[str | None, Header(alias="If-Match", max_length=32)]
"""The ETag of the case as it was seen."""


class CommandAnswer(BaseModel):
    """What a command led to."""

    answer: str
    sequence: int | None
    event: dict[str, Any]


class BulkOutcome(BaseModel):
    """What became of one of several commands: its answer, or the problem."""

    case_id: str
    status: int
    body: dict[str, Any]


class BulkOutcomes(BaseModel):
    """In the order of the commands."""

    outcomes: list[BulkOutcome]


class TakeNextBody(RequestBody):
    """Which cases to take the next one from; what is left out does not narrow."""

    typology: Annotated[list[Word], Field(max_length=20, default_factory=list)]
    escalated: bool | None = None
    score_from: Annotated[int, Field(ge=0, le=10_000)] | None = None
    sort: Literal["-score", "opened", "due"] = "-score"


def register(app: FastAPI) -> None:
    """Add these routes."""
    shared: dict[str, Any] = {"tags": ["commands"], "responses": PROBLEMS}
    for kind in KINDS.values():
        app.post(
            f"/api/v1/cases/{{case_id}}/{kind.slug}", summary=kind.summary, response_model=CommandAnswer,
            operation_id=kind.slug, **shared,
        )(_endpoint(kind))  # fmt: skip
    app.post("/api/v1/commands", response_model=BulkOutcomes, max_body_size=1 << 20, **shared)(bulk)
    app.post("/api/v1/queue/take-next", response_model=CaseDocument, **shared)(take_next)


def _endpoint(kind: CommandKind) -> Callable[..., Awaitable[Response]]:
    async def command(
        request: Request,
        case_id: CaseId,
        asked: RequestBody,
        idempotency_key: IdempotencyKeyHeader = None,
        if_match: IfMatchHeader = None,
    ) -> Response:
        view = await current_view(request, case_id)
        seen = seen_sequence(if_match)

        async def act(made: str, again: bool) -> StoredAnswer:
            return await act_on(request, view, kind, asked, seen, made, again)

        return await answer_once(request, idempotency_key, (seen, asked.model_dump()), act)

    command.__annotations__["asked"] = kind.body
    command.__doc__ = kind.command.__doc__
    return command


def _bulk_item_model(kind: CommandKind) -> type[BaseModel]:
    """The body of a command beside which case, which version and which command it is."""
    more: Any = {
        "command": (Literal[kind.slug], ...),
        "case_id": (CaseId, ...),
        "seen_sequence": (Annotated[int, Field(ge=0, le=999_999_999)], ...),
    }
    made: type[BaseModel] = create_model(f"{kind.name}Item", __base__=kind.body, **more)
    return made


_ITEMS: Final = {slug: _bulk_item_model(kind) for slug, kind in KINDS.items()}
BulkCommandItem: Any = Annotated[Union[tuple(_ITEMS.values())], Field(discriminator="command")]  # noqa: UP007 - made from a table


class BulkCommandsBody(RequestBody):
    """Several commands, each on the case and version that it names."""

    commands: Annotated[list[BulkCommandItem], Field(min_length=1, max_length=MAX_BULK)]


async def bulk(request: Request, asked: BulkCommandsBody, idempotency_key: IdempotencyKeyHeader = None) -> Response:
    """Send several commands at once; each is answered by itself, and none waits for another."""
    outcomes = await asyncio.gather(
        *(_run_bulk_item(request, item, idempotency_key, number) for number, item in enumerate(asked.commands))
    )
    return Response(json.dumps({"outcomes": outcomes}), media_type="application/json")


async def _run_bulk_item(request: Request, item: Any, key: str | None, number: int) -> dict[str, Any]:
    kind = KINDS[item.command]
    body = kind.body.model_validate(item.model_dump(exclude={"command", "case_id", "seen_sequence"}))
    try:
        view = await current_view(request, item.case_id)

        async def act(made: str, again: bool) -> StoredAnswer:
            return await act_on(request, view, kind, body, item.seen_sequence, made, again)

        numbered = None if key is None else f"{key}\x1f{number}"
        response = await answer_once(request, numbered, (item.model_dump(),), act)
    except Problem as problem:
        response = answer(problem)
    return {"case_id": item.case_id, "status": response.status_code, "body": json.loads(bytes(response.body))}


async def take_next(request: Request, asked: TakeNextBody, idempotency_key: IdempotencyKeyHeader = None) -> Response:
    """Take the next case that nobody works on: the answer is the case, yours now; 404 where there is none left."""
    wanted = QueueFilter(
        statuses=("new", "open"),
        assignee="",
        typologies=tuple(asked.typology),
        is_escalated=asked.escalated,
        score_from=asked.score_from,
        sort=asked.sort,
    )

    async def act(made: str, _: bool) -> StoredAnswer:
        return await _take_first(request, wanted, made)

    return await answer_once(request, idempotency_key, (asked.model_dump(),), act)


async def _take_first(request: Request, wanted: QueueFilter, made: str) -> StoredAnswer:
    """Those that somebody else takes at the same moment are passed over."""
    board, kind = board_of(request), KINDS["take"]
    for view in board.first(wanted, TRIES, reserved_for=person_of(request).name):
        found = await act_on(request, view, kind, kind.body(), view.sequence, made, False)
        if found.status == 200:
            taken = await current_view(request, view.case_id)
            return StoredAnswer(200, etag_of(taken.sequence), json.dumps(case_document(taken)))
    problem = answer(Problem(404, "there is no such case left that nobody works on"))
    return StoredAnswer(404, None, bytes(problem.body).decode())
