"""Verifier of the stored case views: compares all cases with the log, shard by shard, in a slow endless round.

The table may change while it is read, so two conditions are checked. It must contain every event that the view worker
had committed before the read. It must contain nothing that the log, read to its end after the table, does not give.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from domain.cases.events import CaseAnswer
from domain.cases.state import BrokenLog
from domain.digest import canonical_json
from projections.logs.known import KnownEvent
from projections.logs.log import RecordLog
from projections.views.case_view import CaseView, Item, event_item, project, view_item
from projections.views.rebuild import PartitionShard, divide, events_of
from schemas.codec import Decoder

SHARD_EVENTS: Final = 20_000
"""Events of a partition that are in memory at the same time."""
BUSY_FRACTION: Final = 0.05
"""Maximum fraction of the time that the verifier works; it pauses for the rest. Waiting for the store counts as work,
because the store has other clients."""
SHOWN: Final = 20
"""Number of differences kept for display; all are counted."""


class ItemTable(Protocol):
    """Table of the live version of the case views."""

    def items_of(self, case_id: str) -> list[Item]:
        """Return all stored items of a case."""

    def keys(self) -> Iterator[tuple[str, str]]:
        """Yield the keys of all items."""


@dataclass(slots=True)
class LoggedCase:
    """One case according to the log: each event once, and the view after each event."""

    stored: dict[str, Item] = field(default_factory=dict)
    views: dict[int, CaseView] = field(default_factory=dict)
    last: CaseView | None = None

    def add(self, known: KnownEvent) -> None:
        """Add the next event."""
        item = event_item(known.event, known.known_at_ms)
        self.stored.setdefault(item["sk"], item)
        if isinstance(known.event, CaseAnswer):
            return
        try:
            self.last = project(self.last, known.event)
        except BrokenLog:
            return  # the view is not updated, as in the view worker
        self.views[self.last.sequence] = self.last


def matches_log(stored: Sequence[Item], certain: LoggedCase) -> bool:
    """Return whether a case is stored exactly as the log gives it."""
    wanted = list(certain.stored.values()) + ([view_item(certain.last)] if certain.last else [])
    return {item["sk"]: item for item in stored} == {item["sk"]: item for item in wanted}


def differences(case_id: str, stored: Sequence[Item], certain: LoggedCase, possible: LoggedCase) -> list[str]:
    """Describe the differences of a stored case from the log.

    `certain` is the case from the events that must be in the table, `possible` the one from all that can be.
    """
    found, by_place = [], {item["sk"]: item for item in stored}
    view = by_place.pop("view", None)
    for place in sorted(certain.stored.keys() | by_place.keys()):
        wanted = possible.stored.get(place)
        if by_place.get(place) != wanted and (place in by_place or place in certain.stored):
            found.append(
                f"case {case_id} {place}: stored {_difference_text(by_place.get(place))}, "
                f"the log gives {_difference_text(wanted)}"
            )
    min_sequence = certain.last.sequence if certain.last else 0
    sequence = view.get("sequence") if view else 0
    as_of = possible.views.get(sequence) if isinstance(sequence, int) else None
    if view is None and not min_sequence:
        return found
    if view is None or as_of is None or as_of.sequence < min_sequence or view != view_item(as_of):
        wanted_view = as_of if as_of is not None and as_of.sequence >= min_sequence else possible.last
        shown = view_item(wanted_view) if wanted_view else None
        found.append(f"case {case_id} view: stored {_difference_text(view)}, the log gives {_difference_text(shown)}")
    return found


def _difference_text(item: Mapping[str, Any] | None) -> str:
    if item is None:
        return "nothing"
    text = canonical_json(dict(item)).decode()
    return text if len(text) <= 400 else f"{text[:400]}…"


@dataclass(slots=True)
class CheckFindings:
    """Findings of one shard, or of the keys of a round."""

    checked: int = 0
    differing: int = 0
    messages: list[str] = field(default_factory=list)

    def add(self, differing: list[str]) -> None:
        """Count a checked case, with its differences."""
        self.checked += 1
        if differing:
            self.differing += 1
            self.messages += differing


class WorkPacer:
    """Pacing of work and pauses, so that work takes at most a fraction of the time. A stop request ends a pause."""

    def __init__(self, wait: Callable[[float], object], busy_fraction: float = BUSY_FRACTION) -> None:
        self._wait, self._busy_share = wait, busy_fraction
        self._begin()

    def _begin(self) -> None:
        self._begun = time.monotonic()

    def rest(self) -> None:
        """Pause in proportion to the time since the last pause."""
        self._wait((time.monotonic() - self._begun) * (1 / self._busy_share - 1))
        self._begin()


class ViewVerifier:
    """Checks shards of cases.events against a table."""

    def __init__(self, log: RecordLog, topic: str, decoder: Decoder, pace: Callable[[], None] = lambda: None) -> None:
        self._log, self._topic, self._decoder, self._pace = log, topic, decoder, pace

    def shards(self) -> list[PartitionShard]:
        """Return the shards of a round, for the current size of the log."""
        return divide(self._log.ends(self._topic), SHARD_EVENTS)

    def check(self, shard: PartitionShard, table: ItemTable, written: Mapping[int, int]) -> CheckFindings:
        """Check all cases of a shard. `written` is, by partition, the offset committed before the table is read."""
        found, certain = CheckFindings(), self._cases(shard._replace(until=written.get(shard.partition, 0)))
        suspects: dict[str, list[Item]] = {}
        for case_id, case in certain.items():
            stored = table.items_of(case_id)
            if matches_log(stored, case):
                found.add([])
            else:
                suspects[case_id] = stored
            self._pace()
        if suspects:  # newer than `written`, or wrong: the log up to its end decides
            end = self._log.ends(self._topic)[shard.partition]
            possible = self._cases(shard._replace(until=end), suspects)
            for case_id, stored in suspects.items():
                found.add(differences(case_id, stored, certain[case_id], possible.get(case_id, LoggedCase())))
        return found

    def _cases(self, shard: PartitionShard, only: Mapping[str, object] | None = None) -> dict[str, LoggedCase]:
        cases: dict[str, LoggedCase] = {}
        for known in events_of(self._log, self._topic, shard, self._decoder):
            case_id = known.event.case_id
            if only is None or case_id in only:
                cases.setdefault(case_id, LoggedCase()).add(known)
        self._pace()
        return cases

    def unknown_cases(self, table: ItemTable) -> CheckFindings:
        """Find stored cases that have no event in the log."""
        stored = set()
        for number, (pk, _) in enumerate(table.keys()):
            stored.add(pk.removeprefix("case#"))
            if number % 1000 == 0:
                self._pace()
        for partition, end in self._log.ends(self._topic).items():  # after the table, so the log has all of its cases
            for known in events_of(self._log, self._topic, PartitionShard(partition, 0, 1, end), self._decoder):
                stored.discard(known.event.case_id)
            self._pace()
        found = CheckFindings()
        for case_id in sorted(stored):
            found.add([f"case {case_id}: stored, but the log has no event of it"])
        return found


def first_findings(messages: Iterable[str]) -> list[str]:
    """Return the first SHOWN messages."""
    return list(messages)[:SHOWN]
