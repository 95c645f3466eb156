"""Outcome of a replay: the derived state, and each mismatch with the recorded history."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, get_args

from domain.cases.events import CaseEvent
from domain.digest import HistoryDigest
from projections.replay.results import ComparedEvent, DerivedItem, EventPlace
from projections.views.case_view import Item

Items = dict[tuple[str, str], Item]
"""Items of the case table by their keys."""

Ends = dict[str, dict[int, int]]
"""The offset after the last record that counts, by topic and partition."""

CASE_VIEWS: Final = "case views"
_CASE_EVENTS: Final = frozenset(kind.__name__ for kind in get_args(CaseEvent))


class ReplayMismatch(NamedTuple):
    """One mismatch between a recorded and a derived event, with its log position if it has one."""

    topic: str
    partition: int | None
    offset: int | None
    account_id: str | None
    place: tuple[Any, ...]
    recorded: bytes | None
    derived: bytes | None
    text: str


@dataclass(slots=True)
class DecisionHistory:
    """All decisions of one history, to be hashed and compared."""

    digest: HistoryDigest = field(default_factory=HistoryDigest)
    origins: dict[EventPlace, tuple[str, int, int]] = field(default_factory=dict)
    """Topic, partition and offset of each recorded event; derived events have none."""
    known_at_ms: dict[EventPlace, int] = field(default_factory=dict)
    """Known-at time of each recorded case event: the Kafka timestamp of its first record."""
    contradictions: list[ReplayMismatch] = field(default_factory=list)
    payments: int = 0
    duplicates: int = 0
    quarantined: int = 0
    flags: int = 0
    entity_flags: int = 0
    opened: int = 0
    escalated: int = 0
    case_events: int = 0

    def add(self, event: ComparedEvent, topic: str, partition: int) -> None:
        """Add an event and count it once; a redelivered event changes nothing."""
        place = event.account_id, event.place
        origin = topic, partition, event.offset
        try:
            is_new = self.digest.add_encoded(*place, event.encoded)
        except ValueError as error:
            text = f"{error}, the second at {format_place(*origin)}"
            self.contradictions.append(ReplayMismatch(*origin, *place, event.encoded, None, text))
            return
        if event.kind in _CASE_EVENTS and event.offset >= 0:
            self.known_at_ms.setdefault(place, event.timestamp_ms)
        if not is_new:
            return
        if event.offset >= 0:
            self.origins[place] = origin
        self.flags += event.kind == "RiskFlagged"
        self.entity_flags += event.kind == "EntityFlagged"
        self.opened += event.kind == "CaseOpened"
        self.escalated += event.kind == "CaseEscalated"
        self.case_events += event.kind in _CASE_EVENTS


@dataclass(slots=True)
class DerivedState:
    """State that the folds derive from the logs."""

    history: DecisionHistory = field(default_factory=DecisionHistory)
    encoded: dict[tuple[str, str], bytes] = field(default_factory=dict)
    """The items of the case table as canonical JSON, without their known-at times."""
    views: int = 0
    places: dict[EventPlace, tuple[str, str]] = field(default_factory=dict)
    """The item key of each case event."""
    packs: list[str] = field(default_factory=list)
    """Ids of rule packs in the order of their first activation."""
    decisions: str = ""
    inbound: str = ""
    """Digests of the decisions with a score or a shadow score, and of the records of payments.inbound."""
    records: int = 0

    def add_case_event(self, derived: DerivedItem, topic: str, partition: int) -> None:
        """Add a case event to the history, and its item to the table."""
        self.history.add(derived.event, topic, partition)
        self.encoded[derived.pk, derived.sk] = derived.item
        self.places[derived.event.account_id, derived.event.place] = derived.pk, derived.sk

    def items(self, known_at_ms: Mapping[EventPlace, int]) -> Items:
        """Return the items with known-at times, which come from the broker and cannot be derived."""
        items: Items = {key: json.loads(encoded) for key, encoded in self.encoded.items()}
        for place, key in self.places.items():
            if place in known_at_ms:
                items[key]["known_at_ms"] = known_at_ms[place]
        return items


@dataclass(frozen=True, slots=True)
class ReplayComparison:
    """Differences between recorded and derived history; `missing` events may not be written yet."""

    differences: list[ReplayMismatch]
    missing: int
    first_missing: ReplayMismatch | None = None

    @property
    def is_lag(self) -> bool:
        """Return whether events are missing and nothing differs."""
        return not self.differences and self.missing > 0


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """Result of a replay, in the order of topics, partitions and offsets."""

    live: DecisionHistory
    derived: DerivedState
    comparison: ReplayComparison
    altered: list[ReplayMismatch]
    ranges: Ends
    schemas: dict[str, str]
    """Record names of the writers' schemas in the deciding logs, by their texts."""


def format_place(topic: str, partition: int, offset: int) -> str:
    """Return the place of a record as text."""
    return f"{topic} partition {partition} offset {offset}"
