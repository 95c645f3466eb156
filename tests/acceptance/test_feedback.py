"""Feedback from people to decisions on the real stack: closed cases, labels from files, rule packs."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from console.cli.demo import settle
from console.payments.intake import AnswerTracker
from console.system import lifecycle as system
from console.waiting import end_offsets, wait_until
from console.wiring import control_store, kafka_logs, rules_log, topics
from domain.record_types import from_fields, to_fields
from domain.risk.default_packs import THREE
from domain.risk.events import FraudConfirmed, RiskScored, RulesActivated
from domain.risk.families.entity_risk import EntityRisk
from domain.risk.families.velocity import Velocity
from domain.risk.packs import parse_pack
from infra import stack
from infra.services import FLINK_JOBS, PROCESS
from infra.settings import Settings
from projections.logs.log import decode_answers
from projections.logs.partition_writer import write_to_partitions
from schemas.codec import UnreadableRecord
from tests.support.feedback import BURST, append, burst, send
from tests.support.replays import replay_system
from tests.support.stack import run_json


def inbound(settings: Settings, kind: type[Any]) -> Iterator[tuple[int, Any]]:
    """Yield the records of one type in payments.inbound, with their partition."""
    log, decoder = kafka_logs(settings).reader(), kafka_logs(settings).decoder()
    topic = topics(settings).payments_inbound
    for partition, end in log.ends(topic).items():
        for record in log.read(topic, partition, end):
            with suppress(UnreadableRecord):  # other tests write unreadable records
                name, data = decoder.decode(record.value)
                if name == kind.__name__:
                    yield partition, from_fields(name, data)


def labels_on(settings: Settings, account: str) -> Counter[tuple[str, int]]:
    """Count each label on an account's payments by partition."""
    return Counter(
        (label.transaction_id, partition)
        for partition, label in inbound(settings, FraudConfirmed)
        if label.account_id == account
    )


def test_a_case_closed_as_fraud_labels_its_payments_though_the_worker_was_dead(
    settings: Settings, command: CliRunner
) -> None:
    account = "acct-feedback"
    send(settings, burst(account, 1_760_000_000_000))
    settle(settings)
    (case,) = [line for line in run_json(command, "case", "list", "--limit", "10000") if line["account_id"] == account]
    shown = run_json(command, "case", "show", case["case_id"])
    assert shown["status"] == "new"
    stack.kill(settings, PROCESS)
    who = ("--actor", "ana", "--reason", "the customer says so")
    stale = run_json(command, "case", "escalate", case["case_id"], *who, "--seen", "0", code=1)
    assert stale["answer"] == "CommandRejected"
    disposition = ("--disposition", "confirmed_fraud")
    closed = run_json(command, "case", "close", case["case_id"], *disposition, *who)
    assert (closed["answer"], closed["payments"]) == ("CaseClosed", len(shown["transactions"]))
    assert labels_on(settings, account) == Counter()
    assert system.up(settings, report=lambda _, __: None) == [PROCESS]
    wanted = {(each, partition) for each in shown["transactions"] for partition in range(settings.partitions)}
    wait_until(lambda: len(labels_on(settings, account)), len(wanted), "labels", patience_s=30)
    assert labels_on(settings, account) == Counter(wanted)
    settle(settings)
    after = run_json(command, "case", "show", case["case_id"])
    assert (after["status"], after["disposition"], after["closed_by"]) == ("closed", "confirmed_fraud", "ana")


def test_labels_from_a_file_are_written_once(settings: Settings, command: CliRunner, tmp_path: Path) -> None:
    account = "acct-labelled"
    payments = burst(account, 1_760_100_000_000)
    send(settings, payments)
    file = tmp_path / "labels.csv"
    rows = [f"{payments[number]['transaction_id']},{number % 2}\n" for number in range(BURST)]
    file.write_text("".join(["transaction_id,fraud\n", *rows, "nobody-knows-it,1\n"]))
    first = run_json(command, "labels", "ingest", str(file), "--actor", "ben")
    frauds = BURST // 2
    assert (first["rows"], first["found"], first["unknown"], first["written"]) == (BURST + 1, frauds, 1, frauds)
    second = run_json(command, "labels", "ingest", str(file), "--actor", "ben")
    assert (second["written"], second["known_already"]) == (0, frauds)
    assert set(labels_on(settings, account).values()) == {1}
    assert len(labels_on(settings, account)) == frauds * settings.partitions


@contextmanager
def afterwards_as_before(settings: Settings) -> Iterator[str]:
    """Activate the pack of the other tests again afterwards. Yield its id."""
    store = control_store(settings)
    before = next(row for row in store.packs() if row.state == "active").pack_id
    try:
        yield before
    finally:
        store.activate(before, "system", rules_log(settings))


def test_an_activated_pack_decides_in_every_partition(settings: Settings, command: CliRunner, tmp_path: Path) -> None:
    velocity = THREE.rules[0]
    assert isinstance(velocity, Velocity)
    pack = replace(THREE, name="strict", rules=(replace(velocity, at_least=2),))
    file = tmp_path / "strict.yaml"
    file.write_text(pack.canonical)  # JSON is YAML
    with afterwards_as_before(settings) as before:
        run_json(command, "rules", "draft", str(file), "--actor", "ana")
        run_json(command, "rules", "approve", "strict", "--actor", "ana", code=1)
        run_json(command, "rules", "activate", "strict", "--actor", "ana", code=1)
        run_json(command, "rules", "approve", "strict", "--actor", "ben")
        activated = run_json(command, "rules", "activate", "strict", "--actor", "ana")
        assert activated["state"] == "active"
        assert run_json(command, "rules", "activate", "strict", "--actor", "ana")["partitions_written"] == 0
        written = Counter(
            number for number, event in inbound(settings, RulesActivated) if event.pack_id == pack.pack_id
        )
        assert written == Counter(range(settings.partitions))
        places = send(settings, burst("acct-strict", 1_760_200_000_000))
        decided = scored(settings, places)
        assert {event.pack_id for event in decided} == {pack.pack_id}
        assert sum(bool(event.rules) for event in decided) == BURST - 1
        states = {row["pack_id"]: row["state"] for row in run_json(command, "rules", "list")}
        assert (states[before], states[pack.pack_id]) == ("retired", "active")


def scored(settings: Settings, places: set[tuple[int, int]]) -> list[RiskScored]:
    """Return the decisions on payments, by log position."""
    log, decoder = kafka_logs(settings).reader(), kafka_logs(settings).decoder()
    topic = topics(settings).risk_scored
    answers = (
        answer
        for partition, end in log.ends(topic).items()
        for record in log.read(topic, partition, end)
        for answer in decode_answers(record, decoder)
    )
    return [each for each in answers if isinstance(each, RiskScored) and (each.partition, each.offset) in places]


def test_rules_by_merchant_decide_across_accounts_through_kills_and_replay(
    settings: Settings, command: CliRunner, tmp_path: Path
) -> None:
    """Live decisions, decisions derived again from the recorded log, and both replays agree, although the jobs were
    killed.

    This includes a label that entered the log between payments.
    """
    shop = Velocity(name="shop", typology="shop_attack", points=600, by="merchant", window_ms=60_000, at_least=10)
    till = EntityRisk(
        name="till", typology="bad_till", points=500, by="terminal", window_ms=28 * 86_400_000, at_least=1
    )
    pack = replace(THREE, name="shops", rules=(*THREE.rules, shop, till))
    file = tmp_path / "shops.yaml"
    file.write_text(pack.canonical)
    with afterwards_as_before(settings):
        run_json(command, "rules", "draft", str(file), "--actor", "ana")
        run_json(command, "rules", "approve", "shops", "--actor", "ben")
        run_json(command, "rules", "activate", "shops", "--actor", "ana")
        (first, *_) = burst("acct-first", 1_760_200_000_000)
        send(settings, [first])
        labels = tmp_path / "labels.jsonl"
        labels.write_text(json.dumps({"transaction_id": first["transaction_id"], "fraud": 1}))
        assert run_json(command, "labels", "ingest", str(labels))["written"] == 1
        crowd = [
            {**burst(f"acct-crowd-{number}", 1_760_300_000_000 + number)[0], "merchant_id": "stormed"}
            for number in range(40)
        ]
        crowd[3]["terminal_id"] = first["terminal_id"]
        send(settings, crowd[:20])
        answers = AnswerTracker(kafka_logs(settings))
        stack.kill(settings, FLINK_JOBS)
        unanswered = append(settings, crowd[20:])
        assert system.up(settings, report=lambda _, __: None) == [FLINK_JOBS]
        answers.wait_for(unanswered)
        settled = settle(settings).document
        flagged = settled["entity_flags"]
        assert isinstance(flagged, int)
        assert (
            20 <= flagged <= 31
        )  # all of the second half; in the first half it depends on their order of arrival at the merchant
        assert replay_system(settings, "s3").problems == []
        cases = run_json(command, "case", "list", "--limit", "10000")
        stormed = [case for case in cases if case["typology"] == "shop_attack"]
        assert len(stormed) == len({case["account_id"] for case in stormed}) == flagged
        live, again = tmp_path / "live.jsonl", tmp_path / "again.jsonl"
        run_json(command, "flags", "--out", str(live))
        run_json(command, "backtest", "--from-log", "--out", str(again))
        assert live.read_bytes() == again.read_bytes()
        decided = [json.loads(line) for line in live.read_text().splitlines()]
        assert sum("shop" in line["rules"] for line in decided) == flagged
        assert [line["transaction_id"] for line in decided if "till" in line["rules"]] == [crowd[3]["transaction_id"]]


def test_after_a_crash_only_the_missing_partitions_are_written(settings: Settings) -> None:
    """In the logs themselves: records since the start of the activation are found, whichever process wrote them."""
    logs = rules_log(settings)
    pack = parse_pack(next(row.document for row in control_store(settings).packs() if row.state == "active"))
    record = RulesActivated(pack_id=pack.pack_id, pack=pack.canonical, activated_by="crashed")
    since = logs.ends()
    value = kafka_logs(settings).encoder().encode("RulesActivated", to_fields(record))
    topic = topics(settings).ruled_logs[-1]
    write_to_partitions(settings.kafka_bootstrap, topic, b"", value, [1])
    wanted = settings.partitions * len(topics(settings).ruled_logs)
    assert logs.write(record, since) == wanted - 1
    assert logs.write(record, since) == 0
    grown = {name: sum(end_offsets(settings.kafka_bootstrap, name).values()) for name in topics(settings).ruled_logs}
    before = {name: sum(ends.values()) for name, ends in since.items()}
    assert grown == {name: end + settings.partitions for name, end in before.items()}
