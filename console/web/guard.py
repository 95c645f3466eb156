"""The guard of every route: it identifies the person, checks the permission, and checks that a browser's write was
intended.

It runs before the body is parsed, so that the errors of a body are shown only to a person who may send it.
"""

import hmac
from collections.abc import Callable, Coroutine
from typing import Any, Final
from urllib.parse import urlsplit

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from console.people.accounts import Person, UserAccountStore, csrf_token
from console.people.roles import Permission
from console.privacy.vault import Vault
from console.web.background import run_in_background
from console.web.problems import Problem
from console.web.route_permissions import ROUTES
from console.web.services import ConsoleServices, services_of
from domain.sealed import MARK

MAX_BODY: Final = 64 << 10
"""Maximum size of a request, in bytes. Routes with attachments set their own."""
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_FORMS: Final = ("application/x-www-form-urlencoded", "multipart/form-data")


class GuardedRoute(APIRoute):
    """A route that the guard protects with the permission of the route table."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Create the route as FastAPI does, with MAX_BODY as the limit of the body unless another one is given."""
        super().__init__(*arguments, **{**options, "max_body_size": options.get("max_body_size") or MAX_BODY})

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler behind the guard."""
        handler = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            await admit(request, ROUTES.get(f"{request.method} {self.path}"))
            return await unseal_response(await handler(request), services_of(request).vault)

        return guarded


async def unseal_response(response: Response, vault: Vault) -> Response:
    """Open the sealed texts in a page or a JSON answer. Nothing that is stored or cached before this holds plain
    text.

    Downloaded files are left unchanged; streams open what they send themselves.
    """
    body = getattr(response, "body", b"")
    kind = response.headers.get("content-type", "").partition(";")[0]
    if MARK.encode() not in body:
        return response
    if kind == "text/html":
        text = await run_in_threadpool(vault.opened_html, body.decode())
    elif kind.endswith("json"):
        text = await run_in_threadpool(vault.opened_json, body.decode())
    else:
        return response
    response.body = text.encode()
    response.headers["content-length"] = str(len(response.body))
    return response


async def admit(request: Request, permission: Permission | None) -> None:
    """Check that the person has this permission. Raises Problem; a route without a permission refuses everybody."""
    services = services_of(request)
    same_origin = _is_of_our_pages(request, services)
    if request.method not in SAFE and same_origin is False:
        raise Problem(403, "this request comes from another site's page")
    if permission is Permission.ANYBODY:
        return
    person = await _signed_in_person(request, services)
    if person is None:
        raise Problem(401, "there is no valid session or token with this request", {"WWW-Authenticate": "Bearer"})
    request.state.person = person
    wait_s = services.rate.take(person.person_id)
    if wait_s:
        raise Problem(429, "too many requests", {"Retry-After": str(int(wait_s) + 1)})
    if permission is None or not person.may(permission):
        await run_in_threadpool(services.people.log, person.name, "refused", _route(request), "refused")
        raise Problem(403, "none of your roles may do this")
    if request.method not in SAFE and request.state.session_token is not None:
        await _check_csrf(request, request.state.session_token)


async def _signed_in_person(request: Request, services: ConsoleServices) -> Person | None:
    request.state.session_token = None
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return await _find_person(services.people, token, services.people.of_token)
    cookie = request.cookies.get(services.cookie)
    if not cookie:
        return None
    request.state.session_token = cookie
    return await _find_person(services.people, cookie, services.people.of_session)


async def _find_person(people: UserAccountStore, token: str, ask: Callable[[str], Person | None]) -> Person | None:
    person = people.known(token)
    if person is None:
        return await run_in_threadpool(ask, token)
    if people.is_to_renew(token):
        run_in_background(ask, token)
    return person


def is_still_permitted(request: Request) -> bool:
    """Return True if the reader of a long answer is still signed in and still has the permission of its route."""
    services, permission = services_of(request), ROUTES.get(_route(request))
    token = request.state.session_token
    bearer = request.headers.get("authorization", "").partition(" ")[2]
    person = services.people.of_session(token, is_use=False) if token else services.people.of_token(bearer)
    return person is not None and permission is not None and person.may(permission)


async def _check_csrf(request: Request, session_token: str) -> None:
    """Check that the page's token was sent back, in a header or in a field of the form. Raises Problem."""
    sent = request.headers.get("x-csrf-token")
    if sent is None and request.headers.get("content-type", "").startswith(_FORMS):
        field = (await request.form()).get("csrf_token")
        sent = field if isinstance(field, str) else None
    if sent is None or not hmac.compare_digest(sent.encode(), csrf_token(session_token).encode()):
        raise Problem(403, "the page's token is missing or old: load the page again")


def _is_of_our_pages(request: Request, services: ConsoleServices) -> bool | None:
    """Return True if the browser says that one of our pages sent the request, None if it says nothing, as a program
    does.
    """
    fetched = request.headers.get("sec-fetch-site")
    if fetched is not None:
        return fetched in ("same-origin", "none")
    origin = request.headers.get("origin")
    if origin is None:
        return None
    ours = urlsplit(services.public_url)
    return origin == f"{ours.scheme}://{ours.netloc}" or urlsplit(origin).netloc == request.headers.get("host")


def _route(request: Request) -> str:
    return f"{request.method} {getattr(request.scope.get('route'), 'path', '?')}"
