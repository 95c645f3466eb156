"""Sealing and erasure on SQLite and on a real PostgreSQL: which texts open, which no longer do, and what remains."""

import json
import re
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from console.privacy.scrubbing import PIECE
from console.privacy.vault import RECHECK_S, Vault, VaultError, subject_name
from domain.masking import mask_card_numbers
from domain.payment import holds_card_number
from domain.sealed import ERASED, UNREADABLE, ciphertext_of, count_characters, is_sealed, length_name, sealed_text
from migrations.models import ErasureRow, SubjectKeyRow
from migrations.store import connect, upgrade

MASTER = b"a master key of the tests, long enough"
ANA, BEN = "acct-ana", "acct-ben"
NOTE = 'Called +49 170 5550123: "it was my <b>son</b>", she said\nüß 日本 &c'


class ManualClock:
    """Clock that stops until a test advances it."""

    def __init__(self) -> None:
        self.s = 100.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def ticks() -> ManualClock:
    return ManualClock()


@pytest.fixture
def make(engine: Engine, ticks: ManualClock) -> Callable[..., Vault]:
    """Make the vault of one process. Several processes share the store."""

    def made(master: bytes = MASTER, **options: bool) -> Vault:
        return Vault(engine, master, lambda: 1_750_000_000_000, monotonic=ticks, **options)

    return made


Make = Callable[..., Vault]


def test_sealed_text_opens_in_every_process(make: Make) -> None:
    sealed = make().seal(ANA, "text", NOTE)
    assert is_sealed(sealed)
    assert "son" not in sealed
    assert make().opened(f"before {sealed}. after") == f"before {NOTE}. after"


def test_sealing_is_deterministic_by_subject_field_and_text(make: Make) -> None:
    vault = make()
    once = vault.seal(ANA, "text", NOTE)
    assert make().seal(ANA, "text", NOTE) == once
    others = [vault.seal(BEN, "text", NOTE), vault.seal(ANA, "name", NOTE), vault.seal(ANA, "text", NOTE + ".")]
    assert len({once, *others}) == 4


def test_an_empty_text_stays_empty(make: Make) -> None:
    assert [make().seal(ANA, "text", blank) for blank in ("", "  ")] == ["", "  "]


def test_sealed_text_opens_inside_json_and_inside_html(make: Make) -> None:
    vault = make()
    document = {"event": {"text": vault.seal(ANA, "text", NOTE), "sequence": 2}}
    assert json.loads(vault.opened_json(json.dumps(document))) == {"event": {"text": NOTE, "sequence": 2}}
    shown = vault.opened_html(f'<p title="{vault.seal(ANA, "text", NOTE)}">')
    assert "<b>" not in shown
    assert "&lt;b&gt;son&lt;/b&gt;&quot;" in shown


def test_erased_subject_is_unreadable_and_others_stay_readable(make: Make, ticks: ManualClock) -> None:
    vault, running = make(), make()
    ana, ben = vault.seal(ANA, "text", NOTE), vault.seal(BEN, "text", NOTE)
    assert running.opened(ana) == NOTE
    erased = vault.erase([ANA], "dpo", "request 17")
    assert [(each.subject, each.generation, each.actor, each.reason) for each in erased] == [
        (ANA, 1, "dpo", "request 17")
    ]
    assert vault.opened(ana) == make().opened(ana) == ERASED
    ticks.s += RECHECK_S
    assert running.opened(f"{ana}|{ben}") == f"{ERASED}|{NOTE}"


def test_running_process_drops_an_erased_key(make: Make, ticks: ManualClock) -> None:
    intake = make()
    before = intake.seal(ANA, "text", NOTE)
    make().erase([ANA], "dpo", "")
    ticks.s += RECHECK_S
    after = intake.seal(ANA, "text", NOTE)
    assert after != before
    assert make().opened(f"{before}|{after}") == f"{ERASED}|{NOTE}"
    assert make().known(ANA).generation == 2


def test_erasing_twice_or_an_unknown_subject_is_recorded_and_harmless(make: Make) -> None:
    vault = make()
    vault.seal(ANA, "text", NOTE)
    vault.erase([ANA], "dpo", "")
    (again,) = vault.erase([ANA], "dpo", "again")
    assert (again.key_id, again.generation) == (None, 0)
    assert [each.reason for each in vault.known(ANA).erasures] == ["", "again"]
    assert make().seal(ANA, "text", NOTE) != ""
    assert make().known(ANA).generation == 2


def test_the_key_is_in_no_file_of_the_store(make: Make, engine: Engine, tmp_path: Path) -> None:
    """Nor in pages that SQLite moved, nor where PostgreSQL keeps dead rows."""
    vault = make()
    subjects = [f"acct-{number:04}" for number in range(2_000)]
    vault.prepare(subjects)
    with Session(engine) as session:
        wrapped = dict(session.execute(select(SubjectKeyRow.subject, SubjectKeyRow.wrapped)).all())
    gone = subjects[700:900]
    pieces = [wrapped[name][at : at + PIECE] for name in gone for at in range(0, 80, PIECE)]
    assert holds(engine, tmp_path, pieces[:1])
    vault.erase(gone, "dpo", "")
    assert not holds(engine, tmp_path, pieces)
    assert holds(engine, tmp_path, [wrapped[subjects[0]]])


def holds(engine: Engine, folder: Path, pieces: list[bytes]) -> bool:
    """Return whether the store's files contain one of these byte strings, independently of how the store scrubs
    itself.
    """
    if engine.dialect.name == "sqlite":
        files = list(folder.glob("control.db*"))
    else:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("CHECKPOINT"))
            files = [
                Path(str(connection.scalar(text("SHOW data_directory"))))
                / str(connection.scalar(text("SELECT pg_relation_filepath('subject_keys')")))
            ]
    content = b"".join(file.read_bytes() for file in files)
    return any(piece in content for piece in pieces)


def test_key_copy_in_an_unused_page_is_scrubbed(tmp_path: Path, ticks: ManualClock) -> None:
    """As in a store that was written before deleted bytes were overwritten."""
    file = tmp_path / "old.db"
    engine = connect(f"sqlite:///{file}")
    upgrade(engine)
    vault = Vault(engine, MASTER, lambda: 1, monotonic=ticks)
    vault.seal(ANA, "text", NOTE)
    with Session(engine) as session:
        wrapped = session.scalars(select(SubjectKeyRow.wrapped)).one()
    careless = sqlite3.connect(file)
    careless.execute("PRAGMA secure_delete = OFF")
    careless.execute("CREATE TABLE moved (content BLOB)")
    careless.execute("INSERT INTO moved VALUES (?)", (wrapped,))
    careless.commit()
    careless.execute("DELETE FROM moved")
    careless.commit()
    careless.close()
    assert file.read_bytes().count(wrapped[:PIECE]) == 2
    vault.erase([ANA], "dpo", "")
    assert file.read_bytes().count(wrapped[:PIECE]) == 0
    engine.dispose()


def test_the_record_of_an_erasure_cannot_be_changed(make: Make, engine: Engine) -> None:
    make().erase([ANA], "dpo", "")
    for statement in ("UPDATE erasures SET actor = 'x'", "DELETE FROM erasures"):
        with pytest.raises(DBAPIError, match="append-only"), engine.begin() as connection:
            connection.execute(text(statement))
    with Session(engine) as session:
        assert len(list(session.scalars(select(ErasureRow)))) == 1


def test_concurrent_processes_create_one_key_for_a_subject(make: Make, engine: Engine) -> None:
    subjects = [f"acct-{number}" for number in range(60)]

    def sealing(_: int) -> list[str]:
        vault = make()
        vault.prepare(subjects[:40])
        return [vault.seal(name, "text", NOTE) for name in subjects]

    with ThreadPoolExecutor(6) as pool:
        first, *others = list(pool.map(sealing, range(6)))
    assert all(each == first for each in others)
    with Session(engine) as session:
        assert len(list(session.scalars(select(SubjectKeyRow)))) == len(subjects)


def test_without_creating_keys_only_known_subjects_are_sealed(make: Make) -> None:
    known = make().seal(ANA, "attribute", NOTE)
    reader = make(makes_keys=False)
    assert reader.seal(ANA, "attribute", NOTE) == known
    assert reader.seal(BEN, "attribute", NOTE) == NOTE
    assert make().known(BEN).generation is None


def test_wrong_master_key_seals_and_opens_nothing(make: Make) -> None:
    sealed = make().seal(ANA, "text", NOTE)
    stranger = make(b"another master key of the tests, as long")
    with pytest.raises(VaultError, match="master key"):
        stranger.seal(ANA, "text", NOTE)
    with pytest.raises(VaultError, match="master key"):
        stranger.seal(BEN, "text", NOTE)
    assert stranger.opened(sealed) == UNREADABLE


def test_a_wrapped_key_moved_to_another_subject_does_not_open(make: Make, engine: Engine) -> None:
    vault = make()
    sealed = vault.seal(ANA, "text", NOTE)
    vault.seal(BEN, "text", NOTE)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE subject_keys SET wrapped = (SELECT wrapped FROM subject_keys WHERE subject = :a) "
                 "WHERE subject = :b"), {"a": ANA, "b": BEN},
        )  # fmt: skip
    assert make().opened(sealed) == NOTE
    with pytest.raises(VaultError):
        make().seal(BEN, "text", NOTE)


def test_every_altered_character_is_detected(make: Make) -> None:
    vault = make()
    sealed = vault.seal(ANA, "text", "short")
    start = len(sealed) - len(sealed.split(":")[4]) - 1
    for at in range(start, len(sealed) - 1):
        other = "A" if sealed[at] != "A" else "B"
        assert vault.opened(sealed[:at] + other + sealed[at + 1 :]) in (UNREADABLE, "short")  # spare bits of base64
        assert vault.opened(sealed[:at] + sealed[at + 1 :]) == UNREADABLE


def test_sealed_text_opens_only_as_its_own_field(make: Make) -> None:
    vault = make()
    sealed = vault.seal(ANA, "text", NOTE)
    assert vault.opened(sealed.replace(":text:", ":name:")) == UNREADABLE


def test_files_are_sealed_and_erased_too(make: Make) -> None:
    vault, body = make(), b"%PDF-" + bytes(range(256)) * 40
    sealed = vault.seal_file(ANA, body)
    assert sealed == make().seal_file(ANA, body)
    assert b"%PDF-" not in sealed
    assert vault.open_file(sealed) == body
    with pytest.raises(VaultError):
        vault.open_file(sealed[:-1] + bytes([sealed[-1] ^ 1]))
    vault.erase([ANA], "dpo", "")
    assert vault.open_file(sealed) is None
    assert vault.open_file(body) == body


@pytest.mark.parametrize("subject", ["", "a\x00b", "x" * 600, "lone \ud800", "wörld 日本", "'; DROP TABLE"])
def test_any_subject_name_can_have_a_key(make: Make, subject: str) -> None:
    vault = make()
    assert vault.opened(vault.seal(subject, "text", NOTE)) == NOTE
    vault.erase([subject], "dpo", "")
    assert vault.opened(vault.seal(subject, "text", NOTE)) == NOTE
    assert vault.known(subject).generation == 2


def test_long_subject_name_is_stored_as_its_digest() -> None:
    assert subject_name(ANA) == ANA
    assert re.fullmatch(r"digest/[0-9a-f]{64}", subject_name("x" * 513))


@given(st.binary(max_size=400), st.integers(0, 2**32 - 1))
def test_ciphertext_is_never_masked_as_a_card_number(ciphertext: bytes, length: int) -> None:
    sealed = sealed_text("a" * 16, "text", length_name(length), ciphertext + bytes(17))
    assert not any(sign.isdigit() for sign in sealed)
    assert mask_card_numbers(sealed) == sealed
    assert not holds_card_number(sealed)
    assert json.loads(json.dumps(sealed)) == sealed
    assert is_sealed(sealed)
    assert ciphertext_of(sealed.split(":")[4]) == ciphertext + bytes(17)


@given(st.text(max_size=300))
def test_sealed_text_reports_its_original_length(plain: str) -> None:
    ciphertext = plain.encode("utf-8", "surrogatepass") + bytes(16)
    assert count_characters(sealed_text("a" * 16, "text", length_name(len(plain)), ciphertext)) == len(plain)


def test_sealed_text_with_a_forged_length_is_refused() -> None:
    forged = sealed_text("a" * 16, "text", length_name(5), bytes(10_000))
    assert count_characters(forged) == len(forged)
    assert count_characters("sealed:" + "x" * 11) == 18


def test_length_is_authenticated(make: Make) -> None:
    sealed = make().seal(ANA, "text", NOTE)
    assert make().opened(sealed.replace(f":{length_name(len(NOTE))}:", f":{length_name(3)}:")) == UNREADABLE
