"""What the routes work with: made once by whoever starts the app, so that tests can bring their own."""

from dataclasses import dataclass, field

from fastapi import Request

from console.people import People, Person
from console.web.limits import Buckets
from console.web.open_id import OpenId


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """One console's parts."""

    people: People
    public_url: str = "http://127.0.0.1"
    open_id: OpenId | None = None
    sign_ins: Buckets = field(default_factory=lambda: Buckets(burst=10, per_s=1 / 6))
    """By account and by address."""
    requests: Buckets = field(default_factory=lambda: Buckets(burst=200, per_s=100))
    """By person."""

    @property
    def is_behind_tls(self) -> bool:
        """Whether people come by https."""
        return self.public_url.startswith("https://")

    @property
    def cookie(self) -> str:
        """The name of the session's cookie: with this prefix, browsers take it only from this very host, by TLS."""
        return "__Host-fraudcase" if self.is_behind_tls else "fraudcase"


def doors_of(request: Request) -> Doors:
    """The parts of the app that a request has come to."""
    found: Doors = request.app.state.doors
    return found


def person_of(request: Request) -> Person:
    """Who asks; only behind the guard, which has let them in."""
    found: Person = request.state.person
    return found
