"""A console of the tests: the real app on a new control store, and people who are signed in to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from console.people import People, Person, csrf_token
from console.web.app import create_app
from console.web.doors import Doors
from console.web.limits import Buckets
from console.web.permissions import Role, permissions_of
from migrations.store import connect, upgrade

BASE = "http://127.0.0.1"
PASSWORD = "correct horse battery staple"


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now_ms = 1_750_000_000_000

    def __call__(self) -> int:
        return self.now_ms


class Desk:
    """One console, and ways to come to it."""

    def __init__(self, folder: Path, **changed: Any) -> None:
        self.clock = Clock()
        engine = connect(f"sqlite:///{folder / 'control.db'}")
        upgrade(engine)
        self.people = People(engine, self.clock)
        self.engine = engine
        generous = Buckets(burst=1e9, per_s=1e9)
        self.doors = Doors(**{"people": self.people, "requests": generous, "sign_ins": generous, **changed})
        self.app = create_app(self.doors)

    def client(self, **options: Any) -> TestClient:
        """A browser that nobody is signed in with."""
        return TestClient(self.app, base_url=BASE, follow_redirects=False, **options)

    def person(self, *roles: Role) -> Person:
        """Somebody with these roles, and without the work of a password."""
        name = "+".join(roles) or "nobody"
        made = self.people.of_provider("tests", name, name, frozenset(roles))
        assert made is not None
        assert made.permissions == permissions_of(frozenset(roles))
        return made

    def signed_in(self, *roles: Role, **options: Any) -> TestClient:
        """A browser in which somebody with these roles is signed in, and whose pages send their token."""
        token = self.people.start_session(self.person(*roles))
        client = self.client(**options)
        client.cookies.set(self.doors.cookie, token, domain="127.0.0.1")
        client.headers["X-CSRF-Token"] = csrf_token(token)
        return client


@contextmanager
def opened(folder: Path, **changed: Any) -> Iterator[Desk]:
    """A desk, and its store closed afterwards."""
    desk = Desk(folder, **changed)
    try:
        yield desk
    finally:
        desk.engine.dispose()
