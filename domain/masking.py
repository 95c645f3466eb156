"""Masking of card numbers in texts from users, before a text is logged, stored or sent."""

import unicodedata
from typing import Final, NamedTuple

SHORTEST, LONGEST = 13, 19
"""Smallest and largest number of digits of a card number (ISO/IEC 7812-1)."""
MAX_BETWEEN: Final = 3
"""Maximum number of characters between two groups of one number; invisible ones do not count."""
_BETWEEN: Final = frozenset("-./_,\u00b7\u2022'\u2019\\|+*")


class _DigitGroup(NamedTuple):
    """A run of digits: its range in the text, and the values of its digits."""

    start: int
    end: int
    digits: tuple[int, ...]


def mask_card_numbers(text: str) -> str:
    """Replace each card number in a text by its last four digits.

    A card number is 13 to 19 digits of any script with a valid check digit (Luhn), as one run or as whole groups with
    separators between. A part of a longer run is no card number. Nor is a number that fails the check, such as most
    telephone numbers and ids.
    """
    if sum(map(str.isdigit, text)) < SHORTEST:
        return text
    parts, done = [], 0
    for start, end, last in _find_card_numbers(text):
        parts += [text[done:start], f"[card number ending {last}]"]
        done = end
    return "".join((*parts, text[done:]))


def _find_card_numbers(text: str) -> list[tuple[int, int, str]]:
    """Return start, end and last four digits of each card number; if several begin at one place, of the longest."""
    groups, found, at = _groups(text), [], 0
    while at < len(groups):
        length = _longest_card_number(text, groups, at)
        if length:
            chosen = groups[at : at + length]
            digits = [digit for group in chosen for digit in group.digits]
            found.append((chosen[0].start, chosen[-1].end, "".join(map(str, digits[-4:]))))
        at += length or 1
    return found


def _longest_card_number(text: str, groups: list[_DigitGroup], at: int) -> int:
    """Return how many groups from this one on make the longest card number, 0 if none do."""
    digits: list[int] = []
    best = 0
    for number, group in enumerate(groups[at:]):
        if number and not _are_neighbours(text[groups[at + number - 1].end : group.start]):
            break
        digits += group.digits
        if len(digits) > LONGEST:
            break
        if len(digits) >= SHORTEST and is_luhn_valid(digits):
            best = number + 1
    return best


def _groups(text: str) -> list[_DigitGroup]:
    groups: list[_DigitGroup] = []
    digits: list[int] = []
    start = 0
    for place, character in enumerate(f"{text}\n"):
        value = unicodedata.digit(character, -1)
        if value >= 0:
            start = start if digits else place
            digits.append(value)
        elif digits:
            groups.append(_DigitGroup(start, place, tuple(digits)))
            digits = []
    return groups


def _are_neighbours(between: str) -> bool:
    visible = [character for character in between if unicodedata.category(character) not in ("Cf", "Mn", "Me")]
    return len(visible) <= MAX_BETWEEN and all(
        character.isspace() or character in _BETWEEN or unicodedata.category(character) == "Pd" for character in visible
    )


def is_luhn_valid(digits: list[int]) -> bool:
    """Return whether the last digit is the check digit of the others. A number of zeros only is not valid."""
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return any(digits) and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
