"""A console for tests: the real app and folds, in memory instead of on Kafka and DynamoDB."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from console.cases.archived_payments import EmptyPastPayments, PastPayments
from console.cases.attachments import Attachments, MemoryObjectStore
from console.cases.board import CaseBoard
from console.cases.board_feed import CaseChangeBuffer, change_of
from console.cases.board_row import row_of
from console.cases.timelines import TimelineCache
from console.history.whatif_runs import WhatifRuns
from console.people.accounts import Person, UserAccountStore, csrf_token
from console.people.roles import Role, permissions_of
from console.privacy.command_sealing import seal_command
from console.privacy.vault import Vault
from console.rules.store import Offsets, RulePackStore, RulesLog
from console.web.app import create_app
from console.web.idempotency import IdempotencyStore
from console.web.limits import TokenBuckets
from console.web.pages.parts import EmptyFigureSource, FigureSource, PageServices
from console.web.services import ConsoleServices
from console.webhooks.store import Webhooks
from domain.cases.commands import Command
from domain.cases.events import CaseAnswer, CaseEvent, CaseOpened
from domain.cases.fold import CaseFold
from domain.payment import Refusal
from domain.record_types import InboxRecord
from domain.risk.events import RulesActivated
from domain.risk.events import flag_id as flag_id_of
from migrations.store import connect, upgrade
from projections.logs.known import KnownEvent
from projections.logs.log import LogRecord
from projections.views.case_table import MemoryCaseTable
from projections.views.worker import ViewProjector
from tests.support.cases import flag

BASE = "http://127.0.0.1"
PASSWORD = "correct horse battery staple"
NOON = 1_750_000_000_000


class Clock:
    """Clock that stops until a test advances it."""

    def __init__(self) -> None:
        self.now_ms = NOON

    def __call__(self) -> int:
        return self.now_ms


class MemoryDesk:
    """cases.inbox, the case job, cases.events and the view worker, in one call."""

    def __init__(self, clock: Clock, keys: Vault) -> None:
        self._keys = keys
        self.table = MemoryCaseTable()
        self.board = CaseBoard(self.table.view)
        self.changes = CaseChangeBuffer((0,))
        self.commands: list[Command] = []
        self.is_silent = False
        self._clock, self._fold, self._projector = clock, CaseFold(), ViewProjector(self.table)
        self._lock = threading.Lock()
        self._offset = 0

    def send(self, command: Command) -> "Future[CaseEvent]":
        """Send a command. Its first event is the answer; a redelivered command has none, as in the real log."""
        future: Future[CaseEvent] = Future()
        self.commands.append(command)
        events = self.step(seal_command(command, self._keys))
        if events and not self.is_silent:
            future.set_result(events[0])
        return future

    def step(self, record: InboxRecord) -> list[CaseEvent]:
        """Append a record to cases.inbox, and store and publish the resulting events."""
        with self._lock:
            events = self._fold.step(record)
            assert not isinstance(events, Refusal), events
            self._projector.apply([KnownEvent(event, self._clock()) for event in events])
            for event in events:
                self._tell(event)
            return events

    def _tell(self, event: CaseEvent) -> None:
        view = None if isinstance(event, CaseAnswer) else self.board.apply(event)
        known = LogRecord("cases.events", 0, self._offset, self._clock(), None, None, ())
        self._offset += 1
        self.changes.add(change_of(event, known, (self._offset,), row_of(view) if view else None))


class MemoryRulesLog:
    """Activations of rule packs in logs of one partition each. If `away` is set, writing raises it."""

    def __init__(self) -> None:
        self.records: list[RulesActivated] = []
        self.away: Exception | None = None

    def ends(self) -> Offsets:
        """Return the end offsets."""
        return {"payments.inbound": {0: len(self.records)}}

    def write(self, record: RulesActivated, since: Offsets) -> int:
        """Write the record once since these offsets."""
        if self.away is not None:
            raise self.away
        if record in self.records[since["payments.inbound"][0] :]:
            return 0
        self.records.append(record)
        return 1


class Desk:
    """One console, with clients of it."""

    def __init__(
        self,
        folder: Path,
        clock: Clock | None = None,
        figures: FigureSource | None = None,
        rules: RulesLog | None = None,
        carry_out: Callable[[str], None] | None = None,
        past: PastPayments | None = None,
        **changed: Any,
    ) -> None:
        self.clock = clock or Clock()
        self.engine = connect(f"sqlite:///{folder / 'control.db'}")
        upgrade(self.engine)
        self.people = UserAccountStore(self.engine, self.clock)
        self.vault = Vault(self.engine, b"master key of the tests, long enough", self.clock)
        self.log = MemoryDesk(self.clock, self.vault)
        self.objects = MemoryObjectStore()
        timelines = TimelineCache(self.log.table)
        self.log.changes.tell(lambda change: timelines.changed(change.case_id, change.item))
        generous = TokenBuckets(burst=1e9, per_s=1e9)
        parts: dict[str, Any] = {
            "people": self.people, "requests": IdempotencyStore(self.engine, self.clock), "board": self.log.board,
            "changes": self.log.changes, "is_ready": lambda: True, "desk": self.log, "table": self.log.table,
            "timelines": timelines,
            "attachments": Attachments(self.objects, self.vault), "vault": self.vault, "settled_s": 0,
            "webhooks": Webhooks(self.engine, b"key of the tests", self.clock), "now_ms": self.clock, "patience_s": 0.2,
            "rate": generous, "sign_ins": generous,
        }  # fmt: skip
        self.services = ConsoleServices(**{**parts, **changed})
        self.control = RulePackStore(self.engine, self.clock)
        self.runs = WhatifRuns(self.engine, self.clock)
        self.rules = rules or MemoryRulesLog()
        self.asked: list[str] = []
        """Requested what-ifs that no worker has run yet."""
        page_parts = PageServices(
            control=self.control, runs=self.runs, rules_log=lambda: self.rules,
            carry_out=carry_out or self.asked.append, figures=figures or EmptyFigureSource(), choices_s=0,
            past=past or EmptyPastPayments(),
        )  # fmt: skip
        self.app = create_app(self.services, page_parts)
        self._flags: dict[str, int] = {}

    def client(self, **options: Any) -> TestClient:
        """Return a browser in which no person is signed in."""
        return TestClient(self.app, base_url=BASE, follow_redirects=False, **options)

    def person(self, *roles: Role, name: str = "") -> Person:
        """Add a person with these roles, without hashing a password."""
        name = name or "+".join(roles) or "nobody"
        made = self.people.of_provider("tests", name, name, frozenset(roles))
        assert made is not None
        assert made.permissions == permissions_of(frozenset(roles))
        return made

    def signed_in(self, *roles: Role, name: str = "", **options: Any) -> TestClient:
        """Return a browser in which a person with these roles is signed in, and whose pages send their token."""
        token = self.people.start_session(self.person(*roles, name=name))
        client = self.client(**options)
        client.cookies.set(self.services.cookie, token, domain="127.0.0.1")
        client.headers["X-CSRF-Token"] = csrf_token(token)
        return client

    def flag(self, account_id: str = "acct-1", **changed: Any) -> list[CaseEvent]:
        """Add a flag on an account, and return the resulting events."""
        number = self._flags[account_id] = self._flags.get(account_id, 0) + 1
        transaction_id = f"tx-{account_id}-{number}"
        like: dict[str, Any] = {
            "account_id": account_id,
            "flag_id": flag_id_of(account_id, transaction_id, b""),
            "transaction_id": transaction_id,
            "event_time": self.clock.now_ms,
        }
        return self.log.step(flag(number, **{**like, **changed}))

    def case(self, account_id: str = "acct-1", **changed: Any) -> str:
        """Open a case and return its id."""
        opened = self.flag(account_id, **changed)[0]
        assert isinstance(opened, CaseOpened)
        return opened.case_id


@contextmanager
def opened(folder: Path, **changed: Any) -> Iterator[Desk]:
    """Open a desk, and close its store afterwards."""
    desk = Desk(folder, **changed)
    try:
        yield desk
    finally:
        desk.engine.dispose()
