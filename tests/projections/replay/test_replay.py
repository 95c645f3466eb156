"""A replay and its certificate: equal from every source and with any number of workers, and different after any
alteration.

The history is made by the real processors and archived by the real writers, in memory and in a folder.
tests/acceptance/test_acceptance.py tests the real stores.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import reduce
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

import domain.cases.escalation
from console.history.replay import replay
from projections.logs.kafka_logs import KafkaLogs
from projections.replay.certificate import certificate
from projections.replay.outcome import ReplayComparison
from projections.replay.replay import derive, read_recorded_history
from projections.replay.replay import replay as replayed_from
from projections.replay.sources import KafkaSource, LogGap
from projections.views.case_view import Item
from schemas.codec import Decoder
from tests.support.certificates import certified
from tests.support.recorded import (
    HOUR_MS,
    RULES,
    TOPICS,
    FolderBucket,
    FolderSource,
    MemoryLogs,
    MemorySource,
    Recorder,
    Recording,
    alter,
    archive,
    recorded,
    traffic,
)
from tests.support.records import ENCODER, TEXTS

PAYMENTS = traffic(1_200)


@pytest.fixture(scope="module")
def logs() -> Recording:
    return recorded(PAYMENTS).logs


@pytest.fixture(scope="module")
def kept(logs: Recording, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archive the history in a folder."""
    folder = tmp_path_factory.mktemp("archive")
    archive(logs, folder)
    return folder


@pytest.fixture
def folder(kept: Path, tmp_path: Path) -> Path:
    """Copy the archive, so that a test may alter it."""
    return shutil.copytree(kept, tmp_path / "copy")


def alter_in(folder: Path, topic: str, change: Callable[[bytes], bytes | None]) -> tuple[int, int]:
    store = FolderBucket(folder)
    return alter(store, store.put, topic, change)


@pytest.fixture(scope="module")
def expected(logs: Recording) -> dict[str, Any]:
    return certified(MemorySource(logs))


def test_history_has_every_kind_of_record_to_compare(logs: Recording, expected: dict[str, Any]) -> None:
    assert expected["matches_live"]
    assert expected["first_difference"] is None
    counts = expected["counts"]
    assert all(counts.values()), counts
    assert counts["payments"] == 1_200
    assert (counts["duplicates"], counts["quarantined"]) == (1, 1)
    deciding = (TOPICS.payments_inbound, TOPICS.entities_inbound, TOPICS.cases_inbox)
    assert expected["records"] == sum(len(records) for topic in deciding for records in logs[topic])
    assert {each["record"] for each in expected["schemas"]} >= {"Transaction", "RiskFlagged", "EntityPayment"}
    assert all(each["version"] for each in expected["schemas"])


def test_another_seed_has_another_root(expected: dict[str, Any]) -> None:
    found = certified(MemorySource(recorded(traffic(1_200, seed=4)).logs))
    assert found["matches_live"]
    assert found["root"] != expected["root"]
    assert found["digests"] != expected["digests"]


@pytest.mark.parametrize("workers", [1, 2])
def test_archive_and_several_workers_give_an_equal_certificate(
    kept: Path, expected: dict[str, Any], workers: int
) -> None:
    assert certified(FolderSource(kept), workers) == expected


def test_broker_without_a_registry_results_in_an_equal_certificate(
    logs: Recording, kept: Path, expected: dict[str, Any]
) -> None:
    """The client library's mock broker, read by the real client. Schemas come from the archive or match the bundled
    ones.
    """
    broker = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})
    (found,) = broker.list_topics(timeout=10).brokers.values()
    for topic, partitions in logs.items():
        broker.list_topics(topic, timeout=10)  # it makes it
        for number, records in enumerate(partitions):
            for record in records:
                broker.produce(topic, record.value, record.key, number, timestamp=record.timestamp_ms)
    assert broker.flush(30) == 0
    source = KafkaSource(
        KafkaLogs(bootstrap=f"{found.host}:{found.port}", registry_url="http://127.0.0.1:1", topics=TOPICS),
        FolderSource(kept),
    )
    assert certified(source) == expected


def test_environment_and_location_do_not_change_the_certificate(folder: Path, expected: dict[str, Any]) -> None:
    script = (
        "import json; from pathlib import Path; from tests.support.recorded import *\n"
        "from tests.support.certificates import certified\n"
        f"print(json.dumps(certified(FolderSource(Path({str(folder)!r})))))"
    )
    environment = {
        **os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Kathmandu", "LANG": "tr_TR.UTF-8", "HOME": str(folder),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]),
    }  # fmt: skip
    made = subprocess.run([sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, check=True)
    assert json.loads(made.stdout) == expected


def test_redelivered_records_do_not_change_the_root(logs: Recording, expected: dict[str, Any]) -> None:
    again = {topic: [list(records) for records in partitions] for topic, partitions in logs.items()}
    for topic in (TOPICS.entities_inbound, TOPICS.risk_scored, TOPICS.cases_inbox, TOPICS.cases_events):
        for records in again[topic]:
            records += [each._replace(offset=len(records) + n) for n, each in enumerate(records[-20:])]
    found = certified(MemorySource(again))
    assert found["root"] == expected["root"]
    assert found["matches_live"]
    assert found["records"] > expected["records"]


def test_certificate_until_a_time_equals_the_one_made_at_that_time(expected: dict[str, Any]) -> None:
    before = Recorder()
    before.pay(PAYMENTS[:700])
    last_ms = max(record.timestamp_ms for partitions in before.logs.values() for log in partitions for record in log)
    then = certified(MemorySource(before.logs))
    before.now_ms = last_ms + 1
    before.pay([(last_ms + 1 + number, fields) for number, (_, fields) in enumerate(PAYMENTS[700:])])
    before.tick()
    later = certified(MemorySource(before.logs), until_ms=last_ms)
    assert {**later, "until": None} == then
    assert later["matches_live"]
    assert certified(MemorySource(before.logs))["root"] not in (then["root"], expected["root"])


def test_records_until_a_time_are_compared_in_full(folder: Path, logs: Recording) -> None:
    last_ms = max(record.timestamp_ms for record in logs[TOPICS.payments_inbound][0])
    alter_in(folder, TOPICS.cases_events, lambda value: _changed(value, "CaseOpened", score=1))
    assert certified(FolderSource(folder), until_ms=last_ms)["first_difference"]["topic"] == "cases.events"
    assert certified(FolderSource(folder), until_ms=0)["matches_live"]


def _changed(value: bytes, name: str, **fields: Any) -> bytes | None:
    found, data = Decoder(TEXTS.get).decode(value)
    return ENCODER.encode(name, {**data, **fields}) if found == name else None


@pytest.mark.parametrize("number", [0, 17])
def test_an_altered_payment_is_named(folder: Path, expected: dict[str, Any], number: int) -> None:
    """Its SHA-256 was recomputed: only the recorded decision shows that the payment was a different one."""
    seen, named = 0, ""

    def change(value: bytes) -> bytes | None:
        nonlocal seen, named
        name, data = Decoder(TEXTS.get).decode(value)
        if name != "Transaction":
            return None
        seen += 1
        if seen <= number:
            return None
        named = data["transaction_id"]
        return ENCODER.encode("Transaction", {**data, "amount_minor": data["amount_minor"] + 1})

    partition, offset = alter_in(folder, TOPICS.payments_inbound, change)
    found = certified(FolderSource(folder))
    assert found["root"] != expected["root"]
    assert not found["matches_live"]
    first = found["first_difference"]
    assert (first["topic"], first["partition"], first["offset"]) == ("payments.inbound", partition, offset)
    assert first["transaction_id"] == named
    assert first["recorded"]["content_digest"] != first["derived"]["content_digest"]


def test_altered_payment_that_is_now_refused_is_named(folder: Path) -> None:
    place = alter_in(folder, TOPICS.payments_inbound, lambda value: _changed(value, "Transaction", amount_minor=-1))
    first = certified(FolderSource(folder))["first_difference"]
    assert (first["partition"], first["offset"]) == place
    assert first["recorded"]
    assert first["derived"] is None


@pytest.mark.parametrize(
    "topic, name, fields",
    [
        ("entities.inbound", "EntityPayment", {"amount_minor": 5}),
        ("cases.inbox", "RiskFlagged", {"score": 1}),
        ("cases.events", "CaseOpened", {"merchant_id": "another"}),
    ],
)
def test_an_altered_record_is_named(folder: Path, topic: str, name: str, fields: dict[str, Any]) -> None:
    place = alter_in(folder, f"t.{topic}", lambda value: _changed(value, name, **fields))
    found = certified(FolderSource(folder))
    first = found["first_difference"]
    assert (first["topic"], first["partition"], first["offset"]) == (topic, *place)
    assert first["recorded"] != first["derived"] is not None
    assert all(first["recorded"][key] == value for key, value in fields.items())


def test_an_altered_answer_is_named(logs: Recording) -> None:
    def change(data: dict[str, Any]) -> dict[str, Any]:
        return {**data, "scored": [{**data["scored"][0], "score": 999}, *data["scored"][1:]]}

    again = {**logs, TOPICS.risk_scored: [list(records) for records in logs[TOPICS.risk_scored]]}
    log = next(records for records in again[TOPICS.risk_scored] if records)
    data = change(Decoder(TEXTS.get).decode(log[1].value)[1])
    log[1] = log[1]._replace(value=ENCODER.encode("DecisionsMade", data))
    first = certified(MemorySource(again))["first_difference"]
    assert (first["partition"], first["offset"]) == (data["partition"], data["scored"][0]["offset"])
    assert (first["recorded"]["score"], first["transaction_id"]) == (999, data["scored"][0]["transaction_id"])


def test_record_with_a_stale_checksum_is_named(folder: Path, expected: dict[str, Any]) -> None:
    store = FolderBucket(folder)
    transaction = str(PAYMENTS[0][1]["transaction_id"]).encode()
    key = next(key for key in store.keys("log/t.payments.inbound/") if transaction in (store.get(key) or b""))
    body = store.get(key) or b""
    store.put(key, body.replace(transaction, b"\x01" + transaction[1:], 1), store.metadata(key))
    found = replayed_from(FolderSource(folder), TOPICS)
    (altered,) = found.altered
    assert "was altered" in altered.text
    first = certificate(found, TOPICS, None, ())["first_difference"]
    assert (first["topic"], first["partition"], first["offset"]) == ("payments.inbound", *altered[1:3])
    assert first["recorded"]["transaction_id"] == transaction.decode()
    assert certificate(found, TOPICS, None, ())["root"] != expected["root"]


def test_an_altered_constant_is_named(
    logs: Recording, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(domain.cases.escalation, "ESCALATE_AT_FLAGS", 6)
    found = certified(MemorySource(logs))
    assert found["root"] != expected["root"]
    first = found["first_difference"]
    assert first["topic"] == "cases.events"
    assert first["recorded"]["type"] == "CaseEscalated"


def test_an_altered_pack_is_named(logs: Recording, expected: dict[str, Any]) -> None:
    other = Recorder(replace(RULES, version=2, rules=(*RULES.rules[:1], *RULES.rules[2:])))
    again = {**logs, TOPICS.payments_inbound: [list(records) for records in logs[TOPICS.payments_inbound]]}
    for number, records in enumerate(again[TOPICS.payments_inbound]):
        records[0] = records[0]._replace(value=other.logs[TOPICS.payments_inbound][number][0].value)
    found = certified(MemorySource(again))
    assert found["root"] != expected["root"]
    assert found["first_difference"]["topic"] == "payments.inbound"


def test_pending_records_are_no_difference(logs: Recording, expected: dict[str, Any]) -> None:
    for topic in (TOPICS.risk_scored, TOPICS.cases_events):
        less = {**logs, topic: [records[: len(records) // 2] for records in logs[topic]]}
        replayed = replayed_from(MemorySource(less), TOPICS)
        assert replayed.comparison.is_lag, topic
        found = certificate(replayed, TOPICS, None, ())
        assert not found["matches_live"]
        assert found["first_difference"]["recorded"] is None
        assert found["root"] == expected["root"]


@pytest.mark.parametrize(
    "topic, workers", [(TOPICS.payments_inbound, 2), (TOPICS.entities_inbound, 1), (TOPICS.cases_inbox, 1)]
)
def test_a_missing_record_is_a_gap(folder: Path, topic: str, workers: int) -> None:
    store = FolderBucket(folder)
    key = next(store.keys(f"log/{topic}/"))
    (folder / key).write_bytes((store.get(key) or b"")[:300])
    with pytest.raises(LogGap, match=topic) as caught:
        certified(FolderSource(folder), workers)
    assert any(key in detail for detail in caught.value.altered)


def test_accounts_in_two_partitions_are_chained_as_one() -> None:
    """Another partitioner: the chain continues where the earlier partition ended, as with one reader."""
    recorder = Recorder()
    for number, (at_ms, fields) in enumerate(PAYMENTS[:200]):
        recorder.append(TOPICS.payments_inbound, number % 2, b"", ENCODER.encode("Transaction", fields), at_ms)
    recorder.work()
    links: dict[str, list[bytes]] = {}
    answers = [
        (made["partition"], each["offset"], each)
        for log in recorder.logs[TOPICS.risk_scored]
        for record in log
        for made in [Decoder(TEXTS.get).decode(record.value)[1]]
        for each in made["scored"]
    ]
    for _, _, each in sorted(answers, key=lambda answer: answer[:2]):
        link = each["content_digest"] + each["transaction_id"].encode()
        links.setdefault(each["account_id"], []).append(link)
    chains = {
        account: reduce(lambda chain, link: hashlib.sha256(chain + link).digest(), of_one, b"")
        for account, of_one in links.items()
    }
    found = replayed_from(MemorySource(recorder.logs), TOPICS)
    assert found.derived.history.digest.chains == chains == found.live.digest.chains
    assert found.comparison == ReplayComparison([], 0)


def test_each_half_alone_gives_the_problems_of_both(logs: Recording) -> None:
    both = replayed_from(MemorySource(logs), TOPICS)
    assert derive(MemorySource(logs), TOPICS).history.digest.hexdigest() == both.derived.history.digest.hexdigest()
    assert read_recorded_history(MemorySource(logs), TOPICS).digest.hexdigest() == both.live.digest.hexdigest()
    assert both.comparison == ReplayComparison([], 0)


def test_decisions_made_shortly_after_a_time_are_not_missing(logs: Recording) -> None:
    """Flags and records sent on follow their payments; a time in between finds both."""
    late = {TOPICS.cases_inbox, TOPICS.entities_inbound, TOPICS.cases_events}
    shifted = {
        topic: [
            [
                record._replace(timestamp_ms=record.timestamp_ms + 1_000 * HOUR_MS * (topic in late))
                for record in records
            ]
            for records in partitions
        ]
        for topic, partitions in logs.items()
    }
    times = sorted(record.timestamp_ms for records in logs[TOPICS.payments_inbound] for record in records)
    made = certified(MemorySource(shifted), until_ms=times[len(times) // 2])
    assert made["counts"]["flags"] > 10
    assert (made["missing"], made["matches_live"]) == (0, True)


class ArrivingPayments:
    """Running system: as soon as its views or its logs have been read, the other half of its payments arrives."""

    def __init__(self) -> None:
        self._recorder, self._waiting = recorded(PAYMENTS[:600]), PAYMENTS[600:]
        self._opened: Recording | None = None

    def _go_on(self) -> None:
        self._recorder.pay(self._waiting)
        self._waiting = []

    def scan(self) -> Iterator[Item]:
        """Scan the case table."""
        there = replayed_from(MemorySource(self._recorder.logs), TOPICS)
        items = there.derived.items(there.live.known_at_ms)
        self._go_on()
        return iter(items.values())

    def open(self) -> MemoryLogs:
        """Open the logs, up to their ends at the first read."""
        if self._opened is None:
            self._opened = {topic: [list(log) for log in logs] for topic, logs in self._recorder.logs.items()}
            self._go_on()
        return MemoryLogs(self._opened)


def test_views_that_advance_while_logs_are_read_are_no_difference() -> None:
    busy = ArrivingPayments()
    found = replay(busy, TOPICS, busy.scan)
    assert (found.exit_code, found.is_lag) == (3, True), found.problems


class RunningSystem(MemoryLogs):
    """Logs of a running system: more payments arrive and are decided at every request for an end offset."""

    def __init__(self) -> None:
        self.recorder, self._waiting = recorded(PAYMENTS[:200]), iter(PAYMENTS[200:])
        self.asked = 0
        super().__init__(self.recorder.logs)

    def open(self) -> "RunningSystem":
        return self

    def ends(self, topic: str) -> dict[int, int]:
        self.asked += 1
        self.recorder.pay(islice(self._waiting, 50))
        return super().ends(topic)


def test_running_system_has_no_false_differences() -> None:
    """Flags and case events of payments that arrived after the end offset of the replay was read."""
    busy = RunningSystem()
    flags = sum(map(len, busy.recorder.logs[TOPICS.cases_inbox]))
    found = replayed_from(busy, TOPICS)
    assert busy.asked > 10
    assert sum(map(len, busy.recorder.logs[TOPICS.cases_inbox])) > flags + 20
    assert found.comparison.differences == []
    assert found.live.flags > 10


def test_forged_event_of_a_running_system_is_named() -> None:
    busy = RunningSystem()
    events = busy.recorder.logs[TOPICS.cases_events]
    number = next(number for number, records in enumerate(events) if records)
    name, data = Decoder(TEXTS.get).decode(events[number][0].value)
    forged = ENCODER.encode(name, {**data, "case_id": "00000000-0000-5000-8000-000000000000"})
    events[number].append(events[number][-1]._replace(offset=len(events[number]), value=forged))
    (difference,) = replayed_from(busy, TOPICS).comparison.differences
    assert (difference.topic, difference.partition) == (TOPICS.cases_events, number)
    assert difference.recorded is not None
    assert b"00000000-0000-5000-8000-000000000000" in difference.recorded
