"""Payments, and their admission: which records become payments, and which are refused with a reason."""

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import product
from string import ascii_uppercase, digits
from typing import Any, Final, NamedTuple

from domain.currencies import DECIMALS
from domain.geo import microdegrees
from domain.record import Record

CARD_PRESENT_CHANNELS: Final = frozenset({"POS", "ATM"})
"""Channels in which the card itself was at the coordinates of the payment."""

MAX_TEXT: Final = 512
"""Maximum length of a text field, in characters."""
MAX_ATTRIBUTES: Final = 64
"""Maximum number of attributes of a payment."""
FUTURE_TOLERANCE_MS: Final = 5 * 60 * 1000
"""Maximum time by which the event time of a payment may be after its arrival, since clocks differ."""
LAST_EVENT_TIME_MS: Final = 253_402_300_799_999
"""Latest event time: the end of the year 9999, the last that timestamps can show."""
MAX_AMOUNT_MINOR: Final = 10**15
"""Largest amount. 2,000 squared amounts stay far below 128 bits, so that other systems can check our sums."""

_SEPARATOR: Final = (
    "\x1f"  # ASCII unit separator, refused inside the fields: different fields never join to equal texts
)
_TWO_LETTERS: Final = frozenset(map("".join, product(ascii_uppercase, repeat=2)))
_FOUR_DIGITS: Final = frozenset(map("".join, product(digits, repeat=4)))
_DIGITS: Final = re.compile(r"(?<![0-9])[0-9](?:[ -]?[0-9]){12,18}(?![0-9])")


class Payment(NamedTuple):
    """One admitted payment. A tuple: millions are made, and a frozen dataclass costs three times as much.

    Amounts are in minor units of `currency`, times in UTC milliseconds, coordinates in microdegrees of WGS 84.
    """

    transaction_id: str
    account_id: str
    card_id: str | None
    amount_minor: int
    currency: str
    event_time_ms: int
    merchant_id: str
    merchant_category: str | None
    terminal_id: str | None
    payment_method: str
    channel: str
    country: str | None
    latitude: int | None
    longitude: int | None
    home_latitude: int | None
    home_longitude: int | None
    device_id: str | None
    counterparty_id: str | None
    digest: bytes
    """The first 16 bytes of the SHA-256 of the content: identity is (account_id, transaction_id, digest)."""

    @property
    def order(self) -> tuple[int, str, bytes]:
        """Return the sort key of the payment in its account's history. It does not depend on the order of arrival."""
        return self.event_time_ms, self.transaction_id, self.digest


_new_tuple: Final = tuple.__new__  # the constructor of a named tuple calls it too, but costs 0.3 microseconds more


class Refusal(NamedTuple):
    """The reason code and the details of a refused record; both go to quarantine."""

    reason: str
    detail: str


class _RefusalError(Exception):
    """An exception that carries a refusal out of the checks."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.refusal = Refusal(reason, detail)


FIELDS: Final = (
    "transaction_id", "account_id", "card_id", "amount_minor", "currency", "event_time", "merchant_id",
    "merchant_category", "terminal_id", "payment_method", "channel", "country", "latitude", "longitude",
    "home_latitude", "home_longitude", "device_id", "counterparty_id", "attributes",
)  # fmt: skip
"""Fields read of a Transaction record, in the order of a row for `admit_row`."""
_REQUIRED: Final = frozenset(
    {
        "transaction_id",
        "account_id",
        "amount_minor",
        "currency",
        "event_time",
        "merchant_id",
        "payment_method",
        "channel",
    }
)
Row = tuple[Any, ...]


def admit(raw: Mapping[str, Any], received_ms: int | None) -> Payment | Refusal:
    """Return the payment in a decoded Transaction record, or why it is refused.

    `received_ms` is the Kafka timestamp of the record; with None (a file) no payment is refused as dated after its
    arrival. Raises KeyError and TypeError for missing fields and fields of a wrong type.
    """
    missing = _REQUIRED - raw.keys()
    if missing:
        raise KeyError(min(missing))
    return admit_row(tuple(map(raw.get, FIELDS)), received_ms)


def admit_row(row: Row, received_ms: int | None) -> Payment | Refusal:
    """Return the payment in a row of the values of FIELDS, or why it is refused; `received_ms` is as in `admit`.

    A decoder that makes a row instead of a dict takes a tenth less time for a record.
    """
    try:
        return _admit(row, received_ms)
    except _RefusalError as refused:
        return refused.refusal


def _admit(row: Row, received_ms: int | None) -> Payment:
    (
        transaction_id, account_id, card_id, amount, currency, event_time, merchant_id, category, terminal_id, method,
        channel, country, latitude, longitude, home_latitude, home_longitude, device_id, other, attributes,
    ) = row  # fmt: skip
    if not 0 <= amount <= MAX_AMOUNT_MINOR:
        raise _bad_amount(amount)
    if currency not in DECIMALS:
        raise _RefusalError("unknown_currency", f"currency {currency[:8]!r} is no ISO 4217 code with a minor unit")
    if not 0 <= event_time <= LAST_EVENT_TIME_MS:
        raise _RefusalError("bad_event_time", f"event_time {event_time} ms is outside the years 1970 to 9999")
    if received_ms is not None and event_time > received_ms + FUTURE_TOLERANCE_MS:
        ahead_s = (event_time - received_ms) // 1000
        raise _RefusalError(
            "future_dated", f"dated {ahead_s} s past its arrival, {FUTURE_TOLERANCE_MS // 1000} are allowed"
        )
    if latitude is not None or longitude is not None:
        latitude, longitude = _place(latitude, longitude, "")
    if home_latitude is not None or home_longitude is not None:
        home_latitude, home_longitude = _place(home_latitude, home_longitude, "home_")
    if not (transaction_id and account_id and merchant_id and method and channel):
        raise _blank(row)
    text = (
        transaction_id, account_id, card_id or "", currency, merchant_id, category or "", terminal_id or "", method,
        channel, country or "", device_id or "", other or "",
    )  # fmt: skip
    if country and country not in _TWO_LETTERS:
        raise _RefusalError("bad_country", "country is not two capital letters (ISO 3166-1 alpha-2)")
    if category and category not in _FOUR_DIGITS:
        raise _RefusalError("bad_merchant_category", "merchant_category is not four digits (MCC)")
    for token in (account_id, card_id, device_id, other):
        if token and len(token) > 12 and holds_card_number(token):
            raise _card_number(row)
    joined = _SEPARATOR.join(text)
    if len(joined) > MAX_TEXT and len(max(text, key=len)) > MAX_TEXT:
        raise _RefusalError("text_too_long", f"a field is longer than {MAX_TEXT} characters")
    if joined.count(_SEPARATOR) != len(text) - 1:
        raise _RefusalError("control_character", "a field holds the unit separator, U+001F")
    numbers = f"{amount},{event_time},{latitude},{longitude},{home_latitude},{home_longitude}"
    content = f"{joined}{_SEPARATOR}{numbers}{_attributes(attributes) if attributes else ''}"
    fields = (
        transaction_id,
        account_id,
        card_id or None,
        amount,
        currency,
        event_time,
        merchant_id,
        category or None,
        terminal_id or None,
        method,
        channel,
        country or None,
        latitude,
        longitude,
        home_latitude,
        home_longitude,
        device_id or None,
        other or None,
        hashlib.sha256(content.encode()).digest()[:16],
    )
    return _new_tuple(Payment, fields)


def _card_number(row: Row) -> _RefusalError:
    names = ("account_id", "card_id", "device_id", "counterparty_id")
    field = next(name for name in names if holds_card_number(row[FIELDS.index(name)] or ""))
    return _RefusalError("card_number", f"{field} holds a card number: send a token")


def _bad_amount(amount: int) -> _RefusalError:
    if amount < 0:
        return _RefusalError("negative_amount", f"amount_minor {amount} is below zero")
    return _RefusalError("amount_too_large", f"amount_minor {amount} is above {MAX_AMOUNT_MINOR}")


def _blank(row: Row) -> _RefusalError:
    names = ("transaction_id", "account_id", "merchant_id", "payment_method", "channel")
    blank = ", ".join(name for name in names if not row[FIELDS.index(name)])
    return _RefusalError("blank_field", f"{blank} must not be empty")


def _place(latitude: float | None, longitude: float | None, prefix: str) -> tuple[int, int]:
    if latitude is None or longitude is None:
        raise _RefusalError("bad_coordinates", f"{prefix}latitude and {prefix}longitude come together or not at all")
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):  # false for NaN too
        raise _RefusalError("bad_coordinates", f"{prefix}latitude, {prefix}longitude are no WGS 84 degrees")
    return microdegrees(latitude), microdegrees(longitude)


def _attributes(attributes: Mapping[str, str]) -> str:
    if len(attributes) > MAX_ATTRIBUTES:
        raise _RefusalError("too_many_attributes", f"{len(attributes)} attributes, {MAX_ATTRIBUTES} are allowed")
    parts = [part for pair in sorted(attributes.items()) for part in pair]
    if any(_SEPARATOR in part for part in parts):
        raise _RefusalError("control_character", "an attribute holds the unit separator, U+001F")
    return _SEPARATOR + _SEPARATOR.join(parts)


@lru_cache(maxsize=65_536)  # a pure function, called with the same tokens for every payment of an account
def holds_card_number(text: str) -> bool:
    """Return whether a text holds 13 to 19 digits with a valid Luhn check digit (ISO/IEC 7812-1).

    Single spaces or hyphens may stand between the digits.
    """
    return any(_luhn([int(digit) for digit in run.group() if digit.isdecimal()]) for run in _DIGITS.finditer(text))


def _luhn(number: list[int]) -> bool:
    doubled = [digit * 2 - 9 * (digit > 4) for digit in number[-2::-2]]
    return (sum(number[-1::-2]) + sum(doubled)) % 10 == 0


class IntakeRefused(Record, frozen=True, kw_only=True):
    """The record of an input that could not be made a Transaction. It enters the log, so that no input is lost."""

    reason: str
    detail: str
    source: str
    size: int
    sha256: str
    body: bytes | None
