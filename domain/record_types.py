"""All records of our logs except payments, by name, with their conversion to plain fields and back.

Each class has an Avro schema of the same name in `schemas/`; `to_fields` and `from_fields` convert between the two. A
field that an old record lacks takes its default here; there is no other upcasting.
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

InboxRecord: TypeAlias = Flag | ClockTicked | Command
InboundRecord: TypeAlias = RulesActivated | EngineActivated | IntakeRefused | FraudConfirmed
Event: TypeAlias = InboundRecord | EntityPayment | DecisionsMade | InboxRecord | CaseEvent | Quarantined

TYPES: dict[str, type[Event]] = {kind.__name__: kind for kind in get_args(Event)}
"""Every event class by the name of its schema."""


def to_fields(event: Event) -> dict[str, Any]:
    """Return an event as plain data by field name, in the form of its schema."""
    return _record(event)


_PLAIN: Final = {str, int, bool, bytes, str | None, int | None, bytes | None}
"""Types of fields that need no conversion: those of nearly every field."""


def _record(made: Any) -> dict[str, Any]:
    plan: _FieldPlan = _plan(type(made))  # type: ignore[arg-type]  # every class is hashable
    data = dict(zip(plan.names, plan.values(made), strict=True))
    for name in plan.nested:
        data[name] = _plain(data[name])
    return data


class _FieldPlan(NamedTuple):
    """The fields of a class, a function that reads their values, and the fields that hold records or several values."""

    names: tuple[str, ...]
    values: Callable[[Any], tuple[Any, ...]]
    nested: tuple[str, ...]


@cache
def _plan(kind: Any) -> _FieldPlan:
    names = kind.__struct_fields__
    nested = tuple(name for name, holds in types_of(kind).items() if holds not in _PLAIN)
    return _FieldPlan(
        names, attrgetter(*names), nested
    )  # attrgetter returns a tuple, since each class has at least two fields


def _plain(value: Any) -> Any:
    if isinstance(value, str):  # the items of most arrays
        return value
    if isinstance(value, RiskScored | DuplicateSeen):
        return value._asdict()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return _record(value) if isinstance(value, Record) else value


def from_fields(name: str, data: dict[str, Any]) -> Event:
    """Return the event that `to_fields` turned into these fields. Raises KeyError for an unknown type name."""
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


def _maker(kind: Callable[..., Any], recorded_name: str) -> Callable[[dict[str, Any]], Any]:
    """Return a function that makes a `kind` from its fields. It raises TypeError for anything but a mapping.

    The error's text enters quarantine details, and so the log: it says the name that the class had when the first
    such details were recorded, whatever Python calls the class today.
    """

    def make(data: dict[str, Any]) -> Any:
        if not isinstance(data, dict):
            raise TypeError(f"{recorded_name}() argument after ** must be a mapping, not {type(data).__name__}")
        return kind(**data)

    return make


_MAKERS: Final[dict[str, Callable[[dict[str, Any]], Any]]] = {
    "reasons": _reason,
    "payments": _maker(FlaggedPayment, "domain.case_events.FlaggedPayment"),
    "attachments": _maker(Attachment, "domain.case_commands.Attachment"),
    "amounts": _maker(Amount, "domain.case_commands.Amount"),
    "flags": _maker(MergedFlag, "domain.case_commands.MergedFlag"),
    "missed": _maker(MissedEvent, "domain.case_events.MissedEvent"),
}
"""Functions that make the items of fields that hold arrays of records; other arrays hold texts."""
