"""API routes of webhooks: set them up, list their deliveries, and send a delivery again."""

from typing import Annotated, Any, get_args

from fastapi import FastAPI, Query, Request, Response
from pydantic import BaseModel, Field, StringConstraints
from starlette.concurrency import run_in_threadpool

from console.web.inputs import MAX_PAGE, CaseId, RequestBody
from console.web.problems import PROBLEMS, Problem
from console.web.services import person_of, services_of
from console.webhooks.sender import ForbiddenAddress, target_of
from console.webhooks.store import DeliveryState, WebhookLimitReached, WebhookNotFound
from domain.cases.events import CaseEvent
from migrations.models import WebhookDeliveryRow, WebhookRow

EVENT_KINDS = tuple(sorted(kind.__name__ for kind in get_args(CaseEvent)))
EventKind = Annotated[str, Field(json_schema_extra={"enum": list(EVENT_KINDS)})]
Url = Annotated[str, StringConstraints(max_length=500, pattern=r"^https?://[!-~]+$")]


class NewWebhook(RequestBody):
    """Address to notify. An empty list of kinds means every kind of event."""

    url: Url
    kinds: Annotated[list[EventKind], Field(max_length=len(EVENT_KINDS), default_factory=list)]


class WebhookChanges(RequestBody):
    """Changes to a webhook. A field that is left out stays as it is."""

    is_active: bool | None = None
    new_secret: bool = False


class Webhook(BaseModel):
    """A webhook. `secret` is present only when it is new."""

    webhook_id: str
    url: str
    kinds: list[str]
    is_active: bool
    created_by: str
    created_at_ms: int
    secret: str | None = None


class WebhookDelivery(BaseModel):
    """One event to deliver, with the state of its delivery."""

    delivery_id: str
    kind: str
    state: DeliveryState
    attempts: int
    made_at_ms: int
    next_at_ms: int
    last_error: str | None


def register(app: FastAPI) -> None:
    """Add the routes of this module."""
    shared: dict[str, Any] = {"tags": ["webhooks"], "responses": PROBLEMS}
    app.get("/api/v1/webhooks", **shared)(list_webhooks)
    app.post("/api/v1/webhooks", status_code=201, **shared)(add_webhook)
    app.patch("/api/v1/webhooks/{webhook_id}", **shared)(change_webhook)
    app.get("/api/v1/webhooks/{webhook_id}/deliveries", **shared)(list_deliveries)
    app.post("/api/v1/webhooks/deliveries/{delivery_id}/send-again", status_code=204, **shared)(send_again)


async def list_webhooks(request: Request) -> list[Webhook]:
    """Return all webhooks, oldest first."""
    return [_webhook_document(row) for row in await run_in_threadpool(services_of(request).webhooks.all)]


async def add_webhook(request: Request, asked: NewWebhook) -> Webhook:
    """Create a webhook. It gets signed case events in order of time, at least once. The answer holds its secret."""
    services, actor = services_of(request), person_of(request).name
    unknown = sorted(set(asked.kinds) - set(EVENT_KINDS))
    if unknown:
        raise Problem(422, f"there is no event kind {unknown[0]}")
    try:
        await run_in_threadpool(lambda: target_of(asked.url, may_be_private=services.webhooks_may_be_private))
        row = await run_in_threadpool(services.webhooks.add, asked.url, asked.kinds, actor)
    except ForbiddenAddress as error:
        raise Problem(422, str(error)) from error
    except WebhookLimitReached as error:
        raise Problem(409, str(error)) from error
    await run_in_threadpool(services.people.log, actor, "add-webhook", row.webhook_id, "done")
    return _webhook_document(row, services.webhooks.secret(row))


async def change_webhook(request: Request, webhook_id: CaseId, asked: WebhookChanges) -> Webhook:
    """Enable or disable a webhook, or give it another secret, which the answer then holds."""
    services, actor = services_of(request), person_of(request).name
    webhooks = services.webhooks
    try:
        row = await run_in_threadpool(
            lambda: webhooks.change(webhook_id, is_active=asked.is_active, new_secret=asked.new_secret)
        )
    except WebhookNotFound as error:
        raise Problem(404, "there is no such webhook") from error
    await run_in_threadpool(services.people.log, actor, "change-webhook", webhook_id, "done")
    return _webhook_document(row, webhooks.secret(row) if asked.new_secret else None)


async def list_deliveries(
    request: Request,
    webhook_id: CaseId,
    state: DeliveryState | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
) -> list[WebhookDelivery]:
    """Return the deliveries of a webhook, newest first."""
    found = await run_in_threadpool(services_of(request).webhooks.deliveries, webhook_id, state, limit)
    return [_delivery(row) for row in found]


async def send_again(request: Request, delivery_id: CaseId) -> Response:
    """Start a delivery again, whatever its state."""
    services, actor = services_of(request), person_of(request).name
    try:
        await run_in_threadpool(services.webhooks.send_again, delivery_id)
    except WebhookNotFound as error:
        raise Problem(404, "there is no such delivery") from error
    await run_in_threadpool(services.people.log, actor, "send-again", delivery_id, "done")
    return Response(status_code=204)


def _webhook_document(row: WebhookRow, secret: str | None = None) -> Webhook:
    return Webhook(
        webhook_id=row.webhook_id,
        url=row.url,
        kinds=row.kinds.split(),
        is_active=row.is_active,
        created_by=row.created_by,
        created_at_ms=row.created_at_ms,
        secret=secret,
    )


def _delivery(row: WebhookDeliveryRow) -> WebhookDelivery:
    return WebhookDelivery.model_validate({name: getattr(row, name) for name in WebhookDelivery.model_fields})
