"""API routes that every person may call: health, their own account, and the OpenAPI document."""

from typing import Any

from fastapi import FastAPI, Request
from pydantic import BaseModel

from console.people.accounts import csrf_token
from console.web.services import person_of


class ConsoleHealth(BaseModel):
    """Health of the console."""

    status: str


class SignedInUser(BaseModel):
    """The signed-in person, with roles and permissions."""

    name: str
    roles: list[str]
    permissions: list[str]
    csrf_token: str | None
    """Value of the X-CSRF-Token header for writes from this session; null for a request with an API token."""


def register(app: FastAPI) -> None:
    """Add the routes of this module."""
    app.get("/health", tags=["self"])(health)
    app.get("/api/v1/me", tags=["self"])(me)
    app.get("/api/v1/openapi.json", include_in_schema=False)(description)


async def health() -> ConsoleHealth:
    """Report that the console answers."""
    return ConsoleHealth(status="ok")


async def me(request: Request) -> SignedInUser:
    """Return your name, roles and permissions."""
    person, token = person_of(request), request.state.session_token
    return SignedInUser(
        name=person.name,
        roles=sorted(person.roles),
        permissions=sorted(person.permissions),
        csrf_token=csrf_token(token) if token else None,
    )


async def description(request: Request) -> dict[str, Any]:
    """Return the OpenAPI document."""
    found: dict[str, Any] = request.app.openapi()
    return found
