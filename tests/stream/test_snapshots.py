"""Snapshots in parts: for any batches and crashes, the output equals that of a single fold."""

from random import Random
from typing import Any

import pytest

from domain.payment import FIELDS
from domain.record_types import to_fields
from domain.risk.events import TUPLES
from domain.risk.histories import Histories, HistoriesFold, Writes
from domain.risk.history import History
from schemas.codec import Decoder, Encoder
from schemas.topics import Topics
from stream import journal, processors, snapshots
from stream.journal import PartitionRecord
from stream.processors import PartitionContext, RiskProcessor
from stream.snapshots import Snapshots
from tests.support.payments import COMMON, HOUR_MS, NOON, activated, admitted, label, pack_of, payment
from tests.support.processors import PartitionState, decided
from tests.support.records import ENCODER, IDS, TEXTS

ACCOUNTS, RECORDS = "abcdefg", 300
VELOCITY = {"family": "velocity", "window_ms": 6 * HOUR_MS, "at_least": 3}
PACKS = [pack_of(VELOCITY, COMMON), pack_of({**VELOCITY, "at_least": 4}, COMMON, name="second")]


def log_of(lots: Random) -> list[PartitionRecord]:
    """Return payments of some accounts, many of them late and some duplicated, with frauds and a change of the pack."""
    events: list[tuple[str, Any]] = [("RulesActivated", to_fields(activated(PACKS[0])))]
    for number in range(1, RECORDS):
        if number == RECORDS // 2:
            events.append(("RulesActivated", to_fields(activated(PACKS[1]))))
        elif lots.random() < 0.05:
            events.append(("FraudConfirmed", label(f"x-{number}", account_id=f"robbed-{number}")))
        elif lots.random() < 0.05:
            events.append(lots.choice(events))
        else:
            at = NOON + (number - (lots.randrange(40) if lots.random() < 0.2 else 0)) * HOUR_MS // 3
            raw = payment(
                f"tx-{number}", account_id=lots.choice(ACCOUNTS), event_time=at, merchant_id=lots.choice("xyz")
            )
            events.append(("Transaction", raw | ({"merchant_id": "butcher"} if lots.random() < 0.1 else {})))
    return [PartitionRecord(offset, NOON + 10**12, ENCODER.encode(*event)) for offset, event in enumerate(events)]


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Configure frequent snapshots that take several batches, and few histories in memory."""
    for module, name, value in (
        (processors, "HOT_ACCOUNTS", 2), (snapshots, "PARTS", 5), (snapshots, "LEAST", 1),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("seed", range(25))
def test_decisions_do_not_depend_on_crashes_and_batches(seed: int) -> None:
    lots = Random(seed)
    log = log_of(lots)
    whole = new_processor(PartitionState())
    expected = [decided(whole.process([record])) for record in log]
    state, checkpoint = PartitionState(), (dict[str, bytes](), 0)
    processor, position, amid, found = new_processor(state), 0, 0, dict[int, list[dict[str, Any]]]()
    while position < len(log):
        for record in log[position : position + lots.randrange(1, 4)]:
            found[record.offset] = decided(processor.process([record]))
            position += 1
        if lots.random() < 0.1:  # records since the checkpoint are lost and delivered again
            amid += bool(processor._snapshots._part)
            state.entries, position = dict(checkpoint[0]), checkpoint[1]
            processor = new_processor(state)
            continue
        state.write(processor.take_writes())
        if lots.random() < 0.5:
            checkpoint = dict(state.entries), position
    assert [found[offset] for offset in range(len(log))] == expected
    assert amid > 0, "no crash happened during a snapshot"
    assert sum(key.startswith(journal.KEY) for key in state.entries) < 30, "snapshots do not empty the journal"
    assert sum(any("reasons" in each for each in answers) for answers in expected) > 10


CODEC = Decoder(TEXTS.get, {"Transaction": FIELDS}), Encoder(IDS, TUPLES)


def new_processor(state: PartitionState) -> RiskProcessor:
    return RiskProcessor(PartitionContext(3, state, *CODEC, Topics(), snapshot_every=9))


# -- the histories themselves ---------------------------------------------------------------------------------


class BareHistoriesFold(HistoriesFold):
    """Fold of histories only."""

    def __init__(self, histories: Histories) -> None:
        self._histories = histories

    def _take_others(self) -> Writes:
        return {}


def nothing(_: str) -> bytes | None:
    return None


def grown(histories: Histories, key: str, *numbers: int) -> None:
    for number in numbers:
        history = histories.loaded.get(key) or histories.read(key)
        each = admitted(payment(f"tx-{number}", account_id=key, event_time=NOON + number))
        histories.change(key, history)
        history.remember(each, 0)
        history.insert(each, 0)


def ids(writes: Writes, *keys: str) -> list[list[str]]:
    """Return the payments of histories as read back from state."""
    return [[each.transaction_id for each in History.read(key, writes.get).payments] for key in keys]


def test_snapshot_holds_the_histories_at_its_start() -> None:
    histories = Histories(nothing, 10)
    for key in "abc":
        grown(histories, key, 1)
    assert histories.begin_writes({}) == 3
    grown(histories, "c", 2)
    assert histories.continue_writes(1) is None
    grown(histories, "a", 2)
    grown(histories, "d", 1)
    writes = histories.continue_writes(1)
    assert writes is not None
    assert ids(writes, "a", "b", "c", "d") == [["tx-1"], ["tx-1"], ["tx-1"], []]
    assert histories.begin_writes({}) == 3
    later = histories.continue_writes()
    assert later is not None
    assert ids(writes | later, "a", "b", "c", "d") == [["tx-1", "tx-2"], ["tx-1"], ["tx-1", "tx-2"], ["tx-1"]]


def test_least_recently_written_histories_are_evicted_unless_changed() -> None:
    histories = Histories(nothing, 1)
    for key in "abc":
        grown(histories, key, 1)
    histories.begin_writes({})
    grown(histories, "a", 2)
    assert histories.continue_writes() is not None
    assert list(histories.loaded) == ["a", "c"]
    histories.begin_writes({})
    assert histories.continue_writes() is not None
    assert list(histories.loaded) == ["a"]


def test_snapshot_of_many_histories_is_spread_over_batches() -> None:
    histories, kept = Histories(nothing, 10_000), Snapshots(0, nothing, 100)
    fold = BareHistoriesFold(histories)
    for number in range(2_560):
        grown(histories, f"acct-{number}", 1)
    for number in range(100):
        kept.note(PartitionRecord(number, 0, b""))
    waiting = []
    while not (writes := kept.take_writes(fold)).keys() & {"acct-0"}:
        waiting.append(len(histories._waiting))
    assert waiting == list(range(2_540, 0, -20)), "twenty with each of 128 batches"
    assert sum(key.startswith("acct-") for key in writes) == 2 * 2_560, "all of them at once: a head and a chunk each"
