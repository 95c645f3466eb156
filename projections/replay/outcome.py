"""The outcome of a replay: what was derived, and each mismatch with what was recorded."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, get_args

from domain.cases.events import CaseEvent
from domain.digest import HistoryDigest
from projections.replay.tasks import ComparedEvent, DerivedItem, EventPlace
from projections.views.case_view import Item

Items = dict[tuple[str, str], Item]
"""Items of the case table by their keys."""


Ends = dict[str, dict[int, int]]
"""The offset after the last record that counts, by topic and partition."""


CASE_VIEWS: Final = "case views"


_CASE_EVENTS: Final = frozenset(kind.__name__ for kind in get_args(CaseEvent))


class ReplayMismatch(NamedTuple):
    """One thing that was recorded otherwise than the logs lead to; where it stands, as far as it stands anywhere."""

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
    """Everything that was decided, to be hashed and compared."""

    digest: HistoryDigest = field(default_factory=HistoryDigest)
    origins: dict[EventPlace, tuple[str, int, int]] = field(default_factory=dict)
    """Topic, partition and offset where each recorded event stands; derived ones stand nowhere."""
    known_at_ms: dict[EventPlace, int] = field(default_factory=dict)
    """When each recorded case event became known: the Kafka timestamp of its first record."""
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
        """Count an event; the same one again is no other."""
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
    """What the folds say that the logs lead to."""

    history: DecisionHistory = field(default_factory=DecisionHistory)
    encoded: dict[tuple[str, str], bytes] = field(default_factory=dict)
    """The items of the case table, as canonical JSON without when they became known."""
    views: int = 0
    places: dict[EventPlace, tuple[str, str]] = field(default_factory=dict)
    """The item of each case event."""
    packs: list[str] = field(default_factory=list)
    """Rule packs, in the order in which they were activated first."""
    decisions: str = ""
    inbound: str = ""
    """Digests of the decisions that say more than nothing, and of the records of payments.inbound."""
    records: int = 0

    def add_shown(self, shown: DerivedItem, topic: str, partition: int) -> None:
        """Take in a case event: into the history, and as an item."""
        self.history.add(shown.event, topic, partition)
        self.encoded[shown.pk, shown.sk] = shown.item
        self.places[shown.event.account_id, shown.event.place] = shown.pk, shown.sk

    def items(self, known_at_ms: Mapping[EventPlace, int]) -> Items:
        """The items; when events became known is no fold's to say, it is what the broker wrote."""
        items: Items = {key: json.loads(encoded) for key, encoded in self.encoded.items()}
        for place, key in self.places.items():
            if place in known_at_ms:
                items[key]["known_at_ms"] = known_at_ms[place]
        return items


@dataclass(frozen=True, slots=True)
class ReplayComparison:
    """How what was recorded differs from what is derived; `missing` may only be on its way."""

    differences: list[ReplayMismatch]
    missing: int
    first_missing: ReplayMismatch | None = None

    @property
    def is_lag(self) -> bool:
        """Nothing contradicts, something is not there yet."""
        return not self.differences and self.missing > 0


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What a replay came to, in the order of topics, partitions and offsets."""

    live: DecisionHistory
    derived: DerivedState
    comparison: ReplayComparison
    altered: list[ReplayMismatch]
    ranges: Ends
    schemas: dict[str, str]
    """Writers' schemas that were met in the logs that decide: their texts, and what record each is of."""


def format_place(topic: str, partition: int, offset: int) -> str:
    """Where a record stands, for people."""
    return f"{topic} partition {partition} offset {offset}"
