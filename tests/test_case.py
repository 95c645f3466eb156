"""The case fold: opens, links, escalates, learns of restatements, answers every command."""

from dataclasses import replace
from functools import reduce

import pytest

from domain.case import SLA_MS, AccountCases, BrokenLog, CaseFold, decide, evolve
from domain.events import (
    CaseEscalated,
    CaseEvent,
    CaseOpened,
    ClockTicked,
    CommandRejected,
    EscalateCase,
    InboxRecord,
    Reason,
    RiskFlagged,
    RiskLinked,
    RiskRestated,
    RiskRevised,
    to_fields,
)
from domain.payment import Refusal

ACCOUNT = "acct-anna"
CASE = "031ffdd4-21c4-5946-bfa2-808b6f5d4f2c"
NOON = 1_750_000_000_000
REASON = Reason(rule="velocity", measure="payments", value=5, threshold=5, points=600, contributing=("tx-1",))


def flag(sequence: int, **changed: object) -> RiskFlagged:
    made = RiskFlagged(
        account_id=ACCOUNT,
        sequence=sequence,
        flag_id=f"flag-{sequence}",
        transaction_id=f"tx-{sequence}",
        content_digest="00",
        event_time=NOON,
        amount_minor=1_000,
        currency="EUR",
        merchant_id="bakery",
        card_id=None,
        payment_method="CARD",
        channel="POS",
        country=None,
        latitude=None,
        longitude=None,
        typology="rapid_spending",
        score=600,
        reasons=(REASON,),
        pack_id="pack",
    )
    return replace(made, **changed)  # type: ignore[arg-type]


def restated(sequence: int, of: str, rules_before: tuple[str, ...], reasons: tuple[Reason, ...]) -> RiskRestated:
    data = {key: value for key, value in to_fields(flag(sequence)).items() if key != "reasons"}
    data |= {"flag_id": of, "score": 600 if reasons else 0, "transaction_id": of.replace("flag", "tx")}
    return RiskRestated(
        **data,
        reasons=reasons,
        score_before=600 if rules_before else 0,
        rules_before=rules_before,
        cause_transaction_id="late",
        cause_digest="01",
    )


def cased(events: list[CaseEvent]) -> AccountCases:
    return reduce(evolve, events, AccountCases(account_id=ACCOUNT))


def history(*records: InboxRecord) -> tuple[CaseFold, list[CaseEvent]]:
    fold = CaseFold()
    events: list[CaseEvent] = []
    for record in records:
        decided = fold.step(record)
        assert not isinstance(decided, Refusal), decided
        events += decided
    return fold, events


def kinds(events: list[CaseEvent]) -> list[str]:
    return [type(event).__name__ for event in events]


def test_the_first_flag_opens_a_case_and_further_ones_join_it() -> None:
    _, events = history(flag(1), flag(2))
    assert kinds(events) == ["CaseOpened", "RiskLinked"]
    opened, linked = events
    assert isinstance(opened, CaseOpened)
    assert isinstance(linked, RiskLinked)
    assert (opened.sequence, linked.sequence, opened.case_id) == (1, 2, linked.case_id)
    assert opened.case_id == CASE  # uuid5 of the typology and the flag: the same in every replay


def test_each_typology_has_its_own_case() -> None:
    _, events = history(flag(1), flag(2, typology="stolen_card"))
    assert kinds(events) == ["CaseOpened", "CaseOpened"]


@pytest.mark.parametrize(
    ("records", "trigger"),
    [
        pytest.param([flag(1, score=900)], "score", id="by score"),
        pytest.param([flag(number) for number in range(1, 6)], "flags", id="by the number of flags"),
        pytest.param([flag(1, amount_minor=600_000), flag(2, amount_minor=400_000)], "value", id="by value"),
        pytest.param([flag(1, amount_minor=10_000, currency="JPY")], "value", id="by value, without decimals"),
    ],
)
def test_a_case_escalates(records: list[RiskFlagged], trigger: str) -> None:
    _, events = history(*records)
    assert [event.trigger for event in events if isinstance(event, CaseEscalated)] == [trigger]
    assert isinstance(events[-1], CaseEscalated)


@pytest.mark.parametrize(
    "records",
    [
        pytest.param([flag(1, score=899)], id="a lower score"),
        pytest.param([flag(number) for number in range(1, 5)], id="four flags"),
        pytest.param([flag(1, amount_minor=999_999)], id="a cent less"),
    ],
)
def test_below_the_thresholds_it_does_not(records: list[RiskFlagged]) -> None:
    assert "CaseEscalated" not in kinds(history(*records)[1])


def test_it_escalates_once() -> None:
    _, events = history(*(flag(number, score=950) for number in range(1, 8)))
    assert kinds(events).count("CaseEscalated") == 1


def test_a_redelivered_flag_adds_nothing_even_when_others_came_between() -> None:
    _, events = history(flag(1), flag(2), flag(1), flag(2), flag(3))
    assert kinds(events) == ["CaseOpened", "RiskLinked", "RiskLinked"]


def test_a_flag_after_a_gap_waits() -> None:
    fold, _ = history(flag(1))
    refusal = fold.step(flag(3))
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "sequence_gap"
    assert kinds(fold.step(flag(2)) or []) == ["RiskLinked"]  # type: ignore[arg-type]


def test_a_case_learns_that_a_flag_no_longer_stands() -> None:
    _, events = history(flag(1), restated(2, "flag-1", ("velocity",), ()))
    revised = events[-1]
    assert isinstance(revised, RiskRevised)
    assert (revised.rules, revised.score_before, revised.score, revised.sequence) == ((), 600, 0, 2)


def test_a_payment_that_is_flagged_late_opens_a_case() -> None:
    _, events = history(restated(1, "flag-9", (), (REASON,)))
    assert kinds(events) == ["CaseOpened"]


def test_time_that_is_up_escalates_at_the_tick_and_only_then() -> None:
    fold, _ = history(flag(1))
    assert fold.step(ClockTicked(tick_id="t-1", now_ms=NOON + SLA_MS - 1)) == []
    due = fold.step(ClockTicked(tick_id="t-2", now_ms=NOON + SLA_MS))
    assert isinstance(due, list)
    (escalated,) = due
    assert isinstance(escalated, CaseEscalated)
    assert (escalated.trigger, escalated.cause_id, escalated.escalated_at_ms) == ("sla", "t-2", NOON + SLA_MS)
    assert fold.step(ClockTicked(tick_id="t-3", now_ms=NOON + SLA_MS + 1)) == []


def test_a_clock_that_goes_back_is_not_believed() -> None:
    fold, _ = history(ClockTicked(tick_id="t-2", now_ms=NOON + SLA_MS), flag(1))
    assert fold.step(ClockTicked(tick_id="t-1", now_ms=NOON + SLA_MS)) == []


def command(**changed: object) -> EscalateCase:
    made = EscalateCase(
        account_id=ACCOUNT,
        case_id=CASE,
        command_id="cmd-1",
        actor="ana",
        seen_sequence=1,
        reason="looks bad",
        requested_at_ms=NOON + 5,
    )
    return replace(made, **changed)  # type: ignore[arg-type]


def test_an_analyst_escalates_and_is_answered_once() -> None:
    fold, events = history(flag(1), command(), command())
    assert kinds(events) == ["CaseOpened", "CaseEscalated"]
    escalated = events[1]
    assert isinstance(escalated, CaseEscalated)
    assert (escalated.trigger, escalated.actor, escalated.detail) == ("analyst", "ana", "looks bad")
    again = fold.step(command(command_id="cmd-2", seen_sequence=2))
    assert isinstance(again, list)
    assert [event.reason for event in again if isinstance(event, CommandRejected)] == ["the case is escalated already"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"seen_sequence": 0}, "the case has moved on: seen at 0, now at 1"),
        ({"case_id": "other"}, "the account has no open case of this id"),
    ],
)
def test_a_refused_command_says_why(changed: dict[str, object], reason: str) -> None:
    _, events = history(flag(1), command(**changed), command(**changed))
    rejected = [event for event in events if isinstance(event, CommandRejected)]
    assert [event.reason for event in rejected] == [reason]


def test_state_survives_being_packed() -> None:
    records: list[InboxRecord] = [
        flag(1),
        flag(2),
        command(seen_sequence=2),
        restated(3, "flag-1", ("velocity",), ()),
        flag(4),
    ]
    _, expected = history(*records)
    store: dict[str, bytes] = {}
    events: list[CaseEvent] = []
    for record in records:
        fold = CaseFold(store.get, lambda: iter(list(store)))
        decided = fold.step(record)
        assert isinstance(decided, list)
        events += decided
        store.update({key: value for key, value in fold.take_writes().items() if value is not None})
    assert events == expected


def test_a_broken_log_is_an_error() -> None:
    opened = history(flag(1))[1][0]
    with pytest.raises(BrokenLog, match="opens while"):
        cased([opened, opened])
    assert isinstance(opened, CaseOpened)
    with pytest.raises(BrokenLog, match="no open case"):
        evolve(AccountCases(account_id=ACCOUNT), history(flag(1), flag(2))[1][1])


def test_reading_refuses_what_has_no_meaning() -> None:
    fold = CaseFold()
    assert fold.read("Transaction", {}) == Refusal("unexpected_type", "a Transaction has no meaning in this topic")
    refusal = fold.read("ClockTicked", {"tick_id": "t"})
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "bad_fields"


def test_deciding_changes_nothing() -> None:
    state = AccountCases(account_id=ACCOUNT)
    decide(state, flag(1))
    assert state == AccountCases(account_id=ACCOUNT)
