"""Reports on records that could not be decided, or that were decided and need a look."""

import hashlib

from domain.payment import Refusal
from domain.record import Record


class Quarantined(Record, frozen=True, kw_only=True):
    """The report on a record that could not be decided: the whole record, the reason, and its place in the log.

    With `decided`, the record was decided and this is a report only (a conflict). A body above the limit is not copied:
    `stored_at` names its object, and `size` and `sha256` identify it.
    """

    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    size: int
    sha256: str
    body: bytes | None
    stored_at: str | None
    decided: bool


def report(
    refusal: Refusal, value: bytes | None, *, topic: str, partition: int, offset: int, most: int, decided: bool = False
) -> Quarantined:
    """Return the report on a refused record at a place of a log.

    The report includes the body, unless it has more than `most` bytes or holds a card number.
    """
    body = value or b""
    too_large, secret = len(body) > most, refusal.reason == "card_number"
    sha256 = hashlib.sha256(body).hexdigest()
    return Quarantined(
        reason=refusal.reason,
        detail=refusal.detail,
        topic=topic,
        partition=partition,
        offset=offset,
        size=len(body),
        sha256=sha256,
        body=None if too_large or secret else body,
        stored_at=f"oversize/{sha256}" if too_large else None,
        decided=decided,
    )


def key_of(reported: Quarantined) -> bytes:
    """Return the Kafka key of a report: the place of the record that it is about."""
    return f"{reported.topic}/{reported.partition}/{reported.offset}".encode()
