"""The routes of all pages."""

from fastapi import FastAPI, Request, Response
from starlette.responses import RedirectResponse

from console.people.roles import Permission
from console.web.pages import (
    account,
    audit,
    case,
    live_updates,
    monitor,
    people,
    queue,
    rules,
    webhooks,
    whatif,
)
from console.web.services import person_of

FIRST = ((Permission.READ_CASES, "/queue"), (Permission.ADMINISTER, "/people"), (Permission.MONITOR, "/monitor"))
"""First page of a person, by permission."""


def register(app: FastAPI) -> None:
    """Add these routes."""
    app.get("/", include_in_schema=False)(home)
    for area in (
        account, monitor, queue, case, whatif, rules, audit, people,
        webhooks, live_updates,
    ):  # fmt: skip
        area.register(app)


async def home(request: Request) -> Response:
    """Redirect to the first page that the person's permissions allow."""
    person = person_of(request)
    return RedirectResponse(next((path for permission, path in FIRST if person.may(permission)), "/account"), 303)
