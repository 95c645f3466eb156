"""The stream of changes for open pages: changed cases, new figures, changes of rules or accounts.

Each page opens one stream. It carries no content, only what to load again; the page loads it with its own permissions.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from console.cases.board_feed import CaseChangeBuffer
from console.people.roles import Permission
from console.web.guard import is_still_permitted
from console.web.limits import MAX_STREAMS
from console.web.pages.parts import page_services_of
from console.web.problems import Problem
from console.web.services import person_of, services_of

LOOK_S: Final = 0.5
"""Interval at which the control store is polled for changes of rule packs and accounts, in seconds."""
QUIET_S: Final = 10.0
"""Interval at which an idle stream sends a sign of life and checks the reader's permission again, in seconds."""
TOGETHER_S: Final = 0.02
"""Changes within this time are sent together, in seconds."""


def register(app: FastAPI) -> None:
    """Add this route."""
    app.state.streams = set()
    app.get("/stream", include_in_schema=False, response_class=StreamingResponse)(stream)


async def stream(request: Request) -> Response:
    """Stream changes until the page closes."""
    streams: set[object] = request.app.state.streams
    if len(streams) >= MAX_STREAMS:
        raise Problem(503, "too many watch already", {"Retry-After": "30"})
    mark = object()

    async def body() -> AsyncIterator[str]:
        streams.add(mark)
        try:
            async for text in _event_stream(request):
                yield text
        finally:
            streams.discard(mark)

    return StreamingResponse(body(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


class _PageUpdates:
    """The changes since the last call that this person may see."""

    def __init__(self, request: Request) -> None:
        person, self._parts, self._services = person_of(request), page_services_of(request), services_of(request)
        self._sees_cases = person.may(Permission.READ_CASES)
        self._sees_rules = person.may(Permission.READ_RULES)
        self._sees_people = person.may(Permission.ADMINISTER) or person.may(Permission.READ_AUDIT)
        self._changes: CaseChangeBuffer = self._services.changes
        self._number = self._changes.end
        self._figures_at = 0
        self._rules, self._whatif, self._people = "", "", 0

    def cases(self) -> list[str]:
        """Return events for the cases that changed."""
        found, self._number = self._changes.since(self._number)
        told: dict[str, int | None] = {}
        for change in found if self._sees_cases else ():
            before = told.get(change.case_id, 0)
            if before is None or change.sequence is None:  # an answer: no page can know it by its sequence
                told[change.case_id] = None
            else:
                told[change.case_id] = max(before, change.sequence)
        return [
            f"event: case\ndata: {json.dumps({'case': case_id, 'sequence': sequence})}\n\n"
            for case_id, sequence in told.items()
        ]

    def figures(self) -> list[str]:
        """Return an event if there are new figures."""
        at_ms = self._parts.figures.latest().get("at_ms", 0)
        if at_ms == self._figures_at:
            return []
        self._figures_at = at_ms
        return ["event: figures\ndata: {}\n\n"]

    def stored(self) -> list[str]:
        """Return events for changes in the control store since the last call."""
        told = []
        if self._sees_rules:
            rules = repr([(row.pack_id, row.state, row.shadow) for row in self._parts.control.packs()])
            told += ["event: rules\ndata: {}\n\n"] if self._rules not in ("", rules) else []
            self._rules = rules
            whatif = repr(self._parts.runs.latest_states())
            told += ["event: whatif\ndata: {}\n\n"] if self._whatif not in ("", whatif) else []
            self._whatif = whatif
        if self._sees_people:
            last = self._services.people.door_log(None, 1)
            number = last[0].number if last else 0
            told += ["event: people\ndata: {}\n\n"] if self._people not in (0, number) else []
            self._people = number
        return told


async def _event_stream(request: Request) -> AsyncIterator[str]:
    loop, woken, news = asyncio.get_running_loop(), asyncio.Event(), _PageUpdates(request)

    def wake() -> None:
        loop.call_soon_threadsafe(woken.set)

    ends = [source.watch(wake) for source in (services_of(request).changes, page_services_of(request).figures)]
    try:
        await run_in_threadpool(news.stored)  # what the page is about to show, to compare with
        looked_s = heard_s = time.monotonic()
        yield "retry: 1000\nevent: hello\ndata: {}\n\n"
        while True:
            woken.clear()
            told = [*news.cases(), *news.figures()]
            if time.monotonic() - looked_s >= LOOK_S:
                told += await run_in_threadpool(news.stored)
                looked_s = time.monotonic()
            if time.monotonic() - heard_s >= QUIET_S:
                heard_s = time.monotonic()
                if not await run_in_threadpool(is_still_permitted, request):
                    return
                told.append(": still here\n\n")
            if told:
                yield "".join(told)
            with suppress(TimeoutError):
                await asyncio.wait_for(woken.wait(), LOOK_S)
                await asyncio.sleep(TOGETHER_S)
    finally:
        for end in ends:
            end()
