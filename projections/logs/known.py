"""Case events with the time at which they became known."""

from typing import NamedTuple

from domain.cases.events import CaseEvent


class KnownEvent(NamedTuple):
    """A case event with its known-at time: the Kafka timestamp of its record in UTC milliseconds."""

    event: CaseEvent
    known_at_ms: int
