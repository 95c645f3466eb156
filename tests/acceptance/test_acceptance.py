"""The whole path on the real stack: every input is accounted for, survives kills, and replays to equal bytes."""

import json
import re
import struct
import time
import urllib.request
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from sqlalchemy import select
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from console.cases.acts import make_command
from console.cases.attachments import Attachments
from console.cases.desk import CaseDesk
from console.cli.app import app
from console.cli.demo import settle
from console.history.replay import ReplayReport
from console.payments.files import write_rows
from console.payments.intake import AnswerTracker, open_intake, send_generated
from console.system import lifecycle as system
from console.wiring import bucket, case_table, intake_parts, kafka_logs, topics, vault
from domain.cases.events import NoteAdded
from domain.quarantine import Quarantined
from domain.record_types import from_fields
from generator.traffic import Traffic, TrafficOptions
from infra import stack
from infra.services import CASE_VIEWS, FLINK_JOBS, MODULES, job_name, metrics_port
from infra.settings import Settings
from migrations.models import SubjectKeyRow
from migrations.store import connect
from projections.logs.log import KafkaLog
from schemas.codec import Decoder, Encoder, UnreadableRecord
from schemas.registry import SchemaRegistry
from tests.support.recorded import alter
from tests.support.replays import replay_system

PAYMENTS = 8_000


@pytest.fixture(scope="module")
def settled(settings: Settings) -> ReplayReport:
    """Replay once every record sent before is decided. Tests that use this report leave the data unchanged."""
    return settle(settings)


def good(**changed: object) -> dict[str, object]:
    payment = next(iter(Traffic(TrafficOptions(seed=99, accounts=1)))).transaction
    return {**payment, "account_id": "acct-bad-input", **changed}


def quarantined(settings: Settings, reason: str | None = None) -> list[Quarantined]:
    log, decoder = kafka_logs(settings).reader(), kafka_logs(settings).decoder()
    topic = topics(settings).quarantine
    found = [
        from_fields(*decoder.decode(record.value))
        for number, end in log.ends(topic).items()
        for record in log.read(topic, number, end)
    ]
    return [each for each in found if isinstance(each, Quarantined) and reason in (None, each.reason)]


def test_undecidable_records_are_quarantined_and_stop_nothing(settings: Settings) -> None:
    encoder = kafka_logs(settings).encoder()
    whole = encoder.encode("Transaction", good())
    bad = {
        "bad_avro": whole[:30],
        "unknown_schema": b"\x00" + struct.pack(">I", 999_999) + whole[5:],
        "negative_amount": encoder.encode("Transaction", good(amount_minor=-1)),
        "unknown_currency": encoder.encode("Transaction", good(currency="XXQ")),
        "bad_coordinates": encoder.encode("Transaction", good(latitude=float("nan"), longitude=1.0)),
        "too_large": bytes(10_000_000),
        "empty": b"",
        "future_dated": encoder.encode("Transaction", good(event_time=4_000_000_000_000)),
        "card_number": encoder.encode("Transaction", good(card_id="4111111111111111")),
    }
    names, answers = topics(settings), AnswerTracker(kafka_logs(settings))
    places: set[tuple[int, int]] = set()
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap, "message.max.bytes": 16 << 20})
    for value in [*bad.values(), encoder.encode("Transaction", good(amount_minor=0))]:
        producer.produce(
            names.payments_inbound, value, b"acct-bad-input",
            on_delivery=lambda _, message: places.add((message.partition(), message.offset())),
        )  # fmt: skip
    assert producer.flush(30) == 0
    answers.wait_for(places)
    found = {report.reason: report for report in quarantined(settings)}
    assert set(found) == set(bad)
    assert found["too_large"].size == 10_000_000
    assert found["too_large"].body is None
    assert found["card_number"].body is None
    assert found["bad_avro"].body == bad["bad_avro"]
    settle(settings)
    stored_at = found["too_large"].stored_at
    assert stored_at is not None
    assert bucket(settings).get(stored_at) == bad["too_large"]


def test_ingest_accounts_for_every_row_and_flags_equal_the_backtest(
    settings: Settings, command: CliRunner, tmp_path: Path
) -> None:
    made = [each.transaction for each in islice(Traffic(TrafficOptions(seed=77, accounts=300)), 5_000)]
    rows = [{**row, **{key: f"file-{row[key]}" for key in ("account_id", "transaction_id")}} for row in made]
    rows += [rows[7], {**rows[8], "amount_minor": -5}, {**rows[9], "amount_minor": rows[9]["amount_minor"] + 1}]
    rows.append({**rows[10], "account_id": "file-another"})
    file = tmp_path / "payments.parquet"
    write_rows(file, rows)
    result = command.invoke(app, ["ingest", str(file), "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["rows"] == len(rows) == report["flagged"] + report["passed"] + report["quarantined"]
    assert (report["quarantined"], report["duplicates"], report["conflicts"]) == (1, 1, 2)
    assert len(quarantined(settings, "conflict")) == 2
    live, offline = tmp_path / "flags.jsonl", tmp_path / "backtest.jsonl"
    assert command.invoke(app, ["flags", "--out", str(live), "--run", report["run"]]).exit_code == 0
    assert command.invoke(app, ["backtest", str(file), "--out", str(offline)]).exit_code == 0
    assert live.read_bytes() == offline.read_bytes()
    assert sum(bool(json.loads(line)["rules"]) for line in live.read_text().splitlines()) == report["flagged"] > 20


CANARY = "Zoë Kanarienvogel-Quill 7c1e"


def test_erased_subject_is_readable_nowhere_and_history_replays_equally(
    settings: Settings, command: CliRunner, tmp_path: Path
) -> None:
    """In no topic, object, item, log or checkpoint: neither before the erasure, when the data is sealed, nor after
    it.
    """

    def run(*arguments: str, expected: int = 0) -> dict[str, Any]:
        result = command.invoke(app, [*arguments, "--json"])
        assert result.exit_code == expected, result.output
        return dict(json.loads(result.stdout))

    start = 1_740_000_000_000
    rows = [
        good(account_id="acct-zoe", transaction_id=f"zoe-{number}", event_time=start + number * 1_000,
             attributes={"name": CANARY, "number": str(number)})
        for number in range(40)
    ]  # fmt: skip
    rows += [good(account_id="acct-ben", transaction_id="ben-1", attributes={"name": "Ben stays"}), rows[3]]
    file = tmp_path / "payments.jsonl"
    refused = {**rows[0], "transaction_id": "zoe-bad", "amount_minor": CANARY}
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, refused]) + f"not even JSON: {CANARY}\n")
    report = run("ingest", str(file))
    assert (report["rows"], report["quarantined"], report["duplicates"]) == (44, 2, 1)
    live, offline = tmp_path / "flags.jsonl", tmp_path / "backtest.jsonl"
    run("flags", "--out", str(live), "--run", report["run"])
    run("backtest", "--transactions", str(file), "--out", str(offline))
    assert live.read_bytes() == offline.read_bytes()

    settle(settings)
    view = next(view for view in case_table(settings).views() if view.account_id == "acct-zoe")
    stored = Attachments(bucket(settings), vault(settings)).store(
        view.case_id, "acct-zoe", f"{CANARY}.pdf", b"%PDF-" + CANARY.encode()
    )
    note = make_command(
        "note", "acct-zoe", view.case_id, "ana", view.sequence, {"text": f"called {CANARY}", "attachments": (stored,)}
    )
    with CaseDesk(kafka_logs(settings), vault(settings)) as desk:
        answer = desk.ask(note)
    assert isinstance(answer, NoteAdded)
    assert answer.sequence == view.sequence + 1
    until, seen = str(time.time_ns() // 1_000_000 + 3_600_000), str(view.sequence + 1)
    run("case", "act", "snooze", view.case_id, "--actor", "ana", "--reason", f"asks {CANARY}", "--until", until,
        "--seen", seen)  # fmt: skip
    before = settle(settings).document
    shown = json.dumps(run("case", "show", view.case_id), ensure_ascii=False)
    assert (shown.count(CANARY), "sealed:" in shown) == (4, False)
    payments = run("subject", "show", "acct-zoe", "--payments")["payments"]
    assert [payment["attributes"]["name"] for payment in payments] == [CANARY] * 41
    export = tmp_path / "export.txt"
    export.write_text(CANARY)
    file.unlink()
    looked = run("canary", CANARY, "--also", str(tmp_path), expected=1)
    assert [place["where"] for place in looked["found"]] == [str(export)]
    export.unlink()
    assert all(looked[store] for store in ("kafka", "s3", "dynamodb", "control_store", "files"))
    stores = {each["store"] for each in run("canary", "acct-zoe", expected=1)["found"]}
    assert stores == {"kafka", "s3", "dynamodb", "control_store", "files"}  # the search finds a text that is there

    (wrapped,) = wrapped_keys(settings, "acct-zoe")
    database = Path(settings.control_database.removeprefix("sqlite:///"))
    assert wrapped in database.read_bytes()
    assert run("erase", "acct-zoe", f"intake/{report['run']}", "--actor", "dpo", "--reason", "request 17") == {
        "subjects": 2, "keys_destroyed": 2, "erased_at_ms": run("subject", "show", "acct-zoe")["erasures"][0]["at_ms"],
    }  # fmt: skip
    assert not any(wrapped[at : at + 16] in database.read_bytes() for at in range(0, len(wrapped), 16))
    after = json.dumps(run("case", "show", view.case_id), ensure_ascii=False)
    assert (after.count("[erased]"), CANARY in after) == (4, False)
    payments = run("subject", "show", "acct-zoe", "--payments")["payments"]
    assert {payment["attributes"]["name"] for payment in payments} == {"[erased]"}
    assert run("subject", "show", "acct-ben", "--payments")["payments"][0]["attributes"] == {"name": "Ben stays"}
    assert run("canary", CANARY)["found"] == []
    again = replay_system(settings, "s3")
    assert again.problems == []
    assert again.document["replay_digest"] == before["replay_digest"]


def wrapped_keys(settings: Settings, subject: str) -> list[bytes]:
    with Session(connect(settings.control_database)) as session:
        return list(session.scalars(select(SubjectKeyRow.wrapped).where(SubjectKeyRow.subject == subject)))


def test_every_answer_is_in_the_analytics_table(settled: ReplayReport, command: CliRunner) -> None:
    counted = command.invoke(app, ["analytics", "--json"])
    assert counted.exit_code == 0, counted.output
    found = json.loads(counted.stdout)
    assert (found["payments"], found["duplicates"]) == (settled.document["payments"], settled.document["duplicates"])


@pytest.mark.usefixtures("settled")
def test_an_altered_view_is_named(settings: Settings, command: CliRunner) -> None:
    table = case_table(settings)
    original = next(item for item in table.scan() if item["sk"] == "view")
    table.put([{**original, "score_max": original["score_max"] - 1}])
    try:
        result = command.invoke(app, ["replay", "--json"])
        assert result.exit_code == 1
        assert original["pk"] in json.loads(result.stdout)["problems"][0]
    finally:
        table.put([original])
    assert command.invoke(app, ["replay"]).exit_code == 0


def test_an_altered_event_in_the_archive_is_named_and_changes_the_digest(
    settings: Settings, settled: ReplayReport, command: CliRunner
) -> None:
    before = settled.document
    store = bucket(settings)
    key = next(key for key in store.keys("log/cases.events/") if b"velocity" in (store.get(key) or b""))
    original, metadata = store.get(key), store.metadata(key)
    assert original is not None
    place = {"Bucket": store._bucket, "Key": store._prefix + key, "Metadata": metadata}
    store._client.put_object(**place, Body=original.replace(b"velocity", b"velocitz", 1))  # type: ignore[arg-type]
    try:
        result = command.invoke(app, ["replay", "--from", "s3", "--json"])
        assert result.exit_code == 1
        document = json.loads(result.stdout)
        assert "cases.events partition" in document["problems"][0]
        assert document["live_digest"] != before["live_digest"] == document["replay_digest"]
    finally:
        store._client.put_object(**place, Body=original)  # type: ignore[arg-type]


def test_certificates_are_equal_from_every_source(
    settled: ReplayReport, command: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From Kafka and from the archive, by one process and by several, with the registry and without it: equal bytes."""
    files = [tmp_path / name for name in ("kafka", "s3", "kafka-without", "s3-without")]
    for number, file in enumerate(files):
        if number == 2:
            monkeypatch.setenv("FRAUDCASE_REGISTRY_PORT", "1")  # no registry listens there
        source, workers = file.name.partition("-")[0], str(1 + number % 3)
        arguments = ["replay", "--from", source, "--workers", workers, "--certificate", str(file)]
        result = command.invoke(app, [*arguments, *(("--expect", str(files[0])) if number else ())])
        assert result.exit_code == 0, result.output
    assert len({file.read_bytes() for file in files}) == 1
    made = json.loads(files[0].read_text())
    assert made["matches_live"]
    assert made["counts"]["payments"] == settled.document["payments"]
    assert made["digests"]["history"] == settled.document["replay_digest"] == settled.document["live_digest"]
    files[0].write_text(json.dumps({**made, "root": "0" * 64}))
    assert command.invoke(app, ["replay", "--expect", str(files[0])]).exit_code == 1


@pytest.mark.usefixtures("settled")
def test_replay_until_a_time_leaves_out_later_records(settings: Settings, command: CliRunner, tmp_path: Path) -> None:
    log, topic = KafkaLog(settings.kafka_bootstrap), topics(settings).payments_inbound
    times = sorted(
        record.timestamp_ms for number, end in log.ends(topic).items() for record in log.read(topic, number, end)
    )
    middle, files = times[len(times) // 2], (tmp_path / "kafka", tmp_path / "s3")
    for file in files:
        result = command.invoke(
            app, ["replay", "--from", file.name, "--until", str(middle), "--certificate", str(file)]
        )
        assert result.exit_code == 0, result.output
    made = json.loads(files[0].read_text())
    assert files[0].read_bytes() == files[1].read_bytes()
    assert 0 < sum(end for _, end in made["log_ranges"]["payments.inbound"].values()) < len(times)
    assert made["until"] == middle


@pytest.mark.usefixtures("settled")
def test_altered_payment_in_the_archive_with_a_new_checksum_is_named(
    settings: Settings, command: CliRunner, tmp_path: Path
) -> None:
    store, registry = bucket(settings), SchemaRegistry(settings.registry_url)
    decoder, encoder = Decoder(registry.schema_text), Encoder(registry.ids())
    originals: dict[str, tuple[bytes | None, dict[str, str]]] = {}

    def put(key: str, body: bytes, metadata: Mapping[str, str]) -> None:
        originals.setdefault(key, (store.get(key), store.metadata(key)))
        place = {"Bucket": store._bucket, "Key": store._prefix + key, "Metadata": dict(metadata)}
        store._client.put_object(**place, Body=body)  # type: ignore[arg-type]

    def change(value: bytes) -> bytes | None:
        try:
            name, data = decoder.decode(value)
        except UnreadableRecord:
            return None
        if name != "Transaction" or data["account_id"] == "acct-bad-input":
            return None
        return encoder.encode(name, {**data, "amount_minor": data["amount_minor"] + 1})

    partition, offset = alter(store, put, topics(settings).payments_inbound, change)
    try:
        file = tmp_path / "certificate.json"
        result = command.invoke(app, ["replay", "--from", "s3", "--no-live-views", "--certificate", str(file)])
        assert result.exit_code == 1
        first = json.loads(file.read_text())["first_difference"]
        assert (first["topic"], first["partition"], first["offset"]) == ("payments.inbound", partition, offset)
        assert first["recorded"]["transaction_id"] == first["derived"]["transaction_id"]
    finally:
        for key, (body, metadata) in originals.items():
            put(key, body or b"", metadata)
    assert command.invoke(app, ["replay", "--from", "s3"]).exit_code == 0


def test_kills_during_a_run_change_nothing(settings: Settings) -> None:
    """The jobs (with their TaskManagers), a projection worker and Kafka are killed; in the end every record is there
    once.

    No other program stops because of it; the status of the stack shows that.
    """
    answers, (intake, sent) = AnswerTracker(kafka_logs(settings)), open_intake(intake_parts(settings))
    traffic = iter(Traffic(TrafficOptions(seed=5, accounts=2_000, velocity_share=0.001)))
    send_generated(intake, islice(traffic, PAYMENTS // 2), None, lambda _: None)
    intake.flush()
    stack.kill(settings, CASE_VIEWS)
    stack.kill(settings, FLINK_JOBS)
    send_generated(intake, islice(traffic, PAYMENTS // 2), None, lambda _: None)
    intake.flush()
    stack.kill(settings, "kafka")
    assert sorted(system.up(settings, report=lambda _, __: None)) == sorted(["kafka", CASE_VIEWS, FLINK_JOBS])
    answers.wait_for(sent.places)
    result = settle(settings)
    assert result.document["equal"]
    assert result.document["live_views_digest"] == result.document["replay_views_digest"]
    from_archive = replay_system(settings, "s3")
    assert from_archive.problems == []
    assert from_archive.document["live_digest"] == result.document["replay_digest"]
    flags, opened = result.document["flags"], result.document["cases_opened"]
    assert isinstance(flags, int)
    assert isinstance(opened, int)
    assert flags > 50
    assert 10 < opened <= flags


def test_status_of_the_stack_is_shown(settings: Settings, command: CliRunner) -> None:
    assert system.up(settings, report=lambda _, __: None) == []
    result = command.invoke(app, ["status", "--json"])
    assert result.exit_code == 0, result.output
    assert {each["name"]: each["is_ready"] for each in json.loads(result.stdout)} == dict.fromkeys(
        [part.name for part in system.all_programs(settings)], True
    )
    assert command.invoke(app, ["doctor"]).exit_code == 0
    assert "differs" not in command.invoke(app, ["digest"]).stdout


@pytest.mark.parametrize("name", MODULES)
def test_each_job_exposes_its_own_metrics(settings: Settings, name: str) -> None:
    """Three MiniClusters share a JVM, and each has a metrics port of its own."""
    with urllib.request.urlopen(f"http://{settings.host}:{metrics_port(settings, name)}/metrics") as response:
        shown = response.read().decode()
    assert set(re.findall(r'job_name="([^"]*)"', shown)) == {job_name(settings, name)}
    assert "flink_taskmanager_job_task_numRecordsIn" in shown
