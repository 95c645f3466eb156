"""Evidence packs: their content is proved, withheld data is not in them, and `verify` alone finds every alteration."""

import json
import os
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from console.cli import audit
from console.cli.app import app
from console.evidence import verify_pack
from console.evidence.pack import EvidenceExportError, EvidencePackBuilder, RecordSelection
from console.evidence.verify_pack import MissingProof, PackFault, check, make_zip, read_zip
from domain.digest import canonical_json
from domain.record_types import to_fields
from projections.archive.bucket import MemoryBucket
from projections.archive.heads import head_key
from projections.archive.signing import Signer
from schemas.codec import Decoder
from schemas.topics import Topics
from tests.support.vault import ENCODER, EVENTS, INBOX, SIGNER, Vault, case_events, payment, schema_text

KEY = SIGNER.public_key
MUTATIONS = int(os.environ.get("FRAUDCASE_MUTATIONS", "300"))
SEED = int(os.environ.get("FRAUDCASE_SEED", "20261125"))
ANNA = case_events("anna")[0].case_id


def filled(cases: int = 1, accounts: tuple[str, ...] = ("anna", "ben", "carl")) -> Vault:
    """Fill an archive with cases and payments of several accounts, and a head after each."""
    vault = Vault()
    for number in range(cases):
        for account in accounts:
            name = account if number == 0 else f"{account}{number}"
            events = case_events(name)
            vault.events(events)
            command = {"account_id": name, "command_id": f"note-{name}-1"}
            taken = {**command, "case_id": events[0].case_id, "actor": "ana", "seen_sequence": 1, "requested_at_ms": 5}
            vault.write(INBOX, [(name, ENCODER.encode("TakeCase", taken)), (name, b"\x00unreadable")])
            vault.payments(payment(name, each) for each in (1, 2, 3))
            vault.head()
    return vault


def pack_of(vault: Vault, *redacted: str, since: bytes | None = None, **selection: Any) -> bytes:
    return EvidencePackBuilder(vault.bucket, Topics(), SIGNER, redacted).pack(RecordSelection(**selection), since)


@cache
def small() -> tuple[bytes, bytes]:
    """Return the smallest pack of a case, and the last head."""
    vault = Vault()
    vault.events(event for event in case_events("anna", notes=0))
    head = vault.head()
    return pack_of(vault, case_id=ANNA), head.body


def members_of(pack: bytes) -> dict[str, bytes]:
    return dict(read_zip(pack))


def records_of(pack: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in members_of(pack)["records.jsonl"].splitlines()]


def test_pack_holds_and_proves_a_whole_case() -> None:
    vault = filled()
    pack = pack_of(vault, case_id=ANNA)
    lines = check(pack, KEY, vault.head().body)
    assert any("complete: case" in line and "with 4 events and 1 answers" in line for line in lines)
    assert pack == pack_of(vault, case_id=ANNA)
    records = records_of(pack)
    kinds = [(record["topic"], record["type"]) for record in records]
    assert kinds.count((EVENTS, "NoteAdded")) == 1
    assert (INBOX, "TakeCase") in kinds
    assert len([kind for kind in kinds if kind[1] == "Transaction"]) == 2
    notes = next(record for record in records if record["type"] == "NoteAdded")
    raw = (
        b"\x00"
        + notes["schema_id"].to_bytes(4, "big")
        + b"".join(bytes.fromhex(part) for _, _, part in notes["parts"][2:])
    )
    name, data = Decoder(schema_text).decode(raw)  # the standalone reader agrees with the real one
    assert (name, data) == ("NoteAdded", notes["data"])


def test_standard_tools_read_a_pack() -> None:
    pack = pack_of(filled(), case_id=ANNA)
    with zipfile.ZipFile(BytesIO(pack)) as opened:
        assert opened.testzip() is None
        assert opened.read("verify.py") == Path(verify_pack.__file__).read_bytes()
        table = pq.read_table(BytesIO(opened.read("records.parquet")))
        assert opened.read("report.pdf").startswith(b"%PDF-")
    assert table.num_rows == len(records_of(pack))
    event = next(
        value
        for value in table["value"].to_pylist()
        if value[1:5] == ENCODER.encode("NoteAdded", to_fields(case_events("anna")[3]))[1:5]
    )
    assert Decoder(schema_text).decode(event)[1]["case_id"] == ANNA


def test_an_outsider_needs_one_file_and_the_key(tmp_path: Path) -> None:
    vault = filled()
    pack = pack_of(vault, case_id=ANNA)
    (tmp_path / "p.zip").write_bytes(pack)
    (tmp_path / "check.py").write_bytes(members_of(pack)["verify.py"])
    (tmp_path / "head.json").write_bytes(vault.head().body)

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-I", "-S", "check.py", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env={})

    good = run("p.zip", "--public-key", KEY.hex(), "--head", "head.json")
    assert (good.returncode, good.stderr) == (0, "")
    assert "PROVED" in good.stdout
    unseen = run("p.zip", "--public-key", KEY.hex())
    assert unseen.returncode == 0
    assert "freshness is unproven" in unseen.stdout
    assert f"head {vault.head().number}" in unseen.stdout
    assert run("p.zip").returncode == 2
    assert run("p.zip", "--public-key", Signer(bytes(32)).public_key.hex()).returncode == 1
    assert run("p.zip", "--public-key", "nonsense").returncode == 1
    assert run("none.zip").returncode == 1


def test_standalone_verifier_is_one_file_that_needs_only_the_standard_library() -> None:
    text = Path(verify_pack.__file__).read_text()
    imports = {line.split()[1] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert imports <= {"__future__", *sys.stdlib_module_names}
    assert text.count("\n") < 400


def test_completeness_is_claimed_for_cases_and_ranges_only() -> None:
    vault = filled()
    head = vault.head().body
    account = pack_of(vault, account_id="anna")
    assert "no completeness is claimed" in "".join(check(account, KEY, head))
    assert {record["topic"] for record in records_of(account)} == {EVENTS, INBOX, "payments.inbound"}
    assert "Nothing is claimed: the log may" in members_of(account)["report.html"].decode()
    part = pack_of(vault, from_ms=10_002, to_ms=10_005, topics=("payments.inbound",))
    assert "all of payments.inbound partition 0 from record 2 to 4" in "".join(check(part, KEY, head))
    with pytest.raises(EvidenceExportError, match="no record of the selection"):
        pack_of(vault, case_id="no-such-case")
    with pytest.raises(EvidenceExportError, match="no signed head"):
        EvidencePackBuilder(MemoryBucket(), Topics(), SIGNER)


def test_range_includes_records_that_kafka_timestamps_put_elsewhere() -> None:
    vault = Vault()
    writer = vault.writer("payments.inbound")
    records = vault.write("payments.inbound", [("a", b"1")])
    times = [20_000, 9_000, 20_001]
    writer.write([records[0]._replace(offset=n, timestamp_ms=at) for n, at in enumerate(times, start=1)])
    vault.head()
    pack = pack_of(vault, from_ms=20_000, to_ms=20_002)
    assert [record["timestamp_ms"] for record in records_of(pack)] == times
    assert check(pack, KEY)


def test_withheld_data_is_absent_and_the_rest_is_proved() -> None:
    vault = filled(accounts=("subject-77", "ben"))
    case_id = case_events("subject-77")[0].case_id
    names = ("account_id", "text", "transaction_id", "Transaction.attributes", "flag_id", "command_id", "cause_id")
    hidden = pack_of(vault, *names, case_id=case_id)
    lines = check(hidden, KEY, vault.head().body)
    assert any("complete: case" in line for line in lines)
    for secret in (b"subject-77", b"secret", b"example.com"):
        assert secret not in hidden
        assert secret.hex().encode() not in hidden
        assert secret in pack_of(vault, case_id=case_id)
    for record in records_of(hidden):
        if record["type"] == "NoteAdded":
            assert record["data"]["note_id"] == "n1"
            assert {name: salt for name, salt, _ in record["parts"]}["text"] is None
    whole = pack_of(vault, "NoteAdded", account_id="subject-77")
    assert check(whole, KEY)
    assert b"secret" not in whole
    assert "case_id" in next(r for r in records_of(whole) if r["type"] == "CaseOpened")["data"]


def test_pack_that_withholds_the_case_makes_no_claim_about_it() -> None:
    vault = filled()
    lines = check(pack_of(vault, "case_id", case_id=ANNA), KEY)
    assert any("no completeness is claimed" in line for line in lines)
    assert not any("complete: case" in line for line in lines)


def test_unknown_field_name_is_refused() -> None:
    with pytest.raises(EvidenceExportError, match="txet"):
        pack_of(filled(), "txet", case_id=ANNA)


def test_a_withheld_text_cannot_be_guessed_from_its_hash() -> None:
    """Equal texts in two records have different hashes, and the records' salts are not in the pack."""
    vault = filled(accounts=("anna",))
    vault.events([event for event in case_events("ben") if type(event).__name__ != "CaseOpened"])
    vault.head()
    hidden = records_of(pack_of(vault, "actor", from_ms=0))
    hashes = [data for record in hidden for name, salt, data in record["parts"] if name == "actor" and salt is None]
    assert len(hashes) == len(set(hashes)) > 2


def test_a_report_is_safe_to_open() -> None:
    page = members_of(pack_of(filled(), case_id=ANNA))["report.html"].decode()
    assert "<b>secret" not in page
    assert "&lt;b&gt;secret" in page
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert "default-src 'none'" in page
    assert "prefers-color-scheme" in page
    assert "<svg" in page


def test_known_head_must_be_a_prefix_of_the_log_of_the_pack() -> None:
    vault = filled()
    early, older = vault.bucket.get(head_key(1)), pack_of(vault, case_id=ANNA)
    for number in range(30):
        vault.payments([payment("zoe", number)])
        vault.head()
    pack, last = pack_of(vault, account_id="zoe"), vault.head().body
    for number in (1, 32, 33):
        assert "extends the given head" in check(pack, KEY, vault.bucket.get(head_key(number)))[-1]
    assert early is not None
    with pytest.raises(PackFault, match="but the pack's head is"):
        check(older, KEY, last)
    seldom = vault.bucket.get(head_key(12))
    with pytest.raises(MissingProof, match="Ask for a pack with --since-head"):
        check(pack, KEY, seldom)
    assert check(pack_of(vault, account_id="zoe", since=seldom), KEY, seldom)


def test_log_rewritten_by_the_key_owner_contradicts_a_known_head() -> None:
    seen = filled().bucket.get(head_key(2))
    other = filled(accounts=("anna", "eve", "carl", "dora"))
    with pytest.raises(PackFault):
        check(pack_of(other, case_id=ANNA), KEY, seen)


@pytest.mark.no_cover
def test_every_flipped_byte_of_a_small_pack_is_found() -> None:
    pack, head = small()
    assert check(pack, KEY, head)
    draw = random.Random(SEED)
    data = bytearray(pack)
    for place in range(len(data)):
        mask = draw.randrange(1, 256)
        data[place] ^= mask
        with pytest.raises(PackFault):
            check(bytes(data), KEY, head)
        data[place] ^= mask


def test_flipped_byte_is_found_in_a_rebuilt_zip() -> None:
    """With a valid zip checksum, so that the proof has to find it: a sample of each member's bytes."""
    pack, head = small()
    members, draw = read_zip(pack), random.Random(SEED)
    for number, (name, data) in enumerate(members):
        for place in draw.sample(range(len(data)), min(60, len(data))):
            changed = data[:place] + bytes([data[place] ^ draw.randrange(1, 256)]) + data[place + 1 :]
            with pytest.raises(PackFault):
                check(make_zip([*members[:number], (name, changed), *members[number + 1 :]]), KEY, head)


# -- random mutations ------------------------------------------------------------------------------------

Members = dict[str, bytes]


def resigned(members: Members, signer: Signer = SIGNER, **manifest: Any) -> bytes:
    """Build a pack of these members with a matching, signed manifest, as the key owner could."""
    document = json.loads(members["manifest.json"]) | manifest
    rest = {name: data for name, data in members.items() if not name.startswith("manifest")}
    document["members"] = {name: verify_pack.sha256(data).hex() for name, data in rest.items()}
    body = canonical_json(document)
    signature = signer.sign(verify_pack.FORMAT.encode() + b"\n" + body).hex().encode()
    return make_zip([("manifest.json", body), ("manifest.sig", signature), *sorted(rest.items())])


def _lines(members: Members) -> list[bytes]:
    return members["records.jsonl"].splitlines(keepends=True)


def flip(draw: random.Random, pack: bytes, _: bytes) -> bytes:
    place = draw.randrange(len(pack))
    return pack[:place] + bytes([pack[place] ^ draw.randrange(1, 256)]) + pack[place + 1 :]


def truncate(draw: random.Random, pack: bytes, _: bytes) -> bytes:
    return pack[: draw.randrange(len(pack))]


def append(draw: random.Random, pack: bytes, other: bytes) -> bytes:
    return pack + draw.choice([b"\x00", b"PK", other, other[-22:]])


def cut_out(draw: random.Random, pack: bytes, _: bytes) -> bytes:
    begin = draw.randrange(len(pack) - 1)
    return pack[:begin] + pack[begin + draw.randrange(1, 2_000) :]


def splice(draw: random.Random, pack: bytes, other: bytes) -> bytes:
    place = draw.randrange(1, min(len(pack), len(other)))
    return pack[:place] + other[place:]


def drop_member(draw: random.Random, pack: bytes, _: bytes) -> bytes:
    members = read_zip(pack)
    del members[draw.randrange(len(members))]
    return make_zip(members)


def swap_members(draw: random.Random, pack: bytes, _: bytes) -> bytes:
    members = read_zip(pack)
    one, two = draw.sample(range(len(members)), 2)
    members[one], members[two] = members[two], members[one]
    return make_zip(members)


def double_member(draw: random.Random, pack: bytes, _: bytes) -> bytes:
    members = read_zip(pack)
    return make_zip([*members, draw.choice(members)])


def foreign_member(draw: random.Random, pack: bytes, other: bytes) -> bytes:
    members, theirs = members_of(pack), members_of(other)
    same = sorted(name for name in members if name in theirs and theirs[name] != members[name])
    members[draw.choice(same)] = theirs[draw.choice(same)]
    return make_zip(list(members.items()))


def another_signer(_: random.Random, pack: bytes, __: bytes) -> bytes:
    signer = Signer(bytes(32))
    return resigned(members_of(pack), signer, key=signer.public_key.hex())


def drop_record(draw: random.Random, pack: bytes, _: bytes) -> bytes:
    members = members_of(pack)
    lines = _lines(members)
    mine = [number for number, line in enumerate(lines) if b'"topic":"cases.events"' in line]
    del lines[draw.choice(mine)]
    return resigned(members | {"records.jsonl": b"".join(lines)})


def swap_records(draw: random.Random, pack: bytes, _: bytes) -> bytes:
    members = members_of(pack)
    lines = _lines(members)
    one, two = draw.sample(range(len(lines)), 2)
    lines[one], lines[two] = lines[two], lines[one]
    return resigned(members | {"records.jsonl": b"".join(lines)})


def alter_record(draw: random.Random, pack: bytes, _: bytes) -> bytes:
    """Change one field of one record, or of the claim, in a pack whose manifest is signed over the change."""
    members = members_of(pack)
    records = [json.loads(line) for line in _lines(members)]
    record = draw.choice(records)
    ways: list[Callable[[], object]] = [
        lambda: record.__setitem__("offset", record["offset"] + 1),
        lambda: record.__setitem__("timestamp_ms", record["timestamp_ms"] - 1),
        lambda: record.__setitem__("index", record["index"] + 1),
        lambda: record.__setitem__("partition", 1),
        lambda: record["proof"].reverse() if len(set(record["proof"])) > 1 else record["proof"].append("00" * 32),
        lambda: record["proof"].pop() if record["proof"] else record["proof"].append("00" * 32),
        lambda: record["data"].__setitem__("actor", "nobody") if record["data"] else record.__setitem__("data", {}),
        lambda: record["parts"].pop(),
        lambda: record["parts"][draw.randrange(len(record["parts"]))].__setitem__(2, "00" * draw.randrange(1, 40)),
        lambda: record["parts"][0].__setitem__(1, "11" * 16),
    ]
    draw.choice(ways)()
    return resigned(members | {"records.jsonl": b"".join(canonical_json(each) + b"\n" for each in records)})


def alter_claim(draw: random.Random, pack: bytes, _: bytes) -> bytes:
    members = members_of(pack)
    claim = json.loads(members["manifest.json"])["claims"][0]
    entry = claim["entry"]
    entry[draw.randrange(len(entry))][draw.choice([1, 2])] += draw.choice([-1, 1])
    return resigned(members, claims=[claim])


def older_head(draw: random.Random, pack: bytes, _: bytes) -> bytes:
    """Remove the newest head: the older one was signed validly, but is not the last head that was seen."""
    members = members_of(pack)
    names = sorted(name for name in members if name.startswith("heads/"))
    for name in names[draw.randrange(1, len(names)) :]:
        del members[name]
    return resigned(members)


def older_pack(_: random.Random, __: bytes, other: bytes) -> bytes:
    return other


WAYS = [
    flip, truncate, append, cut_out, splice, drop_member, swap_members, double_member, foreign_member, another_signer,
    drop_record, swap_records, alter_record, alter_claim, older_head, older_pack,
]  # fmt: skip


@cache
def two_packs() -> tuple[bytes, bytes, bytes]:
    """Return a pack, an older pack of the same case, and the last head."""
    vault = filled(accounts=("anna", "ben"))
    older = pack_of(vault, case_id=ANNA)
    vault.events(case_events("zoe"))
    vault.payments([payment("zoe", 1)])
    head = vault.head()
    return pack_of(vault, case_id=ANNA), older, head.body


def test_random_mutations_are_found() -> None:
    """FRAUDCASE_MUTATIONS sets the number of mutations, FRAUDCASE_SEED the seed."""
    pack, older, head = two_packs()
    assert check(pack, KEY, head)
    assert check(older, KEY)
    unfound = []
    for number in range(MUTATIONS):
        draw = random.Random(f"{SEED} {number}")
        way = WAYS[number % len(WAYS)]
        mutated = way(draw, pack, older)
        if mutated == pack:
            continue
        try:
            check(mutated, KEY, head)
        except PackFault:
            continue
        unfound.append((way.__name__, number))
    assert unfound == []


def test_commands_create_and_verify_a_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vault = filled()
    monkeypatch.setenv("FRAUDCASE_HOME", str(tmp_path))
    monkeypatch.setenv("FRAUDCASE_AUDIT_KEY", bytes(range(32)).hex())
    monkeypatch.setattr(audit, "bucket", lambda _: vault.bucket)
    run = CliRunner()
    key = run.invoke(app, ["audit", "key"]).stdout.strip()
    assert key == KEY.hex()
    head, out = tmp_path / "head.json", tmp_path / "pack.zip"
    assert json.loads(run.invoke(app, ["audit", "heads", "--out", str(head), "--json"]).stdout)["number"] == 3
    made = run.invoke(app, ["export", "--case", ANNA, "--out", str(out), "--redact", "text"])
    assert made.exit_code == 0, made.output
    good = run.invoke(app, ["verify", str(out), "--public-key", key, "--head", str(head)])
    assert (good.exit_code, "PROVED" in good.stdout) == (0, True)
    assert run.invoke(app, ["verify", str(out)]).exit_code == 2
    out.write_bytes(out.read_bytes()[:-1])
    assert run.invoke(app, ["verify", str(out), "--public-key", key]).exit_code == 1
    assert run.invoke(app, ["audit", "verify", "--head", str(head)]).exit_code == 0
    del vault.bucket.objects[head_key(3)]
    lost = run.invoke(app, ["audit", "verify", "--head", str(head)])
    assert (lost.exit_code, "rolled back" in lost.output) == (1, True)
    for wrong in (["--case", ANNA, "--account", "a"], [], ["--from", "0", "--topic", "nothing"], ["--case", "none"]):
        assert run.invoke(app, ["export", *wrong, "--out", str(out)]).exit_code == 1
