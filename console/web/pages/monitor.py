"""The live monitor: payments, flags and their places, and the health of the system."""

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool

from console.display.formats import money
from console.people.roles import Permission
from console.web.pages.maps import HEIGHT, WIDTH, countries, country_name, map_point
from console.web.pages.parts import page_services_of
from console.web.pages.rendering import page
from console.web.services import person_of, services_of
from console.webhooks.store import DEAD

MAX_DEAD: Final = 100
SHOWN: Final = 8
"""Maximum number of rows in a list."""


def register(app: FastAPI) -> None:
    """Add this route."""
    app.get("/monitor", include_in_schema=False)(monitor)


async def monitor(request: Request) -> Response:
    """Show the latest snapshot of the live figures."""
    figures = page_services_of(request).figures.latest()
    dead = await run_in_threadpool(_dead_letters, request) if figures else 0
    board = services_of(request).board
    return page(
        request,
        "monitor.html",
        figures=figures,
        dead_letters=dead,
        points=[_point(point) for point in figures.get("points", ())],
        counts=board.counts(),
        is_ready=services_of(request).is_ready(),
        cases=len(board),
        shown=SHOWN,
        map_width=WIDTH,
        map_height=HEIGHT,
        sees_cases=person_of(request).may(Permission.READ_CASES),
    )


def _dead_letters(request: Request) -> int:
    """Count the failed webhook deliveries, at most MAX_DEAD per webhook."""
    webhooks = services_of(request).webhooks
    return sum(len(webhooks.deliveries(row.webhook_id, DEAD, MAX_DEAD)) for row in webhooks.all())


def _point(point: Mapping[str, Any]) -> dict[str, Any]:
    """Place a flag on the map."""
    country = point.get("country")
    if point.get("latitude") is not None and point.get("longitude") is not None:
        x, y = map_point(point["latitude"], point["longitude"])
    elif country in countries():
        _, x, y = countries()[country]
    else:
        x = y = -99.0
    where = country_name(country) if country else "unknown place"
    label = f"{money(point['amount_minor'], point['currency'])}, {where}, score {point['score']}"
    return {"x": x, "y": y, "label": label, "age": point["age"], "is_high": point["score"] >= 700}
