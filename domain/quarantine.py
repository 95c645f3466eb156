"""The report on a record that could not be decided on, or that deserves a look although it was."""

import hashlib

from domain.payment import Refusal
from domain.record import Record


class Quarantined(Record, frozen=True, kw_only=True):
    """A record that could not be decided on, whole, with why and where it stands.

    With `decided` the record *was* decided and this is a report only (a conflict). A body above the limit is not
    repeated: `stored_at` says where it lies, and `size` and `sha256` prove it.
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
    """What quarantine holds of a record at this place of a log.

    The body goes along, unless it has more than `most` bytes or holds a card number, which must not spread.
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
    """The key of a report: the place that it is about."""
    return f"{reported.topic}/{reported.partition}/{reported.offset}".encode()
