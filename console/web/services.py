"""The services that the routes use, made once when the app starts, so that tests can pass their own."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from fastapi import Request

from console.cases.attachments import Attachments
from console.cases.board import CaseBoard
from console.cases.board_feed import CaseChangeBuffer
from console.cases.timelines import TimelineCache
from console.people.accounts import Person, UserAccountStore
from console.people.open_id import OpenIdClient
from console.privacy.vault import SETTLED_S, Vault
from console.web.idempotency import IdempotencyStore
from console.web.limits import TokenBuckets
from console.web.problems import Problem
from console.webhooks.store import Webhooks
from domain.cases.commands import Command
from domain.cases.events import CaseEvent
from projections.views.case_table import CaseTable


class CommandSender(Protocol):
    """A sender of commands; console.cases.desk has the real one."""

    def send(self, command: Command) -> "Future[CaseEvent]":
        """Send a command. The future gives its answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleServices:
    """The services of one console."""

    people: UserAccountStore
    requests: IdempotencyStore
    board: CaseBoard
    changes: CaseChangeBuffer
    is_ready: Callable[[], bool]
    """Returns True once the board has caught up with the log."""
    desk: CommandSender
    table: CaseTable
    timelines: TimelineCache
    attachments: Attachments
    webhooks: Webhooks
    vault: Vault
    """Vault that unseals texts in responses to people who may read them."""
    now_ms: Callable[[], int]
    public_url: str = "http://127.0.0.1"
    open_id: OpenIdClient | None = None
    webhooks_may_be_private: bool = False
    patience_s: float = 20
    """Longest wait of a request for the answer to a command, in seconds."""
    settled_s: float = SETTLED_S
    """Time after which no process holds an erased key any more, in seconds."""
    sign_ins: TokenBuckets = field(default_factory=lambda: TokenBuckets(burst=10, per_s=1 / 6))
    """Rate limit of sign-in attempts, by account and by address."""
    rate: TokenBuckets = field(default_factory=lambda: TokenBuckets(burst=200, per_s=100))
    """Rate limit of requests, by person."""

    @property
    def is_behind_tls(self) -> bool:
        """Return True if people reach the console by https."""
        return self.public_url.startswith("https://")

    @property
    def cookie(self) -> str:
        """Return the name of the session's cookie. With the prefix __Host-, browsers accept it only from this host
        and by TLS.
        """
        return "__Host-fraudcase" if self.is_behind_tls else "fraudcase"


def services_of(request: Request) -> ConsoleServices:
    """Return the services of the app that handles a request."""
    found: ConsoleServices = request.app.state.services
    return found


def board_of(request: Request) -> CaseBoard:
    """Return the case board. Raises Problem (503) until it has read the cases."""
    services = services_of(request)
    if not services.is_ready():
        raise Problem(503, "the cases are being read: try again in some seconds", {"Retry-After": "3"})
    return services.board


def person_of(request: Request) -> Person:
    """Return the signed-in person; the guard has set it."""
    found: Person = request.state.person
    return found
