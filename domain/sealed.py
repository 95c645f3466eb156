"""The form of sealed texts: personal fields that only the key of their subject opens. This module opens none.

sealed:KEY:FIELD:LENGTH:CIPHERTEXT:

LENGTH is the number of characters of the text, so that folds can check it against a limit. A sealed text has only
letters and signs and no digit, so that no ciphertext is taken for a card number. It needs no escape in JSON or in HTML,
so that it is found and replaced in every text that is shown to users.
"""

import base64
import re
from typing import Final

MARK: Final = "sealed:"
"""First characters of a sealed text."""
ERASED: Final = "[erased]"
"""Text shown instead of a sealed text whose key is destroyed."""
UNREADABLE: Final = "[unreadable]"
"""Text shown instead of a sealed text that was altered, or whose key was never stored here."""
OVERHEAD: Final = 16
"""Bytes by which a ciphertext is longer than its text: they authenticate it (AES-SIV, RFC 5297)."""
MAX_BYTES_OF_CHARACTER: Final = 4
"""Maximum size of a character in UTF-8, in bytes."""
SEALED: Final = re.compile(r"sealed:([a-p]{16}):([a-z]{1,16}):([a-p]{1,8}):([A-Za-z!#$%()*._~;?\-]+):")
"""Pattern of a sealed text, with groups for key, field, length and ciphertext."""
_PLAIN: Final = b"0123456789+/="
_SIGNS: Final = b"!#$%()*._~;-?"
_TO_SIGNS: Final = bytes.maketrans(_PLAIN, _SIGNS)
_FROM_SIGNS: Final = bytes.maketrans(_SIGNS, _PLAIN)
_HEX, _LETTERS = b"0123456789abcdef", b"abcdefghijklmnop"
_TO_LETTERS: Final = bytes.maketrans(_HEX, _LETTERS)
_FROM_LETTERS: Final = bytes.maketrans(_LETTERS, _HEX)


def key_name(drawn: bytes) -> str:
    """Return the name of a key from eight random bytes."""
    return drawn.hex().encode().translate(_TO_LETTERS).decode()


def length_name(length: int) -> str:
    """Return a length in letters, without a digit."""
    return f"{length:x}".encode().translate(_TO_LETTERS).decode()


def sealed_text(key: str, field: str, length: str, ciphertext: bytes) -> str:
    """Return the sealed text of a ciphertext; `length` is the length of the text, as `length_name` writes it."""
    return f"{MARK}{key}:{field}:{length}:{base64.b64encode(ciphertext).translate(_TO_SIGNS).decode()}:"


def ciphertext_of(signs: str) -> bytes:
    """Return the ciphertext in the last part of a sealed text. Raises ValueError."""
    return base64.b64decode(signs.encode().translate(_FROM_SIGNS), validate=True)


def is_sealed(text: str) -> bool:
    """Return whether a text is one sealed text and nothing else."""
    return text.startswith(MARK) and SEALED.fullmatch(text) is not None


def count_characters(text: str) -> int:
    """Return the number of characters of a text; of a sealed text, the number before it was sealed.

    The length in a sealed text counts only if the ciphertext is not longer than that of such a text can be.
    """
    found = SEALED.fullmatch(text) if text.startswith(MARK) else None
    if found is None:
        return len(text)
    length = int(found[3].encode().translate(_FROM_LETTERS), 16)
    most = (length * MAX_BYTES_OF_CHARACTER + OVERHEAD + 2) // 3 * 4
    return length if len(found[4]) <= most else len(text)
