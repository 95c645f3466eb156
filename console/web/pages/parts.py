"""What the pages work with besides the doors: rule packs, live figures, and payments by account."""

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
"""Choices are offered while they are asked for anew, unless they are so many times as old as they may be."""


class FigureSource(Protocol):
    """The live figures; console.live has the real ones."""

    def latest(self) -> Mapping[str, Any]:
        """The last snapshot; empty before there is one."""

    def watch(self, watcher: Callable[[], None]) -> Callable[[], None]:
        """Call a function after each snapshot; returns what ends that."""

    def payments(self, account_id: str, wanted: Sequence[str]) -> dict[str, SeenPayment]:
        """Those of these payments of an account that are remembered, by id."""


class EmptyFigureSource:
    """Where nobody counts."""

    def latest(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def watch(self, _: Callable[[], None]) -> Callable[[], None]:
        """Never."""
        return lambda: None

    def payments(self, _: str, __: Sequence[str]) -> dict[str, SeenPayment]:
        """None."""
        return {}


def _no_log() -> RulesLog:
    raise OSError("this console has no logs to write into")


def _no_work(_: str) -> None:
    raise OSError("this console has nobody to carry out a what-if")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageServices:
    """One console's."""

    control: RulePackStore
    runs: WhatifRuns
    rules_log: Callable[[], RulesLog] = _no_log
    """The logs that rule packs are activated in."""
    carry_out: Callable[[str], None] = _no_work
    """Begins the work on a what-if that is noted; returns at once."""
    figures: FigureSource = field(default_factory=EmptyFigureSource)
    past: PastPayments = field(default_factory=EmptyPastPayments)
    wait: Callable[[float], None] = time.sleep
    choices_s: float = 1.0
    """How long pages offer the same people and typologies: to ask takes longer than to render a queue."""
    _choices: dict[str, tuple[float, list[str]]] = field(default_factory=dict)

    def choices(self, of: str, ask: Callable[[], list[str]]) -> list[str]:
        """What pages offer of a kind, asked anew when that is old; who comes meanwhile gets the old."""
        if self.is_fresh(of):
            return self._choices[of][1]
        if of in self._choices:
            self._choices[of] = time.monotonic(), self._choices[of][1]
        found = ask()
        self._choices[of] = time.monotonic(), found
        return found

    def held(self, of: str) -> list[str] | None:
        """The choices of a kind that were offered last, if that is not too long ago."""
        at_s, found = self._choices.get(of, (0.0, None))
        return found if time.monotonic() - at_s < OLD_AFTER * self.choices_s else None

    def is_fresh(self, of: str) -> bool:
        """Whether choices of a kind are answered without asking anybody."""
        return of in self._choices and time.monotonic() - self._choices[of][0] < self.choices_s


def page_services_of(request: Request) -> PageServices:
    """The parts of the app that a request has come to."""
    found: PageServices = request.app.state.page_parts
    return found


async def offered_choices(request: Request) -> tuple[list[str], list[str]]:
    """Analysts and typologies. Mostly they are there; while they are asked for anew, pages get the old ones."""

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
    """Whoever may work on cases, by name."""

    def ask() -> list[str]:
        return [
            row.name
            for row in services_of(request).people.everybody()
            if not row.is_disabled and Permission.WORK_CASES in permissions_of(frozenset(map(Role, row.roles.split())))
        ]

    return page_services_of(request).choices("analysts", ask)


def typologies(request: Request) -> list[str]:
    """What the rules that are in force look for."""

    def ask() -> list[str]:
        packs = [row for row in page_services_of(request).control.packs() if row.state == "active" or row.shadow]
        return sorted({typology for row in packs for typology in _typologies_of(row.document)})

    return page_services_of(request).choices("typologies", ask)


@lru_cache(maxsize=64)
def _typologies_of(document: str) -> frozenset[str]:
    """What a pack looks for: its document never changes, and to read it takes longer than the rest of a page."""
    return frozenset(rule.typology for rule in parse_pack(document).rules)
