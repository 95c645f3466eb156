"""Case views and archive on the real stores, which behave like the tables in memory."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from console.bench.case_fold import inbox
from console.wiring import bucket, case_table
from domain.cases.events import CommandRejected
from domain.cases.fold import CaseFold
from domain.payment import Refusal
from domain.record_types import to_fields
from infra.settings import Settings
from projections.archive.analytics import AnalyticsWriter, read_table
from projections.archive.archived_log import ArchivedLog
from projections.archive.bucket import Bucket
from projections.archive.segments import next_offset, oversize_key, partition_folder
from projections.archive.stores import StoreOptions, dynamodb_client
from projections.archive.worker import ArchiveWriter, RecordDescriber, SegmentBuffer
from projections.logs.known import KnownEvent
from projections.logs.log import LogRecord
from projections.logs.worker import decode_case_events
from projections.views.case_table import CaseTable, DynamoCaseTable, MemoryCaseTable
from projections.views.case_view import CaseView, event_item, project, view_item, view_of
from projections.views.worker import ViewProjector
from schemas.catalog import all_schemas, latest
from schemas.codec import MAX_BODY, Decoder, Encoder
from tests.support.cases import CASE, flag, history

NAMES = sorted({schema.name for schema in all_schemas()})
IDS = {name: number for number, name in enumerate(NAMES, start=1)}
ENCODER = Encoder(IDS)
EVENTS = history(flag(1), flag(2), flag(3, score=950))[1]
KNOWN = [KnownEvent(event, 1_000 + number) for number, event in enumerate(EVENTS)]


def schema_text(schema_id: int) -> str | None:
    return latest(NAMES[schema_id - 1]).text if 1 <= schema_id <= len(NAMES) else None


def record(topic: str, offset: int, value: bytes | None, partition: int = 0) -> LogRecord:
    return LogRecord(topic, partition, offset, 1_000 + offset, b"key", value, (("row", b"\x01"),))


def event_records(topic: str = "t.cases.events") -> list[LogRecord]:
    return [record(topic, n, ENCODER.encode(type(event).__name__, to_fields(event))) for n, event in enumerate(EVENTS)]


@pytest.fixture(params=["memory", "dynamodb"])
def table(request: pytest.FixtureRequest, settings: Settings) -> CaseTable:
    if request.param == "memory":
        return MemoryCaseTable()
    real = case_table(settings.model_copy(update={"prefix": f"{request.node.name[:20].replace('[', '-')}-"}))
    real.ensure()
    real.ensure()
    return real


def test_view_equals_the_fold_of_its_events_in_any_delivery(table: CaseTable) -> None:
    whole, expected = ViewProjector(table), None
    for event in EVENTS:
        expected = project(expected, event)  # type: ignore[arg-type]
    whole.apply(KNOWN[:2])
    whole.apply(KNOWN[:1])
    ViewProjector(table).apply(KNOWN)
    whole.apply([KnownEvent(event, 9_000) for event, _ in KNOWN])  # it holds an old view: the table has a newer one
    assert expected is not None
    assert table.view(expected.case_id) == expected
    assert (expected.sequence, expected.flags, expected.escalated, expected.score_max) == (4, 3, True, 950)
    places = {item["sk"]: item.get("known_at_ms") for item in table.scan()}
    assert [places[f"event#{number:010d}"] for number in range(1, 5)] == [at_ms for _, at_ms in KNOWN]  # the first time
    assert sorted(places) == [*(f"event#{number:010d}" for number in range(1, 5)), "view"]


def test_view_is_stored_only_over_its_base_version(table: CaseTable) -> None:
    view = project(None, EVENTS[0])  # type: ignore[arg-type]
    assert table.save([(view, 0)], []) == []
    assert table.save([(view, 0)], []) == [view.case_id]
    assert table.save([(replace(view, sequence=3), 2)], []) == [view.case_id]
    assert table.save([(replace(view, sequence=2), 1)], []) == []
    stored = table.view(view.case_id)
    assert stored is not None
    assert stored.sequence == 2


def test_scan_finds_every_item_once_in_any_number_of_segments(table: CaseTable) -> None:
    fold, known = CaseFold(), list[KnownEvent]()
    for number, record in enumerate(inbox(3_000, seed=1)):
        events = fold.step(record)
        assert not isinstance(events, Refusal)
        known += [KnownEvent(event, number) for event in events]
    expected = MemoryCaseTable()
    for into in (table, expected):
        for first in range(0, len(known), 500):
            ViewProjector(into).apply(known[first : first + 500])
    assert len(expected.items) > 3_000
    assert sorted(table.keys()) == sorted(expected.items)
    found = list(table.scan())
    assert len(found) == len(expected.items)
    assert {(item["pk"], item["sk"]): item for item in found} == expected.items


def test_stale_view_does_not_prevent_the_others_of_its_transaction(table: CaseTable) -> None:
    view = project(None, EVENTS[0])  # type: ignore[arg-type]
    others = [replace(view, case_id=f"other-{number}") for number in range(130)]  # more than one transaction
    assert table.save([(view, 0)], []) == []
    events = [{**event_item(EVENTS[0]), "pk": f"case#{other.case_id}"} for other in others]
    assert table.save(
        [*((other, 0) for other in others[:60]), (view, 0), *((other, 0) for other in others[60:])], events
    ) == [view.case_id]
    assert all(
        [item["sk"] for item in table.items_of(other.case_id)] == ["event#0000000001", "view"] for other in others
    )


def test_a_case_with_more_events_than_a_transaction_holds_is_stored_whole(table: CaseTable) -> None:
    view = project(None, EVENTS[0])  # type: ignore[arg-type]
    events = [{**event_item(EVENTS[0]), "sk": f"event#{number:010d}"} for number in range(1, 251)]
    assert table.save([(replace(view, sequence=250), 0)], events) == []
    assert len(table.items_of(view.case_id)) == 251
    again = [{**event, "body": "x" * 60_000} for event in events[:80]]
    assert table.save([(replace(view, sequence=251), 250)], again) == []


def test_case_with_a_gap_stops_only_itself(table: CaseTable, capsys: pytest.CaptureFixture[str]) -> None:
    other = history(flag(1, account_id="other", transaction_id="o"))[1]
    projector = ViewProjector(table)
    projector.apply([KNOWN[0], *KNOWN[2:], *(KnownEvent(event, 2_000) for event in other)])
    case_id = EVENTS[0].case_id
    assert list(projector.parked) == [case_id]
    assert case_id in capsys.readouterr().err
    stored, beside = table.view(case_id), table.view(other[0].case_id)
    assert stored is not None
    assert beside is not None
    assert (stored.sequence, beside.sequence) == (1, len(other))


def test_an_answer_is_kept_beside_the_timeline(table: CaseTable) -> None:
    rejected = CommandRejected(account_id="a", case_id=CASE, command_id="c", actor="ana", reason="no", rejected_at_ms=1)
    ViewProjector(table).apply([KnownEvent(rejected, 5), KnownEvent(rejected, 6)])
    ViewProjector(table).apply([KnownEvent(rejected, 7)])
    assert [(item["sk"], item["known_at_ms"]) for item in table.scan()] == [("answer#c", 5)]
    assert table.view(CASE) is None


def test_view_is_read_back_from_its_item() -> None:
    view = CaseView(
        case_id=CASE, account_id="a", typology="t", status="open", sequence=1, opened_at_ms=1, last_event_ms=1,
        flags=1, score_max=5, value_minor={"EUR": 3}, transactions=["x"],
    )  # fmt: skip
    assert view_of(view_item(view)) == view


def test_record_that_is_no_case_event_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ENCODER.encode("RiskFlagged", to_fields(flag(1)))
    records = [record("t", 0, b"nonsense"), record("t", 1, wrong), *event_records()]
    assert decode_case_events(Decoder(schema_text), records) == KNOWN
    assert capsys.readouterr().err.count("\n") == 2


@pytest.fixture
def store(settings: Settings, request: pytest.FixtureRequest) -> Bucket:
    return bucket(settings.model_copy(update={"prefix": f"{request.node.name}/"}))


def archive(store: Bucket, topic: str = "t.cases.events") -> ArchiveWriter:
    return ArchiveWriter(store, topic, 0, RecordDescriber(store, schema_text))


def read_back(store: Bucket, topic: str) -> tuple[list[LogRecord], ArchivedLog]:
    log = ArchivedLog(store)
    return [found for number, end in log.ends(topic).items() for found in log.read(topic, number, end)], log


def test_archive_returns_the_records_of_the_log(store: Bucket) -> None:
    large = b"\x00" + bytes(MAX_BODY)
    records = [
        record("t.payments.inbound", 0, None),
        record("t.payments.inbound", 1, b"nonsense"),
        record("t.payments.inbound", 2, b"\x00\x00\x00\x00\x63unknown schema"),
        record("t.payments.inbound", 3, large),
        record("t.payments.inbound", 4, ENCODER.encode("RiskFlagged", to_fields(flag(1)))),
    ]
    buffer = SegmentBuffer(archive(store, "t.payments.inbound"))
    buffer.add(records)
    assert not buffer.is_due
    for _ in range(10):
        buffer.add([])
    assert buffer.is_due
    buffer.write()
    found, log = read_back(store, "t.payments.inbound")
    assert found == records
    assert log.altered == []
    assert store.get(oversize_key(large)) == large
    assert Decoder(log.schema_text).decode(found[4].value)[0] == "RiskFlagged"
    assert log.schema_text(99) is None


def test_redelivered_case_events_do_not_enter_the_archive_again(store: Bucket) -> None:
    records = event_records()
    writer = archive(store)
    writer.write(records[:2])
    again = [found._replace(offset=found.offset + 2) for found in records]
    writer.write(again)
    after_restart = archive(store)
    assert after_restart.position == 2 + len(records)
    after_restart.write([records[0]._replace(offset=after_restart.position)])
    after_restart.write(records)  # stored long ago
    found, _ = read_back(store, "t.cases.events")
    assert [each.value for each in found] == [each.value for each in records]


def test_two_writers_of_one_partition_write_one_archive(store: Bucket) -> None:
    records = [record("t.cases.inbox", number, b"x%d" % number) for number in range(6)]
    first, second = archive(store, "t.cases.inbox"), archive(store, "t.cases.inbox")
    first.write(records[:4])
    second.write(records)
    found, _ = read_back(store, "t.cases.inbox")
    assert found == records
    assert next_offset(store, partition_folder("t.cases.inbox", 0)) == 6


@pytest.mark.parametrize(
    "damage",
    [lambda body: body.replace(b"value-two", b"value-tvo"), lambda body: body[: len(body) // 2]],
    ids=["a byte", "half"],
)
def test_an_altered_byte_is_found_in_its_record(store: Bucket, damage: Callable[[bytes], bytes]) -> None:
    records = [record("t.cases.inbox", 0, b"value-one"), record("t.cases.inbox", 1, b"value-two")]
    archive(store, "t.cases.inbox").write(records)
    key = next(iter(store.keys("log/")))
    body = store.get(key)
    assert body is not None
    metadata = store.metadata(key)
    store._client.put_object(Bucket=store._bucket, Key=store._prefix + key, Body=damage(body), Metadata=metadata)
    _, log = read_back(store, "t.cases.inbox")
    assert [(found.topic, found.partition, found.offset) for found in log.altered] in (
        [("t.cases.inbox", 0, 1)],
        [("t.cases.inbox", 0, None)],
    )


def test_the_analytics_table_counts_each_answer_once(store: Bucket) -> None:
    def scored(offset: int, answers: int) -> LogRecord:
        decision = {
            "account_id": "a", "transaction_id": f"t{answers}", "content_digest": bytes(16), "event_time": 5,
            "amount_minor": 1, "currency": "EUR", "merchant_id": "m", "payment_method": "CARD", "channel": "POS",
            "country": None, "score": 0, "rules": [], "pack_id": "p", "offset": answers, "shadow": [],
        }  # fmt: skip
        made = {"partition": 2, "scored": [decision], "duplicates": []}
        return record("t.risk.scored", offset, ENCODER.encode("DecisionsMade", made))

    writer = AnalyticsWriter(store, 0, Decoder(schema_text))
    writer.write([scored(0, 10), scored(1, 11), scored(2, 10)])
    again = AnalyticsWriter(store, 0, Decoder(schema_text))
    assert again.position == 3
    again.write([scored(3, 11), scored(4, 12)])
    writer.write([scored(3, 11), scored(4, 12)])
    table = read_table(store)
    assert table["offset"].to_pylist() == [10, 11, 12]
    assert read_table(Bucket(store._client, store._bucket, "nothing/")).num_rows == 0


def test_store_without_an_address_uses_aws() -> None:
    client = dynamodb_client(StoreOptions(url=None, region="eu-central-1", access_key_id="x", secret_access_key="x"))
    assert client.meta.endpoint_url == "https://dynamodb.eu-central-1.amazonaws.com"
    assert isinstance(DynamoCaseTable(client, "t"), DynamoCaseTable)
