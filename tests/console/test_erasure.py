"""Personal data at entry, in use and after erasure: in the intake, the desk, the pages and the files, without a
server.
"""

import base64
import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from console.payments.admission import prepare_rows
from console.payments.files import IntakeRow, read_rows
from console.payments.intake import prepare_keys
from console.payments.intake_writer import IntakeWriter, run_subject
from console.payments.sealing import prepare_row
from console.people.roles import Role
from console.privacy.command_sealing import seal_command
from console.privacy.vault import RECHECK_S, Vault
from console.system.canary import CanaryTooShort, _files, forms_of, search
from console.wiring import existing_keys, vault
from domain.cases.commands import AddNote, TakeCase
from domain.digest import canonical_bytes
from domain.payment import Payment, Refusal, admit
from domain.sealed import ERASED, is_sealed
from infra.settings import Settings
from migrations.store import connect, upgrade
from schemas.codec import Encoder
from schemas.packing import MAGIC, pack
from tests.support.desk import Desk, opened
from tests.support.records import TX

WORDS = "Ms Zoë O'Hara-Quill <zoe@example.org>"
FILE = b"%PDF-1.7 the passport of zoe.ohara-quill"
CANARIES = (WORDS.encode(), b"O'Hara-Quill", json.dumps(WORDS)[1:-1].encode(), FILE, b"ohara-quill")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with opened(tmp_path) as made:
        yield made


def act(client: TestClient, case_id: str, slug: str, version: int, **body: Any) -> Any:
    answer = client.post(
        f"/api/v1/cases/{case_id}/{slug}", json=body,
        headers={"If-Match": f'"{version}"', "Idempotency-Key": f"{case_id}-{slug}-{version}"},
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    return answer.json()


def worked_on(desk: Desk) -> tuple[TestClient, str, str]:
    """Return a case with every kind of free text on it, and the digest of its file."""
    case_id, client = desk.case(), desk.signed_in(Role.ANALYST, Role.LEAD, Role.AUDITOR)
    path = f"/api/v1/cases/{case_id}/attachments"
    stored = client.post(path, files={"file": (f"{WORDS}.pdf", FILE)}).json()
    assert stored["file_name"] == f"{WORDS}.pdf"
    told = act(client, case_id, "note", 1, text=f"called {WORDS}", attachments=[stored["sha256"]])
    assert told["event"]["text"] == f"called {WORDS}"
    until = desk.clock.now_ms + 3_600_000
    more: dict[str, dict[str, Any]] = {
        "snooze": {"until_ms": until}, "escalate": {}, "close": {"disposition": "inconclusive"},
    }  # fmt: skip
    for version, (slug, body) in enumerate(more.items(), start=2):
        act(client, case_id, slug, version, reason=f"{slug} for {WORDS}", **body)
    return client, case_id, stored["sha256"]


def everything_kept(desk: Desk, folder: Path) -> bytes:
    """Return all bytes of commands, events, views, files and the control store."""
    kept = [repr(seal_command(command, desk.vault)) for command in desk.log.commands]
    kept += [json.dumps(item, default=str) for item in desk.log.table.scan()]
    kept += [change.body for change in desk.log.changes.missed((0,)) or ()]
    kept += list(desk.objects.objects)
    stored = [file.read_bytes() for file in folder.glob("control.db*")]
    return b"\n".join([*(each.encode() for each in kept), *desk.objects.objects.values(), *stored])


def test_free_text_is_stored_sealed_and_readable_with_permission(desk: Desk, tmp_path: Path) -> None:
    client, case_id, digest = worked_on(desk)
    kept = everything_kept(desk, tmp_path)
    assert b"sealed:" in kept
    assert [canary for canary in CANARIES if canary in kept] == []
    timeline = client.get(f"/api/v1/cases/{case_id}/timeline").json()["entries"]
    said = [entry["event"].get("text") or entry["event"].get("reason") or entry["event"].get("detail")
            for entry in timeline[1:]]  # fmt: skip
    assert said == [f"called {WORDS}", *(f"{slug} for {WORDS}" for slug in ("snooze", "escalate", "close"))]
    assert client.get(f"/api/v1/cases/{case_id}").json()["close_reason"] == f"close for {WORDS}"
    page = client.get(f"/cases/{case_id}").text
    assert "Ms Zoë O&#x27;Hara-Quill &lt;zoe@example.org&gt;" in page
    assert "sealed:" not in page
    assert "sealed:" not in client.get("/audit", params={"value": "acct-1"}).text
    assert client.get(f"/api/v1/cases/{case_id}/attachments/{digest}").content == FILE


def test_erased_text_is_unreadable_and_no_stored_byte_has_changed(desk: Desk, tmp_path: Path) -> None:
    client, case_id, digest = worked_on(desk)
    other = desk.case("acct-2")
    act(client, other, "note", 1, text="about somebody else")
    before = [json.dumps(item, default=str) for item in desk.log.table.scan()], dict(desk.objects.objects)
    desk.vault.erase(["acct-1"], "dpo", "request 17")
    assert ([json.dumps(item, default=str) for item in desk.log.table.scan()], desk.objects.objects) == before
    timeline = client.get(f"/api/v1/cases/{case_id}/timeline").json()["entries"]
    assert timeline[1]["event"]["text"] == ERASED
    assert timeline[1]["event"]["attachments"][0]["file_name"] == ERASED
    page = client.get(f"/cases/{case_id}").text
    assert "Quill" not in page
    assert ERASED in page
    gone = client.get(f"/api/v1/cases/{case_id}/attachments/{digest}")
    assert (gone.status_code, b"Quill" in gone.content) == (410, False)
    assert client.get(f"/api/v1/cases/{other}/timeline").json()["entries"][1]["event"]["text"] == "about somebody else"
    assert [canary for canary in CANARIES if canary in everything_kept(desk, tmp_path)] == []


def test_repeated_request_is_answered_in_clear_and_stored_sealed(desk: Desk, tmp_path: Path) -> None:
    client, case_id = desk.signed_in(Role.ANALYST), desk.case()
    once = act(client, case_id, "note", 1, text=WORDS)
    again = act(client, case_id, "note", 1, text=WORDS)
    assert once == again
    assert once["event"]["text"] == WORDS
    assert b"Quill" not in (tmp_path / "control.db").read_bytes()


def test_typed_sealed_text_is_ordinary_text(desk: Desk) -> None:
    """A sealed text copied from another account's case gives no way to read that text after its erasure."""
    client, mine, theirs = desk.signed_in(Role.ANALYST), desk.case(), desk.case("acct-2")
    act(client, theirs, "note", 1, text=WORDS)
    stored = next(item for item in desk.log.table.items_of(theirs) if item.get("kind") == "NoteAdded")
    token = json.loads(stored["body"])["text"]
    assert act(client, mine, "note", 1, text=token)["event"]["text"] == token
    desk.vault.erase(["acct-2"], "dpo", "")
    assert client.get(f"/api/v1/cases/{mine}/timeline").json()["entries"][1]["event"]["text"] == token


def test_limits_apply_to_sealed_texts(desk: Desk) -> None:
    command = AddNote(
        account_id="acct-1", case_id=desk.case(), command_id="c", actor="ana", requested_at_ms=1, seen_sequence=1,
        text="ü" * 10_001, attachments=(),
    )  # fmt: skip
    (event,) = desk.log.step(seal_command(command, desk.vault))
    assert "at most 10000 characters, this one has 10001" in canonical_bytes(event).decode()


def test_command_without_text_is_not_changed(desk: Desk) -> None:
    take = TakeCase(account_id="a", case_id="c", command_id="1", actor="ana", requested_at_ms=1, seen_sequence=1)
    assert seal_command(take, desk.vault) is take
    assert desk.vault.known("a").generation is None


def test_an_admin_erases_and_an_auditor_sees_it(desk: Desk) -> None:
    client, case_id, _ = worked_on(desk)
    asked = {"subject": "acct-1", "reason": "request 17"}
    assert client.post("/api/v1/erasures", json=asked).status_code == 403
    admin = desk.signed_in(Role.ADMIN, name="root")
    answer = admin.post("/api/v1/erasures", json=asked)
    expected = {"subject": "acct-1", "generation": 1, "at_ms": desk.clock.now_ms, "actor": "root",
                "reason": "request 17"}  # fmt: skip
    assert (answer.status_code, answer.json()) == (201, expected)
    assert client.get("/api/v1/audit/erasures").json() == {"erasures": [expected]}
    assert "Quill" not in client.get(f"/cases/{case_id}").text


# -- payments ---------------------------------------------------------------------------------------------


class ListIntake(IntakeWriter):
    """Intake whose log is a list."""

    def __init__(self, keys: Vault, decimals: int | None = None) -> None:
        names = ("Transaction", "IntakeRefused")
        super().__init__("localhost:1", "payments", Encoder(dict.fromkeys(names, 1)), "run-1", sealer=keys,
                         location_decimals=decimals)  # fmt: skip
        self.written: list[tuple[str, bytes]] = []

    def _produce(self, key: str, value: bytes) -> None:
        self.rows += 1
        self.written.append((key, value))


@pytest.fixture
def keys(desk: Desk) -> Vault:
    return desk.vault


def row(**changed: Any) -> dict[str, Any]:
    return {**TX, "account_id": "acct-7", "attributes": {"name": WORDS, "empty": ""}, **changed}


def test_attributes_are_sealed_before_the_log_and_their_names_stay(keys: Vault) -> None:
    entered = prepare_row(row(), keys)
    assert not isinstance(entered, Refusal)
    assert list(entered["attributes"]) == ["name", "empty"]
    assert entered["attributes"]["empty"] == ""
    assert keys.opened(entered["attributes"]["name"]) == WORDS
    assert {name: value for name, value in entered.items() if name != "attributes"} == {
        name: value for name, value in row().items() if name != "attributes"
    }


def test_repeated_payment_has_equal_content(keys: Vault) -> None:
    made = [admit(dict(_entered(row(), keys)), None) for _ in range(2)]
    assert isinstance(made[0], Payment)
    assert made[0] == made[1]
    assert admit(dict(_entered(row(attributes={"name": "another"}), keys)), None) != made[0]


def _entered(fields: dict[str, Any], keys: Vault) -> dict[str, Any]:
    entered = prepare_row(fields, keys)
    assert not isinstance(entered, Refusal)
    return dict(entered)


def test_payment_without_personal_data_needs_no_key(keys: Vault) -> None:
    plain = row(attributes={})
    assert prepare_row(plain, keys) is plain
    assert keys.known("acct-7").generation is None


def test_a_card_number_in_an_attribute_is_masked_before_it_is_sealed(keys: Vault) -> None:
    entered = _entered(row(attributes={"note": "paid with 4111 1111 1111 1111"}), keys)
    assert keys.opened(entered["attributes"]["note"]) == "paid with [card number ending 1111]"


def test_invalid_payment_is_refused_before_it_is_sealed(keys: Vault) -> None:
    refused = prepare_row(row(attributes={"note": "a\x1fb"}), keys)
    assert isinstance(refused, Refusal)
    decided = admit(row(attributes={"note": "a\x1fb"}), None)
    assert isinstance(decided, Refusal)
    assert refused.reason == decided.reason


@pytest.mark.parametrize(
    ("fields", "subject"),
    [
        (row(amount_minor=WORDS), "acct-7"),
        (row(attributes=[WORDS]), "acct-7"),
        (row(attributes={"a": 7, "name": WORDS}), "acct-7"),
        ({"unreadable": WORDS}, "intake/run-1"),
        (row(account_id=None, note=WORDS), "intake/run-1"),
        (row(account_id=[WORDS]), "intake/run-1"),
        (row(account_id="x\x00", amount_minor=WORDS), "intake/run-1"),
    ],
)
def test_refused_row_is_stored_whole_and_sealed(keys: Vault, fields: dict[str, Any], subject: str) -> None:
    intake = ListIntake(keys)
    assert intake.send(fields, "file.jsonl") is not None
    ((key, value),) = intake.written
    assert [canary for canary in CANARIES if canary in value + key.encode()] == []
    body = json.loads(value[value.index(b'{"transaction_id"') : value.rindex(b"}") + 1])
    assert body["transaction_id"] == str(fields.get("transaction_id", ""))
    assert json.loads(keys.opened(body["row"])) == json.loads(json.dumps(fields, default=str))
    keys.erase([subject], "dpo", "")
    assert keys.opened(body["row"]) == ERASED
    assert run_subject("run-1") == "intake/run-1"


def test_refused_row_with_a_card_number_is_stored_by_its_id_only(keys: Vault) -> None:
    """A time that happens to pass the card number check does not count as a card number."""
    for changed, has_row in (({"counterparty": "4111111111111111"}, False), ({"event_time": 1_740_000_000_000}, True)):
        intake = ListIntake(keys)
        intake.send(row(amount_minor="x", **changed), "file.jsonl")
        ((_, value),) = intake.written
        body = json.loads(value[value.index(b'{"transaction_id"') : value.rindex(b"}") + 1])
        assert (body["transaction_id"], "row" in body) == (TX["transaction_id"], has_row)
        assert b"41111111" not in value


def test_refusals_of_a_file_do_not_quote_its_values(tmp_path: Path) -> None:
    file = tmp_path / "payments.jsonl"
    good = {name: value for name, value in row().items() if value is not None}
    bad = [{**good, name: WORDS} for name in ("amount_minor", "event_time", "latitude", "attributes")]
    file.write_text("".join(json.dumps(each) + "\n" for each in bad))
    details = [read.refusal.detail for read in read_rows(file) if read.refusal]
    assert len(details) == 4
    assert not any("Quill" in detail for detail in details)


def test_locations_are_rounded_to_the_configured_precision(keys: Vault) -> None:
    place = {"latitude": 52.5200066, "longitude": 13.404954, "home_latitude": 52.1, "home_longitude": None}
    entered = prepare_row(row(attributes={}, **place), keys, 3)
    assert not isinstance(entered, Refusal)
    assert [entered[name] for name in place] == [52.52, 13.405, 52.1, None]
    assert prepare_row(entered, keys, 3) == entered


def test_rows_keep_their_order_and_their_keys_are_created_together(keys: Vault) -> None:
    rows = [IntakeRow(row(account_id=f"acct-{number % 3}"), None) for number in range(2_500)]
    rows[7] = IntakeRow({"unreadable": "x"}, Refusal("bad_fields", ""))
    assert list(prepare_keys(iter(rows), keys)) == rows
    assert [keys.known(f"acct-{number}").generation for number in range(3)] == [1, 1, 1]


def test_backtest_decides_the_payments_that_the_intake_would_admit(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, location_decimals=2)
    rows = [
        IntakeRow(row(latitude=1.239, longitude=1.0), None),
        IntakeRow({"unreadable": ""}, Refusal("bad_fields", "")),
    ]
    (first, second) = prepare_rows(rows, partial(existing_keys, settings), settings.location_decimals)
    assert (first.fields["latitude"], first.fields["attributes"], second) == (1.24, row()["attributes"], rows[1])
    assert list(tmp_path.iterdir()) == []
    upgrade(connect(settings.control_database))
    sealing = vault(settings)
    expected = sealing.seal("acct-7", "attribute", WORDS)
    theirs = IntakeRow(row(account_id="acct-8"), None)
    found = [
        each.fields["attributes"]["name"]
        for each in prepare_rows([rows[0], theirs], partial(existing_keys, settings), settings.location_decimals)
    ]
    assert found == [expected, WORDS]
    assert sealing.known("acct-8").generation is None


# -- the search for texts that must not be stored ----------------------------------------------------------


@given(st.binary(max_size=20), st.text(min_size=8, max_size=40), st.binary(max_size=20))
def test_text_is_found_in_each_encoding_and_context(before: bytes, text: str, after: bytes) -> None:
    try:
        plain = text.encode()
    except UnicodeEncodeError:
        return
    around = before + plain + after
    stored = [around, around.hex().encode(), base64.b64encode(around), base64.urlsafe_b64encode(around)]
    stored += [json.dumps([text]).encode(), json.dumps([text], ensure_ascii=False).encode(), text.encode("utf-16")]
    forms = forms_of(text)
    assert [content for content in stored if not any(form in content for form in forms)] == []


def test_short_text_is_not_searched_for() -> None:
    with pytest.raises(CanaryTooShort):
        search(MagicMock(), " ab ")


def test_text_is_found_in_a_compressed_checkpoint_entry(tmp_path: Path) -> None:
    """Compressed data refers back to earlier data, so a plain search of the file could not find the bytes."""
    chunk = tmp_path / "checkpoints" / "job" / "chk-7" / "of-a-task"
    chunk.parent.mkdir(parents=True)
    packed = pack(b"Ms Zoe lives here, " * 20 + b"and O'Hara-Q is what the card says: O'Hara-Quill" + bytes(99))
    chunk.write_bytes(b"\x00" * 9 + MAGIC + b"\xff" * 30 + packed + MAGIC)
    assert b"O'Hara-Quill" not in chunk.read_bytes()
    places = _files(tmp_path, re.compile(b"O'Hara-Quill"))
    assert list(places) == [("checkpoints/job/chk-7/of-a-task", True)]
    assert list(_files(tmp_path, re.compile(b"O'Hara-Quilt"))) == [("checkpoints/job/chk-7/of-a-task", False)]


def test_watching_process_drops_an_erased_key_within_a_second(desk: Desk) -> None:
    assert RECHECK_S <= 1
    assert is_sealed(desk.vault.seal("acct-1", "text", WORDS))
