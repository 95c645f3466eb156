"""Benchmark of the case fold: case events per second from one partition of cases.inbox, in one process, without I/O."""

import gc
import random
import time
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

from console.cases.act_catalog import ACTS
from domain.cases.commands import AnalystCommand
from domain.cases.events import CaseAnswer, CaseEvent, CaseOpened, ClockTicked
from domain.cases.fold import CaseFold
from domain.payment import Refusal
from domain.reason import Reason
from domain.record_types import InboxRecord, to_fields
from domain.risk.events import RiskFlagged, RiskRestated

T = TypeVar("T")
START_MS: Final = 1_750_000_000_000
ROUNDS: Final = 3
STEP_MS: Final = 1_000
"""Time between two records, so that case deadlines pass within the inbox."""
TICK_EVERY: Final = 250
FLAGS_PER_ACCOUNT: Final = 100
"""Average flags per account; some accounts have a few, others many hundreds on one open case."""
TYPOLOGIES: Final = ("rapid_spending", "rapid_spending", "rapid_spending", "stolen_card")
PEOPLE: Final = ("ana", "ben", "lea")
SNOOZE_MS: Final = 2 * 3_600_000
WORK: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("take", {}),
    ("note", {"text": "called the customer, who knows nothing of it", "attachments": ()}),
    ("release", {}),
    ("escalate", {"reason": "three merchants within a minute"}),
    ("snooze", {"reason": "the customer calls back"}),
    ("wake", {}),
    ("close", {"disposition": "confirmed_fraud", "reason": "the card was stolen"}),
    ("approve-closing", {"reason": "seen it too"}),
)
"""Analyst acts with their fields, drawn at random; many are rejected, as in practice."""


def case_fold_rate(events: int, seed: int) -> float:
    """Return case events per second of processor time, folded from a seeded inbox of about `events` events.

    The inbox is made before the clock starts. About 91% of its records are flags, most of which join an open case with
    up to many hundreds of flags; 2% are restatements, 6% are analyst commands and 0.4% are ticks. Only the fold is
    timed: the decision on each record and the state after it, without Kafka, Avro and the state writes of a live job.
    `case_read_rate` also times the conversion from decoded fields. The fastest of ROUNDS rounds in fresh state counts,
    because other programs only slow it down.
    """
    records = list(inbox(events, seed))
    return max(_rate(CaseFold().step, records) for _ in range(ROUNDS))


def case_read_rate(events: int, seed: int) -> float:
    """Return case events per second from the fields of each record, as a decoder returns them and a replay reads
    them.
    """
    fold = CaseFold()
    records = [(type(record).__name__, to_fields(record)) for record in inbox(events, seed)]
    return _rate(lambda record: fold.read(*record), records)


def _rate(folded: Callable[[T], list[CaseEvent] | Refusal], records: list[T]) -> float:
    events, thresholds = 0, gc.get_threshold()
    gc.collect()
    gc.set_threshold(200_000, 20, 50)  # as in the job
    try:
        begun = time.process_time()
        for record in records:
            decided = folded(record)
            if not isinstance(decided, Refusal):
                events += len(decided)
        spent_s = time.process_time() - begun
    finally:
        gc.set_threshold(*thresholds)
    return events / spent_s


def inbox(events: int, seed: int) -> Iterator[InboxRecord]:
    """Yield a seeded inbox that results in at least `events` case events; equal seeds give equal records."""
    draw = random.Random(seed)  # noqa: S311 - seeded on purpose
    desk = _InboxGenerator(draw, accounts=max(1, events // FLAGS_PER_ACCOUNT))
    while desk.events < events:
        yield desk.next()


class _InboxGenerator:
    """Generator of records that fit the state after the earlier records."""

    def __init__(self, draw: random.Random, accounts: int) -> None:
        self._draw, self._accounts = draw, accounts
        self._fold = CaseFold()
        self._sequences: dict[str, int] = {}
        self._cases: list[CaseOpened] = []
        self._seen: dict[str, int] = {}
        self._flagged: list[RiskFlagged] = []
        self._records = self._commands = 0
        self.events = 0

    def next(self) -> InboxRecord:
        """Return the next record, after folding it."""
        self._records += 1
        record = self._make()
        decided = self._fold.step(record)
        assert not isinstance(decided, Refusal), decided
        for event in decided:
            self._apply(event)
        return record

    def _apply(self, event: CaseEvent) -> None:
        self.events += 1
        if isinstance(event, CaseOpened):
            self._cases.append(event)
        if not isinstance(event, CaseAnswer):
            self._seen[event.case_id] = event.sequence

    def _make(self) -> InboxRecord:
        now_ms, lot = START_MS + self._records * STEP_MS, self._draw.random()
        if self._records % TICK_EVERY == 0:
            return ClockTicked(tick_id=f"tick-{self._records}", now_ms=now_ms)
        if lot < 0.06 and self._cases:
            return self._command(now_ms)
        if lot < 0.08 and self._flagged:
            return self._restatement()
        return self._flag(now_ms)

    def _flag(self, now_ms: int) -> RiskFlagged:
        account_id = f"acct-{int(self._accounts * self._draw.random() ** 2):07}"
        sequence = self._sequences[account_id] = self._sequences.get(account_id, 0) + 1
        place = f"{account_id}-{sequence}"
        reason = Reason(
            rule="velocity", measure="payments", value=5, threshold=5, points=600,
            contributing=tuple(f"tx-{account_id}-{sequence - back}" for back in range(4)),
        )  # fmt: skip
        flagged = RiskFlagged(
            account_id=account_id,
            sequence=sequence,
            flag_id=f"flag-{place}",
            transaction_id=f"tx-{place}",
            content_digest=f"{self._records:064x}",
            event_time=now_ms,
            amount_minor=self._draw.randrange(100, 20_000),
            currency="EUR",
            merchant_id=f"merchant-{self._draw.randrange(1_000)}",
            card_id=f"card-{account_id}",
            payment_method="CARD",
            channel="POS",
            country="DE",
            latitude=52_520_000,
            longitude=13_405_000,
            typology=TYPOLOGIES[self._draw.randrange(len(TYPOLOGIES))],
            score=self._draw.randrange(600, 950),
            reasons=(reason,),
            pack_id="0" * 64,
            terminal_id="till-1",
            device_id="phone-1",
        )
        if self._draw.random() < 0.1:
            self._flagged.append(flagged)
        return flagged

    def _restatement(self) -> RiskRestated:
        """Withdraw a flag, as if a late payment explained it."""
        flagged = self._flagged.pop(self._draw.randrange(len(self._flagged)))
        sequence = self._sequences[flagged.account_id] = self._sequences[flagged.account_id] + 1
        like = {name: getattr(flagged, name) for name in flagged.__struct_fields__}
        return RiskRestated(
            **{**like, "sequence": sequence, "score": 0, "reasons": ()},
            score_before=flagged.score,
            rules_before=("velocity",),
            cause_transaction_id=f"late-{sequence}",
            cause_digest="00",
        )

    def _command(self, now_ms: int) -> InboxRecord:
        case = self._cases[int(len(self._cases) * self._draw.random())]
        act, fields = WORK[self._draw.randrange(len(WORK))]
        until = {"until_ms": now_ms + SNOOZE_MS} if act == "snooze" else {}
        make: Callable[..., AnalystCommand] = ACTS[act].command
        self._commands += 1
        return make(
            account_id=case.account_id,
            case_id=case.case_id,
            command_id=f"cmd-{self._commands}",
            actor=self._draw.choice(PEOPLE),
            seen_sequence=self._seen[case.case_id],
            requested_at_ms=now_ms,
            **fields,
            **until,
        )
