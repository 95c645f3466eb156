"""A payment as the pages of a case show it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenPayment:
    """A payment as pages show it. A field that is None is unknown."""

    transaction_id: str
    event_time: int
    amount_minor: int
    currency: str
    merchant_id: str | None = None
    country: str | None = None
    channel: str | None = None
    payment_method: str | None = None
    latitude: int | None = None
    longitude: int | None = None
