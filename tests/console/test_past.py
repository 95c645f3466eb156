"""Old payments are found in the archive, newest first, and only if their records are unaltered."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from confluent_kafka import Message, Producer

from console.cases import archived_payments as past
from console.cases.archived_payments import ArchivedPayments
from console.people.roles import Role
from projections.archive.bucket import MemoryBucket
from projections.archive.columns import ArchiveColumns
from projections.archive.segments import partition_folder
from projections.logs.partitioner import murmur2, partition_of
from tests.support.cases import REASON
from tests.support.desk import Desk
from tests.support.vault import PAYMENTS, Vault, payment

PARTITIONS = 4
HERE = partition_of(b"anna", PARTITIONS)
LONG_AFTER_MS = 99_000


class CountingBucket(MemoryBucket):
    """Bucket that counts the objects that were read."""

    reads = 0

    def get(self, key: str) -> bytes | None:
        self.reads += 1
        return super().get(key)


def archived(vault: Vault) -> ArchivedPayments:
    return ArchivedPayments(lambda: ArchiveColumns(vault.bucket), PAYMENTS, PARTITIONS)


@pytest.fixture
def vault() -> Vault:
    """Archive ten segments, each with two payments of Anna and one of another account."""
    made = Vault(bucket=CountingBucket())
    for number in range(10):
        paid = [payment("anna", 2 * number), payment("zoe", number), payment("anna", 2 * number + 1)]
        made.payments(paid, HERE)
    return made


@pytest.mark.parametrize(
    ("key", "hash_of_it"),
    [
        (b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829), (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)  # fmt: skip
def test_keys_are_hashed_as_kafka_does(key: bytes, hash_of_it: int) -> None:
    """The values of Apache Kafka's UtilsTest."""
    assert murmur2(key) == hash_of_it & 0xFFFFFFFF


def test_keys_have_the_partition_of_the_client_library() -> None:
    put: dict[bytes, int] = {}

    def delivered(_: Any, message: Message) -> None:
        put[message.key()] = message.partition()

    producer = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "partitioner": "murmur2_random"})
    for number in range(300):
        producer.produce("topic", b"", f"acct-{number}{'é' * (number % 5)}", on_delivery=delivered)
    assert producer.flush(30) == 0
    assert len(set(put.values())) == PARTITIONS  # partitions of a mock topic
    assert put == {key: partition_of(key, PARTITIONS) for key in put}


def test_payments_of_an_account_are_found_with_all_displayed_fields(vault: Vault) -> None:
    found = archived(vault).look_up("anna", ["tx-anna-3", "tx-zoe-1", "tx-nobody"], LONG_AFTER_MS)
    assert found.keys() == {"tx-anna-3"}  # payments of Zoe are not found for Anna
    seen = found["tx-anna-3"]
    assert (seen.amount_minor, seen.currency, seen.event_time, seen.country) == (103, "EUR", 1_003, "DE")
    assert (seen.latitude, seen.longitude) == (52_500_000, 13_400_000)


def test_search_starts_at_the_end_and_stops_when_all_are_found(vault: Vault) -> None:
    looked = archived(vault)
    assert isinstance(vault.bucket, CountingBucket)
    before = vault.bucket.reads
    assert looked.look_up("anna", ["tx-anna-19"], LONG_AFTER_MS).keys() == {"tx-anna-19"}
    newest = vault.bucket.reads - before
    assert looked.look_up("anna", ["tx-anna-0"], LONG_AFTER_MS).keys() == {"tx-anna-0"}
    assert vault.bucket.reads - before - newest >= newest + 9


def test_found_payments_are_cached(vault: Vault) -> None:
    looked = archived(vault)
    assert looked.known("anna", ["tx-anna-18"]) == {}
    found = looked.look_up("anna", ["tx-anna-18"], LONG_AFTER_MS)
    assert looked.known("anna", ["tx-anna-18", "tx-anna-1"]) == found
    assert looked.known("zoe", ["tx-anna-18"]) == {}
    assert isinstance(vault.bucket, CountingBucket)
    before = vault.bucket.reads
    assert looked.look_up("anna", ["tx-anna-18"], LONG_AFTER_MS) == found
    assert vault.bucket.reads == before


def test_payments_recorded_after_the_flag_are_left_out(vault: Vault) -> None:
    """Record n was written at 10,000 + n ms: of these thirty, Anna's payment 7 is record 11."""
    assert archived(vault).look_up("anna", ["tx-anna-7"], 10_010) == {}
    assert archived(vault).look_up("anna", ["tx-anna-7"], 10_011).keys() == {"tx-anna-7"}
    assert archived(vault).look_up("anna", ["tx-anna-0"], 9_999) == {}


def test_an_altered_payment_is_not_shown(vault: Vault) -> None:
    (key,) = [key for key in vault.bucket.keys(partition_folder(PAYMENTS, HERE)) if key.endswith(f"{3:020d}.parquet")]
    body, metadata = vault.bucket.objects[key]
    assert body.count(b"tx-anna-2") == 1
    vault.bucket.objects[key] = body.replace(b"tx-anna-2", b"tx-anna-X"), metadata
    assert archived(vault).look_up("anna", ["tx-anna-X", "tx-anna-2", "tx-anna-3"], LONG_AFTER_MS).keys() == {
        "tx-anna-3"
    }


def test_search_stops_at_its_time_limit(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past, "LOOK_S", 0.0)
    looked = archived(vault)
    assert looked.look_up("anna", ["tx-anna-0"], LONG_AFTER_MS) == {}
    assert looked.known("anna", ["tx-anna-18", "tx-anna-19"]).keys() == {"tx-anna-18", "tx-anna-19"}


def test_unreachable_store_gives_no_payments() -> None:
    def away() -> ArchiveColumns:
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")

    assert ArchivedPayments(away, PAYMENTS, PARTITIONS).look_up("anna", ["tx-anna-0"], LONG_AFTER_MS) == {}


@pytest.fixture
def desk(tmp_path: Path, vault: Vault) -> Iterator[Desk]:
    made = Desk(tmp_path, past=archived(vault))
    yield made
    made.engine.dispose()


def test_page_offers_the_search_and_shows_the_results_from_then_on(desk: Desk) -> None:
    reason = type(REASON)(
        **{name: getattr(REASON, name) for name in REASON.__struct_fields__ if name != "contributing"},
        contributing=("tx-anna-4", "tx-gone"),
    )
    case_id = desk.flag("anna", reasons=(reason,))[0].case_id
    client = desk.signed_in(Role.ANALYST)
    page = client.get(f"/cases/{case_id}").text
    assert "2 more payments were counted" in page
    assert "Look them up in the archive" in page
    assert "tx-anna-4</td>" not in page
    page = client.get(f"/cases/{case_id}?past=true").text
    assert "tx-anna-4</td>" in page
    assert "1 more payment was counted, which the archive did not give" in page
    assert "tx-anna-4</td>" in client.get(f"/cases/{case_id}").text
    assert desk.client().get(f"/cases/{case_id}?past=true").status_code != 200
