"""Payments of the past, looked up in the archive for the page of a case when nothing in memory has them."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from typing import Final, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from console.cases.seen_payment import SeenPayment
from domain.payment import Payment, admit
from projections.archive.columns import ArchiveColumns
from projections.logs.partitioner import partition_of
from schemas.codec import Decoder, UnreadableRecord

MAX_KEPT: Final = 20_000
"""Maximum number of found payments in memory."""
LOOK_S: Final = 5.0
"""Maximum time of one look, in seconds: a person waits for the page."""


class PastPayments(Protocol):
    """Source of payments that are no longer in memory."""

    def known(self, account_id: str, wanted: Collection[str]) -> dict[str, SeenPayment]:
        """Return the wanted payments of an account that an earlier look found, by id. Read nothing."""

    def look_up(self, account_id: str, wanted: Collection[str], until_ms: int) -> dict[str, SeenPayment]:
        """Return, by id, the wanted payments of an account written until a time; stop searching after LOOK_S."""


class EmptyPastPayments:
    """Source without an archive: it has no payment."""

    def known(self, _: str, __: Collection[str]) -> dict[str, SeenPayment]:
        """Return no payment."""
        return {}

    def look_up(self, _: str, __: Collection[str], ___: int) -> dict[str, SeenPayment]:
        """Return no payment."""
        return {}


class ArchivedPayments:
    """Payments of the archived log payments.inbound, read newest first.

    Most payments that a flag counted were made shortly before it. Only one look runs at a time: each reads whole
    segments, so several at once would only slow each other down.
    """

    def __init__(self, open_archive: Callable[[], ArchiveColumns], topic: str, partitions: int) -> None:
        self._open, self._topic, self._partitions = open_archive, topic, partitions
        self._looking, self._lock = threading.Lock(), threading.Lock()
        self._kept: OrderedDict[tuple[str, str], SeenPayment] = OrderedDict()

    def known(self, account_id: str, wanted: Collection[str]) -> dict[str, SeenPayment]:
        """Return the wanted payments that an earlier look found, by id."""
        with self._lock:
            return {name: self._kept[account_id, name] for name in wanted if (account_id, name) in self._kept}

    def look_up(self, account_id: str, wanted: Collection[str], until_ms: int) -> dict[str, SeenPayment]:
        """Return the wanted payments that the archive has, by id. Return only known ones if the store fails."""
        with self._looking:
            found = self.known(account_id, wanted)
            give_up = time.monotonic() + LOOK_S
            segments = self._segments(account_id, until_ms)
            try:
                while len(found) < len(set(wanted)) and (payments := next(segments, None)) is not None:
                    self._keep(account_id, payments)
                    found = self.known(account_id, wanted)
                    if time.monotonic() > give_up:
                        break
            except (BotoCoreError, ClientError):
                pass  # the page shows which payments were not found
            return found

    def _segments(self, account_id: str, until_ms: int) -> Iterator[list[Payment]]:
        """Yield the payments of an account, one list for each archive segment, newest segment first."""
        archive, key = self._open(), account_id.encode()
        decoder = Decoder(archive.schema_text)
        for batch in archive.batches_of_key(self._topic, partition_of(key, self._partitions), key, until_ms):
            yield [paid for value in batch.values if (paid := _payment(decoder, value)) is not None]

    def _keep(self, account_id: str, payments: list[Payment]) -> None:
        with self._lock:
            for payment in payments:
                self._kept.setdefault((account_id, payment.transaction_id), _seen_payment(payment))
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)


def _payment(decoder: Decoder, value: bytes | None) -> Payment | None:
    """Return the payment in a record, or None if the record holds none or its payment was refused."""
    try:
        name, data = decoder.decode(value)
        payment = admit(data, None) if name == "Transaction" else None
    except (UnreadableRecord, KeyError, TypeError):
        return None
    return payment if isinstance(payment, Payment) else None


def _seen_payment(paid: Payment) -> SeenPayment:
    return SeenPayment(
        transaction_id=paid.transaction_id, event_time=paid.event_time_ms, amount_minor=paid.amount_minor,
        currency=paid.currency, merchant_id=paid.merchant_id, country=paid.country, channel=paid.channel,
        payment_method=paid.payment_method, latitude=paid.latitude, longitude=paid.longitude,
    )  # fmt: skip
