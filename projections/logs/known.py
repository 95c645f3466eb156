"""Ids that a reader has already seen, so that a redelivery is recognised."""

from typing import NamedTuple

from domain.cases.events import CaseEvent


class KnownEvent(NamedTuple):
    """A case event, and when it became known: the Kafka timestamp of its record."""

    event: CaseEvent
    known_at_ms: int
