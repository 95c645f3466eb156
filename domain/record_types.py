"""Everything that can stand in one of our logs, except a payment: facts in the past tense, and what is asked of a fold.

Each class has an Avro schema of the same name in `schemas/`; `to_fields` and `from_fields` are the bridge. A
field that a record lacks, because it was written before there was such a field, takes its default here: that is all
our upcasting.
"""

from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeAlias, get_args

from domain.cases.commands import Amount, Attachment, Command, MergedFlag
from domain.cases.events import CaseEvent, ClockTicked, FlaggedPayment, MissedEvent
from domain.engines import EngineActivated
from domain.payment import IntakeRefused
from domain.quarantine import Quarantined
from domain.reason import Reason
from domain.record import Record, types_of
from domain.risk.events import (
    DecisionsMade,
    DuplicateSeen,
    EntityPayment,
    Flag,
    FraudConfirmed,
    RiskScored,
    RulesActivated,
)

# -- payments.inbound, beside the payments --------------------------------------------------------


# -- entities.inbound, beside the activations -----------------------------------------------------


# -- risk.scored ----------------------------------------------------------------------------------


# -- cases.inbox ----------------------------------------------------------------------------------


# -- quarantine -----------------------------------------------------------------------------------


InboxRecord: TypeAlias = Flag | ClockTicked | Command
InboundRecord: TypeAlias = RulesActivated | EngineActivated | IntakeRefused | FraudConfirmed
Event: TypeAlias = InboundRecord | EntityPayment | DecisionsMade | InboxRecord | CaseEvent | Quarantined

TYPES: dict[str, type[Event]] = {kind.__name__: kind for kind in get_args(Event)}
"""Every event by the name that its schema bears."""


def to_fields(event: Event) -> dict[str, Any]:
    """The event as plain data, field by field, as its schema wants it."""
    return _record(event)


_PLAIN: Final = {str, int, bool, bytes, str | None, int | None, bytes | None}
"""What nearly every field holds."""


def _record(made: Any) -> dict[str, Any]:
    plan: _FieldPlan = _plan(type(made))  # type: ignore[arg-type]  # a class is hashable, whatever it makes
    data = dict(zip(plan.names, plan.values(made), strict=True))
    for name in plan.nested:
        data[name] = _plain(data[name])
    return data


class _FieldPlan(NamedTuple):
    """The fields of a class, what gets their values, and which of them hold more than one."""

    names: tuple[str, ...]
    values: Callable[[Any], tuple[Any, ...]]
    nested: tuple[str, ...]


@cache
def _plan(kind: Any) -> _FieldPlan:
    names = kind.__struct_fields__
    nested = tuple(name for name, holds in types_of(kind).items() if holds not in _PLAIN)
    return _FieldPlan(names, attrgetter(*names), nested)  # each class has two fields at least


def _plain(value: Any) -> Any:
    if isinstance(value, str):  # what most arrays hold
        return value
    if isinstance(value, RiskScored | DuplicateSeen):
        return value._asdict()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return _record(value) if isinstance(value, Record) else value


def from_fields(name: str, data: dict[str, Any]) -> Event:
    """The event that `to_fields` made these of. KeyError names a type that no fold knows."""
    kind = TYPES[name]
    known = dict(data)
    if kind is DecisionsMade:
        partition = known["partition"]
        known["scored"] = tuple(RiskScored(**scored, partition=partition) for scored in known["scored"])
        known["duplicates"] = tuple(DuplicateSeen(**each, partition=partition) for each in known["duplicates"])
    for key in _plan(kind).nested:
        if key in known:
            make = _MAKERS.get(key)
            known[key] = tuple(known[key]) if make is None else tuple([make(item) for item in known[key]])
    return kind(**known)


def _reason(data: dict[str, Any]) -> Reason:
    return Reason(**{**data, "contributing": tuple(data["contributing"])})


def _maker(kind: Callable[..., Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda data: kind(**data)


_MAKERS: Final[dict[str, Callable[[dict[str, Any]], Any]]] = {
    "reasons": _reason,
    "payments": _maker(FlaggedPayment),
    "attachments": _maker(Attachment),
    "amounts": _maker(Amount),
    "flags": _maker(MergedFlag),
    "missed": _maker(MissedEvent),
}
"""What makes the records of the fields that hold arrays of them; other arrays are of texts."""
