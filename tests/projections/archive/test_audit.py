"""The archive's trees and heads: they survive a crash at any moment, and altered, truncated or rolled-back data is
found.
"""

import copy
import json
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from console.evidence.verify_pack import is_signed
from projections.archive.audit import audit
from projections.archive.bucket import Bucket, MemoryBucket, Retention
from projections.archive.heads import ArchiveContradiction, HeadWriter, head_key, read_head
from projections.archive.merkle import Frontier
from projections.archive.record_leaf import FIELDS, WHOLE, cut_value, shape_of
from projections.archive.segments import partition_folder, read_segment, segments, table_to_parquet
from projections.archive.signing import BadKey, Signer, ensure_signer, load_signer
from projections.archive.worker import HeadSchedule
from projections.logs.log import LogRecord
from schemas.catalog import all_schemas, latest
from schemas.codec import Decoder
from tests.support.merkle import naive_root
from tests.support.vault import (
    ENCODER,
    EVENTS,
    INBOX,
    NAMES,
    PAYMENTS,
    SIGNER,
    Vault,
    case_events,
    payment,
    schema_text,
)

KEY = SIGNER.public_key


def filled() -> Vault:
    """Fill an archive with two partitions of events, payments, an inbox with unreadable bytes, and three heads."""
    vault = Vault()
    vault.events(case_events("anna"))
    vault.payments(payment("anna", number) for number in range(3))
    vault.head()
    vault.events(case_events("ben"), partition=1)
    vault.write(INBOX, [("anna", b"nonsense"), (None, None), ("x", bytes(600_000))])
    vault.head()
    vault.payments(payment("anna", number) for number in range(3, 8))
    vault.head()
    return vault


def replaced(vault: Vault, key: str, body: bytes) -> None:
    vault.bucket.objects[key] = body, vault.bucket.objects[key][1]


def test_untouched_archive_agrees_with_its_heads() -> None:
    vault = filled()
    found = audit(vault.bucket, KEY)
    assert found.problems == []
    assert (found.heads, found.records, found.uncovered) == (3, 21, 0)
    vault.payments([payment("late", 1)])
    assert audit(vault.bucket, KEY).uncovered == 1
    assert found.last is not None
    assert found.last.time_ms == 10_007


def test_root_equals_the_naive_root_over_the_stored_leaves() -> None:
    vault = filled()
    folder = partition_folder(PAYMENTS, 0)
    leaves = [
        leaf
        for each in segments(vault.bucket, folder)
        for leaf in read_segment(vault.bucket.get(each.key))["leaf"].to_pylist()
    ]
    last = read_head(vault.bucket.get(head_key(3)) or b"", KEY)
    assert last.trees[PAYMENTS, 0].root == naive_root(leaves).hex()
    assert last.trees[PAYMENTS, 0].size == len(leaves) == 8


def test_redelivered_events_are_no_leaves() -> None:
    vault = Vault()
    events = case_events("anna")
    vault.events(events)
    before = vault.head()
    vault.events(events)
    assert vault.head().sha256 == before.sha256


@pytest.mark.parametrize("kept", [*range(1, 16)])
def test_worker_continues_after_a_crash_at_any_moment(kept: int) -> None:
    """Whichever prefix of the objects was stored before the crash, the next worker results in equal trees."""
    whole = filled()
    stored = list(whole.bucket.objects.items())
    bucket = MemoryBucket()
    bucket.objects = dict(stored[:kept])
    again = Vault(bucket=bucket)
    for topic, partition in whole.writers:
        records = []
        for segment in segments(whole.bucket, partition_folder(topic, partition)):
            for row in read_segment(whole.bucket.get(segment.key)).to_pylist():
                value = row["value"] if row["stored_at"] is None else whole.bucket.get(row["stored_at"])
                records.append(LogRecord(topic, partition, row["offset"], row["timestamp_ms"], row["key"], value, ()))
        again.writer(topic, partition).write(records)
    head = again.head()
    last = read_head(whole.bucket.get(head_key(3)) or b"", KEY)
    assert {place: tree.root for place, tree in head.trees.items()} == {p: t.root for p, t in last.trees.items()}
    assert audit(again.bucket, KEY).problems == []
    assert again.head() == head


def test_two_workers_write_one_chain_of_heads() -> None:
    vault = filled()
    other = Vault(bucket=vault.bucket)
    other.payments([payment("zoe", 1)])
    other.writer(EVENTS)
    other.head()
    vault.events(case_events("carl"), partition=1)
    vault.head()
    found = audit(vault.bucket, KEY)
    assert (found.problems, found.heads, found.uncovered) == ([], 5, 0)


def first(vault: Vault, under: str) -> str:
    return next(vault.bucket.keys(under))


def alter_value(vault: Vault) -> None:
    key = first(vault, f"log/{EVENTS}/partition=000")
    body = vault.bucket.get(key)
    assert body is not None
    replaced(vault, key, body.replace(b"velocity", b"velocitz", 1))


def rewrite_consistently(vault: Vault) -> None:
    """Rewrite records with matching checksums, leaves and trees, as an attacker without the signing key would."""
    other = Vault(Signer(bytes(32)))
    other.events(case_events("eve"))
    other.payments(payment("eve", number) for number in range(3))
    for key, stored in other.bucket.objects.items():
        if key.startswith("log/"):
            vault.bucket.objects[key] = stored


def drop_last_segment(vault: Vault) -> None:
    del vault.bucket.objects[segments(vault.bucket, partition_folder(PAYMENTS, 0))[-1].key]


def drop_first_segment(vault: Vault) -> None:
    del vault.bucket.objects[segments(vault.bucket, partition_folder(PAYMENTS, 0))[0].key]


def drop_head(vault: Vault) -> None:
    del vault.bucket.objects[head_key(2)]


def swap_heads(vault: Vault) -> None:
    objects = vault.bucket.objects
    objects[head_key(1)], objects[head_key(2)] = objects[head_key(2)], objects[head_key(1)]


def sign_by_another(vault: Vault) -> None:
    other = HeadWriter(MemoryBucket(), Signer(bytes(32)), vault.writers.values())
    head = other.write()
    assert head is not None
    replaced(vault, head_key(1), head.body)


def alter_note(vault: Vault) -> None:
    key = first(vault, f"log/{PAYMENTS}")
    vault.bucket.objects[key][1]["tree"] = "3 1 " + "A" * 86 + "=="


def alter_oversize(vault: Vault) -> None:
    replaced(vault, first(vault, "oversize/"), bytes(599_999) + b"\x01")


def alter_schema(vault: Vault) -> None:
    for key in vault.bucket.keys("schemas/"):
        replaced(vault, key, (vault.bucket.get(key) or b"").replace(b"string", b"bytes", 1))


def alter_identity(vault: Vault) -> None:
    """Change the column that case counts are made from and that no leaf covers."""
    key = first(vault, f"log/{EVENTS}/partition=001")
    body = vault.bucket.get(key)
    assert body is not None
    table = read_segment(body)
    number = table.column_names.index("identity")
    names = table["identity"].to_pylist()
    replaced(vault, key, table_to_parquet(table.set_column(number, table.schema.field(number), [[*names[:-1], "x/9"]])))


@pytest.mark.parametrize(
    "damage",
    [alter_value, rewrite_consistently, drop_last_segment, drop_first_segment, drop_head, swap_heads, sign_by_another,
     alter_note, alter_oversize, alter_schema, alter_identity],
    ids=lambda damage: damage.__name__,
)  # fmt: skip
def test_damage_is_found(damage: Any) -> None:
    vault = filled()
    damage(vault)
    assert audit(vault.bucket, KEY).problems


def test_rollback_is_found_with_the_last_head() -> None:
    vault = filled()
    before = copy.deepcopy(vault.bucket.objects)
    vault.payments([payment("anna", 99)])
    seen = vault.head().body
    vault.bucket.objects = before
    assert audit(vault.bucket, KEY).problems == []  # without an earlier head it cannot be found
    assert "rolled back" in audit(vault.bucket, KEY, seen).problems[0]
    with pytest.raises(ArchiveContradiction, match="rolled back"):
        HeadWriter(vault.bucket, SIGNER, vault.writers.values(), seen)


def test_history_rewritten_by_the_key_owner_is_found_with_an_earlier_head() -> None:
    vault, other = filled(), Vault()
    seen = vault.bucket.get(head_key(2))
    for _ in range(3):
        other.events(case_events("eve", notes=3))
        other.payments([payment("eve", 1)])
        other.head()
    assert audit(other.bucket, KEY).problems == []
    assert "rewritten" in audit(other.bucket, KEY, seen).problems[0]


@pytest.mark.parametrize("damage", [rewrite_consistently, drop_last_segment, drop_head, sign_by_another])
def test_no_head_is_signed_over_an_archive_that_contradicts_the_last_one(
    damage: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    vault = filled()
    damage(vault)
    if damage is sign_by_another:
        replaced(vault, head_key(3), vault.bucket.get(head_key(1)) or b"")
    again = Vault(bucket=vault.bucket)
    for place in vault.writers:
        again.writer(*place)
    count = len(list(vault.bucket.keys("heads/")))
    signing = HeadSchedule(vault.bucket, SIGNER, list(again.writers.values()), None)
    signing.sign()
    assert len(list(vault.bucket.keys("heads/"))) == count
    assert "NO HEAD IS SIGNED" in capsys.readouterr().err


def test_the_worker_keeps_its_last_head_outside_the_bucket(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vault = filled()
    kept = tmp_path / "data" / "last-head.json"
    vault.payments([payment("anna", 50)])
    HeadSchedule(vault.bucket, SIGNER, list(vault.writers.values()), kept).sign()
    assert kept.read_bytes() == vault.bucket.get(head_key(4))
    del vault.bucket.objects[head_key(4)]
    HeadSchedule(vault.bucket, SIGNER, list(vault.writers.values()), kept).sign()
    assert vault.bucket.get(head_key(4)) is None
    assert "rolled back" in capsys.readouterr().err


def test_worker_continues_an_archive_without_leaves() -> None:
    """Segments written before there were trees: without the leaf columns, and without a note of their leaves."""
    vault = Vault(signer=None)
    vault.payments(payment("anna", number) for number in range(5))
    key = first(vault, "log/")
    body, notes = vault.bucket.objects[key]
    old = table_to_parquet(read_segment(body).drop_columns(["salt", "leaf"]))
    vault.bucket.objects[key] = old, {name: value for name, value in notes.items() if name != "tree"}
    again = Vault(bucket=vault.bucket)
    again.payments(payment("anna", number) for number in range(5, 9))
    assert again.head().records == 9
    assert audit(again.bucket, KEY).problems == []


def test_record_split_into_fields_reads_as_decoded() -> None:
    value = ENCODER.encode("Transaction", payment("anna", 1))
    shape = shape_of(latest("Transaction").text)
    assert shape is not None
    parted = cut_value(value, shape)
    assert parted.form == FIELDS
    assert len(parted.parts) == len(shape.fields)
    assert value[:5] + b"".join(parted.parts) == value
    assert Decoder(schema_text).decode(value)[1]["account_id"] == "anna"
    for broken in (value[:-1], value + b"\x00", value[:7]):
        assert cut_value(broken, shape).form == WHOLE


def test_records_of_every_schema_can_be_split() -> None:
    assert [schema.name for schema in all_schemas() if shape_of(schema.text) is None] == []
    assert NAMES


def test_key_is_created_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "keys" / "audit.key"
    made = ensure_signer(file)
    assert ensure_signer(file).public_key == made.public_key == load_signer(str(file)).public_key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [each.name for each in file.parent.iterdir()] == ["audit.key"]
    assert load_signer("00" * 32).public_key == Signer(bytes(32)).public_key
    for wrong in ("zz" * 32, str(tmp_path / "none")):
        with pytest.raises(BadKey) as error:
            load_signer(wrong)
        assert "zz" not in str(error.value)


VECTORS = [
    ("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60", ""),
    ("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb", "72"),
    ("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7", "af82"),
]
SIGNATURES = [
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
]


@pytest.mark.parametrize(("seed", "message", "signature"), [(*v, s) for v, s in zip(VECTORS, SIGNATURES, strict=True)])
def test_standalone_verifier_passes_the_vectors_of_rfc_8032(seed: str, message: str, signature: str) -> None:
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed)).public_key().public_bytes_raw()
    good, text = bytes.fromhex(signature), bytes.fromhex(message)
    assert is_signed(key, good, text)
    assert not is_signed(key, good, text + b"x")
    for place in range(0, 64, 7):
        assert not is_signed(key, good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :], text)
    order = 2**252 + 27742317777372353535851937790883648493
    again = good[:32] + (int.from_bytes(good[32:], "little") + order).to_bytes(32, "little")
    assert not is_signed(key, again, text)  # an equivalent signature in other bytes


def test_archived_objects_are_locked_if_the_bucket_supports_it() -> None:
    client = boto3.client(
        "s3",
        region_name="eu-central-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        endpoint_url="http://127.0.0.1:1",
    )
    plain = Bucket(client, "b", "p/")
    retention = Retention(mode="COMPLIANCE", days=30, now=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    with Stubber(client) as stub:
        stub.add_response(
            "get_object_lock_configuration",
            {"ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled"}},
            {"Bucket": "b"},
        )
        stub.add_client_error("get_object_lock_configuration", "ObjectLockConfigurationNotFoundError", "", 404)
        wanted: dict[str, Any] = {
            "Bucket": "b", "Key": "p/k", "Body": b"x", "Metadata": {}, "IfNoneMatch": "*",
            "ChecksumSHA256": "LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE=",
        }  # fmt: skip
        until = datetime(2026, 1, 31, tzinfo=UTC)
        stub.add_response(
            "put_object", {}, {**wanted, "ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": until}
        )
        stub.add_response("put_object", {}, wanted)
        assert plain.has_lock()
        assert not plain.has_lock()
        assert plain.with_retention(retention).put_new("k", b"x")
        assert plain.put_new("k", b"x")


def test_head_has_exactly_one_encoding() -> None:
    body = filled().bucket.get(head_key(3)) or b""
    assert read_head(body, KEY).number == 3
    for other in (
        body + b" ",
        body.replace(b'{"', b'{ "', 1),
        json.dumps(json.loads(body)).encode(),
        b"{}",
        b"[]",
        b"",
    ):
        with pytest.raises(ValueError, match=r"it "):
            read_head(other, KEY)
    with pytest.raises(ValueError, match="complete subtrees"):
        Frontier(3, [bytes(32)])
