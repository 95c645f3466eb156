"""A small identity provider on loopback, by Authlib's server side: code flow with PKCE, ID tokens signed with RS256."""

import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from authlib.oauth2.rfc6749 import AuthorizationServer, ClientMixin, OAuth2Request
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc6750 import BearerTokenGenerator
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oidc.core import OpenIDCode
from joserfc.jwk import KeySet, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

CLIENT, SECRET = "fraudcase", "secret of the tests"


@dataclass
class ProviderPerson:
    """The person who is signed in at the provider."""

    subject: str = "subject-1"
    name: str = "ann"
    roles: list[str] = field(default_factory=lambda: ["analyst"])


class _Client(ClientMixin):  # type: ignore[misc]
    def __init__(self, redirect_uri: str) -> None:
        self.redirect_uri = redirect_uri

    def get_client_id(self) -> str:
        return CLIENT

    def get_default_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_allowed_scope(self, scope: str) -> str:
        return scope

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri == self.redirect_uri

    def check_client_secret(self, client_secret: str) -> bool:
        return client_secret == SECRET

    def check_endpoint_auth_method(self, method: str, _: str) -> bool:
        return method == "client_secret_basic"

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "authorization_code"


class _Code(dict[str, Any]):
    """An authorization code, with the attribute names that Authlib requires."""

    def __getattr__(self, name: str) -> Any:
        return self[name]

    def get_redirect_uri(self) -> Any:
        return self["redirect_uri"]

    def get_scope(self) -> Any:
        return self["scope"]

    def get_nonce(self) -> Any:
        return self["nonce"]

    def get_auth_time(self) -> int:
        return int(time.time())

    def get_acr(self) -> None:
        return None

    def get_amr(self) -> None:
        return None


class Provider(AuthorizationServer):  # type: ignore[misc]
    """The provider. Tests change its answers by its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.key: Any = RSAKey.generate_key(2048, {"kid": "key-1", "use": "sig"}, private=True)
        self.published: Any = self.key
        self.person, self.issuer, self.redirect_uri = ProviderPerson(), "", ""
        self.claims: dict[str, Any] = {}
        self.algorithm = "RS256"
        self.codes: dict[str, _Code] = {}
        self.register_token_generator("default", BearerTokenGenerator(lambda **_: secrets.token_urlsafe(24)))
        self.register_grant(_grant(self), [_id_token(self), CodeChallenge(required=True)])
        self.app = Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self.metadata),
                Route("/keys", self.keys),
                Route("/authorize", self.authorize),
                Route("/token", self.token, methods=["POST"]),
            ]
        )

    async def metadata(self, _: Request) -> Response:
        """Return the discovery document."""
        paths = {"authorization_endpoint": "authorize", "token_endpoint": "token", "jwks_uri": "keys"}
        return JSONResponse({"issuer": self.issuer, **{key: f"{self.issuer}/{path}" for key, path in paths.items()}})

    async def keys(self, _: Request) -> Response:
        """Return the public keys."""
        return JSONResponse(KeySet([self.published]).as_dict(private=False))

    async def authorize(self, request: Request) -> Response:
        """Approve at once for the person who is signed in."""
        asked = self.create_oauth2_request((request, dict(request.query_params)))
        found: Response = self.create_authorization_response(
            asked, grant_user=self.person, grant=self.get_authorization_grant(asked)
        )
        return found

    async def token(self, request: Request) -> Response:
        """Return an ID token for a code."""
        form = {name: str(value) for name, value in (await request.form()).items()}
        found: Response = self.create_token_response((request, form))
        return found

    def query_client(self, client_id: str) -> _Client | None:
        """Return the one client."""
        return _Client(self.redirect_uri) if client_id == CLIENT else None

    def save_token(self, _token: Any, _request: Any) -> None:
        """Do nothing: the token is not needed again."""

    def send_signal(self, _name: str, *_: Any, **__: Any) -> None:
        """Do nothing: there are no listeners."""

    def create_oauth2_request(self, asked: tuple[Request, dict[str, str]]) -> OAuth2Request:
        """Build Authlib's request, as if it had arrived by TLS."""
        request, data = asked
        made = _Asked(request.method, str(request.url).replace("http:", "https:"), headers=request.headers)
        made.payload, made.values = BasicOAuth2Payload(data), data
        return made

    def handle_response(self, status: int, body: Any, headers: Any) -> Response:
        """Build the response from Authlib's."""
        if isinstance(body, dict):
            return JSONResponse(body, status, dict(headers))
        return Response(body, status, dict(headers))


class _Asked(OAuth2Request):  # type: ignore[misc]
    values: dict[str, str]

    @property
    def form(self) -> dict[str, str]:
        return self.values

    @property
    def args(self) -> dict[str, str]:
        return self.values


def _grant(provider: Provider) -> type:
    class Grant(AuthorizationCodeGrant):  # type: ignore[misc]
        TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_basic",)

        def save_authorization_code(self, code: str, request: OAuth2Request) -> None:
            data = request.payload.data
            provider.codes[code] = _Code(
                code=code, user=request.user, redirect_uri=data["redirect_uri"], scope=data["scope"],
                nonce=data.get("nonce"), code_challenge=data["code_challenge"],
                code_challenge_method=data["code_challenge_method"],
            )  # fmt: skip

        def query_authorization_code(self, code: str, _client: Any) -> _Code | None:
            return provider.codes.get(code)

        def delete_authorization_code(self, authorization_code: _Code) -> None:
            del provider.codes[authorization_code["code"]]

        def authenticate_user(self, authorization_code: _Code) -> Any:
            return authorization_code["user"]

    return Grant


def _id_token(provider: Provider) -> OpenIDCode:
    class IdToken(OpenIDCode):  # type: ignore[misc]
        def exists_nonce(self, _nonce: str, _request: Any) -> bool:
            return False

        def resolve_client_private_key(self, _client: Any) -> Any:
            return provider.key

        def get_client_algorithm(self, _client: Any) -> str:
            return provider.algorithm

        def get_client_claims(self, _client: Any) -> dict[str, Any]:
            return {"iss": provider.issuer, "aud": [CLIENT]}

        def generate_user_info(self, user: ProviderPerson, _scope: str) -> dict[str, Any]:
            said = {"sub": user.subject, "preferred_username": user.name, "roles": user.roles}
            return {**said, **provider.claims}

    return IdToken(require_nonce=True)
