"""The page of webhooks and their failed deliveries, for admins."""

from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from console.web.api.webhooks import EVENT_KINDS, NewWebhook, WebhookChanges, add_webhook, change_webhook, send_again
from console.web.pages.people import error_text
from console.web.pages.rendering import page
from console.web.problems import Problem
from console.web.services import services_of
from migrations.models import WebhookDeliveryRow, WebhookRow

SHOWN = 20
"""Maximum number of deliveries of one webhook: the newest."""


def register(app: FastAPI) -> None:
    """Add these routes."""
    app.get("/webhooks", include_in_schema=False)(webhooks)
    app.post("/webhooks", include_in_schema=False)(add)
    app.post("/webhooks/{webhook_id}", include_in_schema=False)(change)
    app.post("/webhooks/deliveries/{delivery_id}", include_in_schema=False)(again)


async def webhooks(request: Request) -> Response:
    """Show all webhooks."""
    return await _webhooks_page(request)


async def _webhooks_page(request: Request, secret: str | None = None, error: str = "") -> Response:
    store = services_of(request).webhooks

    def read() -> list[tuple[WebhookRow, list[WebhookDeliveryRow]]]:
        return [(row, store.deliveries(row.webhook_id, None, SHOWN)) for row in store.all()]

    found = await run_in_threadpool(read)
    return page(request, "webhooks.html", webhooks=found, kinds=EVENT_KINDS, secret=secret, error=error)


async def add(request: Request) -> Response:
    """Add a webhook; its secret is shown once."""
    form = await request.form()
    try:
        asked = NewWebhook.model_validate({"url": form.get("url"), "kinds": form.getlist("kinds")})
        made = await add_webhook(request, asked)
    except (ValidationError, Problem) as error:
        return await _webhooks_page(request, error=error_text(error))
    return await _webhooks_page(request, secret=made.secret)


async def change(request: Request, webhook_id: str) -> Response:
    """Switch a webhook on or off, or give it a new secret."""
    what = str((await request.form()).get("what"))
    changes: dict[str, Any] = {"on": {"is_active": True}, "off": {"is_active": False}, "secret": {"new_secret": True}}
    try:
        made = await change_webhook(request, webhook_id, WebhookChanges(**changes.get(what, {})))
    except Problem as error:
        return await _webhooks_page(request, error=error_text(error))
    return await _webhooks_page(request, secret=made.secret)


async def again(request: Request, delivery_id: str) -> Response:
    """Make a delivery due again."""
    try:
        await send_again(request, delivery_id)
    except Problem as error:
        return await _webhooks_page(request, error=error_text(error))
    return await _webhooks_page(request)
