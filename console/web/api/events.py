"""API route that streams case events as server-sent events, resumable after a lost connection."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Final

from fastapi import FastAPI, Header, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from console.cases.board_feed import CaseChange, CaseChangeBuffer, offsets_of, offsets_text, server_sent_event
from console.web.guard import is_still_permitted
from console.web.inputs import CaseId
from console.web.limits import MAX_STREAMS
from console.web.problems import PROBLEMS, Problem
from console.web.services import board_of, services_of
from domain.sealed import MARK

QUIET_S: Final = 10.0
"""Interval in seconds at which an idle stream sends a sign of life and checks the reader's permission again."""
BATCH: Final = 500
"""Maximum number of events in one write."""
RESET: Final = "event: reset\ndata: {}\n\n"
"""Message to a client that missed more events than are kept: it must load its page again."""


class OpenStreams:
    """Number of open event streams."""

    def __init__(self) -> None:
        self.count = 0


def register(app: FastAPI) -> None:
    """Add the route of this module."""
    app.state.watchers = OpenStreams()
    app.get(
        "/api/v1/events", tags=["events"], responses={**PROBLEMS, 200: {"content": {"text/event-stream": {}}}},
        response_class=StreamingResponse,
    )(events)  # fmt: skip


async def events(
    request: Request,
    case_id: CaseId | None = None,
    last_event_id: Annotated[str | None, Header(max_length=2_000)] = None,
) -> Response:
    """Stream the events of all cases, or of one case, each with the row of the case after it.

    The id of an event is the position of the log. A client that sends it back as Last-Event-ID misses no event.
    """
    board_of(request)
    services, watchers = services_of(request), request.app.state.watchers
    if watchers.count >= MAX_STREAMS:
        raise Problem(503, "too many event streams are open: try again later", {"Retry-After": "30"})
    seen = offsets_of(last_event_id) if last_event_id else None
    if last_event_id and seen is None:
        raise Problem(400, "Last-Event-ID is malformed: send the id of an event from this stream")
    missed = services.changes.missed(seen) if seen is not None else []

    async def body() -> AsyncIterator[str]:
        watchers.count += 1
        try:
            async for text in _stream(request, services.changes, missed, case_id):
                yield await run_in_threadpool(services.vault.opened_json, text) if MARK in text else text
        finally:
            watchers.count -= 1

    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(body(), media_type="text/event-stream", headers=headers)


async def _stream(
    request: Request, changes: CaseChangeBuffer, missed: list[CaseChange] | None, case_id: str | None
) -> AsyncIterator[str]:
    loop, news = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        loop.call_soon_threadsafe(news.set)

    end = changes.watch(tell)
    try:
        number, sent = changes.end, {(change.partition, change.offset) for change in missed or ()}
        yield f"retry: 2000\nid: {offsets_text(changes.offsets)}\n\n"
        yield RESET if missed is None else "".join(_event_texts(missed, case_id))
        while True:
            news.clear()
            found, number = changes.since(number)
            fresh = [change for change in found if (change.partition, change.offset) not in sent]
            for start in range(0, len(fresh), BATCH):
                yield "".join(_event_texts(fresh[start : start + BATCH], case_id))
            sent = set()
            try:
                await asyncio.wait_for(news.wait(), QUIET_S)
            except TimeoutError:
                if not await run_in_threadpool(is_still_permitted, request):
                    return
                yield ": still here\n\n"
    finally:
        end()


def _event_texts(changes: list[CaseChange], case_id: str | None) -> list[str]:
    return [server_sent_event(change) for change in changes if case_id in (None, change.case_id)]
