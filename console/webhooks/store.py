"""Webhooks in the control store: subscriptions to case events, pending deliveries, and failed ones."""

import base64
import hashlib
import hmac
import json
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal, TypeAlias, get_args

from sqlalchemy import Engine, select, update
from sqlalchemy.dialects import postgresql, sqlite

from domain.cases.events import CaseEvent
from migrations.models import WebhookDeliveryRow, WebhookRow
from migrations.store import read_session, write_session, write_transaction
from projections.logs.log import LogRecord

DELIVERIES: Final = uuid.UUID("c1f6d7c6-44d0-5f0b-8a55-5f4f0b7a9d11")
BACKOFF_S: Final = (5, 30, 120, 600, 3_600, 21_600, 43_200)
"""Seconds from each failed attempt to the next; after the last one the delivery is dead."""
MAX_WEBHOOKS: Final = 50
DeliveryState: TypeAlias = Literal["due", "delivered", "dead"]
"""State of a delivery; a dead delivery has no attempt left."""
DUE, DELIVERED, DEAD = get_args(DeliveryState)


class WebhookNotFound(LookupError):
    """No webhook or delivery has this id."""


class WebhookLimitReached(ValueError):
    """The maximum number of webhooks exists already."""


class Webhooks:
    """The webhooks of a control store, and their deliveries."""

    def __init__(self, engine: Engine, key: bytes, now_ms: Callable[[], int]) -> None:
        self._engine = engine
        self._key = key
        self._now_ms = now_ms

    def secret(self, row: WebhookRow) -> str:
        """Derive the secret that signs a webhook's deliveries. It derives from the console's key, so that the store
        does not hold it.
        """
        name = f"webhook {row.webhook_id} {row.secret_number}".encode()
        return "whsec_" + base64.b64encode(hmac.digest(self._key, name, "sha256")).decode()

    def all(self) -> list[WebhookRow]:
        """Return all webhooks, oldest first."""
        with read_session(self._engine) as session:
            return list(session.scalars(select(WebhookRow).order_by(WebhookRow.created_at_ms, WebhookRow.webhook_id)))

    def add(self, url: str, kinds: Iterable[str], actor: str) -> WebhookRow:
        """Add a webhook for these kinds of events; no kind means all. Raises WebhookLimitReached."""
        row = WebhookRow(
            webhook_id=str(uuid.uuid4()),
            url=url,
            kinds=" ".join(sorted(set(kinds))),
            secret_number=1,
            is_active=True,
            created_by=actor,
            created_at_ms=self._now_ms(),
        )
        with write_session(self._engine) as session:
            if len(list(session.scalars(select(WebhookRow.webhook_id)))) >= MAX_WEBHOOKS:
                raise WebhookLimitReached(f"there are {MAX_WEBHOOKS} webhooks already")
            session.add(row)
        return row

    def change(self, webhook_id: str, *, is_active: bool | None, new_secret: bool) -> WebhookRow:
        """Switch a webhook on or off, or give it a new secret. Raises WebhookNotFound."""
        with write_session(self._engine) as session:
            row = session.get(WebhookRow, webhook_id)
            if row is None:
                raise WebhookNotFound(webhook_id)
            row.is_active = row.is_active if is_active is None else is_active
            row.secret_number += new_secret
        return row

    def deliveries(self, webhook_id: str, state: str | None, limit: int) -> list[WebhookDeliveryRow]:
        """Return the deliveries of a webhook, newest first, at most `limit`; `state` selects due, delivered or dead
        ones.
        """
        wanted = select(WebhookDeliveryRow).where(WebhookDeliveryRow.webhook_id == webhook_id)
        if state is not None:
            wanted = wanted.where(WebhookDeliveryRow.state == state)
        newest = (WebhookDeliveryRow.made_at_ms.desc(), WebhookDeliveryRow.delivery_id)
        with read_session(self._engine) as session:
            return list(session.scalars(wanted.order_by(*newest).limit(limit)))

    def send_again(self, delivery_id: str) -> None:
        """Make a delivery due again, with its attempts counted from zero. Raises WebhookNotFound."""
        again = {"state": DUE, "attempts": 0, "next_at_ms": self._now_ms()}
        with write_session(self._engine) as session:
            row = session.get(WebhookDeliveryRow, delivery_id)
            if row is None:
                raise WebhookNotFound(delivery_id)
            for name, value in again.items():
                setattr(row, name, value)

    # -- the worker's side ------------------------------------------------------------------------

    def take_in(self, events: Sequence[tuple[CaseEvent, LogRecord]]) -> None:
        """Store a delivery for each event and each active webhook that subscribes to it. A redelivered event adds
        nothing.
        """
        active = [row for row in self.all() if row.is_active]
        rows = [
            _delivery(row, event, record, self._now_ms())
            for event, record in events
            for row in active
            if not row.kinds or type(event).__name__ in row.kinds.split()
        ]
        if not rows:
            return
        dialect = postgresql if self._engine.dialect.name == "postgresql" else sqlite
        with write_transaction(self._engine) as connection:
            connection.execute(dialect.insert(WebhookDeliveryRow).on_conflict_do_nothing(), rows)

    def due(self, limit: int) -> list[tuple[WebhookDeliveryRow, WebhookRow]]:
        """Return up to `limit` deliveries whose next attempt is due, oldest first, each with its webhook."""
        wanted = (
            select(WebhookDeliveryRow, WebhookRow)
            .join(WebhookRow, WebhookRow.webhook_id == WebhookDeliveryRow.webhook_id)
            .where(WebhookDeliveryRow.state == DUE, WebhookDeliveryRow.next_at_ms <= self._now_ms())
            .where(WebhookRow.is_active)
            .order_by(WebhookDeliveryRow.next_at_ms, WebhookDeliveryRow.delivery_id)
            .limit(limit)
        )
        with read_session(self._engine) as session:
            return [(delivery, webhook) for delivery, webhook in session.execute(wanted)]

    def tried(self, delivery: WebhookDeliveryRow, error: str | None) -> None:
        """Save the outcome of an attempt, and the time of the next one. The delivery is dead after the last attempt
        of BACKOFF_S.
        """
        attempts = delivery.attempts + 1
        changed: dict[str, Any] = {"attempts": attempts, "last_error": error}
        if error is None:
            changed["state"] = DELIVERED
        elif attempts > len(BACKOFF_S):
            changed["state"] = DEAD
        else:
            changed["next_at_ms"] = self._now_ms() + BACKOFF_S[attempts - 1] * 1_000
        mine = WebhookDeliveryRow.delivery_id == delivery.delivery_id
        with write_transaction(self._engine) as connection:
            connection.execute(update(WebhookDeliveryRow).where(mine).values(**changed))


def _delivery(webhook: WebhookRow, event: CaseEvent, record: LogRecord, now_ms: int) -> dict[str, Any]:
    place = f"{webhook.webhook_id} {record.topic} {record.partition} {record.offset}"
    body = {
        "type": type(event).__name__,
        "timestamp_ms": record.timestamp_ms,
        "data": {
            "case_id": event.case_id,
            "account_id": event.account_id,
            "sequence": getattr(event, "sequence", None),
        },
    }
    return {
        "delivery_id": str(uuid.uuid5(DELIVERIES, place)),
        "webhook_id": webhook.webhook_id,
        "kind": type(event).__name__,
        "body": json.dumps(body),
        "state": DUE,
        "attempts": 0,
        "made_at_ms": now_ms,
        "next_at_ms": now_ms,
        "last_error": None,
    }


def signature(secret: str, delivery_id: str, at_s: int, body: bytes) -> str:
    """Sign a delivery as the Standard Webhooks specification says: HMAC-SHA256 over id, time and body."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{delivery_id}.{at_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
