"""Sign-in by an identity provider: a real one on loopback, and every attempt that must fail."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from joserfc.jwk import OctKey, RSAKey
from starlette.testclient import TestClient

from console.people.open_id import OpenIdClient, provider_from
from console.people.roles import Role
from tests.support.desk import BASE, Desk, opened
from tests.support.provider import CLIENT, SECRET, Provider
from tests.support.served import served

pytestmark = pytest.mark.no_cover  # line counting makes folds three times slower, and other tests cover this code


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    made.redirect_uri = f"{BASE}/sign-in/oidc/callback"
    with served(made.app) as address:
        made.issuer = address
        yield made


@pytest.fixture
def desk(provider: Provider, tmp_path: Path) -> Iterator[Desk]:
    known = provider_from(provider.issuer, CLIENT, SECRET, "roles", "")
    assert known is not None
    with opened(tmp_path, open_id=OpenIdClient(known, provider.redirect_uri)) as made:
        yield made


def at_provider(client: TestClient, to: str = "/") -> str:
    """Go to the provider, which agrees; return the address that it redirects the browser to."""
    begun = client.get("/sign-in/oidc", params={"to": to})
    assert begun.status_code == 303, begun.text
    agreed = httpx2.get(begun.headers["location"])
    assert agreed.status_code == 302, agreed.text
    return str(agreed.headers["location"])


def test_person_of_the_provider_signs_in_with_its_roles(desk: Desk, provider: Provider) -> None:
    client = desk.client()
    back = client.get(at_provider(client, "/?a=b"))
    assert (back.status_code, back.headers["location"]) == (303, "/?a=b")
    me = client.get("/api/v1/me").json()
    assert (me["name"], me["roles"]) == ("ann", ["analyst"])
    provider.person.roles = ["lead", "unheard-of"]
    again = desk.client()
    again.get(at_provider(again))
    assert again.get("/api/v1/me").json()["roles"] == ["lead"]
    assert [row.name for row in desk.people.everybody()] == ["ann"]
    assert "/sign-in/oidc?to=/" in desk.client().get("/sign-in").text


def test_answer_is_valid_once_and_only_in_the_requesting_browser(desk: Desk) -> None:
    client = desk.client()
    address = at_provider(client)
    assert desk.client().get(address).status_code == 403
    assert client.get(address).status_code == 403, "the first attempt used the state"
    client = desk.client()
    address = at_provider(client)
    assert client.get(address).status_code == 303
    assert client.get(address).status_code == 403


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"iss": "https://evil.example"}, id="another issuer"),
        pytest.param({"aud": ["another-app"]}, id="for another app"),
        pytest.param({"aud": [CLIENT, "another-app"], "azp": "another-app"}, id="asked for by another app"),
        pytest.param({"exp": int(time.time()) - 600}, id="expired"),
        pytest.param({"nonce": "another"}, id="another sign-in's"),
        pytest.param({"roles": []}, id="no role"),
        pytest.param({"roles": ["superuser"]}, id="no role of ours"),
        pytest.param({"roles": {"admin": True}}, id="roles of another shape"),
    ],
)
def test_invalid_claims_are_refused(desk: Desk, provider: Provider, claims: dict[str, Any]) -> None:
    provider.claims = claims
    client = desk.client()
    assert client.get(at_provider(client)).status_code == 403
    assert client.get("/api/v1/me").status_code == 401
    assert desk.people.everybody() == []
    assert desk.people.door_log()[0].outcome == "refused"


@pytest.mark.parametrize("change", ["another key", "a shared secret"])
def test_only_the_signature_of_the_provider_is_accepted(desk: Desk, provider: Provider, change: str) -> None:
    client = desk.client()
    client.get(at_provider(client))
    assert client.get("/api/v1/me").status_code == 200, "its keys are cached now"
    if change == "another key":
        provider.key = RSAKey.generate_key(2048, {"kid": "key-1"}, private=True)
    else:
        provider.key, provider.algorithm = OctKey.import_key("0" * 32), "HS256"
    other = desk.client()
    assert other.get(at_provider(other)).status_code == 403


def test_new_keys_of_the_provider_are_fetched(desk: Desk, provider: Provider) -> None:
    client = desk.client()
    client.get(at_provider(client))
    provider.key = provider.published = RSAKey.generate_key(2048, {"kid": "key-2", "use": "sig"}, private=True)
    other = desk.client()
    assert other.get(at_provider(other)).status_code == 303


def test_disabled_person_cannot_sign_in_by_the_provider(desk: Desk) -> None:
    client = desk.client()
    client.get(at_provider(client))
    desk.people.set_disabled("ann", "test", is_disabled=True)
    assert client.get("/api/v1/me").status_code == 401
    assert client.get(at_provider(client)).status_code == 403


def test_taken_name_is_not_given_twice(desk: Desk) -> None:
    desk.people.add("ann", frozenset({Role.ADMIN}), "test")
    client = desk.client()
    client.get(at_provider(client))
    me = client.get("/api/v1/me").json()
    assert me["name"].startswith("ann-")
    assert me["roles"] == ["analyst"]


def test_refusal_of_the_provider_refuses_the_sign_in(desk: Desk) -> None:
    client = desk.client()
    begun = client.get("/sign-in/oidc")
    state = httpx2.URL(begun.headers["location"]).params["state"]
    assert client.get("/sign-in/oidc/callback", params={"state": state, "error": "access_denied"}).status_code == 403


def test_unreachable_provider_is_reported(tmp_path: Path) -> None:
    known = provider_from("http://127.0.0.1:9", CLIENT, SECRET, "roles", "")
    assert known is not None
    with opened(tmp_path, open_id=OpenIdClient(known, "http://127.0.0.1/")) as made:
        assert made.client().get("/sign-in/oidc").status_code == 503


def test_a_provider_must_be_reached_by_tls() -> None:
    with pytest.raises(ValueError, match="https"):
        provider_from("http://idp.example.com", CLIENT, SECRET, "roles", "")
    assert provider_from("", "", "", "roles", "") is None
    named = provider_from("https://idp.example.com", CLIENT, SECRET, "groups", '{"fraud-team": "analyst"}')
    assert named is not None
    assert named.roles == {"fraud-team": "analyst"}
