"""Single sign-on with a company's identity provider: OpenID Connect's authorisation code flow, with PKCE, state and
nonce.
"""

import hmac
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from authlib.common.errors import AuthlibBaseError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.oidc.core import CodeIDToken
from httpx2 import AsyncClient, HTTPError
from joserfc import jwt
from joserfc.errors import BadSignatureError, InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from console.people.roles import Role

PENDING_S: Final = 600
MAX_PENDING: Final = 1_000
TIMEOUT_S: Final = 10
LEEWAY_S: Final = 60
SIGNATURES: Final = ["RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519"]
"""Signatures by the provider's private key only. With a shared secret, a reader of our settings could forge tokens."""


class OpenIdError(Exception):
    """A sign-in that the provider does not confirm, or confirms in a form that is not accepted; the message gives
    the reason.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityProvider:
    """An identity provider, and the mapping of its groups to our roles."""

    issuer: str
    client_id: str
    client_secret: str
    roles_claim: str
    roles: Mapping[str, str]
    """Our role for each role name of the provider. Names without an entry give no role."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingSignIn:
    """A sign-in that was sent to the provider and has not returned."""

    browser: str
    verifier: str
    nonce: str
    to: str
    begun_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedIdentity:
    """An identity that the provider has verified."""

    subject: str
    name: str
    roles: frozenset[Role]


class OpenIdClient:
    """A client of the identity provider. It remembers pending sign-ins, bounded in number and time."""

    def __init__(self, provider: IdentityProvider, callback: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.provider = provider
        self._callback = callback
        self._clock = clock
        self._pending: OrderedDict[str, PendingSignIn] = OrderedDict()
        self._metadata: dict[str, Any] = {}
        self._keys: dict[str, Any] = {}

    async def begin(self, to: str) -> tuple[str, str]:
        """Begin a sign-in. Return the URL to send the browser to, and the value of its cookie until it returns."""
        metadata = await self._discover()
        state, browser = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        verifier, nonce = secrets.token_urlsafe(48), secrets.token_urlsafe(24)
        async with self._client() as client:
            url, _ = client.create_authorization_url(
                metadata["authorization_endpoint"], state=state, nonce=nonce, code_verifier=verifier
            )
        self._pending[state] = PendingSignIn(
            browser=browser, verifier=verifier, nonce=nonce, to=to, begun_s=self._clock()
        )
        if len(self._pending) > MAX_PENDING:
            self._pending.popitem(last=False)
        return url, browser

    async def finish(
        self, state: str, code: str, browser: str, issuer: str | None, refused: str
    ) -> tuple[VerifiedIdentity, str]:
        """Finish a sign-in with the code that came back. Return the identity and the page that was asked for. Raises
        OpenIdError.
        """
        pending = self._pending.pop(state, None)
        if pending is None or self._clock() - pending.begun_s > PENDING_S:
            raise OpenIdError("this sign-in is unknown or has expired. Cure: sign in again")
        if not hmac.compare_digest(pending.browser.encode(), browser.encode()):
            raise OpenIdError("this sign-in was begun in another browser")
        if refused:
            raise OpenIdError("the identity provider refused the sign-in")
        if issuer is not None and issuer != self.provider.issuer:
            raise OpenIdError("the answer comes from another identity provider")
        try:
            token = await self._exchange(code, pending.verifier)
            claims = await self._checked(token, pending.nonce)
        except (AuthlibBaseError, JoseError, HTTPError, KeyError, ValueError) as error:
            raise OpenIdError(f"the identity provider's answer is not valid: {type(error).__name__}") from error
        return self._vouched(claims), pending.to

    async def _exchange(self, code: str, verifier: str) -> dict[str, Any]:
        metadata = await self._discover()
        async with self._client() as client:
            token = await client.fetch_token(metadata["token_endpoint"], code=code, code_verifier=verifier)
        return dict(token)

    async def _checked(self, token: dict[str, Any], nonce: str) -> dict[str, Any]:
        decoded = await self._decoded(str(token["id_token"]))
        options = {
            "iss": {"essential": True, "values": [self.provider.issuer]},
            "aud": {"essential": True, "value": self.provider.client_id},
        }
        params = {"nonce": nonce, "client_id": self.provider.client_id, "access_token": token.get("access_token")}
        claims = CodeIDToken(decoded.claims, decoded.header, options, params)
        claims.validate(leeway=LEEWAY_S)
        return dict(claims)

    async def _decoded(self, id_token: str) -> jwt.Token:
        """Verify an ID token with the provider's keys and return its claims; fetch the keys again if the provider
        has new ones.
        """
        registry = JWSRegistry(algorithms=SIGNATURES, strict_check_header=False)
        if self._keys:
            try:
                return jwt.decode(id_token, KeySet.import_key_set(self._keys), registry=registry)  # type: ignore[arg-type]
            except (InvalidKeyIdError, BadSignatureError):
                pass  # signed by a key that is newer than ours, or by nobody: the provider's keys of now tell
        metadata = await self._discover()
        self._keys = await self._get(metadata["jwks_uri"])
        return jwt.decode(id_token, KeySet.import_key_set(self._keys), registry=registry)  # type: ignore[arg-type]

    def _vouched(self, claims: dict[str, Any]) -> VerifiedIdentity:
        said = claims.get(self.provider.roles_claim, [])
        names = said.split() if isinstance(said, str) else said if isinstance(said, list) else []
        roles = frozenset(Role(self.provider.roles[name]) for name in names if name in self.provider.roles)
        if not roles:
            raise OpenIdError(f"the identity provider names no known role in {self.provider.roles_claim!r}")
        name = claims.get("preferred_username") or claims.get("email") or ""
        return VerifiedIdentity(subject=str(claims["sub"]), name=str(name), roles=roles)

    async def _discover(self) -> dict[str, Any]:
        if not self._metadata:
            found = await self._get(f"{self.provider.issuer.rstrip('/')}/.well-known/openid-configuration")
            if found.get("issuer") != self.provider.issuer:
                raise OpenIdError("the identity provider's issuer differs from the settings")
            self._metadata = found
        return self._metadata

    async def _get(self, url: str) -> dict[str, Any]:
        async with AsyncClient(timeout=TIMEOUT_S) as client:
            answer = await client.get(url)
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
            return found

    def _client(self) -> AsyncOAuth2Client:
        return AsyncOAuth2Client(
            self.provider.client_id,
            self.provider.client_secret,
            scope="openid profile email",
            redirect_uri=self._callback,
            code_challenge_method="S256",
            timeout=TIMEOUT_S,
        )


def provider_from(issuer: str, client_id: str, client_secret: str, claim: str, roles: str) -> IdentityProvider | None:
    """Return the identity provider of the settings, or None if they name none. `roles` is JSON that maps the
    provider's groups to our roles.
    """
    if not issuer:
        return None
    if urlsplit(issuer).scheme != "https" and urlsplit(issuer).hostname not in ("127.0.0.1", "localhost"):
        raise ValueError(f"the identity provider must be reached by https, not {issuer}")
    known = json.loads(roles) if roles else {role.value: role.value for role in Role}
    return IdentityProvider(
        issuer=issuer, client_id=client_id, client_secret=client_secret, roles_claim=claim,
        roles={str(theirs): Role(ours).value for theirs, ours in known.items()},
    )  # fmt: skip
