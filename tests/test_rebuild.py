"""A rebuild on the real stack: beside live traffic, killed in the middle, from Kafka and from S3, switched by name."""

import json
import os
import random
import subprocess
import time
from itertools import islice, takewhile
from threading import Event, Thread

import pytest
from sqlalchemy import func, select
from typer.testing import CliRunner

from console.cli import app
from console.demo_commands import settle
from console.intake import open_intake, send_generated
from console.rebuilding import rebuild
from console.work import case_table, case_tables, topics, view_versions
from generator.traffic import Traffic, TrafficOptions
from infra import stack
from infra.parts import python
from infra.services import CASE_VIEWS, services
from infra.settings import Settings
from migrations.models import WebhookDeliveryRow
from migrations.store import connect, reading
from projections.case_view import Item
from projections.log import KafkaLog

pytestmark = pytest.mark.acceptance
Items = dict[tuple[str, str], Item]


def items(settings: Settings, table: str) -> Items:
    return {(item["pk"], item["sk"]): item for item in case_tables(settings)(table).scan()}


def live_items(settings: Settings) -> Items:
    return items(settings, case_table(settings).name)


def pay(settings: Settings, seed: int, payments: int, stop: Event | None = None) -> None:
    intake, _ = open_intake(settings)
    made = islice(Traffic(TrafficOptions(seed=seed, accounts=600, velocity_share=0.02)), payments)
    traffic = takewhile(lambda _: stop is None or not stop.wait(0.005), made)
    send_generated(intake, traffic, None, lambda _: None)
    intake.flush()


def effects(settings: Settings) -> dict[str, object]:
    """Everything that a side effect would be seen in: the ends of all logs, and what is on its way to webhooks."""
    log, names = KafkaLog(settings.kafka_bootstrap), topics(settings)
    with reading(connect(settings.control_database)) as connection:
        deliveries = connection.scalar(select(func.count()).select_from(WebhookDeliveryRow))
    return {"deliveries": deliveries, **{name: log.ends(name) for name in (*names.decision_logs, names.quarantine)}}


def test_a_rebuild_is_the_live_table_byte_for_byte_and_sends_nothing_again(settings: Settings) -> None:
    pay(settings, 21, 6_000)
    settle(settings)
    before, sent, old = live_items(settings), effects(settings), case_table(settings).name
    assert len(before) > 200
    outcome = rebuild(settings, "kafka", keep_old=True)
    document = outcome.document
    assert (document["equal"], document["differs_from_old"]) == (True, 0)
    assert document["digest"] == document["derived_digest"]
    assert case_table(settings).name == document["table"] != old
    assert live_items(settings) == before == items(settings, old)
    assert effects(settings) == sent
    pay(settings, 22, 3_000)  # the worker goes on in the new table, and in it alone
    assert settle(settings).document["equal"]
    assert items(settings, old) == before
    assert len(live_items(settings)) > len(before)


def test_beside_live_traffic_nothing_is_lost_or_doubled(settings: Settings) -> None:
    stop = Event()
    paying = Thread(target=pay, args=(settings, 31, 100_000, stop))
    paying.start()
    try:
        time.sleep(1)
        outcome = rebuild(settings, "kafka", keep_old=True)
        time.sleep(1)
    finally:
        stop.set()
        paying.join(60)
    assert outcome.problems == []
    result = settle(settings)
    assert result.document["equal"]
    assert result.document["live_views_digest"] == result.document["replay_views_digest"]


def test_killed_at_random_moments_it_goes_on_and_comes_out_the_same(settings: Settings, command: CliRunner) -> None:
    seed = int(os.environ.get("REBUILD_SEED", "7"))
    draw = random.Random(seed)
    settle(settings)
    before, versions, killed = live_items(settings), view_versions(settings), 0
    run = python("console.cli", "rebuild", "cases", "--from", "s3", "--json")
    for _ in range(int(os.environ.get("REBUILD_KILLS", "4"))):
        process = subprocess.Popen(run, env={**os.environ, **settings.variables()}, stdout=subprocess.PIPE)
        begun = time.monotonic()
        while process.poll() is None and time.monotonic() - begun < 2.0 + draw.random() * 4:
            time.sleep(0.02)
        killed += process.poll() is None
        process.kill()
        process.communicate()
    assert killed > 0, f"seed {seed}: every run was over before it could be killed"
    result = command.invoke(app, ["rebuild", "cases", "--from", "s3", "--json"])
    assert result.exit_code == 0, f"seed {seed}: {result.output}"
    document = json.loads(result.stdout)
    assert (document["equal"], document["differences"]) == (True, [])
    assert versions.live().number == document["version"]
    assert live_items(settings) == before
    assert settle(settings).document["equal"]


def test_an_altered_old_view_is_named_and_healed_and_old_versions_can_go(
    settings: Settings, command: CliRunner
) -> None:
    settle(settings)
    table = case_table(settings)
    original = next(item for item in table.scan() if item["sk"] == "view")
    table.put([{**original, "score_max": original["score_max"] - 1}])
    result = command.invoke(app, ["rebuild", "cases", "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["differs_from_old"] == 1
    assert original["pk"] in document["differences"][0]
    assert settle(settings).document["equal"]
    listed = json.loads(command.invoke(app, ["views", "list", "--json"]).stdout)
    old = [row["version"] for row in listed if row["state"] == "old"]
    assert old
    assert command.invoke(app, ["views", "drop", str(document["version"])]).exit_code == 1
    result = command.invoke(app, ["rebuild", "--drop-old", "cases", "--json"])
    assert json.loads(result.stdout)["dropped"] == old
    assert [row.state for row in view_versions(settings).every() if row.state != "dropped"] == ["live"]


def test_back_to_an_old_version_while_the_worker_is_down(settings: Settings, command: CliRunner) -> None:
    """The version that comes back catches up first, and the worker that starts goes on with it."""
    first = view_versions(settings).live().number
    assert command.invoke(app, ["rebuild", "cases"]).exit_code == 0
    pay(settings, 41, 2_000)
    settle(settings)
    stack.down(settings, [part for part in services(settings) if part.name == CASE_VIEWS], lambda _, __: None)
    before = live_items(settings)
    assert command.invoke(app, ["views", "switch", str(first)]).exit_code == 0
    assert view_versions(settings).live().number == first
    assert live_items(settings) == before
    pay(settings, 42, 2_000)
    stack.up(settings, services(settings), lambda _, __: None)
    assert settle(settings).document["equal"]
    assert len(live_items(settings)) > len(before)
