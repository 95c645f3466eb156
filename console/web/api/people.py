"""API routes of user accounts, and of the access log."""

from typing import Annotated, Literal

from fastapi import FastAPI, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from console.people.accounts import MAX_PASSWORD, MIN_PASSWORD, UserAccountError
from console.people.roles import Role
from console.web.inputs import MAX_PAGE, PersonName, RequestBody
from console.web.problems import PROBLEMS, Problem
from console.web.services import person_of, services_of


class UserAccount(BaseModel):
    """An account that can sign in."""

    name: str
    roles: list[Role]
    is_disabled: bool
    signs_in_by: str
    created_at_ms: int


class NewUserAccount(RequestBody):
    """Account to create."""

    name: PersonName
    roles: Annotated[list[Role], Field(min_length=1, max_length=len(Role))]


class UserAccountChanges(RequestBody):
    """Changes to an account. A field that is left out stays as it is."""

    roles: Annotated[list[Role], Field(min_length=1, max_length=len(Role))] | None = None
    is_disabled: bool | None = None


class IssuedSecret(BaseModel):
    """A new password or token, shown only once."""

    name: str
    secret: str


class NewApiToken(RequestBody):
    """API token to create, with the roles of its account."""

    label: Annotated[str, Field(min_length=1, max_length=64)]
    days: Annotated[int, Field(ge=1, le=366)] = 90


class PasswordChange(RequestBody):
    """A person's own new password, with the current one."""

    current: Annotated[str, Field(max_length=MAX_PASSWORD)]
    new: Annotated[str, Field(min_length=MIN_PASSWORD, max_length=MAX_PASSWORD)]


class AccessLogEntry(BaseModel):
    """One entry of the access log."""

    number: int
    at_ms: int
    actor: str
    action: str
    subject: str
    outcome: Literal["done", "refused"]
    detail: str


class AccessLogPage(BaseModel):
    """One page of the access log, newest first."""

    entries: list[AccessLogEntry]
    next: int | None
    """Value of `before` for the next page; null on the last page."""


def register(app: FastAPI) -> None:
    """Add the routes of this module."""
    people = {"tags": ["people"], "responses": PROBLEMS}
    app.get("/api/v1/people", **people)(list_people)  # type: ignore[arg-type]
    app.post("/api/v1/people", status_code=201, **people)(add_person)  # type: ignore[arg-type]
    app.patch("/api/v1/people/{name}", status_code=204, **people)(change_person)  # type: ignore[arg-type]
    app.post("/api/v1/people/{name}/password", **people)(reset_password)  # type: ignore[arg-type]
    app.post("/api/v1/people/{name}/tokens", status_code=201, **people)(add_token)  # type: ignore[arg-type]
    app.post("/api/v1/me/password", status_code=204, **people)(change_password)  # type: ignore[arg-type]
    app.get("/api/v1/audit/doors", **people)(door_log)  # type: ignore[arg-type]


async def list_people(request: Request) -> list[UserAccount]:
    """Return all accounts, by name."""
    return [
        UserAccount(
            name=row.name,
            roles=[Role(role) for role in row.roles.split()],
            is_disabled=row.is_disabled,
            signs_in_by=row.issuer or "password",
            created_at_ms=row.created_at_ms,
        )
        for row in await run_in_threadpool(services_of(request).people.everybody)
    ]


async def add_person(request: Request, asked: NewUserAccount) -> IssuedSecret:
    """Create an account. The answer holds its random password."""
    people, roles = services_of(request).people, frozenset(asked.roles)
    try:
        password = await run_in_threadpool(people.add, asked.name, roles, person_of(request).name)
    except UserAccountError as error:
        raise Problem(409, str(error)) from error
    return IssuedSecret(name=asked.name, secret=password)


async def change_person(request: Request, name: PersonName, asked: UserAccountChanges) -> Response:
    """Change the roles of an account, or disable it. Nobody can change their own account."""
    people, actor = services_of(request).people, person_of(request).name
    if name == actor:
        raise Problem(409, "nobody can change their own account: ask another admin")
    if not await run_in_threadpool(people.is_known, name):
        raise Problem(404, f"there is no account {name}")
    try:
        if asked.roles is not None:
            await run_in_threadpool(people.set_roles, name, frozenset(asked.roles), actor)
        if asked.is_disabled is not None:
            await run_in_threadpool(lambda: people.set_disabled(name, actor, is_disabled=bool(asked.is_disabled)))
    except UserAccountError as error:
        raise Problem(404, str(error)) from error
    return Response(status_code=204)


async def reset_password(request: Request, name: PersonName) -> IssuedSecret:
    """Set another random password. The account's sessions and tokens end."""
    try:
        password = await run_in_threadpool(services_of(request).people.set_password, name, person_of(request).name)
    except UserAccountError as error:
        raise Problem(404, str(error)) from error
    return IssuedSecret(name=name, secret=password)


async def add_token(request: Request, name: PersonName, asked: NewApiToken) -> IssuedSecret:
    """Create an API token with the roles of an account, for the header `Authorization: Bearer TOKEN`."""
    people, actor = services_of(request).people, person_of(request).name
    try:
        token = await run_in_threadpool(people.add_token, name, asked.label, asked.days, actor)
    except UserAccountError as error:
        raise Problem(404, str(error)) from error
    return IssuedSecret(name=name, secret=token)


async def change_password(request: Request, asked: PasswordChange) -> Response:
    """Change your own password. Your sessions and tokens end."""
    services, person = services_of(request), person_of(request)
    if services.sign_ins.take(f"name {person.name}"):
        raise Problem(429, "too many attempts: wait a minute", {"Retry-After": "60"})
    if await run_in_threadpool(services.people.check_password, person.name, asked.current) is None:
        await run_in_threadpool(services.people.log, person.name, "set-password", person.name, "refused")
        raise Problem(403, "the current password is wrong")
    await run_in_threadpool(services.people.set_password, person.name, person.name, asked.new)
    return Response(status_code=204)


async def door_log(
    request: Request,
    before: Annotated[int | None, Query(ge=0, le=2**62)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
) -> AccessLogPage:
    """Return the access log: sign-ins, refused requests, exports, and changes to accounts."""
    rows = await run_in_threadpool(services_of(request).people.door_log, before, limit)
    entries = [
        AccessLogEntry.model_validate({name: getattr(row, name) for name in AccessLogEntry.model_fields})
        for row in rows
    ]
    return AccessLogPage(entries=entries, next=rows[-1].number if len(rows) == limit else None)
