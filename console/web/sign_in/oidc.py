"""The two routes of single sign-on."""

from typing import Final

from fastapi import FastAPI, Request, Response
from httpx2 import HTTPError
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse

from console.people.open_id import PENDING_S, OpenIdError
from console.web.problems import Problem
from console.web.services import services_of
from console.web.sign_in.password import safe_target, with_session

COOKIE: Final = "fraudcase-oidc"


def register(app: FastAPI) -> None:
    """Add these routes."""
    app.get("/sign-in/oidc", include_in_schema=False)(begin)
    app.get("/sign-in/oidc/callback", include_in_schema=False)(callback)


async def begin(request: Request, to: str = "/") -> Response:
    """Redirect the browser to the identity provider."""
    services = services_of(request)
    if services.open_id is None:
        raise Problem(404, "no identity provider is set up here")
    address = request.client.host if request.client else ""
    if services.sign_ins.take(f"address {address}"):
        raise Problem(429, "too many attempts: wait a minute", {"Retry-After": "60"})
    try:
        url, browser = await services.open_id.begin(safe_target(to))
    except (HTTPError, OpenIdError, KeyError, ValueError) as error:
        raise Problem(503, f"the identity provider does not answer as it must: {type(error).__name__}") from error
    response = RedirectResponse(url, 303)
    response.set_cookie(
        COOKIE, browser, max_age=PENDING_S, path="/sign-in/oidc", secure=services.is_behind_tls, httponly=True,
        samesite="lax",
    )  # fmt: skip
    return response


async def callback(
    request: Request, state: str = "", code: str = "", error: str = "", iss: str | None = None
) -> Response:
    """Handle the return from the identity provider: start a session if it verifies a person with a role here."""
    services = services_of(request)
    if services.open_id is None:
        raise Problem(404, "no identity provider is set up here")
    try:
        vouched, to = await services.open_id.finish(state, code, request.cookies.get(COOKIE, ""), iss, error)
    except OpenIdError as refusal:
        await run_in_threadpool(services.people.log, "nobody", "sign-in", "identity provider", "refused", str(refusal))
        raise Problem(403, str(refusal)) from refusal
    issuer = services.open_id.provider.issuer
    person = await run_in_threadpool(services.people.of_provider, issuer, vouched.subject, vouched.name, vouched.roles)
    if person is None:
        await run_in_threadpool(services.people.log, "nobody", "sign-in", "identity provider", "refused", "disabled")
        raise Problem(403, "this account is disabled here")
    token = await run_in_threadpool(services.people.start_session, person)
    await run_in_threadpool(services.people.log, person.name, "sign-in", person.name, "done", f"by {issuer}")
    response = with_session(RedirectResponse(to, 303), services, token)
    response.delete_cookie(COOKIE, path="/sign-in/oidc")
    return response
