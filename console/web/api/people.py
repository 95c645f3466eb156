"""Accounts, and the log of what happened at the doors."""

from typing import Annotated, Literal

from fastapi import FastAPI, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from console.people.accounts import MAX_PASSWORD, MIN_PASSWORD, UserAccountError
from console.people.roles import Role
from console.web.problems import PROBLEMS, Problem
from console.web.services import person_of, services_of

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$")]
MAX_PAGE = 200


class AccountRequestBody(BaseModel):
    """What comes in has the members that are described, and no others."""

    model_config = ConfigDict(extra="forbid")


class UserAccount(BaseModel):
    """Somebody who may sign in."""

    name: str
    roles: list[Role]
    is_disabled: bool
    signs_in_by: str
    created_at_ms: int


class NewUserAccount(AccountRequestBody):
    """Somebody to let in."""

    name: Name
    roles: Annotated[list[Role], Field(min_length=1, max_length=len(Role))]


class UserAccountChanges(AccountRequestBody):
    """What is to be otherwise; what is left out stays."""

    roles: Annotated[list[Role], Field(min_length=1, max_length=len(Role))] | None = None
    is_disabled: bool | None = None


class IssuedSecret(BaseModel):
    """A password or token, shown this once."""

    name: str
    secret: str


class NewApiToken(AccountRequestBody):
    """A machine to let in with the roles of the account."""

    label: Annotated[str, Field(min_length=1, max_length=64)]
    days: Annotated[int, Field(ge=1, le=366)] = 90


class PasswordChange(AccountRequestBody):
    """A password of one's own choice."""

    current: Annotated[str, Field(max_length=MAX_PASSWORD)]
    new: Annotated[str, Field(min_length=MIN_PASSWORD, max_length=MAX_PASSWORD)]


class AccessLogEntry(BaseModel):
    """Something that happened at the doors."""

    number: int
    at_ms: int
    actor: str
    action: str
    subject: str
    outcome: Literal["done", "refused"]
    detail: str


class AccessLogPage(BaseModel):
    """A page of them, newest first."""

    entries: list[AccessLogEntry]
    next: int | None
    """The `before` of the next page."""


def register(app: FastAPI) -> None:
    """Add these routes."""
    people = {"tags": ["people"], "responses": PROBLEMS}
    app.get("/api/v1/people", **people)(list_people)  # type: ignore[arg-type]
    app.post("/api/v1/people", status_code=201, **people)(add_person)  # type: ignore[arg-type]
    app.patch("/api/v1/people/{name}", status_code=204, **people)(change_person)  # type: ignore[arg-type]
    app.post("/api/v1/people/{name}/password", **people)(reset_password)  # type: ignore[arg-type]
    app.post("/api/v1/people/{name}/tokens", status_code=201, **people)(add_token)  # type: ignore[arg-type]
    app.post("/api/v1/me/password", status_code=204, **people)(change_password)  # type: ignore[arg-type]
    app.get("/api/v1/audit/doors", **people)(door_log)  # type: ignore[arg-type]


async def list_people(request: Request) -> list[UserAccount]:
    """Everybody who may sign in, by name."""
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
    """Let somebody in; the answer holds their random password."""
    people, roles = services_of(request).people, frozenset(asked.roles)
    try:
        password = await run_in_threadpool(people.add, asked.name, roles, person_of(request).name)
    except UserAccountError as error:
        raise Problem(409, str(error)) from error
    return IssuedSecret(name=asked.name, secret=password)


async def change_person(request: Request, name: Name, asked: UserAccountChanges) -> Response:
    """Give somebody other roles, or close the door to them; nobody can shut themselves out."""
    people, actor = services_of(request).people, person_of(request).name
    if name == actor:
        raise Problem(409, "another admin must do this: nobody changes their own account")
    if not await run_in_threadpool(people.is_known, name):
        raise Problem(404, f"there is nobody called {name}")
    try:
        if asked.roles is not None:
            await run_in_threadpool(people.set_roles, name, frozenset(asked.roles), actor)
        if asked.is_disabled is not None:
            await run_in_threadpool(lambda: people.set_disabled(name, actor, is_disabled=bool(asked.is_disabled)))
    except UserAccountError as error:
        raise Problem(404, str(error)) from error
    return Response(status_code=204)


async def reset_password(request: Request, name: Name) -> IssuedSecret:
    """Give somebody another random password; their sessions and tokens end."""
    try:
        password = await run_in_threadpool(services_of(request).people.set_password, name, person_of(request).name)
    except UserAccountError as error:
        raise Problem(404, str(error)) from error
    return IssuedSecret(name=name, secret=password)


async def add_token(request: Request, name: Name, asked: NewApiToken) -> IssuedSecret:
    """Let a machine in with the roles of an account: `Authorization: Bearer TOKEN`."""
    people, actor = services_of(request).people, person_of(request).name
    try:
        token = await run_in_threadpool(people.add_token, name, asked.label, asked.days, actor)
    except UserAccountError as error:
        raise Problem(404, str(error)) from error
    return IssuedSecret(name=name, secret=token)


async def change_password(request: Request, asked: PasswordChange) -> Response:
    """Choose a password; every session and token of yours ends."""
    doors, person = services_of(request), person_of(request)
    if doors.sign_ins.take(f"name {person.name}"):
        raise Problem(429, "too many attempts: wait a minute", {"Retry-After": "60"})
    if await run_in_threadpool(doors.people.check_password, person.name, asked.current) is None:
        await run_in_threadpool(doors.people.log, person.name, "set-password", person.name, "refused")
        raise Problem(403, "the current password is another one")
    await run_in_threadpool(doors.people.set_password, person.name, person.name, asked.new)
    return Response(status_code=204)


async def door_log(
    request: Request,
    before: Annotated[int | None, Query(ge=0, le=2**62)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
) -> AccessLogPage:
    """What happened at the doors and is in no other log: sign-ins, refusals, exports, changes to accounts."""
    rows = await run_in_threadpool(services_of(request).people.door_log, before, limit)
    entries = [
        AccessLogEntry.model_validate({name: getattr(row, name) for name in AccessLogEntry.model_fields})
        for row in rows
    ]
    return AccessLogPage(entries=entries, next=rows[-1].number if len(rows) == limit else None)
