"""The digest of a history: which changes alter it, and which do not."""

import hashlib
import json
from pathlib import Path

import pytest

from domain.cases.events import CommandRejected
from domain.digest import HistoryDigest, canonical_bytes, canonical_json
from domain.record import replace
from tests.support.cases import ACCOUNT, CASE, flag, history

JCS = Path(__file__).parents[3] / "shared" / "data" / "jcs"
REJECTED = CommandRejected(
    account_id=ACCOUNT, case_id=CASE, command_id="c-1", actor="ana", reason="no", rejected_at_ms=5
)


def test_digest_covers_the_documented_bytes() -> None:
    digest = HistoryDigest()
    digest.add_payment("acct", "tx-1", b"\x01" * 16)
    digest.add_event(flag(1, account_id="acct"))
    link = hashlib.sha256(b"\x01" * 16 + b"tx-1").digest()
    expected = hashlib.sha256()
    for piece in (b"acct", link, canonical_bytes(flag(1, account_id="acct"))):
        expected.update(len(piece).to_bytes(8, "big") + piece)
    assert digest.hexdigest() == expected.hexdigest()


def test_order_and_redelivery_do_not_change_the_digest() -> None:
    events = [*history(flag(1), flag(2), flag(3, typology="stolen_card"))[1], flag(1), flag(2), REJECTED]
    forwards, backwards = HistoryDigest(), HistoryDigest()
    assert all(forwards.add_event(event) for event in events)
    for event in [*reversed(events), *events]:
        backwards.add_event(event)
    assert forwards.hexdigest() == backwards.hexdigest()
    assert backwards.events == len(events)
    assert forwards.items() == backwards.items()


def test_every_other_change_changes_the_digest() -> None:
    def of(*events: object, payment: bytes = b"") -> str:
        digest = HistoryDigest()
        digest.add_payment(ACCOUNT, "tx", payment)
        for event in events:
            digest.add_event(event)  # type: ignore[arg-type]
        return digest.hexdigest()

    all_different = {
        of(flag(1)),
        of(flag(1), payment=b"other"),
        of(flag(1), flag(2)),
        of(replace(flag(1), score=601)),
        of(replace(flag(1), merchant_id="Bakery")),
        of(REJECTED),
        of(),
    }
    assert len(all_different) == 7


def test_two_events_in_one_place_are_an_error() -> None:
    digest = HistoryDigest()
    digest.add_event(flag(1))
    with pytest.raises(ValueError, match="two different events"):
        digest.add_event(flag(1, score=601))


def test_canonical_json_follows_rfc_8785() -> None:
    document = {"b": [1, {"z": None, "a": True}], "a": '\u20ac$\x0f\nA\'B"\\"/', "bytes": b"\x00\xff"}
    expected = r'{"a":"€$\u000f\nA' + "'" + r'B\"\\\"/","b":[1,{"a":true,"z":null}],"bytes":"00ff"}'
    assert canonical_json(document) == expected.encode()
    with pytest.raises(TypeError, match="no canonical form"):
        canonical_json({"a": object()})


@pytest.mark.parametrize("name", ["french", "structures"])
def test_vectors_of_the_standard(name: str) -> None:
    """The published vectors without floats, if their files are present; two of them are always tested here."""
    vectors = {
        "french": (
            '{"peach": "This sorting order", "péché": "is wrong according to French", "pêche": "but canonicalization",'
            ' "sin": "MUST ignore locale"}',
            '{"peach":"This sorting order","péché":"is wrong according to French","pêche":"but canonicalization",'
            '"sin":"MUST ignore locale"}',
        ),
        "structures": ('{"1": {"f": {"f": "hi", "F": 5}, "\\n": 56}, "10": {}, "": "empty", "a": {}, "111": ["e"]}',
                       '{"":"empty","1":{"\\n":56,"f":{"F":5,"f":"hi"}},"10":{},"111":["e"],"a":{}}'),
    }  # fmt: skip
    given, expected = vectors[name]
    if name == "french" and (JCS / "input" / f"{name}.json").exists():  # the other one holds a float
        given = (JCS / "input" / f"{name}.json").read_text()
        expected = (JCS / "output" / f"{name}.json").read_text()
    assert canonical_json(json.loads(given)) == expected.encode()
