"""Sign-in with a name and a password, and sign-out."""

from typing import Annotated
from urllib.parse import quote, urlsplit

from fastapi import FastAPI, Form, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse

from console.people.accounts import ABSOLUTE_MS, MAX_NAME, MAX_PASSWORD
from console.web.pages.rendering import page
from console.web.services import ConsoleServices, person_of, services_of


def register(app: FastAPI) -> None:
    """Add these routes."""
    app.get("/sign-in", include_in_schema=False)(sign_in_page)
    app.post("/sign-in", include_in_schema=False)(sign_in)
    app.post("/sign-out", include_in_schema=False)(sign_out)


async def sign_in_page(request: Request, to: str = "/") -> Response:
    """Show the sign-in form."""
    return _form(request, 200, safe_target(to))


async def sign_in(
    request: Request,
    name: Annotated[str, Form(max_length=MAX_NAME)],
    password: Annotated[str, Form(max_length=MAX_PASSWORD)],
    to: Annotated[str, Form(max_length=2_000)] = "/",
) -> Response:
    """Start a session if the password is right. Each attempt takes a token from the name's and the address's bucket."""
    services, target = services_of(request), safe_target(to)
    address = request.client.host if request.client else ""
    if services.sign_ins.take(f"name {name}") or services.sign_ins.take(f"address {address}"):
        return _form(request, 429, target, name, "Too many attempts. Wait a minute.")
    person = await run_in_threadpool(services.people.check_password, name, password)
    if person is None:
        await run_in_threadpool(services.people.log, "nobody", "sign-in", await _known(services, name), "refused")
        return _form(request, 401, target, name, "Name and password do not fit together.")
    token = await run_in_threadpool(services.people.start_session, person)
    await run_in_threadpool(services.people.log, person.name, "sign-in", person.name, "done")
    return with_session(RedirectResponse(target, 303), services, token)


async def _known(services: ConsoleServices, name: str) -> str:
    """Return the name if an account has it. Other input, which may be a password, is not written to the log."""
    return name if await run_in_threadpool(services.people.is_known, name) else "an unknown name"


def _form(request: Request, status: int, to: str, account: str = "", error: str = "") -> Response:
    elsewhere = f"/sign-in/oidc?to={quote(to)}" if services_of(request).open_id else ""
    return page(request, "sign_in.html", status, to=to, account=account, error=error, elsewhere=elsewhere)


async def sign_out(request: Request) -> Response:
    """End the session in the store, and delete the cookie."""
    services = services_of(request)
    if request.state.session_token is not None:
        await run_in_threadpool(services.people.end_session, request.state.session_token)
        await run_in_threadpool(services.people.log, person_of(request).name, "sign-out", "", "done")
    response = RedirectResponse("/sign-in", 303)
    response.delete_cookie(services.cookie, path="/", secure=services.is_behind_tls, httponly=True, samesite="lax")
    response.headers["Clear-Site-Data"] = '"cache", "storage"'
    return response


def with_session(response: Response, services: ConsoleServices, token: str) -> Response:
    """Add the cookie of a new session to a response."""
    response.set_cookie(
        services.cookie, token, max_age=ABSOLUTE_MS // 1000, path="/", secure=services.is_behind_tls, httponly=True,
        samesite="lax",
    )  # fmt: skip
    return response


def safe_target(to: str) -> str:
    """Return the path to go to after sign-in: `to` if it is a path of this console, else /."""
    parts = urlsplit(to)
    is_ours = not parts.scheme and not parts.netloc and to.startswith("/") and not to.startswith(("//", "/\\"))
    return to if is_ours and to.isprintable() and "\\" not in to else "/"
