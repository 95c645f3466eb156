"""Random requests within the API's description: no server error, and no data without permission."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.result import Ok

from console.people.roles import Permission, Role, permissions_of
from console.web.route_permissions import ROUTES
from tests.support.desk import BASE, Desk, opened

pytestmark = pytest.mark.no_cover  # line counting makes folds three times slower, and other tests cover this code

EXAMPLES = 12
PLANTED = "planted-account-that-nobody-else-may-see"
STREAMS = "/api/v1/events"
OURS = ("not_a_server_error", "content_type_conformance", "response_schema_conformance", "status_code_conformance")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with opened(tmp_path_factory.mktemp("fuzz")) as made:
        for number in range(3):
            made.flag(f"{PLANTED}-{number}", card_id="tok-1")
        yield made


def operations(desk: Desk) -> list[Any]:
    schema = schemathesis.openapi.from_dict(desk.app.openapi())
    schema.app = desk.app
    found = []
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        found.append(result.ok())
    return [each for each in found if each.path != STREAMS]


def bearer(desk: Desk, *roles: Role) -> dict[str, str]:
    person = desk.person(*roles)
    return {"Authorization": f"Bearer {desk.people.add_token(person.name, 'fuzz', 1, 'test')}"}


def route_of(operation: Any) -> str:
    return f"{operation.method.upper()} {operation.path}"


def fuzzed(operation: Any, call: Any, examples: int) -> None:
    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy())
    def run(case: Any) -> None:
        call(case)

    run()


def test_no_described_request_causes_a_server_error(desk: Desk) -> None:
    headers, begun = bearer(desk, *Role), time.monotonic()
    load_all_checks()
    checks = [CHECKS.get_one(name) for name in OURS]

    cases = [view.case_id for view in desk.log.table.views()]

    def call(case: Any) -> None:
        case.call_and_validate(base_url=BASE, headers=headers, checks=checks)
        if "case_id" in (case.path_parameters or {}):  # of an existing case, at its current version
            case.path_parameters["case_id"] = cases[0]
            view = desk.log.board.view(cases[0])
            assert view is not None
            etag = {"If-Match": f'"{view.sequence}"'}
            case.call_and_validate(base_url=BASE, headers={**headers, **etag}, checks=checks)

    described = {route_of(operation) for operation in operations(desk)}
    assert described >= {route for route in ROUTES if "/api/v1/" in route} - {
        f"GET {STREAMS}", "GET /api/v1/openapi.json",
    }  # fmt: skip
    for operation in operations(desk):
        fuzzed(operation, call, EXAMPLES)
    assert time.monotonic() - begun < 600


@pytest.mark.parametrize("role", [None, *Role])
def test_no_request_returns_data_without_permission(desk: Desk, role: Role | None) -> None:
    headers = {} if role is None else bearer(desk, role)
    allowed = frozenset({Permission.ANYBODY}) if role is None else permissions_of(frozenset({role}))

    def call(case: Any) -> None:
        response = case.call(base_url=BASE, headers=headers)
        assert response.status_code == (401 if role is None else 403), response.text
        assert PLANTED not in response.text
        assert set(response.json()) == {"type", "title", "status", "detail"}

    for operation in operations(desk):
        if ROUTES[route_of(operation)] not in allowed:
            fuzzed(operation, call, 3)


def test_the_document_is_openapi_3_1(desk: Desk) -> None:
    assert desk.app.openapi()["openapi"].startswith("3.1")
