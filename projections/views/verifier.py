"""Are the stored views what the log leads to? Walks through all cases, share by share, over and over, at little cost.

A table that is written while it is read is judged by what must hold whatever the moment: the log up to where the view
worker had committed before the table was read must be in it, and nothing may be in it that the log, read to its end
after the table, does not lead to.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from domain.cases.events import CaseAnswer
from domain.cases.state import BrokenLog
from domain.digest import canonical_json
from projections.logs.known import KnownEvent
from projections.logs.log import LogRecord
from projections.views.case_view import CaseView, Item, event_item, project, view_item
from projections.views.rebuild import PartitionShard, divide, events_of
from schemas.codec import Decoder

SHARE_EVENTS: Final = 20_000
"""Events of a partition that are held at once."""
BUSY_SHARE: Final = 0.05
"""Of the time, at most: so much work, then a pause that makes up for it. Whether the verifier works or waits for the
store, which works for it meanwhile and has others to serve, is the same."""
SHOWN: Final = 20
"""Differences that are kept to be shown; all are counted."""


class CaseEventLog(Protocol):
    """cases.events."""

    def ends(self, topic: str) -> dict[int, int]:
        """The offset after the last record, by partition."""

    def read(self, topic: str, partition: int, until: int) -> Iterator[LogRecord]:
        """The records of a partition from its start up to an offset."""


class ItemTable(Protocol):
    """The live version's table."""

    def items_of(self, case_id: str) -> list[Item]:
        """All that is stored of a case."""

    def keys(self) -> Iterator[tuple[str, str]]:
        """The keys of everything there is."""


@dataclass(slots=True)
class LoggedCase:
    """One case as the log has it: every event once, and the view after each."""

    stored: dict[str, Item] = field(default_factory=dict)
    views: dict[int, CaseView] = field(default_factory=dict)
    last: CaseView | None = None

    def add(self, known: KnownEvent) -> None:
        """Take in the next event."""
        item = event_item(known.event, known.known_at_ms)
        self.stored.setdefault(item["sk"], item)
        if isinstance(known.event, CaseAnswer):
            return
        try:
            self.last = project(self.last, known.event)
        except BrokenLog:
            return  # its view stands still, as the worker's does
        self.views[self.last.sequence] = self.last


def is_whole(stored: Sequence[Item], sure: LoggedCase) -> bool:
    """Whether a case is stored just as the log leads to it."""
    wanted = list(sure.stored.values()) + ([view_item(sure.last)] if sure.last else [])
    return {item["sk"]: item for item in stored} == {item["sk"]: item for item in wanted}


def differences(case_id: str, stored: Sequence[Item], sure: LoggedCase, most: LoggedCase) -> list[str]:
    """What cannot be, in words. `sure` is the case by what was in the table for sure, `most` by all that can be."""
    found, there = [], {item["sk"]: item for item in stored}
    view = there.pop("view", None)
    for place in sorted(sure.stored.keys() | there.keys()):
        wanted = most.stored.get(place)
        if there.get(place) != wanted and (place in there or place in sure.stored):
            found.append(
                f"case {case_id} {place}: stored {_difference_text(there.get(place))}, "
                f"the log leads to {_difference_text(wanted)}"
            )
    least = sure.last.sequence if sure.last else 0
    sequence = view.get("sequence") if view else 0
    as_of = most.views.get(sequence) if isinstance(sequence, int) else None
    if view is None and not least:
        return found
    if view is None or as_of is None or as_of.sequence < least or view != view_item(as_of):
        wanted_view = as_of if as_of is not None and as_of.sequence >= least else most.last
        shown = view_item(wanted_view) if wanted_view else None
        found.append(
            f"case {case_id} view: stored {_difference_text(view)}, the log leads to {_difference_text(shown)}"
        )
    return found


def _difference_text(item: Mapping[str, Any] | None) -> str:
    if item is None:
        return "nothing"
    text = canonical_json(dict(item)).decode()
    return text if len(text) <= 400 else f"{text[:400]}…"


@dataclass(slots=True)
class CheckFindings:
    """What a share, or the keys of a round, have shown."""

    checked: int = 0
    differing: int = 0
    said: list[str] = field(default_factory=list)

    def add(self, differing: list[str]) -> None:
        """A case that was looked at."""
        self.checked += 1
        if differing:
            self.differing += 1
            self.said += differing


class WorkPacer:
    """Work, then a pause: never more than a share of the time. Wakes at once when told to stop."""

    def __init__(self, wait: Callable[[float], object], busy_share: float = BUSY_SHARE) -> None:
        self._wait, self._busy_share = wait, busy_share
        self._begin()

    def _begin(self) -> None:
        self._begun = time.monotonic()

    def rest(self) -> None:
        """As long as what was done since the last rest asks for, here and in the store."""
        self._wait((time.monotonic() - self._begun) * (1 / self._busy_share - 1))
        self._begin()


class ViewVerifier:
    """Checks shares of cases.events against a table."""

    def __init__(
        self, log: CaseEventLog, topic: str, decoder: Decoder, pace: Callable[[], None] = lambda: None
    ) -> None:
        self._log, self._topic, self._decoder, self._pace = log, topic, decoder, pace

    def shares(self) -> list[PartitionShard]:
        """What a round consists of, by how much there is now."""
        return divide(self._log.ends(self._topic), SHARE_EVENTS)

    def check(self, share: PartitionShard, table: ItemTable, written: Mapping[int, int]) -> CheckFindings:
        """All cases of a share; `written` is up to where the table was written before it is read."""
        found, sure = CheckFindings(), self._cases(share._replace(until=written.get(share.partition, 0)))
        suspects: dict[str, list[Item]] = {}
        for case_id, case in sure.items():
            stored = table.items_of(case_id)
            if is_whole(stored, case):
                found.add([])
            else:
                suspects[case_id] = stored
            self._pace()
        if suspects:  # further than it was sure to be, or wrong: the log up to its end says which
            end = self._log.ends(self._topic)[share.partition]
            most = self._cases(share._replace(until=end), suspects)
            for case_id, stored in suspects.items():
                found.add(differences(case_id, stored, sure[case_id], most.get(case_id, LoggedCase())))
        return found

    def _cases(self, share: PartitionShard, only: Mapping[str, object] | None = None) -> dict[str, LoggedCase]:
        cases: dict[str, LoggedCase] = {}
        for known in events_of(self._log, self._topic, share, self._decoder):
            case_id = known.event.case_id
            if only is None or case_id in only:
                cases.setdefault(case_id, LoggedCase()).add(known)
        self._pace()
        return cases

    def unknown_cases(self, table: ItemTable) -> CheckFindings:
        """Cases in the table of which the log says nothing at all."""
        stored = set()
        for number, (pk, _) in enumerate(table.keys()):
            stored.add(pk.removeprefix("case#"))
            if number % 1000 == 0:
                self._pace()
        for partition, end in self._log.ends(self._topic).items():  # after the table: whatever is in it can be there
            for known in events_of(self._log, self._topic, PartitionShard(partition, 0, 1, end), self._decoder):
                stored.discard(known.event.case_id)
            self._pace()
        found = CheckFindings()
        for case_id in sorted(stored):
            found.add([f"case {case_id}: stored, but the log says nothing of it"])
        return found


def first_of(said: Iterable[str]) -> list[str]:
    """The first differences, to be shown."""
    return list(said)[:SHOWN]
