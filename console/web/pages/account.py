"""The page of one's own account: permissions, and the password."""

from fastapi import FastAPI, Request, Response
from pydantic import ValidationError
from starlette.responses import RedirectResponse

from console.people.accounts import MIN_PASSWORD
from console.web.api.people import PasswordChange, change_password
from console.web.pages.rendering import page
from console.web.problems import Problem


def register(app: FastAPI) -> None:
    """Add these routes."""
    app.get("/account", include_in_schema=False)(account)
    app.post("/account", include_in_schema=False)(new_password)


async def account(request: Request) -> Response:
    """Show the signed-in person's account."""
    return page(request, "account.html", minimum=MIN_PASSWORD, error="")


async def new_password(request: Request) -> Response:
    """Set another password; every session of the person ends, this one too."""
    form = await request.form()
    try:
        asked = PasswordChange.model_validate({name: str(form.get(name, "")) for name in ("current", "new")})
        await change_password(request, asked)
    except ValidationError:
        return page(request, "account.html", minimum=MIN_PASSWORD, error="The new password is too short or too long.")
    except Problem as problem:
        return page(request, "account.html", minimum=MIN_PASSWORD, error=problem.detail)
    return RedirectResponse("/sign-in", 303)
