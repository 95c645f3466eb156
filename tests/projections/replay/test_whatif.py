"""What-if: history under other rules, compared by case with the recorded history. Analyst commands are left out on
both sides.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import islice
from typing import Any, Final

import pytest

from console.history.whatif import WhatifRequest, document
from console.times import parse_time
from domain.cases.commands import CloseCase
from domain.cases.events import ClockTicked
from domain.payment import admit
from domain.record_types import to_fields
from domain.risk.default_packs import DEFAULT, THREE
from domain.risk.events import FraudConfirmed, label_id
from domain.risk.families.entity_risk import EntityRisk
from domain.risk.families.velocity import Velocity
from domain.risk.packs import RulePack
from generator.traffic import START_MS, Traffic, TrafficOptions
from projections.replay.sources import LogGap
from projections.replay.whatif import WhatifPeriod
from projections.replay.whatif_diff import WhatifChange, compare
from tests.support.cases import flag
from tests.support.logs import TOPICS, MemoryLog
from tests.support.whatif import FAST, PAYMENT, WHOLE, burst, pack, pay, run

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS


def tick(log: MemoryLog, at_ms: int) -> None:
    log.everywhere(TOPICS.cases_inbox, "ClockTicked", to_fields(ClockTicked(tick_id=f"t-{at_ms}", now_ms=at_ms)), at_ms)


def confirm(log: MemoryLog, transaction: Mapping[str, Any], at_ms: int) -> None:
    payment = admit(transaction, None)
    digest = payment.digest.hex()  # type: ignore[union-attr]
    record = FraudConfirmed(
        label_id=label_id(transaction["account_id"], transaction["transaction_id"], digest),
        account_id=transaction["account_id"], transaction_id=transaction["transaction_id"],
        event_time=transaction["event_time"], merchant_id=transaction["merchant_id"], terminal_id=None,
        device_id=transaction.get("device_id"), card_id=transaction.get("card_id"), source="file", cause_id="f",
        actor="ana", confirmed_at_ms=at_ms,
    )  # fmt: skip
    log.everywhere(TOPICS.payments_inbound, "FraudConfirmed", to_fields(record), at_ms)


def said(log: MemoryLog, new: RulePack, stretch: WhatifPeriod = WHOLE) -> dict[str, Any]:
    return document(run(log, new, stretch), WhatifRequest("kafka", stretch))


def traffic(rules: RulePack, payments: int = 6_000, **options: Any) -> MemoryLog:
    log = MemoryLog()
    log.activate(rules, START_MS)
    made = TrafficOptions(
        **{"seed": 5, "accounts": 150, "velocity_share": 0.004, "spike_share": 0.004, "geographic_share": 0.004,
           "delayed_share": 0.02, "per_second": 0.05, **options}
    )  # fmt: skip
    for each in islice(Traffic(made), payments):
        log.pay(each.transaction, each.arrives_ms)
    return log


def changes(found: dict[str, Any]) -> dict[str, list[str]]:
    return {each["account_id"]: each["changes"] for each in found["changed"]}


def test_active_rules_change_nothing() -> None:
    """Late payments, restatements, ticks and labels included. A pack of equal rules under another name changes
    nothing either.
    """
    log = traffic(DEFAULT)
    for hour in range(0, 30, 3):
        tick(log, START_MS + hour * HOUR_MS)
    for new in (DEFAULT, replace(DEFAULT, name="renamed")):
        found = said(log, new)
        assert found["changed"] == []
        assert found["cases"]["baseline"] == found["cases"]["new"] == found["cases"]["same"] > 20
        assert found["cases"]["escalations"]["baseline"] > 5
        assert found["alerts"]["baseline"] == found["alerts"]["new"] > 20
    assert [each["name"] for each in found["baseline_rules"]] == ["default"]


def test_stricter_threshold_loses_the_cases_counted_by_hand() -> None:
    lax, strict = (pack(replace(FAST, at_least=least)) for least in (4, 7))
    log = traffic(lax, per_second=0.5, in_order=True)
    payments: dict[str, list[int]] = {}
    for each in islice(Traffic(TrafficOptions(seed=5, accounts=150, velocity_share=0.004, spike_share=0.004,
                                              geographic_share=0.004, delayed_share=0.02, per_second=0.5,
                                              in_order=True)), 6_000):  # fmt: skip
        payments.setdefault(each.transaction["account_id"], []).append(each.transaction["event_time"])

    def accounts(least: int) -> dict[str, tuple[int, int]]:
        """Return, by account, first time and number of payments with at least this many within a minute."""
        found = {}
        for account, times in payments.items():
            hits = [at for at in times if sum(at - 60_000 <= other <= at for other in times) >= least]
            if hits:
                found[account] = hits[0], len(hits)
        return found

    before, after = accounts(4), accounts(7)
    found = said(log, strict)
    assert {a for a, c in changes(found).items() if c == ["lost"]} == before.keys() - after.keys()
    assert found["cases"]["lost"] == len(before) - len(after) > 0
    assert found["cases"]["opened"] == 0
    kept = {each["account_id"]: each for each in found["changed"] if "lost" not in each["changes"]}
    assert kept.keys() == after.keys()
    for account, each in kept.items():
        assert each["opened_difference_ms"] == after[account][0] - before[account][0] >= 0
        assert (each["baseline"]["flags"], each["new"]["flags"]) == (before[account][1], after[account][1])
    counts = [sum(number for _, number in each.values()) for each in (before, after)]
    assert [found["alerts"][name] for name in ("baseline", "new", "difference")] == [*counts, counts[1] - counts[0]]
    looser = said(traffic(strict, per_second=0.5, in_order=True), lax)
    assert {a for a, c in changes(looser).items() if c == ["opened"]} == before.keys() - after.keys()
    assert all(set(c) & {"opened", "earlier", "flags"} for c in changes(looser).values())


def test_payments_before_the_period_warm_the_history_and_are_equal() -> None:
    """Two payments before noon and two after it: the new rules read all four, and decide only the later two."""
    log = MemoryLog()
    log.activate(pack(replace(FAST, at_least=1_000)), START_MS)
    noon = START_MS + 12 * HOUR_MS
    burst(log, "early", noon - 8 * HOUR_MS, 5)
    burst(log, "warm", noon - 2_000, 4)
    burst(log, "late", noon + 2 * HOUR_MS, 5)
    found = said(log, pack(), WhatifPeriod(noon, noon + HOUR_MS))
    assert changes(found) == {"warm": ["opened"]}
    assert found["changed"][0]["new"]["opened_at_ms"] == noon
    assert found["changed"][0]["new"]["flags"] == 2
    assert found["payments"] == 2
    assert changes(said(log, pack(), WhatifPeriod(noon, None))) == {"warm": ["opened"], "late": ["opened"]}
    assert changes(said(log, pack(), WhatifPeriod(None, noon))) == {"early": ["opened"]}


def test_activations_within_the_period_are_replaced_and_shadows_left_out() -> None:
    log = MemoryLog()
    log.activate(pack(name="first"), START_MS)
    burst(log, "a", START_MS + 1_000, 3)
    log.activate(pack(replace(FAST, at_least=9), name="second"), START_MS + HOUR_MS)
    log.activate(pack(replace(FAST, at_least=1), name="looks-on"), START_MS + HOUR_MS, "shadow")
    burst(log, "b", START_MS + 2 * HOUR_MS, 3)
    found = said(log, pack(name="third"))
    assert changes(found) == {"b": ["opened"]}
    assert [each["name"] for each in found["baseline_rules"]] == ["first", "second"]


def test_payments_before_the_first_activation_stay_undecided() -> None:
    log = MemoryLog()
    burst(log, "a", START_MS, 5)
    log.activate(pack(), START_MS + HOUR_MS)
    burst(log, "a", START_MS + 2 * HOUR_MS, 5)
    found = said(log, pack(replace(FAST, at_least=2)))
    assert found["payments"] == 5
    assert found["changed"][0]["opened_difference_ms"] == -1_000


def close(log: MemoryLog, account: str, at_ms: int) -> None:
    """Close the case of an account, as the rules of FAST leave it."""
    trace = next(each for each in run(log, pack()).recorded.traces.values() if each.account_id == account)
    command = CloseCase(
        account_id=account, case_id=trace.case_id, command_id="c-1", actor="ana", seen_sequence=len(trace.events),
        disposition="false_positive", reason="known", requested_at_ms=at_ms,
    )  # fmt: skip
    log.add(TOPICS.cases_inbox, log.partition_of(account), "CloseCase", to_fields(command), at_ms)


def test_commands_do_not_replay() -> None:
    """With the case closed, another burst would open a second case; on both sides it joins the first."""
    log = MemoryLog()
    log.activate(pack(), START_MS)
    burst(log, "a", START_MS + 1_000, 4)
    close(log, "a", START_MS + HOUR_MS)
    burst(log, "a", START_MS + 2 * HOUR_MS, 4)
    found = said(log, pack())
    assert (found["cases"]["baseline"], found["cases"]["new"], found["changed"]) == (1, 1, [])
    assert found["alerts"]["baseline"] == 4


def test_recorded_flags_do_not_replay() -> None:
    """Flags are derived again: those in cases.inbox are decisions of the recorded rules."""
    log = MemoryLog()
    log.activate(pack(), START_MS)
    burst(log, "a", START_MS + 1_000, 4)
    before = said(log, pack())
    log.add(TOPICS.cases_inbox, 0, "RiskFlagged", to_fields(flag(1)), START_MS + HOUR_MS)
    assert {**said(log, pack()), "records": 0} == {**before, "records": 0}


def test_labels_replay_on_both_sides() -> None:
    """A confirmed fraud raises the risk of its card from then on; earlier payments keep their decisions."""
    risky = EntityRisk(name="risky", typology="known_fraud", points=700, by="card", window_ms=DAY_MS, at_least=1)
    log = MemoryLog()
    log.activate(pack(), START_MS)
    first = pay(log, "a", START_MS + 1_000, 1, card_id="stolen")
    pay(log, "b", START_MS + 2_000, 1, card_id="stolen")
    confirm(log, first, START_MS + HOUR_MS)
    pay(log, "c", START_MS + 2 * HOUR_MS, 1, card_id="stolen")
    found = said(log, pack(risky))
    assert changes(found) == {"c": ["opened"]}
    assert found["changed"][0]["typology"] == "known_fraud"
    assert found["labels"] == 1


def test_caught_and_missed_frauds_are_counted_in_number_and_money() -> None:
    log = MemoryLog()
    log.activate(pack(replace(FAST, at_least=2)), START_MS)
    paid = {
        name: pay(log, name, START_MS + at, at, amount_minor=amount, currency=currency)
        for name, at, amount, currency in (("a", 1_000, 300, "EUR"), ("b", 2_000, 500, "EUR"), ("c", 3_000, 7, "JPY"))
    }
    second = pay(log, "a", START_MS + 5_000, 5_000, amount_minor=4_000)
    for each in (paid["a"], paid["b"], second):
        confirm(log, each, START_MS + 3 * DAY_MS)
    confirm(log, {**second, "transaction_id": "never-seen"}, START_MS + 3 * DAY_MS)
    found = said(log, pack(replace(FAST, measure="sum", at_least=500)), WhatifPeriod(None, START_MS + DAY_MS))["fraud"]
    assert (found["known"], found["known_minor"]) == (3, {"EUR": 4_800})
    assert found["caught"] == {"baseline": 1, "new": 2, "difference": 1}
    assert found["caught_minor"] == {"EUR": {"baseline": 4_000, "new": 4_500, "difference": 500}}
    assert found["missed_minor"] == {"EUR": {"baseline": 800, "new": 300, "difference": -500}}
    assert (found["newly_caught"], found["newly_missed"]) == (1, 0)
    assert found["precision"] == {"baseline": 1.0, "new": 1.0}


def test_label_before_its_payment_is_matched_later() -> None:
    log = MemoryLog()
    log.activate(pack(), START_MS)
    transaction = {**PAYMENT, "account_id": "a", "transaction_id": "x", "event_time": START_MS + 5_000}
    confirm(log, transaction, START_MS)
    found = said(log, pack())
    assert (found["fraud"]["known"], found["labels_without_payment"]) == (0, 1)
    log.pay(transaction, START_MS + 5_000)
    found = said(log, pack())
    assert (found["fraud"]["known"], found["labels_without_payment"]) == (1, 0)


def test_ticks_escalate_overdue_cases_on_either_side() -> None:
    """The new rules open one case two hours later: at the tick after four hours only the recorded case is due."""
    log = MemoryLog()
    log.activate(pack(), START_MS)
    burst(log, "a", START_MS, 3)
    burst(log, "a", START_MS + 2 * HOUR_MS, 4)
    tick(log, START_MS + 4 * HOUR_MS + 60_000)
    stricter = pack(replace(FAST, at_least=4))
    found = said(log, stricter)
    assert changes(found) == {"a": ["later", "not_escalated", "flags"]}
    assert found["changed"][0]["baseline"]["escalated_by"] == "sla"
    tick(log, START_MS + 7 * HOUR_MS)
    assert changes(said(log, stricter)) == {"a": ["later", "escalated_later", "flags"]}
    assert said(log, stricter, WhatifPeriod(None, START_MS + 3 * HOUR_MS))["ticks"] == 0


def test_flag_precedes_a_tick_of_equal_time() -> None:
    """At one moment another payment is flagged and the case is due."""
    log = MemoryLog()
    log.activate(pack(), START_MS)
    burst(log, "a", START_MS, 3)
    due = START_MS + 2_000 + 4 * HOUR_MS
    burst(log, "a", due - 2_000, 3)
    tick(log, due)
    (trace,) = run(log, pack()).recorded.traces.values()
    assert [type(each.event).__name__ for each in trace.events] == ["CaseOpened", "RiskLinked", "CaseEscalated"]
    assert [each.known_at_ms for each in trace.events] == [START_MS + 2_000, due, due]


def test_log_time_does_not_go_back() -> None:
    """A broker's clock was set back: later records are not known earlier."""
    log = MemoryLog()
    log.activate(pack(), START_MS)
    for number, stamp in enumerate((5_000, 9_000, 4_000)):
        transaction = {**PAYMENT, "account_id": "a", "transaction_id": str(number), "event_time": START_MS}
        log.pay(transaction, START_MS + stamp)
    (trace,) = run(log, pack()).recorded.traces.values()
    assert trace.known_at_ms == START_MS + 9_000


def test_case_is_matched_to_the_one_of_equal_typology() -> None:
    """The new rules leave one payment in the case and put two into another one: the first is kept, the other one is
    new.
    """
    log, anyhow = MemoryLog(), replace(FAST, at_least=1, points="100")
    log.activate(pack(anyhow), START_MS)
    for number, amount in enumerate((1_000, 2_000, 2_000)):
        pay(log, "a", START_MS + number, number, amount_minor=amount)
    split = pack(
        replace(anyhow, when="amount_minor == 1_000"),
        replace(anyhow, name="dear", typology="stolen_card", when="amount_minor == 2_000"),
    )
    found = {each["typology"]: each["changes"] for each in said(log, split)["changed"]}
    assert found == {"rapid_spending": ["flags"], "stolen_card": ["opened"]}


def test_payments_that_share_a_case_under_another_typology_are_one_case() -> None:
    log = MemoryLog()
    log.activate(pack(), START_MS)
    burst(log, "a", START_MS, 3)
    found = said(log, pack(replace(FAST, typology="card_testing")))
    assert changes(found) == {"a": ["typology"]}
    changed = found["changed"][0]
    assert changed["baseline"]["case_id"] != changed["new"]["case_id"]
    assert changed["first_difference"]["position"] == 1
    first, other = (changed["first_difference"][side] for side in ("baseline", "new"))
    assert (first["kind"], first["typology"], other["typology"]) == ("CaseOpened", "rapid_spending", "card_testing")


def test_cases_without_a_common_payment_are_different() -> None:
    """Equal account and typology, different payments: one case is lost, the other one is new."""
    log = MemoryLog()
    slow = Velocity(
        name="slow", typology="rapid_spending", points=600, window_ms=60_000, at_least=1, when="channel == 'POS'"
    )
    log.activate(pack(), START_MS)
    burst(log, "a", START_MS, 3)
    pay(log, "a", START_MS + HOUR_MS, 77, channel="POS")
    assert sorted(c for each in said(log, pack(slow))["changed"] for c in each["changes"]) == ["lost", "opened"]


def test_the_first_event_that_differs_is_shown_from_both_sides() -> None:
    log, fast = MemoryLog(), replace(FAST, points="100")
    log.activate(pack(fast), START_MS)
    burst(log, "a", START_MS, 5)
    found = said(log, pack(fast, Velocity(name="big", typology="rapid_spending", points=900, measure="sum",
                                          window_ms=60_000, at_least=5_000)))  # fmt: skip
    (changed,) = found["changed"]
    assert changed["changes"] == ["escalated"]
    first = changed["first_difference"]
    assert first["position"] == 3
    assert (first["baseline"]["kind"], first["new"]["kind"]) == ("RiskLinked", "RiskLinked")
    assert first["new"]["transaction_id"] == f"a-{START_MS + 4}"
    assert first["new"]["rules"] == ["fast", "big"]


def test_merchant_flags_replay_across_accounts() -> None:
    """No account pays twice and the merchant receives five payments, in the merged order of both partitions."""
    at_shop = Velocity(name="shop", typology="ring", points=600, by="merchant", window_ms=60_000, at_least=5)
    log = MemoryLog()
    log.activate(pack(), START_MS)
    for number in range(6):
        pay(log, f"acct-{number}", START_MS + number * 1_000, number, merchant_id="shop")
    assert len({log.partition_of(f"acct-{number}") for number in range(6)}) == 2
    pay(log, "acct-5", START_MS + 9_000, 7, merchant_id="shop")
    found = said(log, pack(at_shop))
    assert changes(found) == {"acct-4": ["opened"], "acct-5": ["opened"]}
    assert sorted(each["new"]["flags"] for each in found["changed"]) == [1, 2]
    other = MemoryLog()
    other.activate(pack(at_shop), START_MS)
    for number in range(6):
        pay(other, f"acct-{number}", START_MS + number * 1_000, number, merchant_id="shop")
    assert changes(said(other, pack())) == {"acct-4": ["lost"], "acct-5": ["lost"]}
    assert said(other, pack(at_shop))["changed"] == []


def test_money_hours_and_days() -> None:
    log = MemoryLog()
    log.activate(pack(replace(FAST, at_least=2)), START_MS)
    burst(log, "a", START_MS, 3, amount_minor=500)
    burst(log, "b", START_MS + DAY_MS, 2, amount_minor=70, currency="JPY")
    found = said(log, pack())
    assert found["money_minor"] == {
        "EUR": {"baseline": 1_000, "new": 500, "difference": -500},
        "JPY": {"baseline": 70, "new": 0, "difference": -70},
    }
    assert found["analyst_hours"] == {"baseline": 0.7, "new": 0.3, "difference": -0.4}
    assert found["per_day"] == [
        {"day": "2026-01-01", "baseline": 2, "new": 1}, {"day": "2026-01-02", "baseline": 1, "new": 0},
    ]  # fmt: skip
    assert found["alerts"]["per_day"]["baseline"] == 1.5


def test_runs_are_reproducible_and_changes_add_up_to_the_difference() -> None:
    log, fewer = traffic(DEFAULT), pack(*THREE.rules[1:])
    found, again = said(log, fewer), said(log, fewer)
    assert found == again
    cases = found["cases"]
    assert cases["difference"] == cases["opened"] - cases["lost"] != 0
    diff = compare(run(log, fewer))
    assert diff.count(WhatifChange.LOST) == cases["lost"]
    assert sum(each["new"] for each in found["per_day"]) <= found["alerts"]["new"]


def test_unreadable_records_are_counted_and_skipped() -> None:
    log = MemoryLog()
    log.activate(pack(), START_MS)
    burst(log, "a", START_MS, 2)
    pay(log, "a", START_MS + 1_500, 7, amount_minor=-1)
    log._records[TOPICS.payments_inbound, log.partition_of("a")].append(
        log._records[TOPICS.payments_inbound, log.partition_of("a")][-1]._replace(value=b"junk", offset=4)
    )
    burst(log, "a", START_MS + 2_000, 1)
    found = said(log, pack(replace(FAST, at_least=9)))
    assert (changes(found), found["refused"], found["payments"]) == ({"a": ["lost"]}, 2, 3)


def test_missing_records_are_named() -> None:
    log = traffic(DEFAULT, 50)
    del log._records[TOPICS.payments_inbound, 1][3]
    with pytest.raises(LogGap, match=r"payments.inbound partition 1: offset 4 follows 2"):
        run(log, DEFAULT)


@pytest.mark.parametrize(
    ("text", "ms"),
    [("2026-01-01", START_MS), ("2026-01-01T01:00", START_MS + HOUR_MS), ("1767225600000", START_MS),
     ("2026-01-01T01:00:00+01:00", START_MS)],
)  # fmt: skip
def test_times_are_parsed_from_common_formats(text: str, ms: int) -> None:
    assert parse_time(text) == ms
