"""The whole rebuild without a stack: the mock brokers of librdkafka, and tables in memory."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from console.history import rebuild as rebuilding
from console.history.rebuild import RebuildError, drop, rebuild, switch
from console.views.live_table import LOOK_EVERY_S, LiveCaseTable
from console.views.versions import ViewVersions
from console.wiring import RebuildParts, rebuild_parts
from console.workers.case_views import target_of
from domain.record_types import to_fields
from infra.settings import Settings
from migrations.store import connect, upgrade
from projections.logs.kafka_logs import KafkaLogs
from projections.logs.known import KnownEvent
from projections.logs.log import KafkaLog
from projections.logs.worker import decode_case_events
from projections.views.case_table import MemoryCaseTable
from projections.views.case_view import Item
from projections.views.worker import ViewProjector, work
from tests.support.views import DECODER, ENCODER, TOPIC, MemoryEventLog, live, stream


class RebuildTable(MemoryCaseTable):
    """Table that can be created and dropped, and whose writer can crash."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.fills_left = name, 10**9
        self.is_there = False

    def ensure(self) -> None:
        self.is_there = True

    def drop(self) -> None:
        self.is_there = False
        self.items = {}

    def fill(self, items: Any, threads: int = 1) -> None:
        half = list(items)[: len(items) // 2]
        super().fill(half, threads)  # an interrupted write has stored a part
        self.fills_left -= 1
        if self.fills_left < 0:
            raise KeyboardInterrupt
        super().fill(items, threads)


@dataclass
class RebuildSystem:
    """Log, tables by name, and control store."""

    settings: Settings
    versions: ViewVersions
    producer: Producer
    tables: dict[str, RebuildTable] = field(default_factory=dict)

    @property
    def parts(self) -> RebuildParts:
        wired = rebuild_parts(self.settings)
        return replace(wired, versions=self.versions, open_table=self.open)  # type: ignore[arg-type]

    def open(self, name: str) -> RebuildTable:
        return self.tables.setdefault(name, RebuildTable(name))

    def tell(self, known: list[KnownEvent]) -> None:
        for event, _ in known:
            value = ENCODER.encode(type(event).__name__, to_fields(event))
            self.producer.produce(TOPIC, value, event.account_id.encode())
        assert self.producer.flush(20) == 0

    def wanted(self) -> dict[tuple[str, str], Item]:
        """Return the items that result from the log, one event at a time, by another projector."""
        table, log = MemoryCaseTable(), KafkaLog(self.settings.kafka_bootstrap)
        projector = ViewProjector(table)
        for number, end in log.ends(TOPIC).items():
            for record in log.read(TOPIC, number, end):
                projector.apply(decode_case_events(DECODER, [record]))
        return table.items

    def live(self) -> dict[tuple[str, str], Item]:
        return self.open(self.versions.live().table).items


class Stopper:
    """Replacement for the signals that stop a worker."""

    def __init__(self) -> None:
        self.is_set = False

    def persist(self, write: Any) -> bool:
        write()
        return True


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RebuildSystem]:
    producer = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "mock"})
    broker = next(iter(producer.list_topics(timeout=10).brokers.values()))
    settings = Settings(home=tmp_path, host=broker.host, kafka_port=broker.port)
    engine = connect(settings.control_database)
    upgrade(engine)
    made = RebuildSystem(settings, ViewVersions(engine, "cases", lambda: time.time_ns() // 1_000_000), producer)
    monkeypatch.setattr(KafkaLogs, "decoder", lambda _: DECODER)
    monkeypatch.setattr(rebuilding, "_forget", lambda *_: None)  # the mock does not implement this request
    monkeypatch.setattr(rebuilding, "TAKEN_OVER_WITHIN_S", 2.0)
    monkeypatch.setattr(rebuilding, "SETTLED_WITHIN_S", 1.0)
    yield made
    engine.dispose()


def work_until(system: RebuildSystem, stop: Stopper) -> threading.Thread:
    """Run the real worker's loop in a thread until a condition holds."""
    table = LiveCaseTable(system.open, system.versions.live)  # type: ignore[arg-type]
    arguments = (system.settings.kafka_bootstrap, TOPIC, DECODER, lambda: target_of(table, TOPIC), stop)
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    thread.start()
    return thread


def until(holds: Any, within_s: float = 30) -> None:
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < within_s, "the rebuild did not get this far"
        time.sleep(0.05)


def test_worker_continues_in_the_new_table_after_a_switch(system: RebuildSystem) -> None:
    system.tell(stream(1))
    stop = Stopper()
    worker = work_until(system, stop)
    try:
        until(lambda: system.live() == system.wanted())
        before = dict(system.live())
        document = rebuild(system.parts, "kafka", keep_old=True, share_events=20).document
        assert (document["version"], document["differs_from_old"]) == (2, 0)
        assert document["digest"] == document["derived_digest"]
        assert system.live() == before == system.open("cases").items
        time.sleep(2 * LOOK_EVERY_S)  # the mock does not list group members, so the rebuild did not wait for the worker
        system.tell(stream(2, accounts=3))
        until(lambda: system.live() == system.wanted())
        assert system.open("cases").items == before
        assert drop(system.parts, 1) == 1
        assert not system.open("cases").is_there
    finally:
        stop.is_set = True
        worker.join(20)


@pytest.mark.parametrize("fills", [0, 2, 4])
def test_rebuild_interrupted_in_any_partition_continues(system: RebuildSystem, fills: int) -> None:
    system.tell(stream(6))
    system.open("cases-v2").fills_left = fills
    with pytest.raises(KeyboardInterrupt):
        rebuild(system.parts, "kafka", keep_old=True, share_events=6)
    assert system.versions.live().number == 1
    assert not all(share.done_at_ms for share in system.versions.shares(2))
    system.tell(stream(7))  # the log grows meanwhile
    system.open("cases-v2").fills_left = 10**9
    assert rebuild(system.parts, "kafka", keep_old=True).document["version"] == 2
    assert system.live() == system.wanted()


def test_altered_new_table_is_not_switched_to(system: RebuildSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    system.tell(stream(3))
    table = system.open("cases-v2")
    monkeypatch.setattr(table, "fill", lambda items, threads: MemoryCaseTable.fill(table, items[1:], threads))
    with pytest.raises(RebuildError, match="differs from the log"):
        rebuild(system.parts, "kafka", keep_old=True)
    assert system.versions.live().number == 1


def test_difference_in_the_old_table_is_named_and_does_not_stop_the_switch(system: RebuildSystem) -> None:
    system.tell(stream(4))
    system.open("cases").items = dict(system.wanted())
    key = next(key for key in system.open("cases").items if key[1] == "view")
    system.open("cases").items[key] = {**system.open("cases").items[key], "score_max": 1}
    outcome = rebuild(system.parts, "kafka", keep_old=True)
    assert [key[0] in problem for problem in outcome.problems] == [True]
    assert system.live() == system.wanted()
    system.tell(stream(5))
    switch(system.parts, 2) if system.versions.live().number == 1 else switch(system.parts, 1)
    assert system.versions.live().number == 1  # live again, and at the log's end except for the altered item
    assert {k: v for k, v in system.live().items() if k != key}.keys() == system.wanted().keys() - {key}


def test_rebuild_refuses_an_altered_archive_and_a_second_source(
    system: RebuildSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    system.tell(stream(8))
    system.open("cases-v2").fills_left = 0
    with pytest.raises(KeyboardInterrupt):
        rebuild(system.parts, "kafka", keep_old=True)
    monkeypatch.setattr(rebuilding, "_source", lambda *_: (MemoryEventLog(stream(8)), DECODER))
    with pytest.raises(RebuildError, match="is being rebuilt from kafka"):
        rebuild(system.parts, "s3", keep_old=True)
    assert live(stream(8)).items
