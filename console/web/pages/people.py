"""The page of accounts and their roles, for admins."""

from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from console.people.accounts import UserAccountError
from console.people.roles import ROLES, Role
from console.web.api.people import NewApiToken, NewUserAccount, UserAccountChanges
from console.web.pages.rendering import page
from console.web.problems import Problem
from console.web.services import person_of, services_of


def register(app: FastAPI) -> None:
    """Add these routes."""
    app.get("/people", include_in_schema=False)(people)
    app.post("/people", include_in_schema=False)(add)
    app.post("/people/{name}", include_in_schema=False)(change)


async def people(request: Request) -> Response:
    """Show all accounts."""
    return await _people_page(request)


async def _people_page(request: Request, **more: Any) -> Response:
    rows = await run_in_threadpool(services_of(request).people.everybody)
    known = {"secret": None, "secret_of": "", "what": "", "error": ""}
    return page(request, "people.html", people=rows, roles=ROLES, **{**known, **more})


async def add(request: Request) -> Response:
    """Add an account; its random password is shown once."""
    form = await request.form()
    accounts, actor = services_of(request).people, person_of(request).name
    try:
        asked = NewUserAccount.model_validate({"name": form.get("name"), "roles": form.getlist("roles")})
        secret = await run_in_threadpool(accounts.add, asked.name, frozenset(asked.roles), actor)
    except (UserAccountError, ValidationError) as error:
        return await _people_page(request, error=error_text(error))
    return await _people_page(request, secret=secret, secret_of=asked.name, what="password")


async def change(request: Request, name: str) -> Response:
    """Change the roles or the password of an account, add a token for a machine, or disable the account."""
    form = await request.form()
    accounts, actor, what = services_of(request).people, person_of(request).name, str(form.get("what"))
    if name == actor and what in ("roles", "disable"):
        return await _people_page(request, error="another admin must do this: nobody changes their own account")
    try:
        if what == "roles":
            roles = UserAccountChanges.model_validate({"roles": form.getlist("roles")}).roles or []
            await run_in_threadpool(accounts.set_roles, name, frozenset(map(Role, roles)), actor)
        elif what in ("disable", "enable"):
            await run_in_threadpool(lambda: accounts.set_disabled(name, actor, is_disabled=what == "disable"))
        elif what == "password":
            secret = await run_in_threadpool(accounts.set_password, name, actor)
            return await _people_page(request, secret=secret, secret_of=name, what="password")
        elif what == "token":
            token = NewApiToken.model_validate({"label": form.get("label")})
            secret = await run_in_threadpool(accounts.add_token, name, token.label, token.days, actor)
            return await _people_page(request, secret=secret, secret_of=name, what="token")
    except (UserAccountError, ValidationError) as error:
        return await _people_page(request, error=error_text(error))
    return await _people_page(request)


def error_text(error: Exception) -> str:
    """Return the text of an error for people."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"
    return error.detail if isinstance(error, Problem) else str(error)
