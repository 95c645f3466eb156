"""A record that is made quickly is a frozen dataclass like any other."""

import copy
import pickle
from dataclasses import FrozenInstanceError, dataclass, fields, is_dataclass, replace

import pytest

from domain.case_events import CaseOpened, FlaggedPayment, OfCase, RiskLinked
from domain.events import EntityFlagged, EntityPayment, RiskFlagged, RiskRestated
from domain.quick import quick
from domain.reason import Reason

KINDS = (CaseOpened, RiskLinked, FlaggedPayment, RiskFlagged, RiskRestated, EntityFlagged, EntityPayment, Reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    first: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Slow(Base):
    second: str
    third: tuple[int, ...] = (1,)


@quick
@dataclass(frozen=True, slots=True, kw_only=True)
class Fast(Base):
    second: str
    third: tuple[int, ...] = (1,)


def test_it_holds_what_a_plain_one_holds() -> None:
    fast, slow = Fast(first=1, second="a"), Slow(first=1, second="a")
    assert (fast.first, fast.second, fast.third) == (slow.first, slow.second, slow.third)
    assert repr(fast).replace("Fast", "Slow") == repr(slow)
    assert hash(fast) == hash(slow)
    assert fast == Fast(first=1, second="a", third=(1,))
    assert fast != replace(fast, third=())
    assert copy.deepcopy(fast) == pickle.loads(pickle.dumps(fast)) == fast  # noqa: S301 - our own bytes
    assert isinstance(fast, Base)
    assert type(fast) is Fast


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_it_can_be_changed(kind: type) -> None:
    assert is_dataclass(kind)
    names = [field.name for field in fields(kind)]
    made = kind(**dict.fromkeys(names, 1))
    for name in names:
        with pytest.raises(FrozenInstanceError):
            setattr(made, name, 2)
        with pytest.raises(FrozenInstanceError):
            delattr(made, name)
    assert [getattr(made, name) for name in names] == [1] * len(names)
    with pytest.raises((AttributeError, TypeError)):
        made.anything_else = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("given", [{}, {"first": 1}, {"first": 1, "second": "a", "fourth": 1}])
def test_missing_and_stray_fields_are_refused(given: dict[str, int]) -> None:
    with pytest.raises(TypeError):
        Fast(**given)  # type: ignore[arg-type]


def test_it_keeps_its_place_among_the_events_of_cases() -> None:
    assert issubclass(RiskLinked, OfCase)
    match RiskLinked(**dict.fromkeys([field.name for field in fields(RiskLinked)], 1)):  # type: ignore[arg-type]
        case RiskLinked(flag_id=found):
            assert str(found) == "1"
