"""Every command on a case: accepted, rejected with the exact reason, or without effect. Expected values by hand."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from console.cases.acts import BadAct, make_command
from domain.cases.answers import MAX_NOTE_ATTACHMENTS
from domain.cases.chain import chain_id, next_steps
from domain.cases.commands import AbsorbCase, Attachment
from domain.cases.events import (
    REJECTIONS,
    AbsorptionRefused,
    CaseAbsorbed,
    CaseClosed,
    CaseMerged,
    CaseUnmerged,
    ClockTicked,
    CommandRejected,
)
from domain.cases.fold import CaseFold
from domain.record import replace
from domain.record_types import InboxRecord
from tests.support.cases import ACCOUNT, CASE, NOON, asked, case_of, close, flag, fold_events, kinds, restated, viewed

DAY_MS, HOUR_MS = 86_400_000, 3_600_000
PNG = Attachment(file_name="a.png", size=5, media_type="image/png", sha256="0f" * 32, storage_key="files/1")
WHY: dict[str, Any] = {"reason": "because"}
SECOND = flag(2, typology="stolen_card")
OTHER = "5d0cb9d7-9b5a-5e35-8a7c-2f3b5a0e0000"


BIG = flag(1, amount_minor=500_000)
SNOOZE = asked("snooze", seen=1, until_ms=NOON + DAY_MS, **WHY)
CLOSE: dict[str, Any] = {"disposition": "false_positive", **WHY}
CLOSED = [flag(1), asked("close", **CLOSE)]
PENDING = [BIG, asked("close", **CLOSE)]
REOPENING = [*CLOSED, asked("reopen", seen=2, **WHY)]
INTO: dict[str, Any] = {"into_account_id": ACCOUNT, "into_case_id": case_of(replace(SECOND, sequence=1))}
MERGED = [flag(1), SECOND, asked("merge", **WHY, **INTO)]
LINK: dict[str, Any] = {"other_account_id": ACCOUNT, "other_case_id": case_of(replace(SECOND, sequence=1))}
LINKED = [flag(1), SECOND, asked("link", **WHY, **LINK)]
TAKEN = [flag(1), asked("take")]


@pytest.mark.parametrize(
    ("given", "when", "then", "status"),
    [
        pytest.param([flag(1)], asked("take"), ["CaseAssigned"], "in_review", id="a case is taken"),
        pytest.param([flag(1)], asked("assign", assignee="ben"), ["CaseAssigned"], "in_review", id="assigned"),
        pytest.param(TAKEN, asked("assign", seen=2, assignee="ben"), ["CaseAssigned"], "in_review", id="reassigned"),
        pytest.param(TAKEN, asked("release", seen=2), ["CaseReleased"], "open", id="released"),
        pytest.param([flag(1)], asked("note", text="hm"), ["NoteAdded"], "open", id="a note is added"),
        pytest.param(
            [flag(1)], asked("note", text="", attachments=(PNG,)), ["NoteAdded"], "open", id="a file is added"
        ),
        pytest.param(
            CLOSED, asked("note", seen=2, text="hm"), ["NoteAdded"], "closed", id="a note is added to a closed case"
        ),
        pytest.param([flag(1)], asked("escalate", **WHY), ["CaseEscalated"], "open", id="escalated by an analyst"),
        pytest.param([flag(1)], SNOOZE, ["CaseSnoozed"], "snoozed", id="snoozed"),
        pytest.param([flag(1), SNOOZE], asked("wake", seen=2), ["CaseWoken"], "open", id="woken"),
        pytest.param(
            [flag(1), SNOOZE], flag(2), ["RiskLinked", "CaseWoken"], "open", id="a new flag wakes a snoozed case"
        ),
        pytest.param(
            [*TAKEN, asked("snooze", seen=2, until_ms=NOON + DAY_MS, **WHY)],
            ClockTicked(tick_id="t", now_ms=NOON + DAY_MS),
            ["CaseWoken", "CaseEscalated"],
            "in_review",
            id="time wakes a snoozed case, whose deadline then counts",
        ),
        pytest.param([flag(1)], asked("close", **CLOSE), ["CaseClosed"], "closed", id="closed"),
        pytest.param(
            [flag(1), SNOOZE], asked("close", seen=2, **CLOSE), ["CaseClosed"], "closed", id="closed while snoozed"
        ),
        pytest.param(
            [BIG], asked("close", **CLOSE), ["ClosingRequested"], "pending_approval", id="high value: closing requested"
        ),
        pytest.param(
            [flag(1, amount_minor=499_999)],
            asked("close", **CLOSE),
            ["CaseClosed"],
            "closed",
            id="a cent below high value: closed",
        ),
        pytest.param(
            PENDING, asked("approve-closing", "ben", 2, **WHY), ["CaseClosed"], "closed", id="closing approved"
        ),
        pytest.param(
            PENDING, asked("refuse-closing", "ben", 2, **WHY), ["ClosingRefused"], "open", id="closing refused"
        ),
        pytest.param(
            PENDING, asked("withdraw-closing", seen=2, **WHY), ["ClosingWithdrawn"], "open", id="closing withdrawn"
        ),
        pytest.param(PENDING, flag(2), ["RiskLinked"], "pending_approval", id="a new flag does not change the request"),
        pytest.param(
            CLOSED, asked("reopen", seen=2, **WHY), ["ReopeningRequested"], "closed", id="reopening requested"
        ),
        pytest.param(
            REOPENING, asked("approve-reopening", "ben", 3, **WHY), ["CaseReopened"], "open", id="reopening approved"
        ),
        pytest.param(
            REOPENING,
            asked("refuse-reopening", "ben", 3, **WHY),
            ["ReopeningRefused"],
            "closed",
            id="reopening refused",
        ),
        pytest.param(
            REOPENING,
            asked("withdraw-reopening", seen=3, **WHY),
            ["ReopeningWithdrawn"],
            "closed",
            id="reopening withdrawn",
        ),
        pytest.param(
            [flag(1), SECOND], asked("merge", **WHY, **INTO), ["CaseMerged", "CaseAbsorbed"], "merged", id="merged"
        ),
        pytest.param(MERGED, flag(3), ["RiskLinked"], "merged", id="flags of the merged case join the other"),
        pytest.param(MERGED, asked("unmerge", seen=2, **WHY), ["CaseUnmerged", "CaseParted"], "open", id="unmerged"),
        pytest.param([flag(1), SECOND], asked("link", **WHY, **LINK), ["CaseLinked", "CaseLinked"], "new", id="linked"),
        pytest.param(
            LINKED, asked("unlink", seen=2, **WHY, **LINK), ["CaseUnlinked", "CaseUnlinked"], "new", id="unlinked"
        ),
    ],
)
def test_allowed_commands_result_in_their_events(
    given: Sequence[InboxRecord], when: InboxRecord, then: list[str], status: str
) -> None:
    fold = CaseFold()
    before = fold_events(*given, fold=fold)
    events = fold_events(when, fold=fold)
    assert kinds(events) == then
    assert viewed([*before, *events]).status == status
    assert fold_events(when, fold=fold) == []  # a redelivered command has no effect


MOVED = "the case has moved on: seen at 1, now at 2"
LONG = "x" * 10_001


@pytest.mark.parametrize(
    ("given", "when", "code", "reason"),
    [
        (TAKEN, asked("take", "ben", 1), "stale", MOVED),
        (TAKEN, asked("take", "ben", 2), "held", "ana works on the case: ask for its release, or have it assigned"),
        (TAKEN, asked("take", seen=2), "nothing_to_do", "ana works on the case already"),
        (TAKEN, asked("assign", "ben", 2, assignee="ana"), "nothing_to_do", "ana works on the case already"),
        ([flag(1)], asked("assign", assignee=" "), "invalid", "the assignee must have 1 to 200 characters"),
        ([flag(1)], asked("take", " "), "invalid", "the actor must have 1 to 200 characters"),
        ([flag(1)], asked("release"), "nothing_to_do", "nobody holds the case"),
        (CLOSED, asked("take", seen=2), "not_open", "the case is closed already, as false_positive"),
        ([flag(1)], asked("note", text=" "), "invalid", "a note needs words or a file"),
        ([flag(1)], asked("note", text=LONG), "invalid", "a note has at most 10000 characters, this one has 10001"),
        (
            [flag(1)],
            asked("note", text="", attachments=(PNG,) * (MAX_NOTE_ATTACHMENTS + 1)),
            "invalid",
            "a note has at most 10 files, this one has 11",
        ),
        (
            [flag(1)],
            asked("note", text="", attachments=(replace(PNG, file_name="../a"),)),
            "invalid",
            "a file's name has 1 to 200 characters and names no folder",
        ),
        (
            [flag(1)],
            asked("note", text="", attachments=(replace(PNG, sha256="zz" * 32),)),
            "invalid",
            "a.png: the SHA-256 must be 64 hexadecimal digits",
        ),
        (
            [flag(1)],
            asked("note", text="", attachments=(replace(PNG, size=(25 << 20) + 1),)),
            "invalid",
            "a.png: a file has at most 26214400 bytes, this one has 26214401",
        ),
        (
            [flag(1)],
            asked("note", text="", attachments=(replace(PNG, storage_key=""),)),
            "invalid",
            "a.png: the media type and the place where the file lies must be named",
        ),
        (
            [flag(1), asked("escalate", **WHY)],
            asked("escalate", seen=2, **WHY),
            "nothing_to_do",
            "the case is escalated already",
        ),
        ([flag(1)], asked("escalate", reason=" "), "invalid", "the reason must have 1 to 2000 characters"),
        (
            [flag(1)],
            asked("snooze", until_ms=NOON + 10, **WHY),
            "invalid",
            "a case is snoozed until a later time, at most 30 days from now",
        ),
        (
            [flag(1)],
            asked("snooze", until_ms=NOON + 11 + 30 * DAY_MS, **WHY),
            "invalid",
            "a case is snoozed until a later time, at most 30 days from now",
        ),
        (
            [flag(1), SNOOZE],
            asked("snooze", seen=2, until_ms=NOON + DAY_MS, **WHY),
            "nothing_to_do",
            "the case is snoozed until then already",
        ),
        ([flag(1)], asked("wake"), "nothing_to_do", "the case is not snoozed"),
        (
            PENDING,
            asked("snooze", seen=2, until_ms=NOON + DAY_MS, **WHY),
            "requested",
            "ana has asked for the closing: approve, refuse or withdraw that first",
        ),
        (
            PENDING,
            asked("close", "ben", 2, **CLOSE),
            "requested",
            "ana has asked for the closing: approve, refuse or withdraw that first",
        ),
        ([flag(1)], asked("approve-closing", **WHY), "no_request", "nobody has asked for the closing of the case"),
        (
            PENDING,
            asked("approve-closing", "ana", 2, **WHY),
            "second_person",
            "you asked for the closing: a second person must approve or refuse it",
        ),
        (
            PENDING,
            asked("refuse-closing", "ana", 2, **WHY),
            "second_person",
            "you asked for the closing: a second person must approve or refuse it",
        ),
        (
            PENDING,
            asked("withdraw-closing", "ben", 2, **WHY),
            "second_person",
            "only ana, who asked for the closing, can withdraw it: refuse it",
        ),
        (
            [*PENDING, flag(2)],
            asked("approve-closing", "ben", 2, **WHY),
            "stale",
            "the case has moved on: seen at 2, now at 3",
        ),
        ([flag(1)], asked("reopen", **WHY), "not_closed", "the case is open"),
        (
            MERGED,
            asked("reopen", seen=2, **WHY),
            "not_closed",
            f"the case is merged into {INTO['into_case_id']}: act on that one, or unmerge it",
        ),
        (
            REOPENING,
            asked("reopen", "ben", 3, **WHY),
            "requested",
            "ana has asked for the reopening: approve, refuse or withdraw that first",
        ),
        (
            REOPENING,
            asked("approve-reopening", "ana", 3, **WHY),
            "second_person",
            "you asked for the reopening: a second person must approve or refuse it",
        ),
        (
            REOPENING,
            asked("withdraw-reopening", "ben", 3, **WHY),
            "second_person",
            "only ana, who asked for the reopening, can withdraw it: refuse it",
        ),
        (
            CLOSED,
            asked("approve-reopening", seen=2, **WHY),
            "no_request",
            "nobody has asked for the reopening of the case",
        ),
        (
            [flag(1)],
            asked("merge", **WHY, into_account_id=ACCOUNT, into_case_id=CASE),
            "invalid",
            "a case cannot be merged into itself",
        ),
        (
            [flag(1)],
            asked("merge", **WHY, **INTO),
            "in_the_way",
            "the account has no case of the id to merge into, or no longer remembers it",
        ),
        (
            [flag(1), SECOND, close(case_id=INTO["into_case_id"])],
            asked("merge", **WHY, **INTO),
            "in_the_way",
            "the case to merge into is not open: the case is closed already, as confirmed_fraud",
        ),
        (PENDING, asked("merge", seen=2, **WHY, **INTO), "requested",
         "ana has asked for the closing: approve, refuse or withdraw that first"),
        ([flag(1)], asked("unmerge", **WHY), "not_merged", "the case is not merged into another"),
        (
            [*MERGED, close(case_id=INTO["into_case_id"], seen_sequence=2)],
            asked("unmerge", seen=2, **WHY),
            "in_the_way",
            "the case that it is merged into is not open: the case is closed already, as confirmed_fraud",
        ),
        (
            [flag(1)],
            asked("link", **WHY, other_account_id=ACCOUNT, other_case_id=CASE),
            "invalid",
            "a case is not linked to itself",
        ),
        (
            [flag(1)],
            asked("link", **WHY, **LINK),
            "in_the_way",
            "the account has no case of the id to link to, or no longer remembers it",
        ),
        (LINKED, asked("link", seen=2, **WHY, **LINK), "nothing_to_do", "the two cases are linked already"),
        ([flag(1), SECOND], asked("unlink", **WHY, **LINK), "nothing_to_do", "the two cases are not linked"),
        (
            [flag(1)],
            asked("take", case_id="nobody's"),
            "unknown_case",
            "the account has no case of this id, or no longer remembers it",
        ),
    ],
)  # fmt: skip
def test_refused_commands_give_the_exact_reason(
    given: Sequence[InboxRecord], when: InboxRecord, code: str, reason: str
) -> None:
    fold = CaseFold()
    fold_events(*given, fold=fold)
    (rejected,) = fold_events(when, fold=fold)
    assert isinstance(rejected, CommandRejected)
    assert (rejected.code, rejected.reason) == (code, reason)
    assert code in REJECTIONS
    assert rejected.command == type(when).__name__
    assert fold_events(when, fold=fold) == []


def test_a_closing_by_two_people_names_both_and_keeps_the_reason() -> None:
    closed = fold_events(*PENDING, asked("approve-closing", "ben", 2, reason="agreed"))[-1]
    assert isinstance(closed, CaseClosed)
    assert (closed.actor, closed.requested_by, closed.reason, closed.approval_reason, closed.disposition) == (
        "ben", "ana", "because", "agreed", "false_positive",
    )  # fmt: skip
    assert [payment.transaction_id for payment in closed.payments] == ["tx-1"]


def test_view_counts_the_flags_since_a_closing_request() -> None:
    view = viewed(fold_events(*PENDING, flag(2), flag(3)))
    assert view.pending is not None
    assert (view.pending["by"], view.pending["what"], view.pending["flags_since"]) == ("ana", "closing", 2)


def test_stale_command_gets_the_missed_events_that_are_remembered() -> None:
    records = [flag(1), *(asked("note", seen=number, text="hm") for number in range(1, 61))]
    rejected = fold_events(*records, asked("take", "ben", 1))[-1]
    assert isinstance(rejected, CommandRejected)
    assert [(event.sequence, event.kind) for event in rejected.missed] == [(n, "NoteAdded") for n in range(12, 62)]


def test_closed_case_cannot_be_reopened_beside_an_open_one() -> None:
    """While another case of the typology is open, a closed one cannot be reopened. A reopened case gets a new
    deadline.
    """
    later = [*REOPENING, flag(2)]
    refused = fold_events(*later, asked("approve-reopening", "ben", 3, **WHY))[-1]
    assert isinstance(refused, CommandRejected)
    assert refused.code == "in_the_way"
    view = viewed(fold_events(*REOPENING, asked("approve-reopening", "ben", 3, **WHY)))
    assert (view.disposition, view.assignee, view.sla_due_ms) == (None, None, NOON + 10 + 4 * HOUR_MS)


def test_merged_case_moves_its_flags_and_unmerging_moves_them_back() -> None:
    fold = CaseFold()
    events = fold_events(*MERGED, flag(3), fold=fold)
    into = INTO["into_case_id"]
    view = viewed(events, into)
    assert (view.flags, view.value_minor, view.transactions) == (3, {"EUR": 3_000}, ["tx-2", "tx-1", "tx-3"])
    closing = close(case_id=into, seen_sequence=3)
    events += fold_events(asked("unmerge", seen=2, **WHY), fold=fold)
    view = viewed(events, into)
    assert (view.flags, view.value_minor, view.transactions) == (2, {"EUR": 2_000}, ["tx-2", "tx-3"])
    assert viewed(events).status == "open"
    closed = fold_events(replace(closing, seen_sequence=4), fold=fold)[0]
    assert isinstance(closed, CaseClosed)
    assert [payment.transaction_id for payment in closed.payments] == ["tx-2", "tx-3"]


def test_case_with_merged_flags_is_closed_with_their_payments() -> None:
    closed = fold_events(*MERGED, close(case_id=INTO["into_case_id"], seen_sequence=2))[-1]
    assert isinstance(closed, CaseClosed)
    assert [(each.transaction_id, each.account_id) for each in closed.payments] == [("tx-2", None), ("tx-1", ACCOUNT)]


def test_merging_across_accounts_is_a_chain_of_records() -> None:
    """The other account either absorbs the case or refuses it; a refused case returns."""
    here, there = CaseFold(), CaseFold()
    (target,) = fold_events(flag(1, account_id="other", flag_id="theirs", transaction_id="tx-9"), fold=there)
    merge = asked("merge", into_account_id="other", into_case_id=target.case_id, **WHY)
    merged = fold_events(flag(1), merge, fold=here)[-1]
    assert isinstance(merged, CaseMerged)
    (step,) = next_steps(merged)
    assert isinstance(step, AbsorbCase)
    assert (step.account_id, step.command_id) == ("other", chain_id("AbsorbCase", merge.command_id))
    (absorbed,) = fold_events(step, step, fold=there)
    assert isinstance(absorbed, CaseAbsorbed)
    assert [each.transaction_id for each in absorbed.flags] == ["tx-1"]
    parted = fold_events(*next_steps(fold_events(asked("unmerge", seen=2, **WHY), fold=here)[0]), fold=there)
    assert kinds(parted) == ["CaseParted"]
    fold_events(close(account_id="other", case_id=target.case_id, seen_sequence=3), fold=there)
    again = fold_events(asked("merge", seen=3, into_account_id="other", into_case_id=target.case_id, **WHY), fold=here)
    (refused,) = fold_events(*next_steps(again[0]), fold=there)
    assert isinstance(refused, AbsorptionRefused)
    assert refused.reason == "the case to merge into is not open: the case is closed already, as confirmed_fraud"
    (back,) = fold_events(*next_steps(refused), fold=here)
    assert isinstance(back, CaseUnmerged)
    assert back.reason == refused.reason
    assert next_steps(back) == []  # the other case never absorbed it


def test_returning_case_joins_the_case_that_took_its_place() -> None:
    fold = CaseFold()
    merge = asked("merge", into_account_id="other", into_case_id=OTHER, **WHY)
    merged = fold_events(flag(1), merge, flag(2), fold=fold)[1]
    (step,) = next_steps(merged)
    assert isinstance(step, AbsorbCase)
    refused = fold_events(step)[0]
    events = fold_events(*next_steps(refused), fold=fold)
    assert kinds(events) == ["CaseMerged", "CaseAbsorbed"]
    assert fold_events(*next_steps(refused), fold=fold) == []


@pytest.mark.parametrize(
    ("act", "fields", "message"),
    [
        ("dance", {}, "there is no act dance"),
        ("take", {"reason": "x"}, "take takes no reason; it takes nothing more"),
        ("close", {"reason": "x"}, "close needs disposition"),
        ("note", {"text": "4111 1111 1111 1111"}, "the text holds a card number, which must not be stored"),
    ],
)
def test_make_command_names_what_is_invalid(act: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BadAct, match=message):
        make_command(act, ACCOUNT, CASE, "ana", 1, fields)


def test_state_from_an_earlier_engine_is_read() -> None:
    """A snapshot from before cases held more than their flags."""
    old = (
        '{"account_id":"acct-anna","risk_sequence":1,"cases":{"rapid_spending":{"case_id":"' + CASE + '","typology":'
        '"rapid_spending","sequence":1,"opened_at_ms":1750000000000,"escalated":false,"flags":1,"value_minor":{"EUR":'
        '1000},"linked":{"flag-1":600},"payments":{"flag-1":{"transaction_id":"tx-1","content_digest":"00","event_time":'
        '1750000000000,"merchant_id":"bakery","terminal_id":null,"device_id":null,"card_id":null}},"disposition":null}},'
        '"answered":["x"],"closed":[],"previous":{},"entity_offsets":{}}'
    ).encode()
    fold = CaseFold({ACCOUNT: old}.get, lambda: iter([ACCOUNT]))
    assert kinds(fold_events(asked("take"), flag(2), fold=fold)) == ["CaseAssigned", "RiskLinked"]


def test_state_with_separate_scores_and_payments_is_read() -> None:
    """A snapshot of an early version of the third engine. `flag-0` was linked before there were labels, and has no
    payment.
    """
    into = INTO["into_case_id"]
    fold = CaseFold()
    fold_events(*MERGED, fold=fold)
    entry = json.loads(fold.take_writes()[ACCOUNT] or b"")
    case = entry["cases"]["stolen_card"]
    for part in (case, case["work"]["absorbed"][CASE], entry["closed"][0]):
        flags = part.pop("linked")
        part["linked"] = {key: each.pop("score") for key, each in flags.items()}
        part["payments"] = flags
    case["linked"] = {"flag-0": 500, **case["linked"]}
    assert (case["linked"], list(case["payments"])) == ({"flag-0": 500, "flag-2": 600}, ["flag-2"])

    fold = CaseFold({ACCOUNT: json.dumps(entry).encode()}.get, lambda: iter([ACCOUNT]))
    withdrawn = restated(3, "flag-2", ("velocity",), ())
    events = fold_events(withdrawn, flag(4), close(case_id=into, seen_sequence=4), fold=fold)
    assert kinds(events) == ["RiskRevised", "RiskLinked", "CaseClosed"]
    assert isinstance(events[-1], CaseClosed)
    assert [(each.transaction_id, each.account_id) for each in events[-1].payments] == [
        ("tx-4", None),
        ("tx-1", ACCOUNT),
    ]
