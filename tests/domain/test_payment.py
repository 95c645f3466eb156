"""Admission of payments: what is admitted, what is refused with which reason, and when two payments are equal."""

from typing import Any

import pytest

from domain.currencies import DECIMALS
from domain.payment import Payment, Refusal, admit, holds_card_number

NOON = 1_750_000_000_000


def raw(**changed: Any) -> dict[str, Any]:
    return {
        "transaction_id": "tx-1",
        "account_id": "acct-anna",
        "card_id": "card-1",
        "amount_minor": 1_000,
        "currency": "EUR",
        "event_time": NOON,
        "merchant_id": "bakery",
        "payment_method": "CARD",
        "channel": "POS",
        **changed,
    }


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"amount_minor": -1}, "negative_amount"),
        ({"amount_minor": 10**15 + 1}, "amount_too_large"),
        ({"currency": "EURO"}, "unknown_currency"),
        ({"currency": "eur"}, "unknown_currency"),
        ({"currency": "XAU"}, "unknown_currency"),
        ({"event_time": -1}, "bad_event_time"),
        ({"event_time": NOON + 300_001}, "future_dated"),
        ({"latitude": float("nan"), "longitude": 1.0}, "bad_coordinates"),
        ({"latitude": 1.0, "longitude": float("inf")}, "bad_coordinates"),
        ({"latitude": 90.1, "longitude": 1.0}, "bad_coordinates"),
        ({"latitude": 1.0}, "bad_coordinates"),
        ({"home_latitude": 1.0, "home_longitude": -180.5}, "bad_coordinates"),
        ({"transaction_id": ""}, "blank_field"),
        ({"account_id": ""}, "blank_field"),
        ({"merchant_id": ""}, "blank_field"),
        ({"merchant_id": "x" * 513}, "text_too_long"),
        ({"country": "DEU"}, "bad_country"),
        ({"country": "d1"}, "bad_country"),
        ({"merchant_category": "541"}, "bad_merchant_category"),
        ({"account_id": "4111111111111111"}, "card_number"),
        ({"card_id": "4111 1111 1111 1111"}, "card_number"),
        ({"card_id": "pan:5500-0055-5555-5559"}, "card_number"),
        ({"device_id": "378282246310005"}, "card_number"),
        ({"counterparty_id": "6011111111111117"}, "card_number"),
        ({"merchant_id": "a\x1fb"}, "control_character"),
        ({"attributes": {"note": "a\x1fb"}}, "control_character"),
        ({"attributes": {str(number): "" for number in range(65)}}, "too_many_attributes"),
    ],
)
def test_invalid_payment_is_refused_with_its_reason(changed: dict[str, Any], reason: str) -> None:
    refusal = admit(raw(**changed), NOON)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == reason
    assert "4111" not in refusal.detail
    assert "1111" not in refusal.detail


@pytest.mark.parametrize(
    "changed",
    [
        {"amount_minor": 0},
        {"currency": "KWD"},
        {"event_time": NOON + 300_000},
        {"event_time": 0},
        {"latitude": 90.0, "longitude": -180.0},
        {"latitude": 0.0, "longitude": 0.0},
        {"card_id": None, "country": None, "device_id": None},
        {"account_id": "4111111111111112"},
        {"card_id": "k836b725ac128c818"},
        {"merchant_id": "Ω≈ç√∫µ≤≥÷ 社會科學院語學研究所 <script>alert(1)</script>"},
        {"attributes": {"note": "with, commas\nand lines"}},
    ],
)
def test_valid_payment_is_admitted(changed: dict[str, Any]) -> None:
    assert isinstance(admit(raw(**changed), NOON), Payment)


def test_payment_of_a_file_has_no_arrival_time_to_be_later_than() -> None:
    assert isinstance(admit(raw(event_time=NOON * 2), None), Payment)


def digest(**changed: Any) -> bytes:
    payment = admit(raw(**changed), None)
    assert isinstance(payment, Payment)
    return payment.digest


@pytest.mark.parametrize(
    "changed",
    [
        {"amount_minor": 1_001},
        {"event_time": NOON + 1},
        {"merchant_id": "baker"},
        {"card_id": "card-2"},
        {"card_id": None},
        {"terminal_id": "card-1"},
        {"latitude": 1.0, "longitude": 2.0},
        {"home_latitude": 1.0, "home_longitude": 2.0},
        {"attributes": {"a": "b"}},
        {"attributes": {"a": "c"}},
        {"counterparty_id": "x"},
    ],
)
def test_different_content_has_a_different_digest(changed: dict[str, Any]) -> None:
    assert digest(**changed) != digest()


def test_the_same_content_has_the_same_digest() -> None:
    assert digest(attributes={"a": "1", "b": "2"}) == digest(attributes={"b": "2", "a": "1"})
    assert digest(card_id=None) == digest(card_id="")
    assert digest(latitude=1.000_000_1, longitude=2.0) == digest(latitude=1.0, longitude=2.0)


def test_luhn() -> None:
    assert holds_card_number("4111111111111111")
    assert holds_card_number("my card 4111-1111 11111111, thanks")
    assert not holds_card_number("4111111111111112")
    assert not holds_card_number("411111111111")  # 12 digits
    assert not holds_card_number("04111111111111111000000")  # a run of 23 is no card number


def test_minor_units_follow_iso_4217() -> None:
    assert len(DECIMALS) == 165
    assert (DECIMALS["JPY"], DECIMALS["EUR"], DECIMALS["KWD"], DECIMALS["CLF"]) == (0, 2, 3, 4)
