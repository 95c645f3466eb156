"""Fold of a partition of cases.inbox. The live job, replays and tests all use it."""

import json
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeAlias, get_args

from domain.cases.answers import on_command
from domain.cases.commands import Command
from domain.cases.due import DeadlineQueue
from domain.cases.events import CaseEvent, ClockTicked, RiskLinked
from domain.cases.flags import due_ms, on_flag, on_tick
from domain.cases.linked_flag import LinkedFlag
from domain.cases.state import (
    UNTOUCHED,
    AbsorbedCase,
    AccountCases,
    ApprovalRequest,
    Case,
    CaseWork,
    MergeTarget,
    evolve,
)
from domain.engines import ENGINE_KEY, FIRST, ActiveEngine, Engine
from domain.payment import Refusal
from domain.record import Record
from domain.record_types import InboxRecord, from_fields
from domain.risk.events import EntityFlagged, Flag, RiskFlagged, RiskRestated

AccountRecord: TypeAlias = Flag | Command
_INBOX: Final = frozenset(kind.__name__ for kind in get_args(InboxRecord))
_RISK_RECORDS: Final = (RiskFlagged, RiskRestated)
_NO_PAYMENT: Final = dict.fromkeys(set(LinkedFlag.__struct_fields__) - {"score"})
"""Payment fields of a flag that was linked before labels existed: all None."""


def decide(state: AccountCases, record: AccountRecord, engine: Engine = FIRST) -> list[CaseEvent] | Refusal:
    """Return the events of a record, decided by an engine.

    A redelivered record has none. A record after a gap in the account's sequence is refused.
    """
    if isinstance(record, _RISK_RECORDS):
        if record.sequence <= state.risk_sequence:
            return []
        if record.sequence > state.risk_sequence + 1:
            return Refusal(
                "sequence_gap",
                f"account {state.account_id}: {type(record).__name__} {record.sequence} after "
                f"{state.risk_sequence}; it waits for those between",
            )
        return on_flag(state, record, engine)
    if isinstance(record, EntityFlagged):
        is_redelivered = record.offset <= state.entity_offsets.get(str(record.partition), -1)
        return [] if is_redelivered else on_flag(state, record, engine)
    return on_command(state, record)


class CaseFold:
    """State of one partition of cases.inbox: its accounts with their cases, all in memory, and its clock.

    `load` reads a state entry by key and `keys` lists the keys; both are called once, on start.
    """

    _CLOCK: Final = "\x1fclock"

    def __init__(
        self, load: Callable[[str], bytes | None] = lambda _: None, keys: Callable[[], Iterator[str]] = lambda: iter(())
    ) -> None:
        self._accounts: dict[str, AccountCases] = {}
        self._dirty: set[str] = set()
        for key in sorted(keys()):
            packed = load(key)
            if packed is not None and key not in (self._CLOCK, ENGINE_KEY):
                self._accounts[key] = _unpack(packed)
        self._due = DeadlineQueue({key: due_ms(state) for key, state in self._accounts.items()})
        self._now_ms = int(load(self._CLOCK) or -1)
        self._clock_dirty = False
        self._engine = ActiveEngine(load)

    @property
    def engine(self) -> int:
        """Return the number of the engine that decides the next record."""
        return self._engine.now.number

    def read(self, name: str, data: dict[str, Any]) -> list[CaseEvent] | Refusal:
        """Decode a record of the log and apply it; see `step`. Refuse a record of another type or with wrong fields."""
        if name == "EngineActivated":
            return self._engine.read(data) or []
        if name not in _INBOX:
            return Refusal("unexpected_type", f"a {name} has no meaning in this topic")
        try:
            record = from_fields(name, data)
        except (KeyError, TypeError) as error:
            return Refusal("bad_fields", f"not the fields of a {name}: {error!r}")
        assert isinstance(record, InboxRecord)
        return self.step(record)

    def step(self, record: InboxRecord) -> list[CaseEvent] | Refusal:
        """Apply a record and return its events. Return a refusal if the record cannot be read yet."""
        if isinstance(record, ClockTicked):
            return self._tick(record)
        state = self._accounts.get(record.account_id) or AccountCases(account_id=record.account_id)
        decided = decide(state, record, self._engine.now)
        if isinstance(decided, Refusal):
            return decided
        if isinstance(record, _RISK_RECORDS):
            if record.sequence > state.risk_sequence:
                state.risk_sequence = record.sequence
        elif isinstance(record, EntityFlagged):
            partition, offsets = str(record.partition), state.entity_offsets
            offsets[partition] = max(offsets.get(partition, -1), record.offset)
        self._apply(state, decided)
        return decided

    def _tick(self, tick: ClockTicked) -> list[CaseEvent]:
        if tick.now_ms <= self._now_ms:
            return []
        self._now_ms, self._clock_dirty = tick.now_ms, True
        events: list[CaseEvent] = []
        for account_id in self._due.take(tick.now_ms):
            state = self._accounts[account_id]
            due = on_tick(state, tick)
            self._apply(state, due)
            events += due
        return events

    def _apply(self, state: AccountCases, events: list[CaseEvent]) -> None:
        account_id, is_deadline_changed = state.account_id, False
        for event in events:
            evolve(state, event)
            if type(event) is not RiskLinked:
                is_deadline_changed = True
        self._accounts[account_id] = state
        self._dirty.add(account_id)
        if is_deadline_changed:
            self._due.put(account_id, due_ms(state))

    def take_writes(self) -> dict[str, bytes | None]:
        """Return the state entries that changed since the last call, by key."""
        writes: dict[str, bytes | None] = {key: pack(self._accounts[key]) for key in sorted(self._dirty)}
        if self._clock_dirty:
            writes[self._CLOCK] = str(self._now_ms).encode()
        writes.update(self._engine.take_writes())
        self._dirty, self._clock_dirty = set(), False
        return writes


# -- state entries: JSON. A missing part has its default value; entries of earlier engines lack parts ------------------


def pack(state: AccountCases) -> bytes:
    """Encode the cases of an account as a state entry."""
    return json.dumps(state, separators=(",", ":"), default=_fields).encode()


def _fields(part: Any) -> dict[str, Any]:
    if isinstance(part, CaseWork) and part == UNTOUCHED:
        return {}
    names = part.__struct_fields__ if isinstance(part, Record) else part.__slots__
    return {name: getattr(part, name) for name in names}


def _unpack(packed: bytes) -> AccountCases:
    data = json.loads(packed)
    cases = {typology: _unpack_case(case) for typology, case in data.pop("cases").items()}
    closed = [_unpack_case(case) for case in data.pop("closed", ())]
    return AccountCases(**data, cases=cases, closed=closed)


def _unpack_case(data: dict[str, Any]) -> Case:
    work = data.pop("work", None)
    return Case(**_join_linked_flags(data), work=_unpack_work(work) if work else UNTOUCHED)


def _unpack_work(data: dict[str, Any]) -> CaseWork:
    request, merged = data.pop("request"), data.pop("merged_into")
    absorbed = {key: AbsorbedCase(**_join_linked_flags(each)) for key, each in data.pop("absorbed").items()}
    return CaseWork(
        **data,
        request=ApprovalRequest(**request) if request else None,
        merged_into=MergeTarget(**merged) if merged else None,
        absorbed=absorbed,
    )


def _join_linked_flags(data: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a case or an absorbed case. Earlier entries kept scores and payments of flags apart."""
    payments = data.pop("payments", {})
    return {**data, "linked": {key: _unpack_flag(each, payments.get(key)) for key, each in data["linked"].items()}}


def _unpack_flag(data: dict[str, Any] | int, payment: dict[str, Any] | None) -> LinkedFlag:
    if not isinstance(data, int):
        return LinkedFlag(**data)
    return LinkedFlag(score=data, **(payment or _NO_PAYMENT))
