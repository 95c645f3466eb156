"""Erasing a subject, by an admin; and the record of who was erased when, for auditors."""

import asyncio
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from console.privacy.scrubbing import ScrubbingError
from console.privacy.vault import KeyErasure
from console.web.inputs import Reason, RequestBody, Token
from console.web.problems import PROBLEMS, Problem
from console.web.services import person_of, services_of

MAX_PAGE = 200


class ErasureRequest(RequestBody):
    """An account, or intake/RUN; and why: a request's number, nothing personal."""

    subject: Token
    reason: Reason


class Erasure(BaseModel):
    """A key that was destroyed; a generation of 0 where there was none."""

    subject: str
    generation: int
    at_ms: int
    actor: str
    reason: str


class Erasures(BaseModel):
    """The newest first."""

    erasures: list[Erasure]


def register(app: FastAPI) -> None:
    """Add these routes."""
    shared: dict[str, Any] = {"tags": ["erasures"], "responses": PROBLEMS}
    app.post("/api/v1/erasures", status_code=201, **shared)(erase)
    app.get("/api/v1/audit/erasures", **shared)(erasures)


async def erase(request: Request, asked: ErasureRequest) -> Erasure:
    """Destroy the key of an account for good: answered once no process holds it any more."""
    doors, actor = services_of(request), person_of(request).name
    try:
        (erased,) = await run_in_threadpool(doors.vault.erase, [asked.subject], actor, asked.reason)
    except ScrubbingError as error:
        raise Problem(503, "the key is destroyed, and still lies in the store's file: erase again") from error
    await asyncio.sleep(doors.settled_s)
    return _erasure_document(erased)


async def erasures(request: Request, limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100) -> Erasures:
    """Who was erased, by whom, when and why."""
    found = await run_in_threadpool(services_of(request).vault.erasures, limit)
    return Erasures(erasures=[_erasure_document(each) for each in found])


def _erasure_document(erased: KeyErasure) -> Erasure:
    return Erasure(
        subject=erased.subject,
        generation=erased.generation,
        at_ms=erased.at_ms,
        actor=erased.actor,
        reason=erased.reason,
    )
