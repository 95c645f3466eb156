"""What a sealed text looks like: a personal field that only its subject's key opens. Nothing here opens one.

    sealed:KEY:FIELD:LENGTH:CIPHERTEXT:

LENGTH counts the characters of the text, so that folds can hold it to a limit. All of it is letters and signs, without
a digit, so that no ciphertext is ever taken for a card number; it needs no escape in JSON or in HTML, so that it is
found and replaced wherever a text with one in it goes out to people.
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
MAX_BYTES_OF_CHARACTER: Final = 4
SEALED: Final = re.compile(r"sealed:([a-p]{16}):([a-z]{1,16}):([a-p]{1,8}):([A-Za-z!#$%()*._~;?\-]+):")
"""A sealed text: its key, its field, its length, its ciphertext."""
_PLAIN: Final = b"0123456789+/="
_SIGNS: Final = b"!#$%()*._~;-?"
_TO_SIGNS: Final = bytes.maketrans(_PLAIN, _SIGNS)
_FROM_SIGNS: Final = bytes.maketrans(_SIGNS, _PLAIN)
_HEX, _LETTERS = b"0123456789abcdef", b"abcdefghijklmnop"
_TO_LETTERS: Final = bytes.maketrans(_HEX, _LETTERS)
_FROM_LETTERS: Final = bytes.maketrans(_LETTERS, _HEX)


def key_name(drawn: bytes) -> str:
    """The name of a key from eight bytes."""
    return drawn.hex().encode().translate(_TO_LETTERS).decode()


def length_name(length: int) -> str:
    """A length without a digit."""
    return f"{length:x}".encode().translate(_TO_LETTERS).decode()


def sealed_text(key: str, field: str, length: str, ciphertext: bytes) -> str:
    """The sealed text of a ciphertext; `length` is what `length_name` makes of the text's."""
    return f"{MARK}{key}:{field}:{length}:{base64.b64encode(ciphertext).translate(_TO_SIGNS).decode()}:"


def ciphertext_of(signs: str) -> bytes:
    """The ciphertext of a sealed text. Raises ValueError."""
    return base64.b64decode(signs.encode().translate(_FROM_SIGNS), validate=True)


def is_sealed(text: str) -> bool:
    """Whether the text is one sealed text and nothing else."""
    return text.startswith(MARK) and SEALED.fullmatch(text) is not None


def count_characters(text: str) -> int:
    """How many characters a text has; a sealed one, before it was sealed.

    What a sealed text says of itself counts only if its ciphertext is no longer than such a text's can be.
    """
    found = SEALED.fullmatch(text) if text.startswith(MARK) else None
    if found is None:
        return len(text)
    length = int(found[3].encode().translate(_FROM_LETTERS), 16)
    most = (length * MAX_BYTES_OF_CHARACTER + OVERHEAD + 2) // 3 * 4
    return length if len(found[4]) <= most else len(text)
