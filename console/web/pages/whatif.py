"""The pages of what-if runs: request one for a rule pack, follow it, and read its result."""

import json
from typing import Annotated, Any, Final, Literal

from fastapi import FastAPI, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse

from console.display.whatif_report import SHOWING, report
from console.display.whatif_view import view_of
from console.history.whatif import MINUTES_PER_CASE, Source, WhatifRequest
from console.history.whatif_runs import WhatifRunError
from console.people.roles import Permission
from console.rules.store import RulePackActionError
from console.times import parse_time
from console.web.pages.parts import page_services_of
from console.web.pages.people import error_text
from console.web.pages.rendering import page
from console.web.pages.rules import PackId, steps_of
from console.web.problems import Problem
from console.web.services import person_of, services_of
from domain.risk.packs import parse_pack
from migrations.models import RulePackRow, WhatifRunRow
from projections.replay.whatif import WhatifPeriod

RunId = Annotated[str, Path(pattern=r"^[0-9a-f-]{36}$")]
Moment = Annotated[str, Field(pattern=r"^(\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?)?$")]
SHOWN: Final = 20
"""Maximum number of runs that a page lists."""


class WhatifForm(BaseModel):
    """The form of a what-if."""

    model_config = ConfigDict(extra="ignore")

    source: Source = "kafka"
    since: Moment = ""
    until: Moment = ""
    minutes: Annotated[int, Field(ge=0, le=10_000)] = MINUTES_PER_CASE


def register(app: FastAPI) -> None:
    """Add these routes."""
    path = "/rules/{pack_id}/whatif"
    app.get(path, include_in_schema=False)(whatif)
    app.post(path, include_in_schema=False)(begin)
    app.get(path + "/{run_id}", include_in_schema=False)(whatif_run)
    app.get(path + "/{run_id}/report", include_in_schema=False)(download)


async def whatif(request: Request, pack_id: PackId) -> Response:
    """Show the what-if runs of a pack, their progress, and the last result."""
    return await _whatif_page(request, pack_id)


async def _whatif_page(request: Request, pack_id: str, error: str = "") -> Response:
    parts = page_services_of(request)

    def read() -> dict[str, Any]:
        row = _pack(request, pack_id)
        runs = parts.runs.of_pack(row.pack_id)[:SHOWN]
        done = next((run for run in runs if run.state == "done"), None)
        newest = parts.runs.run(done.run_id) if done else None
        return {
            "pack": row, "runs": [(run, parts.runs.state(run)) for run in runs], "newest": newest,
            "view": view_of(json.loads(newest.result)) if newest and newest.result else None,
            "now_ms": services_of(request).now_ms(), "needed": parts.control.needed,
        }  # fmt: skip

    known = await run_in_threadpool(read)
    may_ask = person_of(request).may(Permission.APPROVE_RULES)
    return page(
        request, "whatif.html", 409 if error else 200, error=error, minutes=MINUTES_PER_CASE, may_ask=may_ask,
        **known, **SHOWING,
    )  # fmt: skip


def _pack(request: Request, pack_id: str) -> RulePackRow:
    try:
        return page_services_of(request).control.pack(pack_id)
    except RulePackActionError as refused:
        raise Problem(404, "there is no such rule pack") from refused


async def begin(request: Request, pack_id: PackId) -> Response:
    """Store a request and start a worker for it."""
    form, parts, actor = await request.form(), page_services_of(request), person_of(request).name
    try:
        asking = WhatifForm.model_validate({name: value for name, value in form.items() if isinstance(value, str)})
        asked = WhatifRequest(asking.source, _stretch(asking), asking.minutes)
        row = await run_in_threadpool(_pack, request, pack_id)
        run_id = await run_in_threadpool(lambda: parts.runs.begin(parse_pack(row.document), asked, actor, alone=True))
        try:
            parts.carry_out(run_id)
        except OSError as error:
            await run_in_threadpool(parts.runs.failed, run_id, str(error))
    except (ValidationError, ValueError, WhatifRunError) as error:
        return await _whatif_page(request, pack_id, error_text(error))
    return RedirectResponse(f"/rules/{row.pack_id}/whatif", 303)


def _stretch(asking: WhatifForm) -> WhatifPeriod:
    first, last = (_ms(text) for text in (asking.since, asking.until))
    if first is not None and last is not None and first >= last:
        raise ValueError("nothing lies between: the first time is not before the second one")
    return WhatifPeriod(first, last)


def _ms(moment: str) -> int | None:
    return parse_time(moment) if moment else None


async def whatif_run(request: Request, pack_id: PackId, run_id: RunId) -> Response:
    """Show one finished run, with every case that differs."""
    row, run, approved = await run_in_threadpool(_find_finished_run, request, pack_id, run_id)
    live = person_of(request).may(Permission.READ_CASES)
    view = view_of(json.loads(run.result or "{}"))
    return page(request, "whatif_run.html", pack=row, run=run, view=view, live=live, approved=approved, **SHOWING)


async def download(
    request: Request, pack_id: PackId, run_id: RunId, form: Annotated[Literal["html", "json"], Query(alias="as")]
) -> Response:
    """Send the report as a file, as HTML or as JSON."""
    row, run, _ = await run_in_threadpool(_find_finished_run, request, pack_id, run_id)
    name = f"whatif-{row.pack_id[:12]}-{run.run_id[:8]}.{form}"
    text = run.result or ""
    if form == "html":
        text = await run_in_threadpool(lambda: report(json.loads(run.result or "{}")))
    kind = "application/json" if form == "json" else "application/octet-stream"
    return Response(text, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})


def _find_finished_run(request: Request, pack_id: str, run_id: str) -> tuple[RulePackRow, WhatifRunRow, bool]:
    """Return the pack, its run, and True if the pack was approved with that run. Raises Problem (404)."""
    parts, row = page_services_of(request), _pack(request, pack_id)
    run = parts.runs.run(run_id)
    if run is None or run.pack_id != row.pack_id or run.state != "done":
        raise Problem(404, "there is no such what-if of this pack that is done")
    return row, run, run_id in {by for _, by in steps_of(parts.control.history(row.pack_id))}
