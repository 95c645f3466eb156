"""Puts the console's app together."""

from urllib.parse import quote, urlsplit

from fastapi import FastAPI, Request, Response
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import RedirectResponse
from starlette.staticfiles import StaticFiles

from console.web import (
    api_attachments,
    api_cases,
    api_commands,
    api_erasures,
    api_events,
    api_people,
    api_queue,
    api_self,
    api_webhooks,
    pages,
    problems,
    sign_in,
    sign_in_elsewhere,
)
from console.web.doors import Doors
from console.web.guard import GuardedRoute
from console.web.headers import SecurityHeaders
from console.web.page_parts import PageParts
from console.web.problems import PlainProblems, Problem, answer
from console.web.rendering import FOLDER


def create_app(doors: Doors, parts: PageParts) -> FastAPI:
    """The app, with every route behind the guard."""
    app = FastAPI(
        title="fraudcase",
        version="1",
        summary="Fraud cases, and what analysts do with them",
        openapi_url=None,  # ours is behind the guard
        docs_url=None,
        redoc_url=None,
    )
    app.state.doors = doors
    app.state.page_parts = parts
    app.router.route_class = GuardedRoute
    for area in (
        api_self,
        api_people,
        api_queue,
        api_cases,
        api_commands,
        api_attachments,
        api_webhooks,
        api_erasures,
        api_events,
        sign_in,
        sign_in_elsewhere,
        pages,
    ):
        area.register(app)
    problems.register(app)
    app.exception_handler(Problem)(_problem_or_sign_in)
    app.mount("/static", StaticFiles(directory=FOLDER / "static"), name="static")
    hosts = ["127.0.0.1", "localhost", "[::1]", urlsplit(doors.public_url).hostname or "localhost"]
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    app.add_middleware(PlainProblems)
    app.add_middleware(SecurityHeaders, is_behind_tls=doors.is_behind_tls)
    return app


async def _problem_or_sign_in(request: Request, error: Exception) -> Response:
    """People who ask for a page without a session are asked to sign in; programs get the problem."""
    assert isinstance(error, Problem)
    if error.status == 401 and request.method == "GET" and not request.url.path.startswith("/api/"):
        there = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/sign-in?to={quote(there)}", 303)
    return answer(error)
