"""The case fold: it opens cases, links flags, escalates, applies restatements and answers every command."""

from functools import reduce

import pytest

from domain.cases.commands import CloseCase, EscalateCase
from domain.cases.events import (
    CaseAnswer,
    CaseClosed,
    CaseEscalated,
    CaseEvent,
    CaseOpened,
    ClockTicked,
    CommandRejected,
    FlaggedPayment,
    RiskLinked,
    RiskRevised,
)
from domain.cases.fold import CaseFold, decide
from domain.cases.state import MAX_CLOSED, MAX_LINKED, SLA_MS, AccountCases, BrokenLog, evolve
from domain.payment import Refusal
from domain.record import replace
from domain.record_types import InboxRecord
from domain.risk.events import EntityFlagged, RiskFlagged
from projections.views.case_table import MemoryCaseTable
from projections.views.case_view import project, view_item
from tests.support.cases import ACCOUNT, CASE, NOON, REASON, close, flag, history, kinds, restated, viewed


def cased(events: list[CaseEvent]) -> AccountCases:
    return reduce(evolve, events, AccountCases(account_id=ACCOUNT))


def test_the_first_flag_opens_a_case_and_further_ones_join_it() -> None:
    _, events = history(flag(1), flag(2))
    assert kinds(events) == ["CaseOpened", "RiskLinked"]
    opened, linked = events
    assert isinstance(opened, CaseOpened)
    assert isinstance(linked, RiskLinked)
    assert (opened.sequence, linked.sequence, opened.case_id) == (1, 2, linked.case_id)
    assert opened.case_id == CASE  # uuid5 of the typology and the flag: equal in every replay


def test_rules_keep_the_order_of_their_reasons() -> None:
    """Eight rules: the arbitrary order of a set would hardly be the right one by chance."""
    names = tuple(f"rule-{letter}" for letter in "hgfedcba")
    reasons = tuple(replace(REASON, rule=name) for name in names)
    opened, linked = history(flag(1, reasons=reasons), flag(2, reasons=reasons))[1]
    assert isinstance(opened, CaseOpened)
    assert isinstance(linked, RiskLinked)
    assert opened.rules == linked.rules == names


def test_view_is_stored_only_over_its_base_version() -> None:
    """Of two writers of one case, the slower one gets an error, and the view of the other one stays."""
    events = [event for event in history(flag(1), flag(2))[1] if not isinstance(event, CaseAnswer)]
    table, first = MemoryCaseTable(), project(None, events[0])
    second = project(first, events[1])
    assert table.save([(first, 0)], []) == []
    assert table.save([(second, 1)], []) == []
    assert table.save([(first, 0)], []) == [CASE]
    assert table.view(CASE) == second


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
def test_case_below_the_thresholds_does_not_escalate(records: list[RiskFlagged]) -> None:
    assert "CaseEscalated" not in kinds(history(*records)[1])


def test_case_escalates_once() -> None:
    _, events = history(*(flag(number, score=950) for number in range(1, 8)))
    assert kinds(events).count("CaseEscalated") == 1


def test_redelivered_flag_adds_nothing_even_after_other_flags() -> None:
    _, events = history(flag(1), flag(2), flag(1), flag(2), flag(3))
    assert kinds(events) == ["CaseOpened", "RiskLinked", "RiskLinked"]


def test_a_flag_after_a_gap_waits() -> None:
    fold, _ = history(flag(1))
    refusal = fold.step(flag(3))
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "sequence_gap"
    assert kinds(fold.step(flag(2)) or []) == ["RiskLinked"]  # type: ignore[arg-type]


def test_case_records_a_withdrawn_flag() -> None:
    _, events = history(flag(1), restated(2, "flag-1", ("velocity",), ()))
    revised = events[-1]
    assert isinstance(revised, RiskRevised)
    assert (revised.rules, revised.score_before, revised.score, revised.sequence) == ((), 600, 0, 2)


def test_payment_flagged_late_opens_a_case() -> None:
    _, events = history(restated(1, "flag-9", (), (REASON,)))
    assert kinds(events) == ["CaseOpened"]


def test_missed_deadline_escalates_at_the_tick_and_not_before() -> None:
    fold, _ = history(flag(1))
    assert fold.step(ClockTicked(tick_id="t-1", now_ms=NOON + SLA_MS - 1)) == []
    due = fold.step(ClockTicked(tick_id="t-2", now_ms=NOON + SLA_MS))
    assert isinstance(due, list)
    (escalated,) = due
    assert isinstance(escalated, CaseEscalated)
    assert (escalated.trigger, escalated.cause_id, escalated.escalated_at_ms) == ("sla", "t-2", NOON + SLA_MS)
    assert fold.step(ClockTicked(tick_id="t-3", now_ms=NOON + SLA_MS + 1)) == []


def test_tick_with_an_earlier_time_is_ignored() -> None:
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
    return replace(made, **changed)


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
        ({"case_id": "other"}, "the account has no case of this id, or no longer remembers it"),
    ],
)
def test_refused_command_gives_the_reason(changed: dict[str, object], reason: str) -> None:
    _, events = history(flag(1), command(**changed), command(**changed))
    rejected = [event for event in events if isinstance(event, CommandRejected)]
    assert [event.reason for event in rejected] == [reason]


def test_an_analyst_closes_a_case_and_is_answered_once() -> None:
    flagged = flag(1, card_id="card", terminal_id="till", device_id="phone")
    _, events = history(flagged, close(), close())
    assert kinds(events) == ["CaseOpened", "CaseClosed"]
    assert events[1] == CaseClosed(
        account_id=ACCOUNT,
        case_id=CASE,
        sequence=2,
        disposition="confirmed_fraud",
        actor="ana",
        reason="the customer did not pay this",
        command_id="cmd-close",
        payments=(
            FlaggedPayment(
                transaction_id="tx-1", content_digest="00", event_time=NOON, merchant_id="bakery",
                terminal_id="till", device_id="phone", card_id="card",
            ),
        ),
        closed_at_ms=NOON + 9,
    )  # fmt: skip


def test_closed_case_lists_no_payment_of_a_withdrawn_flag() -> None:
    gone, stands = restated(3, "flag-1", ("velocity",), ()), restated(4, "flag-2", ("velocity",), (REASON,))
    closed = history(flag(1), flag(2), gone, stands, close(seen_sequence=4))[1][-1]
    assert isinstance(closed, CaseClosed)
    assert [payment.transaction_id for payment in closed.payments] == ["tx-2"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"seen_sequence": 2}, "the case has moved on: seen at 2, now at 1"),
        ({"case_id": "other"}, "the account has no case of this id, or no longer remembers it"),
        ({"disposition": "guilty"}, "the disposition must be one of confirmed_fraud, false_positive, inconclusive"),
    ],
)
def test_refused_closing_gives_the_reason(changed: dict[str, object], reason: str) -> None:
    _, events = history(flag(1), close(**changed), close(**changed))
    assert kinds(events) == ["CaseOpened", "CommandRejected"]
    assert [event.reason for event in events if isinstance(event, CommandRejected)] == [reason]


@pytest.mark.parametrize("again", [close(command_id="cmd-2"), command(command_id="cmd-2")])
def test_closed_case_refuses_commands(again: CloseCase | EscalateCase) -> None:
    _, events = history(flag(1), close(), replace(again, seen_sequence=2))
    rejected = [event.reason for event in events if isinstance(event, CommandRejected)]
    assert rejected == ["the case is closed already, as confirmed_fraud"]


def test_closed_case_has_no_deadline() -> None:
    fold, _ = history(flag(1), close())
    assert fold.step(ClockTicked(tick_id="t", now_ms=NOON + SLA_MS)) == []


def test_a_flag_after_closing_opens_a_case_that_links_to_the_closed_one() -> None:
    _, events = history(flag(1), close(), flag(2), flag(3))
    assert kinds(events) == ["CaseOpened", "CaseClosed", "CaseOpened", "RiskLinked"]
    opened = events[2]
    assert isinstance(opened, CaseOpened)
    assert (opened.sequence, opened.previous_case_id) == (1, CASE)
    assert opened.case_id != CASE
    assert viewed(events, opened.case_id).previous_case_id == CASE


def test_a_case_of_another_typology_stays_open() -> None:
    _, events = history(flag(1), flag(2, typology="stolen_card"), close(), flag(3, typology="stolen_card"))
    assert kinds(events) == ["CaseOpened", "CaseOpened", "CaseClosed", "RiskLinked"]


def test_closed_case_records_a_withdrawn_flag() -> None:
    _, events = history(flag(1), close(), flag(2), restated(3, "flag-1", ("velocity",), ()))
    revised = events[-1]
    assert isinstance(revised, RiskRevised)
    assert (revised.case_id, revised.sequence, revised.score) == (CASE, 3, 0)
    view = viewed(events)
    assert (view.status, view.flags, view.flags_withdrawn, view.sequence) == ("closed", 0, 1, 3)


def test_flag_restored_after_closing_opens_a_new_case_and_both_record_later_changes() -> None:
    gone, back = restated(2, "flag-1", ("velocity",), ()), restated(3, "flag-1", (), (REASON,))
    fold, events = history(flag(1), gone, close(seen_sequence=2), back)
    assert kinds(events) == ["CaseOpened", "RiskRevised", "CaseClosed", "RiskRevised", "CaseOpened"]
    opened = events[-1]
    assert isinstance(opened, CaseOpened)
    assert opened.case_id != CASE  # although this flag had opened the first case
    again = fold.step(restated(4, "flag-1", ("velocity",), ()))
    assert isinstance(again, list)
    assert [(kind, event.case_id) for kind, event in zip(kinds(again), again, strict=True)] == [
        ("RiskRevised", opened.case_id),
        ("RiskRevised", CASE),
    ]


def test_number_of_remembered_closed_cases_is_bounded() -> None:
    fold = CaseFold()
    for number in range(1, MAX_CLOSED + 2):
        opened = next(iter(fold.step(flag(number))))
        assert isinstance(opened, CaseOpened)
        fold.step(close(case_id=opened.case_id, command_id=f"cmd-{number}"))
    late = MAX_CLOSED + 2
    assert fold.step(restated(late, "flag-1", ("velocity",), ())) == []
    decided = fold.step(restated(late + 1, "flag-2", ("velocity",), ()))
    assert isinstance(decided, list)
    assert kinds(decided) == ["RiskRevised"]
    joins = fold.step(restated(late + 2, "flag-1", ("velocity",), (REASON,)))
    assert isinstance(joins, list)
    assert kinds(joins) == ["CaseOpened"]


def test_number_of_flags_of_remembered_closed_cases_is_bounded() -> None:
    flags = [flag(number, amount_minor=100) for number in range(1, MAX_LINKED + 1)]
    first = close(seen_sequence=MAX_LINKED + 1)  # one event for the escalation by the number of flags
    fold, events = history(*flags, first, flag(MAX_LINKED + 1))
    opened = events[-1]
    assert isinstance(opened, CaseOpened)
    fold.step(close(case_id=opened.case_id, command_id="cmd-2"))
    assert fold.step(restated(MAX_LINKED + 2, "flag-1", ("velocity",), ())) == []


def test_the_view_of_a_closed_case_leaves_its_queue() -> None:
    events = history(flag(1, score=950), close(seen_sequence=2, disposition="false_positive"))[1]
    view = viewed(events)
    assert (view.status, view.disposition, view.closed_by, view.closed_at_ms) == (
        "closed", "false_positive", "ana", NOON + 9,
    )  # fmt: skip
    assert view.escalated
    assert view_item(view)["queue"].startswith("closed#")
    before = view_item(viewed(events[:2]))
    assert (before["queue"][:4], before["priority"][:7]) == ("new#", "1#0950#")


def test_flag_below_the_threshold_has_no_weight_in_its_case() -> None:
    sunk = replace(
        restated(2, "flag-1", ("velocity",), ()), score=300
    )  # has points, but fewer than the pack's threshold
    risen = replace(restated(3, "flag-1", (), (REASON,)), score_before=300)
    _, events = history(flag(1), sunk, risen)
    assert [(event.score_before, event.score) for event in events if isinstance(event, RiskRevised)] == [
        (600, 0),
        (0, 600),
    ]
    assert viewed(events).flags == 1


def of_entity(offset: int, partition: int = 0, **changed: object) -> EntityFlagged:
    made = EntityFlagged(
        account_id=ACCOUNT,
        flag_id=f"entity-flag-{partition}-{offset}",
        entity="merchant:bakery",
        transaction_id=f"tx-{offset}",
        content_digest="00",
        event_time=NOON,
        amount_minor=1_000,
        currency="EUR",
        merchant_id="bakery",
        terminal_id=None,
        device_id=None,
        card_id=None,
        typology="shop_attack",
        score=600,
        reasons=(REASON,),
        pack_id="pack",
        partition=partition,
        offset=offset,
    )
    return replace(made, **changed)


def test_entity_flags_open_and_join_cases_like_other_flags() -> None:
    _, events = history(of_entity(3), flag(1), of_entity(7), of_entity(2, partition=1, typology="rapid_spending"))
    assert kinds(events) == ["CaseOpened", "CaseOpened", "RiskLinked", "RiskLinked"]
    assert [event.case_id for event in events[2:]] == [events[0].case_id, events[1].case_id]


def test_redelivered_entity_flag_adds_nothing_even_after_other_flags() -> None:
    _, events = history(of_entity(3), of_entity(7), of_entity(2, partition=1), of_entity(3), of_entity(7))
    assert kinds(events) == ["CaseOpened", "RiskLinked", "RiskLinked"]


def test_a_case_of_entity_flags_is_closed_with_its_payments() -> None:
    fold, (opened,) = history(of_entity(3, terminal_id="till"))
    closed = next(iter(fold.step(close(case_id=opened.case_id))))
    assert isinstance(closed, CaseClosed)
    assert [(payment.transaction_id, payment.terminal_id) for payment in closed.payments] == [("tx-3", "till")]


def test_packed_state_is_restored() -> None:
    records: list[InboxRecord] = [
        flag(1),
        flag(2),
        command(seen_sequence=2),
        restated(3, "flag-1", ("velocity",), ()),
        flag(4),
        close(seen_sequence=5),
        flag(5),
        of_entity(1),
        of_entity(1),
        restated(6, "flag-2", ("velocity",), ()),
        close(seen_sequence=6),
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
    linked = history(flag(1), flag(2), flag(3))[1]
    with pytest.raises(BrokenLog, match="RiskLinked 3 cannot follow"):
        cased([linked[0], linked[2]])
    with pytest.raises(BrokenLog, match="RiskLinked 2 cannot follow"):
        cased([linked[0], linked[1], linked[1]])
    with pytest.raises(BrokenLog, match="has no case"):
        evolve(AccountCases(account_id=ACCOUNT), history(flag(1), flag(2))[1][1])


def test_read_refuses_unknown_and_malformed_records() -> None:
    fold = CaseFold()
    assert fold.read("Transaction", {}) == Refusal("unexpected_type", "a Transaction has no meaning in this topic")
    refusal = fold.read("ClockTicked", {"tick_id": "t"})
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "bad_fields"


def test_decide_does_not_change_the_state() -> None:
    state = AccountCases(account_id=ACCOUNT)
    decide(state, flag(1))
    assert state == AccountCases(account_id=ACCOUNT)
