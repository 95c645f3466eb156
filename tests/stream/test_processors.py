"""The processors of the Flink jobs, without Flink: neither batches nor a crash and a restore change their output."""

from typing import Any

import pytest

from domain.payment import FIELDS
from domain.record_types import to_fields
from domain.risk.default_packs import THREE
from domain.risk.entity_fold import EntityFold
from domain.risk.events import TUPLES, RulesActivated
from schemas.codec import Decoder, Encoder
from schemas.topics import Topics
from stream import processors
from stream.journal import PartitionRecord
from stream.processors import EntityProcessor, PartitionContext, RiskProcessor
from tests.support.entities import PACK, activation, crowd, sent
from tests.support.payments import NOON, payment
from tests.support.processors import PartitionState, decided
from tests.support.records import ENCODER, IDS, TEXTS


def records() -> list[PartitionRecord]:
    events: list[Any] = [activation(PACK), *sent([*crowd([0, 2, 1, 3, 4]), payment("late", event_time=NOON)])]
    values = [ENCODER.encode(type(event).__name__, to_fields(event)) for event in events]
    values[3:3] = [b"nonsense", values[2]]
    return [PartitionRecord(offset, 1_000, value) for offset, value in enumerate(values)]


def expected() -> list[tuple[str, str]]:
    """Return topic and transaction of each expected output, by the fold alone."""
    fold, found = EntityFold(5), [("quarantine", "")]
    for record in records():
        if record.value != b"nonsense":
            flags = fold.read(*Decoder(TEXTS.get).decode(record.value), record.offset)
            assert isinstance(flags, list)
            found += [("cases.inbox", flag.transaction_id) for flag in flags]
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize("crash_at", [None, 2, 4, 6])
def test_entity_flags_do_not_depend_on_batches_and_crashes(size: int, crash_at: int | None) -> None:
    codec = Decoder(TEXTS.get), ENCODER
    state = PartitionState()
    out: dict[tuple[str, int], dict[str, Any]] = {}
    processor, log = EntityProcessor(PartitionContext(5, state, *codec, Topics())), records()
    position = 0
    while position < len(log):
        batch = log[position : position + size]
        for emission in processor.process(batch):
            name, data = Decoder(TEXTS.get).decode(emission.value)
            assert name == ("Quarantined" if emission.topic == b"quarantine" else "EntityFlagged")
            place = emission.topic.decode(), data["offset"]
            assert out.setdefault(place, data) == data  # redelivered: equal bytes
        if crash_at is not None and position >= crash_at:  # the state of this batch and its position are lost
            crash_at, processor = None, EntityProcessor(PartitionContext(5, state, *codec, Topics()))
            continue
        state.write(processor.take_writes())
        position += size
    found = sorted((topic, data.get("transaction_id", "")) for (topic, _), data in out.items())
    assert found == sorted(expected()) == [("cases.inbox", "tx-3"), ("cases.inbox", "tx-4"), ("quarantine", "")]


@pytest.mark.parametrize("snapshot_every", [1, 3, 1_000])
def test_risk_decisions_do_not_depend_on_histories_in_memory(
    snapshot_every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Restored for every batch, with one account in memory: all histories are read from snapshots and journals."""
    monkeypatch.setattr(processors, "HOT_ACCOUNTS", 1)
    codec = Decoder(TEXTS.get, {"Transaction": FIELDS}), Encoder(IDS, TUPLES)
    log = [PartitionRecord(offset, NOON + 10**9, value) for offset, value in enumerate(risk_values())]
    whole = RiskProcessor(PartitionContext(3, PartitionState(), *codec, Topics()))
    expected = [each for record in log for each in decided(whole.process([record]))]
    assert [each["transaction_id"] for each in expected if "reasons" in each] == ["a-20", "b-20"]
    state = PartitionState()
    found: list[dict[str, Any]] = []
    for record in log:
        processor = RiskProcessor(PartitionContext(3, state, *codec, Topics(), snapshot_every))
        found += decided(processor.process([record]))
        state.write(processor.take_writes())
    assert found == expected


def risk_values() -> list[bytes]:
    """Return records of two accounts in turn: equal amounts, then a spike of each. One record is too long to be
    stored unpacked.
    """
    activated = RulesActivated(pack_id=THREE.pack_id, pack=THREE.canonical, activated_by="test")
    raws = [
        payment(f"{account}-{number}", account_id=account, event_time=NOON + number * 3_600_000, amount_minor=amount)
        for number, amount in enumerate([50_000 + number for number in range(20)] + [9_000_000])
        for account in ("a", "b")
    ]
    raws[8]["attributes"] = {"note": "x" * 500}
    return [
        ENCODER.encode("RulesActivated", to_fields(activated)),
        *(ENCODER.encode("Transaction", raw) for raw in raws),
    ]
