"""Assembly of the web console: routes, guard, errors and headers."""

from urllib.parse import quote, urlsplit

from fastapi import FastAPI, Request, Response
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import RedirectResponse
from starlette.staticfiles import StaticFiles

from console.display.templates import FOLDER
from console.web import problems
from console.web.api import (
    attachments,
    cases,
    commands,
    erasures,
    events,
    people,
    queue,
    self,
    webhooks,
)
from console.web.guard import GuardedRoute
from console.web.headers import SecurityHeaders
from console.web.pages import routes as page_routes
from console.web.pages.parts import PageServices
from console.web.problems import Problem, ProblemMiddleware, answer
from console.web.services import ConsoleServices
from console.web.sign_in import oidc, password


def create_app(services: ConsoleServices, parts: PageServices) -> FastAPI:
    """Create the app, with every route behind the guard."""
    app = FastAPI(
        title="fraudcase",
        version="1",
        summary="Fraud cases and the acts of analysts",
        openapi_url=None,  # ours is behind the guard
        docs_url=None,
        redoc_url=None,
    )
    app.state.services = services
    app.state.page_parts = parts
    app.router.route_class = GuardedRoute
    for area in (
        self,
        people,
        queue,
        cases,
        commands,
        attachments,
        webhooks,
        erasures,
        events,
        password,
        oidc,
        page_routes,
    ):
        area.register(app)
    problems.register(app)
    app.exception_handler(Problem)(_problem_or_sign_in)
    app.mount("/static", StaticFiles(directory=FOLDER / "static"), name="static")
    hosts = ["127.0.0.1", "localhost", "[::1]", urlsplit(services.public_url).hostname or "localhost"]
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    app.add_middleware(ProblemMiddleware)
    app.add_middleware(SecurityHeaders, is_behind_tls=services.is_behind_tls)
    return app


async def _problem_or_sign_in(request: Request, error: Exception) -> Response:
    """Redirect a browser without a session to the sign-in page; answer a program with the problem."""
    assert isinstance(error, Problem)
    if error.status == 401 and request.method == "GET" and not request.url.path.startswith("/api/"):
        there = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/sign-in?to={quote(there)}", 303)
    return answer(error)
