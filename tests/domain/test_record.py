"""Records of the log: they cannot be changed, and missing or unknown fields are refused."""

import copy
import gc
import pickle

import pytest

from domain.cases.events import NumberedEvent, RiskLinked
from domain.record import Record, defaults_of
from domain.record_types import TYPES, from_fields, to_fields
from tests.support.cases import flag

LINKED = RiskLinked("a", "c", 2, "f", "t", 1, 2, "EUR", 600, ("velocity",), "ab", "bakery")


@pytest.mark.parametrize("kind", TYPES.values())
def test_record_cannot_be_changed(kind: type[Record]) -> None:
    names = kind.__struct_fields__
    made = kind(**dict.fromkeys(names, 1))
    for name in names:
        with pytest.raises(AttributeError):
            setattr(made, name, 2)
        with pytest.raises((AttributeError, TypeError)):
            delattr(made, name)
    assert [getattr(made, name) for name in names] == [1] * len(names)
    with pytest.raises(AttributeError):
        made.anything_else = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", TYPES.values())
def test_missing_and_unknown_fields_are_refused(kind: type[Record]) -> None:
    needed = [name for name in kind.__struct_fields__ if name not in defaults_of(kind)]
    with pytest.raises(TypeError):
        kind(**dict.fromkeys(needed[1:], 1))
    with pytest.raises(TypeError):
        kind(**dict.fromkeys([*needed, "anything_else"], 1))


def test_records_with_equal_content_are_equal() -> None:
    again = from_fields("RiskLinked", to_fields(LINKED))
    assert again == LINKED == copy.deepcopy(LINKED) == pickle.loads(pickle.dumps(LINKED))  # noqa: S301 - our own bytes
    assert hash(again) == hash(LINKED)
    assert isinstance(again, NumberedEvent)
    match again:
        case RiskLinked(flag_id=found):
            assert found == "f"


def test_positional_fields_equal_named_ones() -> None:
    """Records that are made by the million are made from positional values: each value must reach its field."""
    assert {name: getattr(LINKED, name) for name in ("account_id", "case_id", "sequence", "flag_id")} == {
        "account_id": "a", "case_id": "c", "sequence": 2, "flag_id": "f",
    }  # fmt: skip
    assert (LINKED.score, LINKED.rules, LINKED.content_digest, LINKED.merchant_id) == (
        600,
        ("velocity",),
        "ab",
        "bakery",
    )


def test_garbage_collector_does_not_track_records() -> None:
    assert not gc.is_tracked(flag(1))
    assert not gc.is_tracked(LINKED)
