"""The case fold against a model that shares no code with it: dicts, and the rules written a second time.

Two accounts with three typologies each; flags, restatements, ticks, every command with right and wrong versions, steps
between the accounts that arrive late or twice, redelivery of any record, and restarts from a snapshot.
`FRAUDCASE_HYPOTHESIS_RUNS` sets the number of runs; a run has 50 steps.
"""

import os
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from console.cases.act_catalog import ACTS
from domain.cases.chain import next_steps
from domain.cases.commands import Attachment, ChainCommand
from domain.cases.events import CaseAnswer, CaseEvent, ClockTicked, CommandRejected, command_answered
from domain.cases.fold import CaseFold
from domain.engines import activation
from domain.payment import Refusal
from domain.record import replace
from domain.record_types import InboxRecord, to_fields
from projections.logs.known import KnownEvent
from projections.views.case_history import case_as_of
from projections.views.case_view import CaseView, project
from tests.support.cases import REASON, flag, restated

RUNS = int(os.environ.get("FRAUDCASE_HYPOTHESIS_RUNS", "150"))
STEPS = 50
HOUR_MS = 3_600_000
SNOOZES_MS = {0: 0, 1: HOUR_MS, 31: 31 * 24 * HOUR_MS}
START_MS = 1_750_000_000_000
ACCOUNTS, TYPOLOGIES, PEOPLE = ("acct-1", "acct-2"), ("theft", "takeover", "testing"), ("ana", "ben")
Record = dict[str, Any]
"""A case of the model."""
DISPOSITIONS = ("confirmed_fraud", "false_positive", "inconclusive")
FIELDS = {act: list(ACTS[act].fields) for act in ACTS}
FILE = Attachment(file_name="a.png", size=1, media_type="image/png", sha256="0" * 64, storage_key="k")
ANSWERS = {
    "take": "CaseAssigned", "assign": "CaseAssigned", "release": "CaseReleased", "note": "NoteAdded",
    "escalate": "CaseEscalated", "snooze": "CaseSnoozed", "wake": "CaseWoken", "approve-closing": "CaseClosed",
    "refuse-closing": "ClosingRefused", "withdraw-closing": "ClosingWithdrawn", "reopen": "ReopeningRequested",
    "approve-reopening": "CaseReopened", "refuse-reopening": "ReopeningRefused",
    "withdraw-reopening": "ReopeningWithdrawn", "merge": "CaseMerged", "unmerge": "CaseUnmerged",
    "link": "CaseLinked", "unlink": "CaseUnlinked",
}  # fmt: skip


def is_open(case: Record) -> bool:
    return case["disposition"] is None and case["merged"] is None


def status(case: Record) -> str:
    if case["merged"]:
        return "merged"
    if case["disposition"]:
        return "closed"
    if case["pending"]:
        return "pending_approval"
    if case["until"] is not None:
        return "snoozed"
    return "in_review" if case["holder"] else "open" if case["touched"] else "new"


def total(case: Record) -> int:
    brought: int = sum(part["value"] for part in case["parts"].values())
    own: int = case["value"]
    return own + brought


def standing(case: Record) -> int:
    own: int = sum(case["stands"].values())
    brought: int = sum(sum(part["stands"].values()) for part in case["parts"].values())
    return own + brought


class CasesAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.fold = CaseFold()
        self.store: dict[str, bytes] = {}
        self.cases: dict[str, Record] = {}
        self.events: list[KnownEvent] = []
        self.views: dict[str, CaseView] = {}
        self.read: list[InboxRecord] = []
        self.chain: list[ChainCommand] = []
        self.flags: dict[str, tuple[str, str, int]] = {}
        self.stood: dict[str, bool] = {}
        self.sequences = dict.fromkeys(ACCOUNTS, 0)
        self.now_ms = START_MS
        self.clock_ms = -1
        self.asked = 0
        self.engine = 1

    # -- what is done to the fold, and what comes of it ---------------------------------------------

    def step(self, record: InboxRecord) -> list[CaseEvent]:
        decided = self.fold.step(record)
        assert not isinstance(decided, Refusal), decided
        self.read.append(record)
        for event in decided:
            self.events.append(KnownEvent(event, self.now_ms + len(self.events)))
            self.chain += next_steps(event)
            if isinstance(event, CaseAnswer):
                continue
            self.views[event.case_id] = project(self.views.get(event.case_id), event)
            if event.case_id in self.cases:
                self.cases[event.case_id]["kinds"].append(type(event).__name__)
        return decided

    def kinds(self, events: list[CaseEvent]) -> list[tuple[str, str]]:
        return [(type(event).__name__, event.case_id) for event in events]

    # -- flags and time -----------------------------------------------------------------------------

    def opening(self, account: str, typology: str) -> str | None:
        """Open the case that a flag joins, or find it."""
        for case_id, case in self.cases.items():
            if (case["account"], case["typology"]) == (account, typology) and is_open(case):
                return case_id
        same = [key for key, each in self.cases.items() if (each["account"], each["typology"]) == (account, typology)]
        same = [key for key in same if self.cases[key]["away"] is not None]
        if not same:
            return None
        last = max(same, key=lambda key: self.cases[key]["away"])
        while (into := self.cases[last]["merged"]) and into[0] == account:
            last = into[1]
        return last if is_open(self.cases[last]) else None

    def left(self, case: Record) -> None:
        """Remove a case from the open ones. New flags are linked to the case that was removed last."""
        case["away"] = len(self.events)

    @initialize()
    def three_cases_are_open(self) -> None:
        """Open three cases. Hypothesis leaves some rules out of each run; without a case the others have no effect."""
        for account, typology in ((ACCOUNTS[0], "theft"), (ACCOUNTS[0], "testing"), (ACCOUNTS[1], "theft")):
            self.flag_arrives(account, typology, 499_999 if typology == "theft" else 500_000, 500)

    @rule(
        account=st.sampled_from(ACCOUNTS),
        typology=st.sampled_from(TYPOLOGIES),
        amount=st.sampled_from((1_000, 100_000, 399_999, 400_000, 600_000)),
        score=st.sampled_from((500, 899, 900)),
    )
    def flag_comes(self, account: str, typology: str, amount: int, score: int) -> None:
        self.flag_arrives(account, typology, amount, score)

    def flag_arrives(self, account: str, typology: str, amount: int, score: int) -> None:
        self.sequences[account] += 1
        number, flag_id = self.sequences[account], f"{account}-{self.sequences[account]}"
        joins = self.opening(account, typology)
        record = flag(
            number, account_id=account, typology=typology, flag_id=flag_id, transaction_id=f"tx-{flag_id}",
            amount_minor=amount, score=score, event_time=self.now_ms,
        )  # fmt: skip
        events = self.step(record)
        self.flags[flag_id] = account, typology, amount
        self.stood[flag_id] = True
        if joins is None:
            case_id = events[0].case_id
            assert case_id not in self.cases
            self.cases[case_id] = {
                "account": account, "typology": typology, "kinds": ["CaseOpened"], "value": amount,
                "stands": {flag_id: True}, "parts": {}, "escalated": False, "holder": None, "until": None,
                "pending": None, "disposition": None, "merged": None, "links": set(), "touched": False, "notes": 0,
                "since_ms": self.now_ms, "away": None, "off": 0,
            }  # fmt: skip
            expected = [("CaseOpened", case_id)]
        else:
            case_id = joins
            case = self.cases[case_id]
            case["value"] += amount
            case["stands"][flag_id] = True
            expected = [("RiskLinked", case_id)]
            if case["until"] is not None:
                case["until"] = None
                expected.append(("CaseWoken", case_id))
        expected += self.weighed(case_id, score)
        assert self.kinds(events) == expected
        self.cases[case_id]["kinds"] = [kind for kind, _ in expected] if joins is None else self.cases[case_id]["kinds"]

    def weighed(self, case_id: str, score: int = 0) -> list[tuple[str, str]]:
        case = self.cases[case_id]
        if case["escalated"] or not (score >= 900 or standing(case) >= 5 or total(case) >= 1_000_000):
            return []
        case["escalated"] = True
        return [("CaseEscalated", case_id)]

    @rule(pick=st.integers(0, 10_000), stands=st.booleans())
    def flag_is_restated(self, pick: int, stands: bool) -> None:
        """Restate a flag in every case that knows it. A flag that is restored without an open case counts as a new
        one.
        """
        known = [key for key, was in self.stood.items() if was != stands]
        if not known:
            return
        flag_id = known[pick % len(known)]
        account, typology, _ = self.flags[flag_id]
        holders = [key for key, case in self.cases.items() if case["account"] == account and self.holds(case, flag_id)]
        if stands and not any(is_open(self.cases[key]) for key in holders):
            return  # tests/domain/cases/test_case.py tests which case it opens or joins then
        if self.engine < 3 and any(self.times(self.cases[key], flag_id) > 1 for key in holders):
            return  # the first engines miscount a flag that a case holds twice
        self.sequences[account] += 1
        rules = ("velocity",) if self.stood[flag_id] else ()
        record = restated(self.sequences[account], flag_id, rules, (REASON,) if stands else ())
        events = self.step(replace(record, account_id=account, typology=typology, event_time=self.now_ms))
        self.stood[flag_id] = stands
        for key in holders:
            before = standing(self.cases[key])
            for part in (self.cases[key], *self.cases[key]["parts"].values()):
                if flag_id in part["stands"]:
                    part["stands"][flag_id] = stands
            if self.engine < 3:  # views follow the flag as its account knew it, not the changes of the case
                self.cases[key]["off"] += (1 if stands else -1) - (standing(self.cases[key]) - before)
        expected = [("RiskRevised", key) for key in holders]
        for key in holders:
            if self.engine >= 2 and stands and is_open(self.cases[key]):
                if self.cases[key]["until"] is not None:
                    self.cases[key]["until"] = None
                    expected.append(("CaseWoken", key))
                expected += self.weighed(key, record.score)
        assert sorted(self.kinds(events)) == sorted(expected)

    @rule(lot=st.integers(0, 3))
    def engine_is_activated(self, lot: int) -> None:
        """Activate an engine at some moment of about every second run: from then on a restored flag counts as new."""
        if lot == 0 and self.engine < 3:
            self.engine += 1
            assert self.fold.read("EngineActivated", to_fields(activation(self.engine, "ana"))) == []

    def times(self, case: Record, flag_id: str) -> int:
        return sum(flag_id in part["stands"] for part in (case, *case["parts"].values()))

    def holds(self, case: Record, flag_id: str) -> bool:
        return flag_id in case["stands"] or any(flag_id in part["stands"] for part in case["parts"].values())

    @rule(minutes=st.sampled_from((-30, 0, 1, 59, 60, 179, 240)))
    def clock_ticks(self, minutes: int) -> None:
        self.now_ms += max(0, minutes) * 60_000
        told_ms = self.now_ms + min(0, minutes) * 60_000
        events = self.step(ClockTicked(tick_id=f"tick-{told_ms}", now_ms=told_ms))
        expected = []
        if told_ms > self.clock_ms:
            self.clock_ms = told_ms
            for case_id, case in self.cases.items():
                if not is_open(case):
                    continue
                if case["until"] is not None and told_ms >= case["until"]:
                    case["until"] = None
                    expected.append(("CaseWoken", case_id))
                if case["until"] is None and not case["escalated"] and told_ms >= case["since_ms"] + 4 * HOUR_MS:
                    case["escalated"] = True
                    expected.append(("CaseEscalated", case_id))
        assert sorted(self.kinds(events)) == sorted(expected)

    # -- commands ------------------------------------------------------------------------------------

    @rule(
        act=st.sampled_from(sorted(ACTS)),
        picks=st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)),
        actor=st.sampled_from(PEOPLE),
        behind=st.sampled_from((0, 0, 0, 0, 0, 0, 1, 2, -1)),
        words=st.sampled_from(("because", "because", "because", " ")),
        days=st.sampled_from((1, 0, 31)),
        disposition=st.sampled_from(("confirmed_fraud", "false_positive", "guilty")),
    )
    def analyst_acts(
        self, act: str, picks: tuple[int, int], actor: str, behind: int, words: str, days: int, disposition: str
    ) -> None:
        names = list(self.cases)
        case_id, other_id = names[picks[0] % len(names)], names[picks[1] % len(names)]
        seen = max(0, len(self.cases[case_id]["kinds"]) - behind)
        self.act(
            act, case_id, actor, seen, self.fields_of(act, other_id, words, days, disposition, PEOPLE[picks[1] % 2])
        )

    @rule(picks=st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)), disposition=st.sampled_from(DISPOSITIONS))
    def analyst_takes_an_allowed_act(self, picks: tuple[int, int], disposition: str) -> None:
        """Take an act that the model allows, each with equal probability, so that runs go deep."""
        can: dict[str, list[tuple[str, str, Record]]] = {}
        for act, (case_id, case), other_id, actor in product(sorted(ACTS), self.cases.items(), self.cases, PEOPLE):
            fields = self.fields_of(act, other_id, "because", 1, disposition, actor)
            if self.rejection_code(act, case_id, actor, len(case["kinds"]), fields) is None:
                can.setdefault(act, []).append((case_id, actor, fields))
        act = sorted(can)[picks[0] % len(can)]
        case_id, actor, fields = can[act][picks[1] % len(can[act])]
        self.act(act, case_id, actor, len(self.cases[case_id]["kinds"]), fields)

    @rule(pick=st.integers(0, 10_000), first=st.sampled_from(("nothing", "the other closes", "a flag comes", "both")))
    def cases_of_two_accounts_are_merged(self, pick: int, first: str) -> None:
        """Merge two cases, and let another event happen on either account before the other one receives the step."""
        free = [key for key, case in self.cases.items() if is_open(case) and not case["pending"]]
        pairs = [pair for pair in product(free, free) if len({self.cases[key]["account"] for key in pair}) == 2]
        if not pairs:
            return
        case_id, other_id = pairs[pick % len(pairs)]
        case, other = self.cases[case_id], self.cases[other_id]
        fields = self.fields_of("merge", other_id, "because", 1, "inconclusive", "ana")
        self.act("merge", case_id, "ana", len(case["kinds"]), fields)
        if first in ("the other closes", "both"):
            fields = self.fields_of("close", other_id, "because", 1, "inconclusive", "ana")
            self.act("close", other_id, "ana", len(other["kinds"]), fields)
        if first in ("a flag comes", "both"):
            self.flag_arrives(case["account"], case["typology"], 1_000, 500)

    def fields_of(self, act: str, other_id: str, words: str, days: int, disposition: str, assignee: str) -> Record:
        """Return the fields of an act."""
        account = self.cases[other_id]["account"]
        values = {
            "reason": words, "text": words, "assignee": assignee, "until_ms": self.now_ms + SNOOZES_MS[days],
            "disposition": disposition, "typology": None, "into_case_id": other_id, "into_account_id": account,
            "other_case_id": other_id, "other_account_id": account, "attachments": (FILE,) if days else (),
        }  # fmt: skip
        return {name: values[name] for name in FIELDS[act]}

    def act(self, act: str, case_id: str, actor: str, seen: int, fields: Record) -> None:
        """Send a command, and compare its answer with the model's."""
        case = self.cases[case_id]
        self.asked += 1
        command = ACTS[act].command(
            account_id=case["account"], case_id=case_id, command_id=f"cmd-{self.asked}", actor=actor,
            seen_sequence=seen, requested_at_ms=self.now_ms, **fields,
        )  # fmt: skip
        code = self.rejection_code(act, case_id, actor, seen, fields)
        before = list(case["kinds"])
        events = self.step(command)
        answers = [
            event for event in events if event.case_id == case_id and command_answered(event) == f"cmd-{self.asked}"
        ]
        assert len(answers) == 1, events
        (answer,) = answers
        if code is not None:
            assert isinstance(answer, CommandRejected), (act, code, answer)
            assert (answer.code, len(events)) == (code, 1), (act, code, answer)
            missed = list(enumerate(before, start=1))[max(seen, len(before) - 50) :] if code == "stale" else []
            assert [(event.sequence, event.kind) for event in answer.missed] == missed
            return
        wanted = ANSWERS.get(act) or ("ClosingRequested" if total(case) >= 500_000 else "CaseClosed")
        assert type(answer).__name__ == wanted, (act, answer)
        follow: Callable[..., None] = getattr(self, "did_" + act.replace("-", "_"))
        follow(case_id, case, actor, fields)
        if act == "merge":
            self.was_merged(case_id, fields["into_account_id"], fields["into_case_id"], f"cmd-{self.asked}", events)

    def rejection_code(self, act: str, case_id: str, actor: str, seen: int, fields: dict[str, Any]) -> str | None:
        """Return the code that a command is rejected with, or None."""
        case = self.cases[case_id]
        if "reason" in fields and not fields["reason"].strip():
            return "invalid"
        if seen != len(case["kinds"]):
            return "stale"
        if act == "note":
            return None if fields["text"].strip() or fields["attachments"] else "invalid"
        if act in ("link", "unlink"):
            return self.refused_link(act, case_id, fields["other_case_id"])
        if act == "unmerge":
            return self.refused_unmerge(case_id)
        pending = case["pending"]
        if "reopen" in act:
            if is_open(case) or case["merged"]:
                return "not_closed"
            if act in ("reopen", "approve-reopening") and self.rival(case):
                return "in_the_way"
            if act == "reopen":
                return "requested" if pending else None
            return self.refused_answer(act, pending, actor)
        if not is_open(case):
            return "not_open"
        if act == "take":
            return None if not case["holder"] else "nothing_to_do" if case["holder"] == actor else "held"
        if act == "assign":
            return "nothing_to_do" if case["holder"] == fields["assignee"] else None
        if act == "release":
            return None if case["holder"] else "nothing_to_do"
        if act == "escalate":
            return "nothing_to_do" if case["escalated"] else None
        if act == "wake":
            return "nothing_to_do" if case["until"] is None else None
        if act in ("approve-closing", "refuse-closing", "withdraw-closing"):
            return self.refused_answer(act, pending, actor)
        if act == "merge" and fields["into_case_id"] == case_id:
            return "invalid"
        if pending:
            return "requested"
        if act == "snooze":
            if not 0 < fields["until_ms"] - self.now_ms <= 30 * 24 * HOUR_MS:
                return "invalid"
            return "nothing_to_do" if fields["until_ms"] == case["until"] else None
        if act == "close":
            return "invalid" if fields["disposition"] == "guilty" else None
        into = self.cases[fields["into_case_id"]]
        if into["account"] == case["account"] and not is_open(into):
            return "in_the_way"
        return None

    def refused_answer(self, act: str, pending: str | None, actor: str) -> str | None:
        if pending is None:
            return "no_request"
        return "second_person" if act.startswith("withdraw") != (pending == actor) else None

    def rival(self, case: Record) -> bool:
        """Return another open case of the typology."""
        place = case["account"], case["typology"]
        return any(is_open(each) and (each["account"], each["typology"]) == place for each in self.cases.values())

    def refused_link(self, act: str, case_id: str, other_id: str) -> str | None:
        if case_id == other_id:
            return "invalid"
        return None if (other_id in self.cases[case_id]["links"]) == (act == "unlink") else "nothing_to_do"

    def refused_unmerge(self, case_id: str) -> str | None:
        case = self.cases[case_id]
        if not case["merged"]:
            return "not_merged"
        if self.rival(case):
            return "in_the_way"
        into = self.cases[case["merged"][1]]
        if into["account"] == case["account"] and case_id in into["parts"] and not is_open(into):
            return "in_the_way"
        return None

    # -- what is true after an answer ------------------------------------------------------------------

    def did_take(self, _: str, case: Record, actor: str, __: Record) -> None:
        case.update(holder=actor, touched=True)

    def did_assign(self, _: str, case: Record, __: str, fields: Record) -> None:
        case.update(holder=fields["assignee"], touched=True)

    def did_release(self, _: str, case: Record, *__: object) -> None:
        case.update(holder=None, touched=True)

    def did_note(self, _: str, case: Record, *__: object) -> None:
        case.update(notes=case["notes"] + 1, touched=True)

    def did_escalate(self, _: str, case: Record, *__: object) -> None:
        case.update(escalated=True, touched=True)

    def did_snooze(self, _: str, case: Record, __: str, fields: Record) -> None:
        case.update(until=fields["until_ms"], touched=True)

    def did_wake(self, _: str, case: Record, *__: object) -> None:
        case.update(until=None)

    def did_close(self, _: str, case: Record, actor: str, fields: Record) -> None:
        if total(case) >= 500_000:
            case.update(pending=actor, wanted=fields["disposition"], until=None, touched=True)
        else:
            case.update(disposition=fields["disposition"], until=None, touched=True)
            self.left(case)

    def did_approve_closing(self, _: str, case: Record, *__: object) -> None:
        case.update(disposition=case["wanted"], pending=None)
        self.left(case)

    def did_refuse_closing(self, _: str, case: Record, *__: object) -> None:
        case.update(pending=None)

    did_withdraw_closing = did_refuse_reopening = did_withdraw_reopening = did_refuse_closing

    def did_reopen(self, _: str, case: Record, actor: str, __: Record) -> None:
        case.update(pending=actor, touched=True)

    def did_approve_reopening(self, _: str, case: Record, *__: object) -> None:
        case.update(disposition=None, pending=None, holder=None, touched=True, since_ms=self.now_ms)

    def did_merge(self, *_: object) -> None:
        """Apply a merge to the model; see was_merged."""

    def was_merged(self, case_id: str, account: str, into_id: str, merge_id: str, events: list[CaseEvent]) -> None:
        case = self.cases[case_id]
        case.update(merged=(account, into_id, merge_id), until=None, touched=True)
        self.left(case)
        expected = [("CaseMerged", case_id)]
        if account == case["account"]:
            expected += self.took(into_id, case_id, merge_id, case["escalated"])
        assert self.kinds(events) == expected

    def took(self, into_id: str, from_id: str, merge_id: str, was_escalated: bool) -> list[tuple[str, str]]:
        into, brought = self.cases[into_id], self.cases[from_id]
        stands = dict(brought["stands"])
        for part in brought["parts"].values():
            stands.update(part["stands"])
        into["parts"][from_id] = {"merge_id": merge_id, "value": total(brought), "stands": stands}
        return [("CaseAbsorbed", into_id), *self.weighed(into_id, 900 if was_escalated else 0)]

    def did_unmerge(self, case_id: str, case: Record, *_: object) -> None:
        into = self.cases[case["merged"][1]]
        if into["account"] == case["account"]:
            into["parts"].pop(case_id, None)
        case.update(merged=None)

    def did_link(self, case_id: str, case: Record, _: str, fields: Record) -> None:
        case["links"].add(fields["other_case_id"])
        if fields["other_account_id"] == case["account"]:
            self.cases[fields["other_case_id"]]["links"].add(case_id)

    def did_unlink(self, case_id: str, case: Record, _: str, fields: Record) -> None:
        case["links"].discard(fields["other_case_id"])
        if fields["other_account_id"] == case["account"]:
            self.cases[fields["other_case_id"]]["links"].discard(case_id)

    # -- steps between accounts, redelivery, restarts -----------------------------------------------------

    @rule(again=st.booleans())
    def next_step_arrives(self, again: bool) -> None:
        """Deliver the next step between accounts, perhaps twice. The process worker writes them in order."""
        if not self.chain:
            return
        command = self.chain.pop(0)
        fields, case = to_fields(command), self.cases[command.case_id]
        kind, expected = type(command).__name__, [("CommandRejected", command.case_id)]
        if kind == "AbsorbCase":
            expected = [("AbsorptionRefused", command.case_id)]
            if is_open(case) and fields["from_case_id"] not in case["parts"]:
                part = {flag["flag_id"]: flag["score"] > 0 for flag in fields["flags"]}
                value = sum(amount["amount_minor"] for amount in fields["amounts"])
                case["parts"][fields["from_case_id"]] = {
                    "merge_id": fields["merge_id"], "value": value, "stands": part,
                }  # fmt: skip
                expected = [("CaseAbsorbed", command.case_id)]
                expected += self.weighed(command.case_id, 900 if fields["is_escalated"] else 0)
        elif kind == "PartCase":
            part = case["parts"].get(fields["from_case_id"])
            if part and part["merge_id"] == fields["merge_id"]:
                del case["parts"][fields["from_case_id"]]
                expected = [("CaseParted", command.case_id)]
        elif kind == "UndoMerge":
            expected = self.undone(command.case_id, fields, command.command_id) or expected
        elif (fields["other_case_id"] in case["links"]) == (kind == "UnlinkBack"):
            (case["links"].discard if kind == "UnlinkBack" else case["links"].add)(fields["other_case_id"])
            expected = [("CaseUnlinked" if kind == "UnlinkBack" else "CaseLinked", command.case_id)]
        assert self.kinds(self.step(command)) == expected
        if again:
            assert self.step(command) == []

    def undone(self, case_id: str, fields: Record, merge_id: str) -> list[tuple[str, str]]:
        case = self.cases[case_id]
        if not case["merged"] or case["merged"][2] != fields["merge_id"]:
            return []
        if not self.rival(case):
            case.update(merged=None)
            return [("CaseUnmerged", case_id)]
        place = case["account"], case["typology"]
        instead = next(
            k for k, each in self.cases.items() if is_open(each) and (each["account"], each["typology"]) == place
        )
        case["merged"] = (case["account"], instead, merge_id)
        return [("CaseMerged", case_id), *self.took(instead, case_id, merge_id, case["escalated"])]

    @rule(pick=st.integers(0, 10_000))
    def something_is_delivered_again(self, pick: int) -> None:
        if self.read:
            assert self.step(self.read[pick % len(self.read)]) == []

    @rule()
    def job_starts_anew(self) -> None:
        self.store.update({key: value for key, value in self.fold.take_writes().items() if value is not None})
        self.fold = CaseFold(self.store.get, lambda: iter(list(self.store)))

    # -- what holds after every step --------------------------------------------------------------------

    @invariant()
    def views_are_as_the_model_has_it(self) -> None:
        assert self.views.keys() == self.cases.keys()
        for case_id, case in self.cases.items():
            view = self.views[case_id]
            seen = (
                view.sequence, view.status, view.assignee, view.snoozed_until_ms, view.escalated, view.flags,
                view.value_minor.get("EUR", 0), view.notes, {link["case_id"] for link in view.links},
                {part["case_id"] for part in view.absorbed}, view.disposition,
                view.pending and view.pending["by"],
            )  # fmt: skip
            expected = (
                len(case["kinds"]), status(case), case["holder"], case["until"], case["escalated"],
                standing(case) + case["off"], total(case), case["notes"], case["links"], set(case["parts"]),
                case["disposition"], case["pending"],
            )  # fmt: skip
            assert seen == expected, case_id

    @invariant()
    def one_case_is_open_for_each_account_and_typology(self) -> None:
        places = [
            (view.account_id, view.typology) for view in self.views.values() if view.status not in ("closed", "merged")
        ]
        assert len(places) == len(set(places))

    def teardown(self) -> None:
        """Compare, for each moment of the log, the view as known then with a projection of the records up to then."""
        for case_id, view in self.views.items():
            own = [
                known
                for known in self.events
                if known.event.case_id == case_id and not isinstance(known.event, CaseAnswer)
            ]
            assert case_as_of(own) == view
            for known in own[:: max(1, len(own) // 5)]:
                rebuilt = None
                for event, at_ms in own:
                    if at_ms <= known.known_at_ms:
                        assert not isinstance(event, CaseAnswer)
                        rebuilt = project(rebuilt, event)
                assert case_as_of(own, known_at_ms=known.known_at_ms) == rebuilt
            assert case_as_of(own, known_at_ms=own[0].known_at_ms - 1) is None


TestCasesAgainstModel = pytest.mark.no_cover(CasesAgainstModel.TestCase)
TestCasesAgainstModel.settings = settings(
    max_examples=RUNS,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
