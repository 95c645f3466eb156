"""The audit key: an Ed25519 key that signs heads and packs, and from which the salts of records derive."""

import hmac
import os
import secrets
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SEED_BYTES = 32


class BadKey(ValueError):
    """Error: the given text is not a key. The message never repeats it."""


class Signer:
    """An Ed25519 key that signs."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key = self._key.public_key().public_bytes_raw()
        self.salt_key = hmac.digest(seed, b"fraudcase salts v1", "sha256")

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message; deterministic."""
        return self._key.sign(message)


def fingerprint(public_key: bytes) -> str:
    """Return the fingerprint of a public key, short enough to read aloud."""
    return sha256(public_key).hexdigest()[:32]


def is_signed(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Return whether a message was signed with a key."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


def load_signer(given: str) -> Signer:
    """Load a key from a file, or from 64 hexadecimal digits. Raises BadKey."""
    text = given.strip()
    if not _is_seed(text):
        try:
            text = Path(text).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise BadKey("the audit key is neither a file that can be read nor 64 hexadecimal digits") from error
        if not _is_seed(text):
            raise BadKey(f"{given} does not contain a key of 64 hexadecimal digits")
    return Signer(bytes.fromhex(text))


def _is_seed(text: str) -> bool:
    return len(text) == 2 * SEED_BYTES and set(text) <= set("0123456789abcdef")


def ensure_signer(file: Path) -> Signer:
    """Load the key from a file that only its owner can read; create the file if it is missing."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(secrets.token_hex(SEED_BYTES) + "\n")
        opened.flush()
        os.fsync(opened.fileno())
    try:
        os.link(made, file)  # atomic; keeps an existing key
    except FileExistsError:
        pass
    finally:
        made.unlink()
    return load_signer(str(file))
