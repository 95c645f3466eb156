"""A rebuild on the real stores: beside live traffic, killed half-way, from Kafka and from S3, and switched to.

The case events come from a seeded stream instead of the case job; the workers of views and archive are the real ones.
"""

import json
import os
import random
import subprocess
import time
from collections.abc import Iterable, Iterator
from threading import Event, Thread

import pytest
from confluent_kafka import Producer
from sqlalchemy import func, select
from typer.testing import CliRunner

from console.cli.app import app
from console.history.rebuild import rebuild
from console.system.lifecycle import prepare
from console.wiring import bucket, case_table, case_tables, rebuild_parts, topics, view_versions
from console.workers.view_verifier import committed_offsets
from domain.record import replace
from domain.record_types import to_fields
from infra import stack
from infra.parts import StackProgram, python_command
from infra.services import ARCHIVE, CASE_VIEWS, services
from infra.settings import Settings
from migrations.models import WebhookDeliveryRow
from migrations.store import connect, read_transaction
from projections.archive.archived_log import ArchivedLog
from projections.logs.known import KnownEvent
from projections.logs.log import KafkaLog
from projections.logs.worker import decode_case_events
from projections.views.case_table import MemoryCaseTable
from projections.views.case_view import Item
from projections.views.verifier import ViewVerifier
from projections.views.worker import ViewProjector, group_of
from schemas.codec import Decoder, Encoder
from schemas.registry import SchemaRegistry
from tests.support.stack import command_line
from tests.support.views import stream

Items = dict[tuple[str, str], Item]
PATIENCE_S = 120


@pytest.fixture(scope="module")
def system(settings: Settings) -> Iterator[Settings]:
    """Run a further system beside the one of the other tests: its logs, and the two workers that a rebuild affects."""
    chosen = settings.model_copy(
        update={"prefix": "rb.", "partitions": 3, "metrics_port": settings.metrics_port + 60, "clock_every_s": 0}
    )
    prepare(chosen)
    stack.up(chosen, workers(chosen), lambda _, __: None)
    yield chosen
    stack.down(chosen, workers(chosen), lambda _, __: None)


@pytest.fixture
def run(system: Settings, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    return command_line(system, monkeypatch)


def workers(system: Settings, *names: str) -> list[StackProgram]:
    wanted = {system.prefix + name for name in names or (CASE_VIEWS, ARCHIVE)}
    return [part for part in services(system) if part.name in wanted]


def write_events(system: Settings, known: Iterable[KnownEvent], stop: Event | None = None) -> None:
    """Write case events as the case job does: keyed by account."""
    encoder = Encoder(SchemaRegistry(system.registry_url).ids())
    producer, topic = Producer({"bootstrap.servers": system.kafka_bootstrap}), topics(system).cases_events
    for event, _ in known:
        if stop is not None and stop.wait(0.005):
            break
        producer.produce(topic, encoder.encode(type(event).__name__, to_fields(event)), event.account_id.encode())
        producer.poll(0)
    assert producer.flush(60) == 0


def renamed(known: Iterable[KnownEvent], name: str) -> list[KnownEvent]:
    """Copy the stream to other accounts and cases. A name has eight hexadecimal digits, as the start of a case id."""
    return [
        KnownEvent(
            replace(event, account_id=f"{name}-{event.account_id}", case_id=f"{name}{event.case_id[len(name) :]}"),
            at_ms,
        )
        for event, at_ms in known
    ]


def settle(system: Settings, *, archived: bool = False) -> Items:
    """Wait until the workers are at the log's end, and return the items that result from it, by an independent
    projector.
    """
    log, topic = KafkaLog(system.kafka_bootstrap), topics(system).cases_events
    ends, begun = log.ends(topic), time.monotonic()
    while time.monotonic() - begun < PATIENCE_S:
        group = group_of(topic, view_versions(system).live().number)
        is_written = committed_offsets(system.kafka_bootstrap, topic, group) == ends
        there = ArchivedLog(bucket(system)).ends(topic) if archived and is_written else ends
        if is_written and all(there.get(number, 0) == end for number, end in ends.items()):
            break
        time.sleep(0.2)
    else:
        pytest.fail(f"the workers are not at {ends}")
    table, decoder = MemoryCaseTable(), Decoder(SchemaRegistry(system.registry_url).schema_text)
    for number, end in ends.items():
        ViewProjector(table).apply(decode_case_events(decoder, log.read(topic, number, end)))
    return table.items


def items(system: Settings, table: str) -> Items:
    return {(item["pk"], item["sk"]): item for item in case_tables(system)(table).scan()}


def live_items(system: Settings) -> Items:
    return items(system, case_table(system).name)


def effects(system: Settings) -> dict[str, object]:
    """Return everything that would show a side effect: the ends of all logs, and the pending webhook deliveries."""
    log, names = KafkaLog(system.kafka_bootstrap), topics(system)
    with read_transaction(connect(system.control_database)) as connection:
        deliveries = connection.scalar(select(func.count()).select_from(WebhookDeliveryRow))
    return {"deliveries": deliveries, **{name: log.ends(name) for name in (*names.decision_logs, names.quarantine)}}


def test_rebuild_equals_the_live_table_byte_for_byte_and_sends_nothing_again(system: Settings) -> None:
    write_events(system, stream(1, accounts=40))
    wanted = settle(system)
    before, sent, old = live_items(system), effects(system), case_table(system).name
    assert before == wanted
    document = rebuild(rebuild_parts(system), "kafka", keep_old=True, share_events=60).document
    assert (document["equal"], document["differs_from_old"]) == (True, 0)
    assert document["digest"] == document["derived_digest"]
    assert case_table(system).name == document["table"] != old
    assert live_items(system) == before == items(system, old)
    assert effects(system) == sent
    write_events(system, renamed(stream(2, has_gap=False), "f2f2f2f2"))
    assert settle(system) == live_items(system)  # the worker continues in the new table only
    assert items(system, old) == before
    assert len(live_items(system)) > len(before)


def test_rebuild_beside_live_traffic_loses_and_doubles_no_event(system: Settings) -> None:
    stop = Event()
    known = [each for number in range(40) for each in renamed(stream(number, has_gap=False), f"{number:08x}")]
    telling = Thread(target=write_events, args=(system, known, stop))
    telling.start()
    try:
        time.sleep(1)
        outcome = rebuild(rebuild_parts(system), "kafka", keep_old=True)
        time.sleep(1)
    finally:
        stop.set()
        telling.join(60)
    assert outcome.problems == []
    assert settle(system) == live_items(system)


def test_rebuild_killed_at_random_moments_continues_with_an_equal_result(system: Settings, run: CliRunner) -> None:
    seed = int(os.environ.get("REBUILD_SEED", "7"))
    draw, killed = random.Random(seed), 0
    wanted = settle(system, archived=True)
    command = python_command("console.cli.app", "rebuild", "cases", "--from", "s3", "--json")
    for _ in range(int(os.environ.get("REBUILD_KILLS", "3"))):
        process = subprocess.Popen(command, env={**os.environ, **system.variables()}, stdout=subprocess.PIPE)
        begun, wait_s = time.monotonic(), 1.5 + draw.random() * 3
        while process.poll() is None and time.monotonic() - begun < wait_s:
            time.sleep(0.02)
        killed += process.poll() is None
        process.kill()
        process.communicate()
    assert killed > 0, f"seed {seed}: every run was over before it could be killed"
    result = run.invoke(app, ["rebuild", "cases", "--from", "s3", "--json"])
    assert result.exit_code == 0, f"seed {seed}: {result.output}"
    document = json.loads(result.stdout)
    assert (document["equal"], document["differences"]) == (True, [])
    assert view_versions(system).live().number == document["version"]
    assert live_items(system) == wanted


def test_altered_view_is_found_by_the_verifier_and_repaired_by_a_rebuild(system: Settings, run: CliRunner) -> None:
    wanted, topic = settle(system), topics(system).cases_events
    table = case_table(system)
    verifier = ViewVerifier(
        KafkaLog(system.kafka_bootstrap), topic, Decoder(SchemaRegistry(system.registry_url).schema_text)
    )
    group = group_of(topic, view_versions(system).live().number)

    def said() -> list[str]:
        written = committed_offsets(system.kafka_bootstrap, topic, group)
        return [each for shard in verifier.shards() for each in verifier.check(shard, table, written).messages]

    assert said() == []
    original = next(item for item in wanted.values() if item["sk"] == "view")
    table.put([{**original, "score_max": original["score_max"] - 1}])
    [found] = said()
    assert original["case_id"] in found
    result = run.invoke(app, ["rebuild", "cases", "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["differs_from_old"] == 1
    assert original["pk"] in document["differences"][0]
    assert live_items(system) == wanted
    listed = json.loads(run.invoke(app, ["views", "list", "--json"]).stdout)
    old = [row["version"] for row in listed if row["state"] == "old"]
    assert run.invoke(app, ["views", "drop", str(document["version"])]).exit_code == 1
    dropped = run.invoke(app, ["rebuild", "--drop-old", "cases", "--json"])
    assert json.loads(dropped.stdout)["dropped"] == old
    assert [row.state for row in view_versions(system).every() if row.state != "dropped"] == ["live"]


def test_switch_back_to_an_old_version_while_the_worker_is_down(system: Settings, run: CliRunner) -> None:
    """The earlier version catches up first, and the worker continues with it when it starts."""
    first = view_versions(system).live().number
    assert run.invoke(app, ["rebuild", "cases"]).exit_code == 0
    write_events(system, renamed(stream(50, has_gap=False), "babababa"))
    wanted = settle(system)
    stack.down(system, workers(system, CASE_VIEWS), lambda _, __: None)
    assert run.invoke(app, ["views", "switch", str(first)]).exit_code == 0
    assert view_versions(system).live().number == first
    assert live_items(system) == wanted
    write_events(system, renamed(stream(51, has_gap=False), "bbbbbbbb"))
    stack.up(system, workers(system), lambda _, __: None)
    assert settle(system) == live_items(system)
    assert len(live_items(system)) > len(wanted)
