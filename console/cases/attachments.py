"""Files attached to cases: in the object store, named by their digest; the log holds only the digest.

Only a few file types are accepted, each up to MAX_BYTES. Files are sealed with the key of the account that the case is
about, and the digest is that of the sealed bytes.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Final, Protocol

from console.privacy.command_sealing import NAME_FIELD
from console.privacy.vault import Vault
from domain.cases.commands import Attachment
from domain.masking import mask_card_numbers

MAX_BYTES: Final = 10 << 20
"""Maximum size of a file, in bytes."""
MAX_NAME: Final = 120
"""Maximum length of a file name, in characters."""
TYPES: Final[dict[str, tuple[str, tuple[bytes, ...]]]] = {
    ".pdf": ("application/pdf", (b"%PDF-",)),
    ".png": ("image/png", (b"\x89PNG\r\n\x1a\n",)),
    ".jpg": ("image/jpeg", (b"\xff\xd8\xff",)),
    ".jpeg": ("image/jpeg", (b"\xff\xd8\xff",)),
    ".gif": ("image/gif", (b"GIF87a", b"GIF89a")),
    ".webp": ("image/webp", (b"RIFF",)),
    ".docx": ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", (b"PK\x03\x04",)),
    ".xlsx": ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", (b"PK\x03\x04",)),
    ".txt": ("text/plain", ()),
    ".csv": ("text/csv", ()),
    ".eml": ("message/rfc822", ()),
    ".json": ("application/json", ()),
}
"""Accepted file types by extension: media type and first bytes. A type without first bytes is text in UTF-8."""


class UnacceptableFile(ValueError):
    """A file that is not accepted. `status` is the HTTP status, the message says why."""

    def __init__(self, message: str, status: int = 415) -> None:
        super().__init__(message)
        self.status = status


class ErasedFile(LookupError):
    """A file whose key was destroyed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file with its content in plain bytes. The name in its attachment is still sealed."""

    attachment: Attachment
    body: bytes


class ObjectStore(Protocol):
    """Store of objects by key, such as the bucket of the archive."""

    def put_new(self, key: str, body: bytes) -> bool:
        """Store an object under a new key. Return False if the key is taken."""

    def get(self, key: str) -> bytes | None:
        """Return the content of an object, or None if there is none."""


class MemoryObjectStore:
    """Object store in a dict, for fast tests."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put_new(self, key: str, body: bytes) -> bool:
        """Store an object under a new key. Return False if the key is taken."""
        return self.objects.setdefault(key, body) is body

    def get(self, key: str) -> bytes | None:
        """Return the content of an object, or None if there is none."""
        return self.objects.get(key)


class Attachments:
    """Files of all cases."""

    def __init__(self, objects: ObjectStore, vault: Vault) -> None:
        self._objects, self._vault = objects, vault

    def store(self, case_id: str, account_id: str, file_name: str, body: bytes) -> Attachment:
        """Seal and store a file. A file with the same content keeps its first name. Raise UnacceptableFile,
        VaultError.
        """
        name = clean_name(file_name)
        media_type = _checked_type(name, body)
        sealed = self._vault.seal_file(account_id, body)
        sha256 = hashlib.sha256(sealed).hexdigest()
        key = _key(case_id, sha256)
        self._objects.put_new(key, sealed)
        sealed_name = self._vault.seal(account_id, NAME_FIELD, name)
        said = {"file_name": sealed_name, "size": len(body), "media_type": media_type}
        self._objects.put_new(f"{key}.json", json.dumps(said).encode())
        found = self.find(case_id, sha256)
        assert found is not None
        return found

    def find(self, case_id: str, sha256: str) -> Attachment | None:
        """Return the description of a file, or None if there is none."""
        key = _key(case_id, sha256)
        said = self._objects.get(f"{key}.json")
        return None if said is None else Attachment(sha256=sha256, storage_key=key, **json.loads(said))

    def read(self, case_id: str, sha256: str) -> StoredFile | None:
        """Return a file, or None if there is none or its content does not match its digest. Raise ErasedFile,
        VaultError.
        """
        attachment = self.find(case_id, sha256)
        body = self._objects.get(_key(case_id, sha256)) if attachment else None
        if attachment is None or body is None or hashlib.sha256(body).hexdigest() != sha256:
            return None
        plain = self._vault.open_file(body)
        if plain is None:
            raise ErasedFile(sha256)
        return StoredFile(attachment=attachment, body=plain)


def clean_name(file_name: str) -> str:
    """Return a file name without folders, control characters and card numbers. Raise UnacceptableFile if nothing is
    left.
    """
    last = file_name.replace("\\", "/").rpartition("/")[2]
    name = mask_card_numbers("".join(character for character in last if character.isprintable())).strip(". ")
    stem, dot, extension = name.rpartition(".")
    if not stem or not dot:
        raise UnacceptableFile("the file name has no extension: name it like receipt.pdf")
    return f"{stem[: MAX_NAME - len(extension) - 1]}.{extension.lower()}"


def _checked_type(name: str, body: bytes) -> str:
    if not body:
        raise UnacceptableFile("the file is empty", 422)
    if len(body) > MAX_BYTES:
        raise UnacceptableFile(f"a file has at most {MAX_BYTES >> 20} MB", 413)
    known = TYPES.get(f".{name.rpartition('.')[2]}")
    if known is None:
        raise UnacceptableFile(f"this file type is not accepted; accepted types: {', '.join(sorted(TYPES))}")
    media_type, beginnings = known
    if beginnings and not body.startswith(beginnings):
        raise UnacceptableFile(f"the content of the file is not {media_type}")
    if not beginnings:
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise UnacceptableFile("a text file must be UTF-8") from error
    return media_type


def _key(case_id: str, sha256: str) -> str:
    return f"attachments/{case_id}/{sha256}"
