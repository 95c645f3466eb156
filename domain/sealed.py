"""What a sealed text looks like: a personal field that only its subject's key opens. Nothing here opens one.

    sealed:KEY:FIELD:CIPHERTEXT:

It is made of letters and signs, without a digit, so that no ciphertext is ever taken for a card number; it needs no
escape in JSON or in HTML, so that it is found and replaced wherever a text with one in it goes out to people.
"""

import base64
import re
from typing import Final

MARK: Final = "sealed:"
ERASED: Final = "[erased]"
"""What people read once the key of a sealed text is destroyed."""
UNREADABLE: Final = "[unreadable]"
"""What they read where the text was altered, or its key was never known here."""
OVERHEAD: Final = 16
"""Bytes of a ciphertext that are not its text's: they authenticate it (AES-SIV, RFC 5297)."""
KEY_LETTERS: Final = 16
MAX_BYTES_OF_CHARACTER: Final = 4
SEALED: Final = re.compile(r"sealed:([a-p]{16}):([a-z]+):([A-Za-z!#$%()*._~;?\-]+):")
"""A sealed text: its key, its field, its ciphertext."""
_PLAIN: Final = b"0123456789+/="
_SIGNS: Final = b"!#$%()*._~;-?"
_TO_SIGNS: Final = bytes.maketrans(_PLAIN, _SIGNS)
_FROM_SIGNS: Final = bytes.maketrans(_SIGNS, _PLAIN)
_HEX, _LETTERS = b"0123456789abcdef", b"abcdefghijklmnop"
_TO_LETTERS: Final = bytes.maketrans(_HEX, _LETTERS)


def key_name(drawn: bytes) -> str:
    """The name of a key from eight bytes."""
    return drawn.hex().encode().translate(_TO_LETTERS).decode()


def as_text(key: str, field: str, ciphertext: bytes) -> str:
    """The sealed text of a ciphertext."""
    return f"{MARK}{key}:{field}:{base64.b64encode(ciphertext).translate(_TO_SIGNS).decode()}:"


def ciphertext_of(signs: str) -> bytes:
    """The ciphertext of a sealed text. Raises ValueError."""
    return base64.b64decode(signs.encode().translate(_FROM_SIGNS), validate=True)


def is_sealed(text: str) -> bool:
    """Whether the text is one sealed text and nothing else."""
    return text.startswith(MARK) and SEALED.fullmatch(text) is not None


def fits(text: str, most: int) -> bool:
    """Whether a text has at most so many characters. Of a sealed one it is only known that it can have so few."""
    return len(text) <= most or (len(text) <= longest(most) and is_sealed(text))


def longest(characters: int) -> int:
    """The longest that a text of so many characters can be once it is sealed, with the longest name of a field."""
    size = characters * MAX_BYTES_OF_CHARACTER + OVERHEAD
    return len(MARK) + KEY_LETTERS + 32 + (size + 2) // 3 * 4
