"""State written before classes were moved is still read, and state that names foreign classes is refused."""

import base64
import hashlib
import json
import pickle
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from domain.reason import Reason
from domain.risk.fold import RiskFold
from domain.risk.history import ConfirmedFrauds, Decision, History
from domain.risk.labels import HEAD_KEY, FraudLabel, LabelIndex
from domain.state_pickles import UnknownStateClass, read_pickle
from stream.journal import Journal, PartitionRecord

EARLIER = json.loads((Path(__file__).with_name("fixtures") / "state" / "risk.json").read_text())
"""State of a risk fold as release 0.1.0 wrote it, the records after it, and digests of what 0.1.0 decided on them."""
STATE = {key: base64.b64decode(packed) for key, packed in EARLIER["state"].items()}


def digest_of(outputs: Any) -> str:
    """Digest the outputs for one record in the form of the fixture."""
    plain = [[type(output).__name__, json.loads(msgspec.json.encode(output))] for output in outputs]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def test_fixture_names_classes_by_their_earlier_modules() -> None:
    packed = b"".join(STATE.values())
    assert all(
        name in packed
        for name in (b"domain.history", b"Decision", b"Confirmed", b"domain.labels", b"Label", b"domain.reason")
    )


def test_state_of_an_earlier_release_results_in_equal_decisions() -> None:
    fold = RiskFold(3, STATE.get, hot_accounts=0)
    decided = [
        fold.read(name, data, EARLIER["first_offset"] + number, None)
        for number, (name, data) in enumerate(EARLIER["records"])
    ]
    assert [digest_of(outputs) for outputs in decided] == EARLIER["outputs"]
    assert len(EARLIER["outputs"]) > 100


def test_state_written_today_is_read_again() -> None:
    store: dict[str, bytes | None] = dict(STATE)
    fold = RiskFold(3, store.get, hot_accounts=100)
    half = len(EARLIER["records"]) // 2
    first = EARLIER["first_offset"]
    for number, (name, data) in enumerate(EARLIER["records"][:half]):
        fold.read(name, data, first + number, None)
    store |= fold.take_writes()
    again = RiskFold(3, store.get, hot_accounts=0)
    decided = [
        again.read(name, data, first + half + number, None)
        for number, (name, data) in enumerate(EARLIER["records"][half:])
    ]
    assert [digest_of(outputs) for outputs in decided] == EARLIER["outputs"][half:]


def test_a_journal_of_an_earlier_release_is_read() -> None:
    entry = base64.b64decode("gAWVJAAAAAAAAABdlChLB4oGAPZ1c5cBQwNhYmOUh5RLCYoGAfZ1c5cBToeUZS4=")
    journal = Journal(3, {"\x1fjournal\x1f0": entry}.get)
    assert list(journal.read()) == [
        PartitionRecord(7, 1_749_988_800_000, b"abc"),
        PartitionRecord(9, 1_749_988_800_001, None),
    ]


class Forged:
    """Starts a program when it is unpickled by a reader that loads any class."""

    def __reduce__(self) -> tuple[Any, ...]:
        return subprocess.check_output, (["false"],)


FORGED = pickle.dumps([Forged()])


@pytest.mark.parametrize(
    "read",
    [
        pytest.param(lambda: read_pickle(FORGED), id="plain data"),
        pytest.param(lambda: History.read("anna", {"anna": FORGED}.get), id="a history"),
        pytest.param(lambda: LabelIndex({HEAD_KEY: FORGED}.get), id="the labels' head"),
        pytest.param(
            lambda: LabelIndex({key: FORGED if key != HEAD_KEY else STATE[HEAD_KEY] for key in STATE}.get), id="labels"
        ),
        pytest.param(lambda: RiskFold(3, {**STATE, "\x1fpacks": FORGED}.get), id="rule packs"),
        pytest.param(lambda: list(Journal(0, {"\x1fjournal\x1f0": FORGED}.get).read()), id="a journal"),
    ],
)
def test_state_that_names_a_foreign_class_is_refused_by_name(read: Any) -> None:
    with pytest.raises(UnknownStateClass, match=r"subprocess\.check_output"):
        read()


@pytest.mark.parametrize(
    "value", [Decision(1, ()), ConfirmedFrauds(1, 2, ("tx",)), FraudLabel("l", "t", 1, "m", None, None, None, "a")]
)
def test_a_reader_loads_only_the_classes_in_its_own_table(value: object) -> None:
    with pytest.raises(UnknownStateClass, match=type(value).__name__):
        read_pickle(pickle.dumps(value))


def test_every_class_in_written_state_is_in_a_table() -> None:
    """Guards a class that is moved or renamed without its new name entering the table."""
    reason = Reason(rule="r", measure="m", value=1, threshold=1, points=1, contributing=())
    history = History("anna")
    history.standing = {(1, "t", b"d"): Decision(1, (reason,))}
    assert History.read("anna", history.take_writes().get).standing == history.standing
