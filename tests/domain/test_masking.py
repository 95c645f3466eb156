"""Card numbers in free text are masked however they are written, and all other text stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.masking import mask_card_numbers

VISA, AMEX = "4111111111111111", "378282246310005"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(f"paid with {VISA} twice", "paid with [card number ending 1111] twice", id="in the middle"),
        pytest.param("4111 1111 1111 1111", "[card number ending 1111]", id="spaces"),
        pytest.param("4111-1111-1111-1111.", "[card number ending 1111].", id="hyphens"),
        pytest.param("4111.1111.1111.1111", "[card number ending 1111]", id="dots"),
        pytest.param("4111 - 1111 - 1111 - 1111", "[card number ending 1111]", id="spaced hyphens"),
        pytest.param("4111\u00a01111\u20111111\u20131111", "[card number ending 1111]", id="unicode separators"),
        pytest.param("4111\u200b1111\u200b1111\u200b1111", "[card number ending 1111]", id="invisible separators"),
        pytest.param("4111\n1111\n1111\n1111", "[card number ending 1111]", id="line by line"),
        pytest.param("4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "[card number ending 1111]", id="digit by digit"),
        pytest.param("\uff14" + "\uff11" * 15, "[card number ending 1111]", id="full-width digits"),
        pytest.param(
            "\u0664" + "\u0661" * 3 + " \u0661\u0661\u0661\u0661" * 3, "[card number ending 1111]", id="Arabic digits"),
        pytest.param(f"x{AMEX}y", "x[card number ending 0005]y", id="fifteen digits between letters"),
        pytest.param(f"{VISA}/{AMEX}", "[card number ending 1111]/[card number ending 0005]", id="two of them"),
        pytest.param("order 1234 4111 1111 1111 1111", "order 1234 [card number ending 1111]", id="after a group"),
        pytest.param("4111 1111 1111 1111 1226", "[card number ending 1111] 1226", id="before a group"),
    ],
)  # fmt: skip
def test_card_numbers_are_masked(text: str, expected: str) -> None:
    assert mask_card_numbers(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "call +49 30 123456 7890",
        "4111111111111112",
        "411111111111",
        "case 09d205ae-205e-5bca-94a1-93e46b675eed",
        "2026-11-25 00:05:35 at 12:30",
        "0000000000000000",
        "id 41111111111111110000000",
        "",
    ],
)
def test_other_numbers_are_not_masked(text: str) -> None:
    assert mask_card_numbers(text) == text


def _check_digit(payload: str) -> str:
    """Compute the check digit from the right, one digit at a time, independently of the code under test."""
    total = 0
    for place, character in enumerate(reversed(payload)):
        value = int(character)
        if place % 2 == 0:
            value = sum(int(each) for each in str(value * 2))
        total += value
    return str(-total % 10)


@given(
    st.text(alphabet="0123456789", min_size=12, max_size=18).filter(lambda text: set(text) != {"0"}),
    st.sampled_from(["", " ", "-", "\u2009", ". ", "\u2060"]),
    st.text(alphabet="abc xyz\u00e9\n", max_size=20),
    st.text(alphabet="abc xyz\u00e9\n", max_size=20),
)
def test_every_valid_number_is_masked_and_the_words_around_it_stay(
    payload: str, between: str, before: str, after: str
) -> None:
    number = payload + _check_digit(payload)
    written = between.join(number[at : at + 4] for at in range(0, len(number), 4))
    assert mask_card_numbers(f"{before}{written}{after}") == f"{before}[card number ending {number[-4:]}]{after}"


@given(st.text(alphabet="0123456789", min_size=12, max_size=18), st.integers(1, 9))
def test_number_with_a_wrong_check_digit_is_not_masked(payload: str, by: int) -> None:
    number = payload + str((int(_check_digit(payload)) + by) % 10)
    assert mask_card_numbers(number) == number
