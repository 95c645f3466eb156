"""The services that pages use besides ConsoleServices: rule packs, live figures, and payments by account."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Protocol

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from console.cases.archived_payments import EmptyPastPayments, PastPayments
from console.cases.seen_payment import SeenPayment
from console.history.whatif_runs import WhatifRuns
from console.people.roles import Permission, Role, permissions_of
from console.rules.store import RulePackStore, RulesLog
from console.web.background import run_in_background
from console.web.services import services_of
from domain.risk.packs import parse_pack

OLD_AFTER: Final = 5
"""Old choices are offered while new ones are read, up to this multiple of their maximum age."""


class FigureSource(Protocol):
    """A source of live figures; console.monitor has the real one."""

    def latest(self) -> Mapping[str, Any]:
        """Return the latest snapshot; empty before the first."""

    def watch(self, watcher: Callable[[], None]) -> Callable[[], None]:
        """Call a function after each snapshot. Return a function that stops this."""

    def payments(self, account_id: str, wanted: Sequence[str]) -> dict[str, SeenPayment]:
        """Return, by id, the wanted payments of an account that are in memory."""


class EmptyFigureSource:
    """A source without figures."""

    def latest(self) -> Mapping[str, Any]:
        """Return an empty snapshot."""
        return {}

    def watch(self, _: Callable[[], None]) -> Callable[[], None]:
        """Return a function that does nothing."""
        return lambda: None

    def payments(self, _: str, __: Sequence[str]) -> dict[str, SeenPayment]:
        """Return no payment."""
        return {}


def _no_log() -> RulesLog:
    raise OSError("this console has no logs to write into")


def _no_work(_: str) -> None:
    raise OSError("this console has nobody to carry out a what-if")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageServices:
    """The services of one console's pages."""

    control: RulePackStore
    runs: WhatifRuns
    rules_log: Callable[[], RulesLog] = _no_log
    """Opens the logs that rule packs are activated in."""
    carry_out: Callable[[str], None] = _no_work
    """Starts a stored what-if run and returns at once."""
    figures: FigureSource = field(default_factory=EmptyFigureSource)
    past: PastPayments = field(default_factory=EmptyPastPayments)
    wait: Callable[[float], None] = time.sleep
    choices_s: float = 1.0
    """Maximum age of the offered people and typologies, in seconds: reading them is slower than rendering a page."""
    _choices: dict[str, tuple[float, list[str]]] = field(default_factory=dict)

    def choices(self, of: str, ask: Callable[[], list[str]]) -> list[str]:
        """Return the choices of a form field. Ask again when they are old; other requests get the old ones
        meanwhile.
        """
        if self.is_fresh(of):
            return self._choices[of][1]
        if of in self._choices:
            self._choices[of] = time.monotonic(), self._choices[of][1]
        found = ask()
        self._choices[of] = time.monotonic(), found
        return found

    def held(self, of: str) -> list[str] | None:
        """Return the cached choices of a form field, or None if they are too old."""
        at_s, found = self._choices.get(of, (0.0, None))
        return found if time.monotonic() - at_s < OLD_AFTER * self.choices_s else None

    def is_fresh(self, of: str) -> bool:
        """Return True if the cached choices of a form field are still fresh."""
        return of in self._choices and time.monotonic() - self._choices[of][0] < self.choices_s


def page_services_of(request: Request) -> PageServices:
    """Return the page services of the app that handles a request."""
    found: PageServices = request.app.state.page_parts
    return found


async def offered_choices(request: Request) -> tuple[list[str], list[str]]:
    """Return the analysts and the typologies. Cached ones are returned at once, and renewed in the background when
    they are old.
    """

    def ask() -> tuple[list[str], list[str]]:
        return analysts(request), typologies(request)

    parts = page_services_of(request)
    held = parts.held("analysts"), parts.held("typologies")
    if held[0] is None or held[1] is None:
        return await run_in_threadpool(ask)
    if not all(map(parts.is_fresh, ("analysts", "typologies"))):
        run_in_background(ask)
    return held[0], held[1]


def analysts(request: Request) -> list[str]:
    """Return the names of the people who may work on cases."""

    def ask() -> list[str]:
        return [
            row.name
            for row in services_of(request).people.everybody()
            if not row.is_disabled and Permission.WORK_CASES in permissions_of(frozenset(map(Role, row.roles.split())))
        ]

    return page_services_of(request).choices("analysts", ask)


def typologies(request: Request) -> list[str]:
    """Return the typologies of the active pack and of the shadow packs."""

    def ask() -> list[str]:
        packs = [row for row in page_services_of(request).control.packs() if row.state == "active" or row.shadow]
        return sorted({typology for row in packs for typology in _typologies_of(row.document)})

    return page_services_of(request).choices("typologies", ask)


@lru_cache(maxsize=64)
def _typologies_of(document: str) -> frozenset[str]:
    """Return the typologies of a pack's document. Parsing is slow and a document never changes, hence the cache."""
    return frozenset(rule.typology for rule in parse_pack(document).rules)
