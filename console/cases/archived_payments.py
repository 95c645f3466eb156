"""Payments that nobody remembers any more, looked up in the archive when somebody asks for them."""

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
LOOK_S: Final = 5.0
"""How long one look may take: the archive of a busy partition is long, and somebody waits for the page."""


class PastPayments(Protocol):
    """Payments of the past."""

    def known(self, account_id: str, wanted: Collection[str]) -> dict[str, SeenPayment]:
        """Those of these payments of an account that were found before, by id: asks nobody."""

    def look_up(self, account_id: str, wanted: Collection[str], until_ms: int) -> dict[str, SeenPayment]:
        """Those that can be found among what was written until a time, as far as the time for a look allows."""


class EmptyPastPayments:
    """Where there is no archive."""

    def known(self, _: str, __: Collection[str]) -> dict[str, SeenPayment]:
        """None."""
        return {}

    def look_up(self, _: str, __: Collection[str], ___: int) -> dict[str, SeenPayment]:
        """None."""
        return {}


class ArchivedPayments:
    """Those in the archive of payments.inbound, the latest first: what a flag counted was mostly paid shortly before.

    One look at a time: each reads whole segments, and several would only wait for each other.
    """

    def __init__(self, open_archive: Callable[[], ArchiveColumns], topic: str, partitions: int) -> None:
        self._open, self._topic, self._partitions = open_archive, topic, partitions
        self._looking, self._lock = threading.Lock(), threading.Lock()
        self._kept: OrderedDict[tuple[str, str], SeenPayment] = OrderedDict()

    def known(self, account_id: str, wanted: Collection[str]) -> dict[str, SeenPayment]:
        """Those that were found before."""
        with self._lock:
            return {name: self._kept[account_id, name] for name in wanted if (account_id, name) in self._kept}

    def look_up(self, account_id: str, wanted: Collection[str], until_ms: int) -> dict[str, SeenPayment]:
        """Those that the archive has; none while the store is away."""
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
                pass  # the page says what was not found, whatever the reason
            return found

    def _segments(self, account_id: str, until_ms: int) -> Iterator[list[Payment]]:
        """What an account paid, by segment of the archive, the newest first."""
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
    """The payment in a record; None for what was not let in."""
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
