"""Send one delivery to a public address, without redirects."""

import http.client
import ipaddress
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from console.webhooks.store import signature

TIMEOUT_S: Final = 10.0
MAX_ERROR: Final = 200


class ForbiddenAddress(ValueError):
    """An address to which nothing may be sent; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryTarget:
    """The resolved target of a delivery. The connection uses this address, so that a second DNS look-up cannot
    change it.
    """

    host: str
    port: int
    address: str
    path: str
    is_tls: bool


def target_of(url: str, *, may_be_private: bool = False) -> DeliveryTarget:
    """Resolve a URL and check its addresses. Raises ForbiddenAddress."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (may_be_private and parts.scheme == "http"):
        raise ForbiddenAddress("only https addresses are allowed")
    if parts.username or parts.password or not parts.hostname:
        raise ForbiddenAddress("the address must have a host, and no user name or password")
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError, UnicodeError) as error:
        raise ForbiddenAddress(f"the host cannot be resolved: {type(error).__name__}") from error
    addresses = [str(each[4][0]) for each in found]
    if not may_be_private and not all(map(_is_public, addresses)):
        raise ForbiddenAddress("the host is in a private network")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return DeliveryTarget(
        host=parts.hostname, port=port, address=addresses[0], path=path, is_tls=parts.scheme == "https"
    )


def _is_public(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None) or getattr(found, "sixtofour", None)
    return found.is_global and not found.is_multicast and (mapped is None or mapped.is_global)


def send(url: str, secret: str, delivery_id: str, body: bytes, *, may_be_private: bool = False) -> str | None:
    """Send a delivery once. Return None if the answer was 2xx, else the error text. Redirects are not followed."""
    try:
        target = target_of(url, may_be_private=may_be_private)
        status = _post(target, _headers(secret, delivery_id, body), body)
    except ForbiddenAddress as error:
        return str(error)
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"[:MAX_ERROR]
    return None if 200 <= status < 300 else f"answered {status}"


def _headers(secret: str, delivery_id: str, body: bytes) -> dict[str, str]:
    at_s = int(time.time())
    return {
        "Content-Type": "application/json",
        "User-Agent": "fraudcase-webhooks",
        "webhook-id": delivery_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": signature(secret, delivery_id, at_s, body),
    }


def _post(target: DeliveryTarget, headers: dict[str, str], body: bytes) -> int:
    plain = socket.create_connection((target.address, target.port), TIMEOUT_S)
    with plain:
        raw = plain
        if target.is_tls:
            raw = ssl.create_default_context().wrap_socket(plain, server_hostname=target.host)
        connection = http.client.HTTPConnection(target.host, target.port, timeout=TIMEOUT_S)
        connection.sock = raw
        try:
            connection.request("POST", target.path, body, headers)
            return connection.getresponse().status
        finally:
            connection.close()
