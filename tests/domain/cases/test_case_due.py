"""A tick looks only at accounts that it leads to something in; decisions leave the state that they read as it was."""

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


class LooksAtAll(CaseFold):
    """The tick as the design has it: every account is looked at, in order."""

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


def test_a_tick_leads_to_what_it_would_if_it_looked_at_every_account() -> None:
    """Over a busy inbox, with a restart now and then, and a last tick that everything is due at."""
    quick, thorough, ticked, store = CaseFold(), LooksAtAll(), 0, dict[str, bytes]()
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
def test_who_is_due_is_who_was_put_last_at_such_a_time(
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


def test_an_account_that_is_put_again_and_again_takes_no_more_room() -> None:
    due = DeadlineQueue({})
    for at_ms in range(10 * SPARE):
        due.put("anna", at_ms)
    assert len(due._heap) <= SPARE + 3
    assert due.take(10 * SPARE) == ["anna"]


@pytest.mark.no_cover
def test_a_decision_changes_nothing_of_the_state_that_it_reads() -> None:
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


def test_events_keep_what_they_said_while_their_case_goes_on() -> None:
    fold, events = history(*(flag(number) for number in range(1, 30)))
    said = [to_fields(event) for event in events]
    fold.step(ClockTicked(tick_id="t", now_ms=NOON * 2))
    for number in range(30, 60):
        fold.step(flag(number))
    assert [to_fields(event) for event in events] == said


def test_the_benchmark_folds_what_it_says() -> None:
    records = list(inbox(2_000, 1))
    assert records == list(inbox(2_000, 1))
    assert records != list(inbox(2_000, 2))
    kinds = {type(record).__name__ for record in records}
    assert {"RiskFlagged", "RiskRestated", "ClockTicked", "TakeCase", "CloseCase", "AddNote"} <= kinds
    assert case_fold_rate(2_000, 1) > 0
    assert case_read_rate(2_000, 1) > 0
