"""A tick visits only the accounts that it affects, and decisions do not change the state that they read."""

import copy
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from console.bench.case_fold import case_fold_rate, case_read_rate, inbox
from domain.cases.due import SPARE, DeadlineQueue
from domain.cases.events import CaseEvent, ClockTicked
from domain.cases.flags import on_tick
from domain.cases.fold import CaseFold, decide
from domain.cases.state import AccountCases
from domain.payment import Refusal
from domain.record_types import to_fields
from tests.support.cases import NOON, flag, history

LAST = 5_000_000_000_000


class TickOverAllAccounts(CaseFold):
    """Case fold whose tick visits every account, in order, as the design defines it."""

    def _tick(self, tick: ClockTicked) -> list[CaseEvent]:
        if tick.now_ms <= self._now_ms:
            return []
        self._now_ms = tick.now_ms
        events: list[CaseEvent] = []
        for account_id in sorted(self._accounts):
            due = on_tick(self._accounts[account_id], tick)
            self._apply(self._accounts[account_id], due)
            events += due
        return events


def test_tick_results_equal_those_of_a_tick_over_every_account() -> None:
    """A busy inbox with restarts, and a last tick at which every deadline has passed."""
    quick, thorough, ticked, store = CaseFold(), TickOverAllAccounts(), 0, dict[str, bytes]()
    for number, record in enumerate([*inbox(12_000, 5), ClockTicked(tick_id="last", now_ms=LAST)]):
        decided, expected = quick.step(record), thorough.step(record)
        assert decided == expected
        ticked += len(decided) if isinstance(record, ClockTicked) else 0
        if number % 1_000 == 999:
            store.update({key: packed for key, packed in quick.take_writes().items() if packed is not None})
            quick = CaseFold(store.get, lambda: iter(store))
    assert ticked > 5


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcdef"), st.none() | st.integers(0, 20)),
    st.lists(st.tuples(st.sampled_from("abcdef"), st.none() | st.integers(0, 20)) | st.integers(0, 20), max_size=40),
)
def test_an_account_is_due_at_the_time_that_was_put_last(
    first: dict[str, int | None], steps: list[tuple[str, int | None] | int]
) -> None:
    due, model = DeadlineQueue(first), {key: at_ms for key, at_ms in first.items() if at_ms is not None}
    for step in steps:
        if isinstance(step, int):
            expected = sorted(key for key, at_ms in model.items() if at_ms <= step)
            assert due.take(step) == expected
            for key in expected:
                del model[key]
        else:
            due.put(*step)
            model.pop(step[0], None)
            if step[1] is not None:
                model[step[0]] = step[1]


def test_putting_an_account_repeatedly_takes_no_more_memory() -> None:
    due = DeadlineQueue({})
    for at_ms in range(10 * SPARE):
        due.put("anna", at_ms)
    assert len(due._heap) <= SPARE + 3
    assert due.take(10 * SPARE) == ["anna"]


@pytest.mark.no_cover
def test_decide_does_not_change_the_state_that_it_reads() -> None:
    fold, draw = CaseFold(), random.Random(3)
    for record in inbox(3_000, 8):
        if not isinstance(record, ClockTicked):
            state = fold._accounts.get(record.account_id, AccountCases(account_id=record.account_id))
            before = copy.deepcopy(state)
            first = decide(state, record)
            assert state == before
            assert decide(state, record) == first
        elif draw.random() < 0.5:
            continue
        assert not isinstance(fold.step(record), Refusal)


def test_events_do_not_change_while_their_case_changes() -> None:
    fold, events = history(*(flag(number) for number in range(1, 30)))
    said = [to_fields(event) for event in events]
    fold.step(ClockTicked(tick_id="t", now_ms=NOON * 2))
    for number in range(30, 60):
        fold.step(flag(number))
    assert [to_fields(event) for event in events] == said


def test_benchmark_folds_the_records_that_it_reports() -> None:
    records = list(inbox(2_000, 1))
    assert records == list(inbox(2_000, 1))
    assert records != list(inbox(2_000, 2))
    kinds = {type(record).__name__ for record in records}
    assert {"RiskFlagged", "RiskRestated", "ClockTicked", "TakeCase", "CloseCase", "AddNote"} <= kinds
    assert case_fold_rate(2_000, 1) > 0
    assert case_read_rate(2_000, 1) > 0
