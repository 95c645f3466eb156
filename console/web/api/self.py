"""What everybody may ask of the API: how the console is, who they are, and the API's own description."""

from typing import Any

from fastapi import FastAPI, Request
from pydantic import BaseModel

from console.people.accounts import csrf_token
from console.web.services import person_of


class ConsoleHealth(BaseModel):
    """How the console is."""

    status: str


class SignedInUser(BaseModel):
    """Who asks."""

    name: str
    roles: list[str]
    permissions: list[str]
    csrf_token: str | None
    """What to send as X-CSRF-Token with a write from this session; None where a token came instead of a cookie."""


def register(app: FastAPI) -> None:
    """Add these routes."""
    app.get("/health", tags=["self"])(health)
    app.get("/api/v1/me", tags=["self"])(me)
    app.get("/api/v1/openapi.json", include_in_schema=False)(description)


async def health() -> ConsoleHealth:
    """Whether the console answers."""
    return ConsoleHealth(status="ok")


async def me(request: Request) -> SignedInUser:
    """Who you are here, and what you may do."""
    person, token = person_of(request), request.state.session_token
    return SignedInUser(
        name=person.name,
        roles=sorted(person.roles),
        permissions=sorted(person.permissions),
        csrf_token=csrf_token(token) if token else None,
    )


async def description(request: Request) -> dict[str, Any]:
    """The OpenAPI document."""
    found: dict[str, Any] = request.app.openapi()
    return found
