"""Access to the console: every route with every role, sessions, request forgery, and limits."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.routing import APIRoute
from sqlalchemy.exc import DBAPIError, OperationalError
from starlette.routing import Mount
from starlette.testclient import TestClient

from console.people.accounts import ABSOLUTE_MS, IDLE_MS, KNOWN_MS, RENEWED_MS, Person, UserAccountError, digest_of
from console.people.roles import ROLES, Permission, Role, permissions_of
from console.web.guard import GuardedRoute
from console.web.headers import ALWAYS, HSTS
from console.web.limits import TokenBuckets
from console.web.route_permissions import ROUTES
from console.web.sign_in.password import safe_target
from migrations.models import AccessLogRow, SessionRow
from tests.support.desk import PASSWORD, Desk, opened

pytestmark = pytest.mark.no_cover  # line counting makes folds three times slower, and other tests cover this code

SAFE = ("GET", "HEAD")
STREAMS = {"GET /api/v1/events", "GET /stream"}
"""Event streams never end, so the tests of their readers cover them."""
SIGNS_OUT = {"POST /sign-out"}
"""Ends the session, so it has a test of its own."""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with opened(tmp_path_factory.mktemp("desk")) as made:
        yield made


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Desk]:
    with opened(tmp_path) as made:
        yield made


def concrete(path: str) -> str:
    """Return a path with values for its parameters."""
    return re.sub(r"\{\w+(:\w+)?\}", "0", path)


def outcome(client: TestClient, route: str) -> int:
    method, path = route.split()
    return client.request(method, concrete(path)).status_code


def test_every_route_is_guarded_and_in_the_permission_table(desk: Desk) -> None:
    routes = set()
    for route in desk.app.routes:
        if isinstance(route, Mount):
            assert route.path == "/static"
            continue
        assert isinstance(route, GuardedRoute), route
        assert isinstance(route, APIRoute)
        routes |= {f"{method} {route.path}" for method in route.methods or ()}
    assert routes == set(ROUTES)


def test_protected_routes_refuse_requests_without_a_session(desk: Desk) -> None:
    client = desk.client()
    for route, permission in ROUTES.items():
        status = outcome(client, route)
        if permission is Permission.ANYBODY:
            assert status not in (401, 405), route
        elif route.startswith("GET ") and "/api/" not in route:
            assert status == 303, route
        else:
            assert status == 401, route


@pytest.mark.parametrize("role", list(Role))
def test_each_role_has_exactly_the_routes_of_the_table(desk: Desk, role: Role) -> None:
    allowed, client = permissions_of(frozenset({role})), desk.signed_in(role)
    for route, permission in ROUTES.items():
        if permission is Permission.ANYBODY or route in SIGNS_OUT or (permission in allowed and route in STREAMS):
            continue
        status = outcome(client, route)
        assert (status not in (401, 403)) == (permission in allowed), (route, status)
        assert status < 500, (route, status)


def test_each_permission_belongs_to_some_roles_but_not_to_all() -> None:
    for permission in set(Permission) - {Permission.ANYBODY, Permission.SELF}:
        allowed = [role for role in Role if permission in ROLES[role]]
        assert allowed, permission
    assert not ROLES[Role.ADMIN] & {Permission.READ_CASES, Permission.WORK_CASES, Permission.WRITE_RULES}
    assert not [role for role in (Role.AUDITOR, Role.ADMIN) if Permission.WORK_CASES in ROLES[role]]


def test_refusal_is_logged(fresh: Desk) -> None:
    route = next(route for route in sorted(ROUTES) if ROUTES[route] is Permission.ADMINISTER)
    assert outcome(fresh.signed_in(Role.ANALYST), route) == 403
    entry = fresh.people.door_log()[0]
    assert (entry.actor, entry.action, entry.subject, entry.outcome) == ("analyst", "refused", route, "refused")


def test_signing_in_and_out(fresh: Desk) -> None:
    fresh.people.add("ann", frozenset({Role.ANALYST}), "test", PASSWORD)
    client = fresh.client()
    page = client.get("/?a=b")
    assert page.headers["location"] == "/sign-in?to=/%3Fa%3Db"
    answer = client.post("/sign-in", data={"name": "ann", "password": PASSWORD, "to": "/?a=b"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/?a=b")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    me = client.get("/api/v1/me").json()
    assert (me["name"], me["roles"]) == ("ann", ["analyst"])
    kept = client.cookies["fraudcase"]
    assert client.post("/sign-out", data={"csrf_token": me["csrf_token"]}).status_code == 303
    client.cookies.set("fraudcase", kept, domain="127.0.0.1")
    assert client.get("/api/v1/me").status_code == 401, "the session ended in the store, too"
    assert [(entry.action, entry.outcome) for entry in fresh.people.door_log()][:2] == [
        ("sign-out", "done"), ("sign-in", "done"),
    ]  # fmt: skip


def test_signing_in_again_starts_another_session(fresh: Desk) -> None:
    fresh.people.add("ann", frozenset({Role.ANALYST}), "test", PASSWORD)
    client = fresh.client()
    client.cookies.set("fraudcase", "chosen-by-an-attacker", domain="127.0.0.1")
    form = {"name": "ann", "password": PASSWORD}
    first = client.post("/sign-in", data=form).cookies["fraudcase"]
    second = client.post("/sign-in", data=form).cookies["fraudcase"]
    assert len({first, second, "chosen-by-an-attacker"}) == 3


@pytest.mark.parametrize("name", ["ann", "nobody-of-this-name"])
def test_wrong_password_and_wrong_name_get_equal_answers(fresh: Desk, name: str) -> None:
    fresh.people.add("ann", frozenset({Role.ANALYST}), "test", PASSWORD)
    answer = fresh.client().post("/sign-in", data={"name": name, "password": "wrong"})
    assert answer.status_code == 401
    assert "Name and password do not fit together." in answer.text
    assert "set-cookie" not in answer.headers
    subject = fresh.people.door_log()[0].subject
    assert subject == ("ann" if name == "ann" else "an unknown name"), "the typed name could be a password"


def test_only_hashes_are_stored(fresh: Desk) -> None:
    fresh.people.add("ann", frozenset({Role.ANALYST}), "test", PASSWORD)
    person = fresh.people.check_password("ann", PASSWORD)
    assert person is not None
    session, token = fresh.people.start_session(person), fresh.people.add_token("ann", "robot", 1, "test")
    stored = Path(str(fresh.engine.url.database)).read_bytes()
    for secret in (PASSWORD, session, token):
        assert secret.encode() not in stored
    assert digest_of(session).encode() in stored
    assert b"$argon2id$" in stored


def test_idle_and_old_sessions_expire(fresh: Desk) -> None:
    client = fresh.signed_in(Role.ANALYST)
    for _ in range(ABSOLUTE_MS // (IDLE_MS - 1)):
        fresh.clock.now_ms += IDLE_MS - 1
        assert client.get("/api/v1/me").status_code == 200
    fresh.clock.now_ms += IDLE_MS - 1
    assert client.get("/api/v1/me").status_code == 401, "too old, though never idle"
    client = fresh.signed_in(Role.ANALYST)
    fresh.clock.now_ms += IDLE_MS + 1
    assert client.get("/api/v1/me").status_code == 401


def test_disabling_and_new_passwords_end_sessions_and_tokens(fresh: Desk) -> None:
    for end in (
        lambda: fresh.people.set_disabled("analyst", "test", is_disabled=True),
        lambda: fresh.people.set_password("analyst", "test"),
    ):
        client = fresh.signed_in(Role.ANALYST)
        bearer = {"Authorization": f"Bearer {fresh.people.add_token('analyst', 'robot', 1, 'test')}"}
        assert client.get("/api/v1/me").status_code == 200
        assert fresh.client().get("/api/v1/me", headers=bearer).status_code == 200
        end()
        assert client.get("/api/v1/me").status_code == 401
        assert fresh.client().get("/api/v1/me", headers=bearer).status_code == 401
        fresh.people.set_disabled("analyst", "test", is_disabled=False)


def test_cached_person_is_refreshed_in_the_background_and_a_forgotten_one_stays_forgotten(fresh: Desk) -> None:
    fresh.person(Role.ANALYST, name="ana")
    people, token = fresh.people, fresh.people.add_token("ana", "test", 1, "test")
    assert people.known(token) is None
    assert people.of_token(token) is not None
    assert people.known(token) is not None
    assert not people.is_to_renew(token)
    fresh.clock.now_ms += RENEWED_MS
    assert [people.is_to_renew(token) for _ in range(3)] == [True, False, False], "once"
    assert people.known(token) is not None
    fresh.clock.now_ms += KNOWN_MS - RENEWED_MS
    assert people.known(token) is None
    held = people._known
    person = people.of_token(token)
    assert person is not None
    people.set_disabled("ana", "test", is_disabled=True)
    people._remember(held, digest_of(token), person)
    assert people.known(token) is None, "the query began before she was disabled, and was answered after it"


def test_unreachable_store_is_reported_to_the_requests_that_need_it(
    fresh: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = fresh.signed_in(Role.ANALYST, name="ana")
    assert client.get("/api/v1/queue").status_code == 200
    asked: list[str] = []

    def away(token: str) -> Person | None:
        asked.append(token)
        raise OperationalError("select", {}, Exception("away"))

    monkeypatch.setattr(fresh.people, "of_session", away)
    fresh.clock.now_ms += RENEWED_MS
    assert [client.get("/api/v1/queue").status_code for _ in range(3)] == [200, 200, 200]
    assert len(asked) == 1
    fresh.clock.now_ms += KNOWN_MS
    assert client.get("/api/v1/queue").status_code == 503


def test_tokens_expire_and_need_no_page(fresh: Desk) -> None:
    fresh.person(Role.ANALYST)
    bearer = {"Authorization": f"Bearer {fresh.people.add_token('analyst', 'robot', 1, 'test')}"}
    assert fresh.client().get("/api/v1/me", headers=bearer).json()["csrf_token"] is None
    assert fresh.client().post("/sign-out", headers=bearer).status_code == 303
    fresh.clock.now_ms += 86_400_001
    assert fresh.client().get("/api/v1/me", headers=bearer).status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({}, 303, id="our page"),
        pytest.param({"X-CSRF-Token": ""}, 403, id="no token"),
        pytest.param({"X-CSRF-Token": "0" * 64}, 403, id="somebody else's token"),
        pytest.param({"Sec-Fetch-Site": "same-origin"}, 303, id="a header that claims to be our page"),
        pytest.param({"Sec-Fetch-Site": "cross-site"}, 403, id="another site's page"),
        pytest.param({"Sec-Fetch-Site": "same-site"}, 403, id="a neighbour's page"),
        pytest.param({"Origin": "http://127.0.0.1"}, 303, id="our origin"),
        pytest.param({"Origin": "https://evil.example"}, 403, id="another origin"),
        pytest.param({"Origin": "null"}, 403, id="a sandbox"),
    ],
)
def test_browser_write_without_the_page_token_is_refused(fresh: Desk, headers: dict[str, str], status: int) -> None:
    client = fresh.signed_in(Role.ANALYST)
    assert client.post("/sign-out", headers=headers).status_code == status


def test_form_of_another_site_cannot_sign_in(fresh: Desk) -> None:
    fresh.people.add("ann", frozenset({Role.ANALYST}), "test", PASSWORD)
    form, headers = {"name": "ann", "password": PASSWORD}, {"Origin": "https://evil.example"}
    assert fresh.client().post("/sign-in", data=form, headers=headers).status_code == 403


@pytest.mark.parametrize("path", ["/health", "/sign-in", "/api/v1/me", "/nothing-here", "/static/console.css"])
def test_every_answer_has_the_security_headers(desk: Desk, path: str) -> None:
    answer = desk.client().get(path)
    for name, value in ALWAYS.items():
        assert answer.headers[name] == value
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == ("no-cache" if path.startswith("/static") else "no-store")
    assert "strict-transport-security" not in answer.headers
    assert "server" not in answer.headers


def test_behind_tls_cookies_and_pages_require_tls(tmp_path: Path) -> None:
    with opened(tmp_path, public_url="https://cases.example.com") as made:
        made.people.add("ann", frozenset({Role.ANALYST}), "test", PASSWORD)
        client = made.client()
        client.base_url = "https://cases.example.com"
        answer = client.post("/sign-in", data={"name": "ann", "password": PASSWORD})
        assert answer.headers["set-cookie"].startswith("__Host-fraudcase=")
        assert "; Secure" in answer.headers["set-cookie"]
        assert answer.headers["strict-transport-security"] == HSTS


def test_other_hosts_are_not_served(desk: Desk) -> None:
    assert desk.client().get("/health", headers={"Host": "evil.example"}).status_code == 400


def test_sign_in_attempts_are_limited_by_name_and_address(tmp_path: Path) -> None:
    with opened(tmp_path, sign_ins=TokenBuckets(burst=3, per_s=1, clock=lambda: 0.0)) as made:
        made.people.add("ann", frozenset({Role.ANALYST}), "test", PASSWORD)
        client = made.client()
        found = [client.post("/sign-in", data={"name": "ann", "password": "wrong"}).status_code for _ in range(5)]
        assert found == [401, 401, 401, 429, 429]
        assert client.post("/sign-in", data={"name": "ann", "password": PASSWORD}).status_code == 429


def test_requests_are_limited_by_person(tmp_path: Path) -> None:
    with opened(tmp_path, rate=TokenBuckets(burst=2, per_s=0.1, clock=lambda: 0.0)) as made:
        client = made.signed_in(Role.ANALYST)
        found = [client.get("/api/v1/me") for _ in range(3)]
        assert [each.status_code for each in found] == [200, 200, 429]
        assert found[2].headers["retry-after"] == "11"
        assert made.signed_in(Role.LEAD).get("/api/v1/me").status_code == 200


def test_token_bucket_refills_up_to_its_capacity() -> None:
    now = 0.0
    buckets = TokenBuckets(burst=2, per_s=0.5, clock=lambda: now)
    assert [buckets.take("a"), buckets.take("a"), buckets.take("a")] == [0.0, 0.0, 2.0]
    now = 2.0
    assert [buckets.take("a"), buckets.take("a")] == [0.0, 2.0]
    now = 1_000.0
    assert [buckets.take("a"), buckets.take("a"), buckets.take("a")] == [0.0, 0.0, 2.0]


@pytest.mark.parametrize("to", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:x", "/\n", ""])
def test_sign_in_does_not_redirect_to_another_site(to: str) -> None:
    assert safe_target(to) == "/"


def test_errors_are_problem_documents(desk: Desk) -> None:
    for answer in (desk.client().get("/api/v1/me"), desk.client().get("/nothing"), desk.client().post("/health")):
        assert answer.headers["content-type"] == "application/problem+json"
        document = answer.json()
        assert document["status"] == answer.status_code
        assert set(document) >= {"type", "title", "detail"}


def test_access_log_cannot_be_rewritten(fresh: Desk) -> None:
    fresh.people.log("ann", "sign-in", "", "done")
    with pytest.raises(DBAPIError, match="append-only"), fresh.engine.begin() as connection:
        connection.execute(AccessLogRow.__table__.delete())  # type: ignore[attr-defined]


@pytest.mark.parametrize("password", ["short", "x" * 300])
def test_weak_passwords_are_refused(fresh: Desk, password: str) -> None:
    with pytest.raises(UserAccountError, match="12 to 256"):
        fresh.people.add("ann", frozenset({Role.ANALYST}), "test", password)


def test_initial_passwords_are_random_and_created_once(fresh: Desk) -> None:
    made = [fresh.people.first(name, Role.ANALYST) for name in ("a", "b", "a")]
    assert made[0] != made[1]
    assert made[2] is None
    assert all(each and len(each) >= 20 for each in made[:2])
    assert SessionRow.__tablename__ == "sessions"
