"""Canonical bytes of events, and one digest over a whole history."""

import hashlib
import json
from functools import cache
from typing import Any

from domain.cases.events import FlaggedPayment
from domain.reason import Reason
from domain.record import defaults_of
from domain.record_types import TYPES, Event, to_fields


def canonical_bytes(event: Event) -> bytes:
    """Encode an event as canonical JSON (RFC 8785) with its type; bytes are written as hexadecimal text.

    All hashes and comparisons of events use this encoding. Events hold texts, integers, lists and records of them, and
    no floats; for these, the RFC only requires sorted keys and no spaces. A field that was added later is left out if
    it has its default, so old events keep their bytes.
    """
    data = _drop_later_defaults(to_fields(event), TYPES[type(event).__name__])
    if "reasons" in data:
        data["reasons"] = [_drop_later_defaults(reason, Reason) for reason in data["reasons"]]
    if "payments" in data:
        data["payments"] = [_drop_later_defaults(payment, FlaggedPayment) for payment in data["payments"]]
    return canonical_json({"type": type(event).__name__, **data})


def _drop_later_defaults(data: dict[str, Any], kind: type[Event | Reason | FlaggedPayment]) -> dict[str, Any]:
    later = _later_fields(kind)
    return {name: value for name, value in data.items() if name not in later or value != later[name]}


@cache
def _later_fields(kind: type[Event | Reason | FlaggedPayment]) -> dict[str, Any]:
    """Return the fields that the first version of a record lacked, with their defaults: only these have any."""
    defaults = defaults_of(kind)
    return {name: [] if default == () else default for name, default in defaults.items()}  # plain data has lists


def canonical_json(document: dict[str, Any]) -> bytes:
    """Encode a document of texts, integers, lists and objects by RFC 8785; bytes are written as hexadecimal text."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_hex)
    return text.encode()


def _hex(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"{type(value).__name__} has no canonical form here")


class HistoryDigest:
    """SHA-256 over the canonical bytes of every distinct event, account by account in sequence order.

    The pieces of an account are, in this order: its name; one digest of its payments (chained in log order, without
    duplicates); the flags of its payments' entities by id; its own flags and restatements by sequence; its case events
    by case and sequence; its command answers by command. The length of a piece precedes it. So the digest is
    independent of partitions, offsets, arrival times, batches and redelivery. The flags of entities are the exception:
    they name the partition and offset that they were decided at.
    """

    def __init__(self) -> None:
        self._payments: dict[str, bytes] = {}
        self._events: dict[str, dict[tuple[Any, ...], bytes]] = {}

    def add_payment(self, account_id: str, transaction_id: str, content_digest: bytes) -> None:
        """Add a decided payment; the caller leaves out duplicates."""
        chain = self._payments.get(account_id, b"")
        link = chain + content_digest + transaction_id.encode()
        self._payments[account_id] = hashlib.sha256(link).digest()

    def add_event(self, event: Event) -> bool:
        """Add an event. Return False if this event was added before. Raises ValueError if another one has its place."""
        return self.add_encoded(*place_of(event), canonical_bytes(event))

    def add_encoded(self, account_id: str, place: tuple[Any, ...], encoded: bytes) -> bool:
        """Add the canonical bytes of an event at a place of its account.

        Return False if these bytes were added before. Raises ValueError if other bytes have the place.
        """
        events = self._events.setdefault(account_id, {})
        known = events.setdefault(place, encoded)
        if known != encoded:
            raise ValueError(f"two different events at {place} of account {account_id}")
        return known is encoded

    def add_chain(self, account_id: str, chain: bytes) -> None:
        """Add the digest of all payments of an account, computed elsewhere.

        Raises ValueError if the account has payments already.
        """
        if account_id in self._payments:
            raise ValueError(f"the payments of account {account_id} were counted before")
        self._payments[account_id] = chain

    @property
    def chains(self) -> dict[str, bytes]:
        """Return the digest of the payments of each account."""
        return self._payments

    @property
    def events(self) -> int:
        """Return the number of distinct events that were added."""
        return sum(len(events) for events in self._events.values())

    def items(self) -> dict[tuple[str, tuple[Any, ...]], bytes]:
        """Return the canonical bytes by account and place, to find where two histories differ."""
        return {(account, place): b for account, events in self._events.items() for place, b in events.items()}

    def hexdigest(self) -> str:
        """Return the digest of everything that was added, in hexadecimal."""
        total = hashlib.sha256()
        for account_id in sorted({*self._payments, *self._events}):
            events = self._events.get(account_id, {})
            pieces = [
                account_id.encode(),
                self._payments.get(account_id, b""),
                *(events[key] for key in sorted(events)),
            ]
            for piece in pieces:
                total.update(len(piece).to_bytes(8, "big"))
                total.update(piece)
        return total.hexdigest()


def place_of(event: Event) -> tuple[str, tuple[Any, ...]]:
    """Return the account of an event and its place there. Two deliveries of one event have one place."""
    data = to_fields(event)
    if "entity" in data:
        return data["account_id"], ("1-entity", data["flag_id"], 0)
    if "flag_id" in data and "case_id" not in data:
        return data["account_id"], ("1-risk", "", data["sequence"])
    if "sequence" in data:
        return data["account_id"], ("2-case", data["case_id"], data["sequence"])
    return data["account_id"], ("3-answer", data["command_id"], 0)
