"""A console with live traffic, for people and for browser tests: the real app, folds and payments, all in memory.

`python -m tests.support.stage` serves it at http://127.0.0.1:8765 and prints the accounts that can sign in.
"""

import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from typing import Any

import uvicorn

from console.cases.act_catalog import ACTS
from console.cases.seen_payment import SeenPayment
from console.history.whatif import Progress, WhatifRequest, document
from console.history.whatif_job import carry_out
from console.monitor.feed import seen_payments
from console.monitor.figures import LiveFigures
from console.people.roles import Role
from console.rules.store import Offsets, RulePackStore
from console.web.act_bodies import BODIES, CommandContext, build_command
from domain.cases.events import ClockTicked
from domain.payment import Refusal
from domain.record_types import to_fields
from domain.risk.default_packs import DEFAULT
from domain.risk.events import RiskFlagged, RiskRestated, RiskScored, RulesActivated
from domain.risk.fold import RiskFold
from domain.risk.packs import RulePack
from generator.traffic import Traffic, TrafficOptions
from projections.replay.whatif import run_whatif
from projections.views.case_view import CaseView
from tests.support.desk import PASSWORD, Clock, Desk, MemoryRulesLog
from tests.support.logs import TOPICS, MemoryLog, decoder

PEOPLE = {
    "ana": (Role.ANALYST,), "ben": (Role.ANALYST,), "lea": (Role.LEAD,), "rui": (Role.RULE_AUTHOR,),
    "aud": (Role.AUDITOR,), "adm": (Role.ADMIN,),
}  # fmt: skip
HEALTH: Mapping[str, Any] = {
    "worst": "well", "views_behind_ms": 0, "quarantined": 3, "quarantined_lately": 0, "parked": 0,
    "verified": {"differing": 0, "checked": 412, "round_at_s": 1_750_000_000},
    "readers": [
        {"name": name, "topic": topic, "lag": lag, "end": end, "state": "well", "words": "keeps up"}
        for name, topic, lag, end in (
            ("risk job", "payments.inbound", 12, 184_220), ("case job", "cases.inbox", 0, 2_113),
            ("case views", "cases.events", 0, 3_004),
        )
    ],
}  # fmt: skip


_TOLD = "Called the customer: the card was in the wallet all day."
_LATER = {"hours": 4, "reason": "the customer calls back this afternoon"}
_FALSE = {"disposition": "false_positive", "reason": "a standing order, paid early"}
WORK: list[list[tuple[str, str, dict[str, Any]]]] = [
    [], [], [("take", "ana", {}), ("note", "ana", {"text": _TOLD})],
    [], [("escalate", "ben", {"reason": "three merchants within a minute"})],
    [], [("take", "ben", {}), ("snooze", "ben", _LATER)],
    [], [], [("take", "ana", {}), ("close", "ana", _FALSE)],
    [("take", "lea", {})], [],
]  # fmt: skip
"""Acts on the cases: entry n is for case n modulo the number of entries."""


class LiveClock(Clock):
    """The current time, or a past time while earlier traffic is filled in."""

    past_ms: int | None = None

    def __call__(self) -> int:
        return time.time_ns() // 1_000_000 if self.past_ms is None else self.past_ms


class StageFigures:
    """Figures of the traffic on this stage."""

    def __init__(self) -> None:
        self.live = LiveFigures()
        self.lock = threading.Lock()
        self._latest: Mapping[str, Any] = {}
        self._watchers: set[Callable[[], None]] = set()

    def publish(self, now_ms: int) -> None:
        """Publish the next snapshot."""
        with self.lock:
            self._latest = self.live.snapshot(now_ms, HEALTH)
        for watcher in list(self._watchers):
            watcher()

    def latest(self) -> Mapping[str, Any]:
        """Return the last snapshot."""
        return self._latest

    def watch(self, watcher: Callable[[], None]) -> Callable[[], None]:
        """Watch for snapshots, as with the real figures."""
        self._watchers.add(watcher)
        return lambda: self._watchers.discard(watcher)

    def payments(self, account_id: str, wanted: Sequence[str]) -> dict[str, SeenPayment]:
        """Return recent payments, as the real figures do."""
        with self.lock:
            return seen_payments(self.live.payments(account_id, wanted))


class StageRulesLog(MemoryRulesLog):
    """Log of activations, which take effect on this stage."""

    def __init__(self, stage: "Stage") -> None:
        super().__init__()
        self._stage = stage

    def write(self, record: RulesActivated, since: Offsets) -> int:
        """Write the record, and apply it."""
        written = super().write(record, since)
        if written:
            self._stage._activate(record, self._stage.clock())
        return written


class Stage:
    """Console with traffic."""

    def __init__(self, folder: Path, seed: int = 7) -> None:
        self.figures = StageFigures()
        self.clock = LiveClock()
        self.log = MemoryLog()
        self.desk = Desk(
            folder, clock=self.clock, figures=self.figures, rules=StageRulesLog(self), carry_out=self.carry_out,
            patience_s=5,
        )  # fmt: skip
        self._risk, self._offsets = RiskFold(0), count()
        self._activate(RulesActivated(pack_id=DEFAULT.pack_id, pack=DEFAULT.canonical, activated_by="system"), 0)
        RulePackStore(self.desk.engine, self.clock).first(DEFAULT)
        self._seed = seed
        self._ended = threading.Event()
        for name, roles in PEOPLE.items():
            self.desk.people.add(name, frozenset(roles), "system", PASSWORD)

    def _activate(self, record: RulesActivated, at_ms: int) -> None:
        self._risk.read("RulesActivated", to_fields(record), next(self._offsets), None)
        self.log.everywhere(TOPICS.payments_inbound, "RulesActivated", to_fields(record), at_ms)

    def carry_out(self, run_id: str) -> None:
        """Run a what-if on the payments of this stage, in a thread of its own."""

        def work(pack: RulePack, asked: WhatifRequest, seen: Progress) -> dict[str, Any]:
            return document(run_whatif(self.log, TOPICS, decoder(), pack, asked.period, seen), asked)

        threading.Thread(target=carry_out, args=(self.desk.runs, run_id, work), daemon=True).start()

    def fill(self, payments: int, per_second: float = 6.0) -> None:
        """Add the payments of the last hours, as if they had arrived on time."""
        start_ms = self.clock() - int(payments / per_second * 1000)
        options = TrafficOptions(
            seed=self._seed, accounts=600, start_ms=start_ms, per_second=per_second, velocity_share=0.002,
            spike_share=0.003, geographic_share=0.003,
        )  # fmt: skip
        self._traffic = iter(Traffic(options))
        for generated in islice(self._traffic, payments):
            self._pay(generated.transaction, generated.arrives_ms)

    def work(self) -> None:
        """Let analysts act on some of the cases."""
        views = self.desk.log.board.views(list(self.desk.log.board._slots))
        for number, view in enumerate(sorted(views, key=lambda view: view.case_id)):
            for slug, actor, fields in WORK[number % len(WORK)]:
                now = self.desk.log.board.view(view.case_id)
                assert now is not None
                self.act(now, slug, actor, **fields)

    def act(self, view: CaseView, slug: str, actor: str, **fields: Any) -> None:
        """Send a command as an analyst."""
        order = CommandContext(
            account_id=view.account_id, case_id=view.case_id, command_id=str(uuid.uuid4()), actor=actor,
            seen_sequence=view.sequence, requested_at_ms=self.clock(),
        )  # fmt: skip
        if "hours" in fields:
            fields = {"reason": fields["reason"], "until_ms": self.clock() + fields["hours"] * 3_600_000}
        self.desk.log.send(build_command(ACTS[slug], BODIES[slug](**fields), order))

    def run(self, per_second: float) -> None:
        """Add payments as they arrive, until stopped."""
        for generated in self._traffic:
            if self._ended.wait(1 / per_second):
                return
            now = self.clock()
            self._pay({**generated.transaction, "event_time": now - 200}, now)

    def publish(self) -> None:
        """Publish figures each second."""
        while not self._ended.wait(1):
            self.figures.publish(self.clock())

    def _pay(self, transaction: Mapping[str, Any], at_ms: int) -> None:
        self.log.pay(transaction, at_ms)
        outputs = self._risk.read("Transaction", transaction, next(self._offsets), at_ms)
        assert not isinstance(outputs, Refusal), outputs
        for output in outputs:
            if isinstance(output, RiskScored):
                with self.figures.lock:
                    self.figures.live.scored([output._asdict()], at_ms)
            elif isinstance(output, RiskFlagged | RiskRestated):
                self.step(output, at_ms)

    def step(self, record: RiskFlagged | RiskRestated | ClockTicked, at_ms: int) -> None:
        """Append a record to cases.inbox, known at the given time."""
        self.clock.past_ms = at_ms if at_ms < self.clock() - 60_000 else None
        try:
            self.desk.log.step(record)
        finally:
            self.clock.past_ms = None
        if isinstance(record, RiskFlagged):
            fields = {name: getattr(record, name) for name in RiskFlagged.__struct_fields__}
            with self.figures.lock:
                self.figures.live.flagged(fields, at_ms)

    def stop(self) -> None:
        """Stop the traffic."""
        self._ended.set()


def free_port() -> int:
    """Return a port that no program listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def staged(folder: Path, port: int, payments: int = 9_000, per_second: float = 3.0) -> Iterator[Stage]:
    """Serve a stage."""
    stage = Stage(folder)
    stage.fill(payments)
    stage.work()
    server = uvicorn.Server(uvicorn.Config(stage.desk.app, port=port, log_level="warning", timeout_graceful_shutdown=1))
    threads = [
        threading.Thread(target=server.run, daemon=True),
        threading.Thread(target=stage.publish, daemon=True),
        threading.Thread(target=stage.run, args=(per_second,), daemon=True),
    ]
    for thread in threads:
        thread.start()
    while not server.started:
        time.sleep(0.05)
    try:
        yield stage
    finally:
        stage.stop()
        server.should_exit = True
        for thread in threads:
            thread.join(10)
        stage.desk.engine.dispose()


def main() -> None:
    """Serve until interrupted."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8765
    with tempfile.TemporaryDirectory() as folder, staged(Path(folder), port):
        sys.stdout.write(f"http://127.0.0.1:{port}  {', '.join(PEOPLE)}: {PASSWORD}\n")
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main()
