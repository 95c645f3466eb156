"""API routes that erase the key of a subject (admins) and list the erasures (auditors)."""

import asyncio
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from console.privacy.scrubbing import ScrubbingError
from console.privacy.vault import KeyErasure
from console.web.inputs import MAX_PAGE, Reason, RequestBody, Token
from console.web.problems import PROBLEMS, Problem
from console.web.services import person_of, services_of


class ErasureRequest(RequestBody):
    """Subject to erase (an account, or intake/RUN) and the reason, such as the number of a request. Nothing
    personal.
    """

    subject: Token
    reason: Reason


class Erasure(BaseModel):
    """One destroyed key. Generation 0 means that the subject had no key."""

    subject: str
    generation: int
    at_ms: int
    actor: str
    reason: str


class Erasures(BaseModel):
    """Erasures, newest first."""

    erasures: list[Erasure]


def register(app: FastAPI) -> None:
    """Add the routes of this module."""
    shared: dict[str, Any] = {"tags": ["erasures"], "responses": PROBLEMS}
    app.post("/api/v1/erasures", status_code=201, **shared)(erase)
    app.get("/api/v1/audit/erasures", **shared)(erasures)


async def erase(request: Request, asked: ErasureRequest) -> Erasure:
    """Destroy the key of an account for good. Answer once no process holds the key any more."""
    services, actor = services_of(request), person_of(request).name
    try:
        (erased,) = await run_in_threadpool(services.vault.erase, [asked.subject], actor, asked.reason)
    except ScrubbingError as error:
        raise Problem(503, "the key is destroyed, but the store's file still has traces of it: erase again") from error
    await asyncio.sleep(services.settled_s)
    return _erasure_document(erased)


async def erasures(request: Request, limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100) -> Erasures:
    """Return the erasures: subject, actor, time and reason."""
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
