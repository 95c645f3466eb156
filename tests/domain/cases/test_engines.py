"""Engines: each keeps its bytes; a log changes from one engine to the next at an activation, and nowhere else.

Write the golden file of a new engine with `python -m tests.domain.cases.test_engines`. It writes only missing files.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine as Database

from console.rules.engines import EngineStore
from console.rules.store import Offsets, RulePackActionError
from domain.cases.commands import AbsorbCase, Amount, MergedFlag
from domain.cases.events import CaseEvent, RiskRevised, SequencedCaseEvent
from domain.cases.fold import CaseFold
from domain.digest import canonical_bytes
from domain.engines import ENGINE_KEY, ENGINES, FIRST, LATEST, EngineActivated, activation
from domain.payment import FIELDS, Refusal
from domain.record import replace
from domain.record_types import to_fields
from domain.risk.entity_fold import EntityFold
from domain.risk.events import RiskRestated
from domain.risk.fold import RiskFold
from migrations.store import connect, upgrade
from projections.views.case_view import project
from schemas.codec import Decoder, Encoder
from schemas.topics import Topics
from stream.journal import PartitionRecord
from stream.processors import CaseProcessor, EntityProcessor, PartitionContext, RiskProcessor
from tests.support.cases import NOON, REASON, asked, case_of, close, flag, fold_events, restated
from tests.support.processors import PartitionState
from tests.support.records import ENCODER, IDS, TEXTS

FOLDER = Path(__file__).with_name("fixtures") / "engines"
INBOX: list[tuple[str, dict[str, Any]]] = [
    tuple(json.loads(line)) for line in (FOLDER / "cases.inbox.jsonl").read_text(encoding="utf-8").splitlines()
]
"""Recorded inbox of three accounts: flags, restatements, ticks, nearly every command, and steps between accounts."""
SECOND = ("EngineActivated", to_fields(activation(2, "ana")))


def golden(engine: int) -> Path:
    return FOLDER / f"engine-{engine}.cases.events.jsonl"


def folded(records: Sequence[tuple[str, dict[str, Any]]], fold: CaseFold | None = None) -> list[bytes]:
    """Return the canonical bytes of the events that result from a log."""
    fold, said = fold or CaseFold(), list[bytes]()
    for name, data in records:
        decided = fold.read(name, data)
        said += [] if isinstance(decided, Refusal) else [canonical_bytes(event) for event in decided]
    return said


def by_engine(number: int) -> list[bytes]:
    begun = [] if number == FIRST.number else [("EngineActivated", to_fields(activation(number, "ana")))]
    return folded([*begun, *INBOX])


@pytest.mark.parametrize("number", ENGINES)
def test_engine_emits_its_golden_bytes(number: int) -> None:
    """The bytes of engine 1 were recorded by the code from before there were engines."""
    assert golden(number).exists(), f"python -m tests.domain.cases.test_engines writes {golden(number).name}"
    assert by_engine(number) == golden(number).read_bytes().splitlines()


def test_recorded_inbox_shows_the_difference_of_each_engine() -> None:
    said = [golden(number).read_bytes() for number in ENGINES]
    assert len(set(said)) == len(ENGINES)


@pytest.mark.parametrize("place", [0, 1, 150, 320, 599, len(INBOX)])
def test_each_engine_decides_its_part_of_a_log(place: int) -> None:
    """Records before the activation keep the old bytes; the new engine decides later ones, from the state at that
    point.
    """
    before, behind = INBOX[:place], INBOX[place:]
    old = folded(before)
    whole = folded([*before, SECOND, *behind])
    assert whole[: len(old)] == old == by_engine(1)[: len(old)]
    state = PartitionState()
    former = CaseFold()
    folded(before, former)
    state.write(former.take_writes())
    later = CaseFold(state.get, lambda: iter(state.keys()))
    assert later.engine == 1
    assert folded([SECOND, *behind], later) == whole[len(old) :]
    if place == 0:
        assert whole == by_engine(2)


@pytest.mark.parametrize("every", [1, 7, 100])
def test_restarts_and_a_redelivered_activation_change_nothing(every: int) -> None:
    expected = folded([*INBOX[:300], SECOND, *INBOX[300:]])
    log = [*INBOX[:300], SECOND, SECOND, *INBOX[300:450], SECOND, *INBOX[450:]]
    state, said = PartitionState(), list[bytes]()
    for first in range(0, len(log), every):
        fold = CaseFold(state.get, lambda: iter(state.keys()))
        said += folded(log[first : first + every], fold)
        state.write(fold.take_writes())
    assert said == expected
    assert state.entries[ENGINE_KEY] == b"2"


# -- what the second engine changed ------------------------------------------------------------


def event_names(*records: Any, engine: int) -> list[str]:
    fold = CaseFold()
    assert fold.read("EngineActivated", to_fields(activation(engine, "ana"))) == []
    events: list[CaseEvent] = []
    for record in records:
        decided = fold.step(record)
        assert not isinstance(decided, Refusal), decided
        events = decided
    return [type(event).__name__ + getattr(event, "trigger", "").title() for event in events]


def risen_to(sequence: int, score: int, of: str = "flag-1") -> RiskRestated:
    return replace(restated(sequence, of, ("velocity",), (REASON,)), score_before=600, score=score)


GONE = restated(6, "flag-1", ("velocity",), ())
SNOOZE = asked("snooze", seen=1, until_ms=NOON + 86_400_000, reason="later")


@pytest.mark.parametrize(
    ("records", "second"),
    [
        pytest.param([flag(1), risen_to(2, 900)], ["RiskRevised", "CaseEscalatedScore"], id="the score rises"),
        pytest.param([flag(1), risen_to(2, 899)], ["RiskRevised"], id="the score stays below the threshold"),
        pytest.param([flag(1, score=899), risen_to(2, 600)], ["RiskRevised"], id="the weight does not rise"),
        pytest.param([flag(1), restated(2, "flag-1", ("velocity",), ())], ["RiskRevised"], id="the flag is withdrawn"),
        pytest.param([flag(1), SNOOZE, risen_to(2, 700)], ["RiskRevised", "CaseWokenFlag"], id="a snoozed case wakes"),
        pytest.param([flag(1), SNOOZE, risen_to(2, 600)], ["RiskRevised"], id="a snoozed case sleeps on"),
        pytest.param([flag(1, score=950), risen_to(2, 990)], ["RiskRevised"], id="a case escalates once"),
        pytest.param([flag(1), close(), risen_to(2, 950)], ["RiskRevised"], id="a closed case stays as it is"),
        pytest.param(
            [flag(1), flag(2), flag(3), flag(4), restated(5, "flag-1", ("velocity",), ()), flag(6),
             replace(restated(7, "flag-1", (), (REASON,)), score_before=0)],
            ["RiskRevised", "CaseEscalatedFlags"], id="the restored flag is the fifth",
        ),
    ],
)  # fmt: skip
def test_the_second_engine_weighs_restatements(records: list[Any], second: list[str]) -> None:
    assert event_names(*records, engine=1) == ["RiskRevised"]
    assert event_names(*records, engine=2) == second


# -- what the third engine changed --------------------------------------------------------------------------


@pytest.mark.parametrize(("engine", "change", "flags"), [(2, None, 3), (3, 0, 2)])
def test_third_engine_records_changes_in_the_case_that_holds_the_flag(
    engine: int, change: int | None, flags: int
) -> None:
    """A flag is withdrawn while a case of another account holds it, returns with that case, and is restored."""
    first, second = flag(1), flag(2, typology="stolen_card")
    home = case_of(replace(second, sequence=1))
    away = MergedFlag(
        flag_id=first.flag_id, score=500, account_id=first.account_id, transaction_id=first.transaction_id,
        content_digest="00", event_time=NOON, merchant_id="bakery", terminal_id=None, device_id=None, card_id=None,
    )  # fmt: skip
    brought = AbsorbCase(
        account_id=first.account_id, case_id=home, command_id="step", actor="ana", requested_at_ms=NOON,
        merge_id="merge", from_account_id="acct-9", from_case_id="case-9", is_escalated=False, standing=1,
        amounts=(Amount(currency="EUR", amount_minor=1),), flags=(away,),
    )  # fmt: skip
    gone, back = restated(3, first.flag_id, ("velocity",), ()), restated(4, first.flag_id, (), (REASON,))
    fold, view = CaseFold(), None
    assert fold.read("EngineActivated", to_fields(activation(engine, "ana"))) == []
    for event in fold_events(first, second, gone, brought, back, fold=fold):
        if isinstance(event, SequencedCaseEvent) and event.case_id == home:
            view = project(view, event)
    assert isinstance(event, RiskRevised)
    assert (event.case_id, event.flags_change) == (home, change)
    assert view is not None
    assert view.flags == flags


# -- refusals and state, in all three folds -------------------------------------------------------------


def risk(load: Callable[[str], bytes | None]) -> RiskFold:
    return RiskFold(0, load, hot_accounts=10)


def entity(load: Callable[[str], bytes | None]) -> EntityFold:
    return EntityFold(0, load, hot_entities=10)


def case(load: Callable[[str], bytes | None]) -> CaseFold:
    return CaseFold(load)


FOLDS = [risk, entity, case]
Fold = RiskFold | EntityFold | CaseFold


def given(fold: Fold, data: dict[str, Any]) -> Any:
    if isinstance(fold, RiskFold):
        return fold.read("EngineActivated", data, 0, None)
    return fold.read("EngineActivated", data, 0) if isinstance(fold, EntityFold) else fold.read("EngineActivated", data)


@pytest.mark.parametrize("make", FOLDS)
@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"engine": LATEST.number + 1}, "unknown_engine"),
        ({"engine": 0}, "unknown_engine"),
        ({"engine": "2"}, "unknown_engine"),
        ({"engine": [2]}, "bad_fields"),
        ({"engine": 1}, "engine_went_back"),
        ({"more": 1}, "bad_fields"),
    ],
)
def test_impossible_activation_is_refused_and_the_engine_stays(
    make: Callable[..., Fold], changed: dict[str, Any], reason: str
) -> None:
    fold = make(lambda _: None)
    assert given(fold, SECOND[1]) == []
    refused = given(fold, {**SECOND[1], **changed})
    assert isinstance(refused, Refusal)
    assert refused.reason == reason
    assert fold.engine == 2


@pytest.mark.parametrize("make", FOLDS)
def test_the_state_keeps_the_engine(make: Callable[..., Fold]) -> None:
    state = PartitionState()
    fold = make(state.get)
    assert fold.engine == 1
    assert fold.take_writes() == {}  # a state from before there were engines stays as it is
    given(fold, SECOND[1])
    state.write(fold.take_writes())
    assert fold.take_writes() == {}
    assert make(state.get).engine == 2


@pytest.mark.parametrize("kind", [RiskProcessor, EntityProcessor, CaseProcessor])
def test_job_keeps_its_engine_and_quarantines_unknown_ones(kind: Any) -> None:
    codec = Decoder(TEXTS.get, {"Transaction": FIELDS}), Encoder(IDS)
    state, out = PartitionState(), []
    values = [to_fields(activation(2, "ana")), {**SECOND[1], "engine": 99}, {**SECOND[1], "engine": 1}]
    for offset, data in enumerate(values):
        processor = kind(PartitionContext(4, state, *codec, Topics()))  # restored before each record
        out += processor.process([PartitionRecord(offset, 1_000, ENCODER.encode("EngineActivated", data))])
        state.write(processor.take_writes())
    reports = [Decoder(TEXTS.get).decode(each.value)[1] for each in out]
    assert [(report["reason"], report["offset"]) for report in reports] == [
        ("unknown_engine", 1), ("engine_went_back", 2),
    ]  # fmt: skip
    assert kind(PartitionContext(4, state, *codec, Topics()))._fold.engine == 2


# -- the control store ------------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = connect(f"sqlite:///{tmp_path / 'control.db'}")
    upgrade(made)
    yield made
    made.dispose()


class EngineLogs:
    """Three logs of two partitions in memory; after `crash_after` records, writing fails once."""

    def __init__(self, crash_after: int | None = None) -> None:
        self.records: dict[tuple[str, int], list[EngineActivated]] = {
            (topic, partition): [] for topic in Topics().engined_logs for partition in (0, 1)
        }
        self.crash_after = crash_after

    def ends(self) -> Offsets:
        found: dict[str, dict[int, int]] = {}
        for (topic, partition), records in self.records.items():
            found.setdefault(topic, {})[partition] = len(records)
        return found

    def write(self, record: EngineActivated, since: Offsets) -> int:
        written = 0
        for (topic, partition), records in self.records.items():
            if any(each.engine == record.engine for each in records[since[topic][partition] :]):
                continue
            if written == self.crash_after:
                self.crash_after = None
                raise ConnectionError("the broker is gone")
            records.append(record)
            written += 1
        return written


def test_engine_is_activated_once_in_every_partition(database: Database) -> None:
    store, logs = EngineStore(database, lambda: NOON), EngineLogs()
    assert (store.active(), store.activate(1, "ana", logs)) == (1, 0)
    assert [store.activate(2, "ana", logs), store.activate(2, "ben", logs)] == [6, 0]
    assert list(logs.records.values()) == [[activation(2, "ana")]] * 6
    assert store.active() == 2
    assert [(row.engine, row.actor, row.activated_at_ms) for row in store.rows()] == [(2, "ana", NOON)]


@pytest.mark.parametrize("written", [0, 1, 5])
def test_after_a_crash_the_same_command_writes_only_what_is_missing(database: Database, written: int) -> None:
    store, logs = EngineStore(database, lambda: NOON), EngineLogs(crash_after=written)
    with pytest.raises(ConnectionError):
        store.activate(2, "ana", logs)
    assert store.active() == 1
    with pytest.raises(RulePackActionError, match="activating engine 2 by ana is unfinished"):
        store.activate(1, "ben", logs)
    assert store.activate(2, "ben", logs) == 6 - written
    assert list(logs.records.values()) == [[activation(2, "ana")]] * 6  # who began it
    assert store.active() == 2


def test_refused_activation_gives_the_reason(database: Database) -> None:
    store, logs = EngineStore(database, lambda: NOON), EngineLogs()
    with pytest.raises(RulePackActionError, match=r"there is no engine 99\. Known engines: 1, 2"):
        store.activate(99, "ana", logs)
    store.activate(2, "ana", logs)
    with pytest.raises(RulePackActionError, match="engine 2 is active"):
        store.activate(1, "ana", logs)
    assert sum(map(len, logs.records.values())) == 6


# -- the real logs ----------------------------------------------------------------------------------------


def write_missing() -> None:
    """Write the golden files of engines that have none yet."""
    for number in ENGINES:
        if not golden(number).exists():
            golden(number).write_bytes(b"".join(line + b"\n" for line in by_engine(number)))


if __name__ == "__main__":
    write_missing()
