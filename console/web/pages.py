"""The pages for people."""

from fastapi import FastAPI, Request, Response
from starlette.responses import RedirectResponse

from console.web import (
    page_account,
    page_audit,
    page_case,
    page_monitor,
    page_people,
    page_queue,
    page_rules,
    page_webhooks,
    page_whatif,
    stream,
)
from console.web.doors import person_of
from console.web.permissions import Permission

FIRST = ((Permission.READ_CASES, "/queue"), (Permission.ADMINISTER, "/people"), (Permission.MONITOR, "/monitor"))
"""Where somebody lands, by what they may do."""


def register(app: FastAPI) -> None:
    """Add these routes."""
    app.get("/", include_in_schema=False)(home)
    for area in (
        page_account, page_monitor, page_queue, page_case, page_whatif, page_rules, page_audit, page_people,
        page_webhooks, stream,
    ):  # fmt: skip
        area.register(app)


async def home(request: Request) -> Response:
    """On to where somebody's work is."""
    person = person_of(request)
    return RedirectResponse(next((path for permission, path in FIRST if person.may(permission)), "/account"), 303)
