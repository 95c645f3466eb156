"""Activations of engines on the real broker: one in every partition of every log."""

from typing import Any

import pytest

from console.rules.store import SYSTEM
from console.system import lifecycle as system
from console.wiring import engine_log, engines, kafka_logs, topics
from domain.engines import ENGINES, LATEST, EngineActivated, activation
from domain.record_types import from_fields, to_fields
from infra.settings import Settings
from projections.logs.log import KafkaLog
from projections.logs.partition_writer import write_to_partitions
from schemas.codec import Decoder, Encoder
from schemas.registry import SchemaRegistry
from tests.support.stack import command_line, run_json

SECOND = ("EngineActivated", to_fields(activation(2, "ana")))


def activations(settings: Settings) -> dict[tuple[str, int], list[Any]]:
    """Return the activations in every partition of every log, in order."""
    log, decoder = KafkaLog(settings.kafka_bootstrap), Decoder(SchemaRegistry(settings.registry_url).schema_text)
    return {
        (topic, partition): [from_fields(*decoder.decode(record.value)) for record in log.read(topic, partition, end)]
        for topic in topics(settings).engined_logs
        for partition, end in log.ends(topic).items()
    }


def test_an_engine_is_activated_in_every_partition_of_every_log(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the real broker, after a crash that left one partition written. A repeated command writes nothing."""
    own = settings.model_copy(update={"prefix": "engines.", "partitions": 3})
    system.prepare(own)
    command = command_line(own, monkeypatch)
    states = [row["state"] for row in run_json(command, "engine", "list")]
    assert states == ["active", *["available"] * (len(ENGINES) - 1)]
    inbox, value = topics(own).cases_inbox, Encoder(SchemaRegistry(own.registry_url).ids()).encode(*SECOND)

    class Killed(type(engine_log(own))):  # type: ignore[misc]
        def write(self, *_: object) -> int:
            write_to_partitions(own.kafka_bootstrap, inbox, b"", value, [1])
            raise ConnectionError("killed")

    with pytest.raises(ConnectionError):
        engines(own).activate(2, "ana", Killed(kafka_logs(own), topics(own).engined_logs))
    assert run_json(command, "engine", "activate", "2", "--actor", "ben")["partitions_written"] == 8
    assert run_json(command, "engine", "activate", "2", "--actor", "ben")["partitions_written"] == 0
    found = activations(own)
    assert len(found) == 9
    assert {sum(isinstance(each, EngineActivated) for each in events) for events in found.values()} == {1}
    assert run_json(command, "engine", "show")["engine"] == 2
    run_json(command, "engine", "activate", "1", "--actor", "ben", code=1)
    run_json(command, "engine", "activate", "7", "--actor", "ben", code=1)


def test_new_system_can_start_with_the_newest_engine_and_an_old_one_keeps_its_own(settings: Settings) -> None:
    own = settings.model_copy(update={"prefix": "newest.", "partitions": 2, "engine": "latest"})
    for _ in range(2):
        system.prepare(own)
    found = activations(own)
    assert {sum(isinstance(each, EngineActivated) for each in events) for events in found.values()} == {1}
    assert [(row.engine, row.actor) for row in engines(own).rows()] == [(LATEST.number, SYSTEM)]
    old = settings.model_copy(update={"prefix": "older.", "partitions": 2})
    system.prepare(old)
    value = Encoder(SchemaRegistry(old.registry_url).ids()).encode("ClockTicked", {"tick_id": "t", "now_ms": 1})
    write_to_partitions(old.kafka_bootstrap, topics(old).cases_inbox, b"", value, [1])
    system.prepare(old.model_copy(update={"engine": "latest"}))
    assert not any(isinstance(each, EngineActivated) for events in activations(old).values() for each in events)
