"""Idempotent writes: a repeated idempotency key is the same command and gets the same answer."""

import hashlib
import json
from collections.abc import Callable
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4, uuid5

from sqlalchemy import Engine, delete, update

from migrations.models import RequestRow
from migrations.store import write_session, write_transaction

COMMANDS: Final = UUID("5b0a3d1e-0c6f-5f0e-8a44-0d9f1c7b2e63")
KEPT_MS: Final = 48 * 3_600_000
"""Time for which an answer is kept for retries, in milliseconds."""


class StoredAnswer(NamedTuple):
    """The stored answer to a write."""

    status: int
    etag: str | None
    body: str


class IdempotencyKeyConflict(ValueError):
    """The key was used with another request before."""


class IdempotencyStore:
    """The stored answers of a control store."""

    def __init__(self, engine: Engine, now_ms: Callable[[], int]) -> None:
        self._engine = engine
        self._now_ms = now_ms

    def begin(self, command_id: str, fingerprint: str) -> tuple[bool, StoredAnswer | None]:
        """Begin a write. Return True and the stored answer, if there is one, for a repeated request. Raises
        IdempotencyKeyConflict.
        """
        now = self._now_ms()
        with write_session(self._engine) as session:
            session.execute(delete(RequestRow).where(RequestRow.begun_at_ms < now - KEPT_MS))
            row = session.get(RequestRow, command_id)
            if row is None:
                session.add(RequestRow(command_id=command_id, fingerprint=fingerprint, begun_at_ms=now))
                return False, None
            if row.fingerprint != fingerprint:
                raise IdempotencyKeyConflict("this idempotency key came with another request before")
            done = row.status is not None and row.body is not None
            answer = StoredAnswer(row.status or 0, row.etag, row.body or "") if done else None
            return True, answer

    def end(self, command_id: str, answer: StoredAnswer) -> None:
        """Store the answer."""
        with write_transaction(self._engine) as connection:
            connection.execute(
                update(RequestRow)
                .where(RequestRow.command_id == command_id)
                .values(status=answer.status, etag=answer.etag, body=answer.body)
            )


def command_id(person_id: str, key: str | None) -> str:
    """Derive the command id from the person and the key; without a key, make a random one."""
    return str(uuid4() if key is None else uuid5(COMMANDS, f"{person_id}\x1f{key}"))


def fingerprint(*parts: Any) -> str:
    """Digest the parts of a request."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
