"""Errors as problem documents (RFC 9457, application/problem+json). They repeat nothing that the client did not
send.
"""

import json
import logging
import uuid
from typing import Any, Final, cast

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOG = logging.getLogger("fraudcase.console")
TITLES = {
    400: "Bad request",
    401: "Sign in first",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    412: "The case has moved on",
    413: "Too large",
    415: "File type not supported",
    422: "Not valid",
    428: "Version of the case missing",
    429: "Too many requests",
    500: "Our mistake",
    503: "Not ready",
    504: "No answer in time",
}


class ProblemDocument(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str


PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    status: {
        "description": TITLES[status],
        "content": {"application/problem+json": {"schema": ProblemDocument.model_json_schema()}},
    }
    for status in (400, 401, 403, 404, 409, 412, 413, 415, 422, 428, 429, 500, 503, 504)
}
"""Error answers that every route can give, for the API's description."""


class Problem(Exception):
    """An error answer; `more` holds further members of its problem document."""

    def __init__(self, status: int, detail: str, headers: dict[str, str] | None = None, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}
        self.more = more


def answer(problem: Problem) -> Response:
    """Return the problem as a response."""
    document = {
        "type": "about:blank",
        "title": TITLES.get(problem.status, "Not done"),
        "status": problem.status,
        "detail": problem.detail,
        **problem.more,
    }
    return Response(json.dumps(document), problem.status, problem.headers, "application/problem+json")


def register(app: FastAPI) -> None:
    """Turn every error of the app into a problem document."""
    app.exception_handler(Problem)(_problem)
    app.exception_handler(HTTPException)(_http)
    app.exception_handler(RequestValidationError)(_validation)
    app.exception_handler(OperationalError)(_store_unavailable)
    app.exception_handler(Exception)(_internal_error)


class ProblemMiddleware:
    """Middleware that turns plain-text errors of the libraries (a body too large, a foreign host) into problem
    documents.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        held: list[Response] = []

        async def translated(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                kind = Headers(raw=message["headers"]).get("content-type", "")
                if kind.startswith("text/plain"):
                    status = message["status"]
                    held.append(answer(Problem(status, TITLES.get(status, "this cannot be done").lower())))
                    return
            if not held:
                await send(message)
            elif not message.get("more_body", False):
                await held[0](scope, receive, send)

        await self._app(scope, receive, translated)


async def _problem(_: Request, error: Exception) -> Response:
    return answer(cast(Problem, error))


async def _http(_: Request, error: Exception) -> Response:
    found = cast(HTTPException, error)
    return answer(Problem(found.status_code, str(found.detail), dict(found.headers or {})))


async def _validation(_: Request, error: Exception) -> Response:
    """Name the place and the reason of each error, and never the value, which may be confidential."""
    found = cast(RequestValidationError, error).errors()
    errors = [{"where": [str(part) for part in each["loc"]], "why": each["msg"]} for each in found]
    return answer(Problem(422, "the request does not fit the description of this route", errors=errors))


async def _store_unavailable(request: Request, error: Exception) -> Response:
    """Answer 503 without the error's text, which repeats the statement's parameters."""
    LOG.error("the control store did not answer at %s %s: %s", request.method, _route(request), type(error).__name__)
    return answer(Problem(503, "the control store does not answer: try again", {"Retry-After": "1"}))


async def _internal_error(request: Request, error: Exception) -> Response:
    number = uuid.uuid4().hex[:12]
    LOG.error("error %s at %s %s", number, request.method, _route(request), exc_info=error)
    return answer(Problem(500, f"this is a bug, noted in the log as {number}"))


def _route(request: Request) -> str:
    return str(getattr(request.scope.get("route"), "path", "?"))
