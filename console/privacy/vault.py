"""Personal fields, sealed with a key of their subject before they enter a log, and unreadable without it.

A subject is an account (its token). Its key lies in the control store, wrapped by the master key, which lies elsewhere.
The same text of the same subject and field is always sealed to the same bytes (AES-SIV, RFC 5297), so that repeated
content is recognised. Erasing a subject destroys its key: every copy of what was sealed with it, in logs, archives and
exports, becomes unreadable, and none of their bytes changes.
"""

import html
import json
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from hashlib import sha256
from re import Match
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import Engine, Select, delete, func, select, update
from sqlalchemy.orm import Session

from console.privacy.scrubbing import scrub
from domain.sealed import ERASED, MARK, SEALED, UNREADABLE, ciphertext_of, key_name, length_name, sealed_text
from migrations.models import ErasureRow, SubjectKeyRow
from migrations.store import read_session, write_session

KEY_BYTES: Final = 64
"""AES-256 twice: one half authenticates, the other encrypts."""
RECHECK_S: Final = 1.0
"""Seconds after which a process asks the store again for new erasures."""
SETTLED_S: Final = RECHECK_S + 0.5
"""Seconds after an erasure from which no process still holds the key."""
MAX_KEYS: Final = 100_000
"""Maximum number of keys that a process holds; the least recently used leave first."""
MAX_SUBJECT: Final = 512
_AT_ONCE: Final = 500
_FILE: Final = b"sealed file\n"
_NAME_END: Final = b"\n"


class VaultError(RuntimeError):
    """A value that cannot be sealed or opened; the message says why, and how to cure it."""


@dataclass(frozen=True, slots=True)
class SubjectKey:
    """A subject's key that was not destroyed at the last check."""

    key_id: str
    subject: str
    cipher: AESSIV


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyErasure:
    """The erasure of a subject; `key_id` is None if nothing had been sealed for it."""

    subject: str
    generation: int
    key_id: str | None
    at_ms: int
    actor: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectKeyHistory:
    """A subject's current key, by generation, and its erasures, oldest first."""

    subject: str
    generation: int | None
    made_at_ms: int | None
    erasures: tuple[KeyErasure, ...]


class Vault:
    """The subject keys of a control store, as one process uses them. Safe for use by several threads."""

    def __init__(
        self,
        engine: Engine,
        master: bytes,
        now_ms: Callable[[], int],
        *,
        makes_keys: bool = True,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open the vault. Without `makes_keys`, the values of a subject that has no key yet stay unsealed."""
        self._engine, self._now_ms, self._monotonic = engine, now_ms, monotonic
        self._makes_keys = makes_keys
        self._master = AESSIV(HKDF(SHA256(), KEY_BYTES, None, b"fraudcase master key").derive(master))
        self._lock = threading.Lock()
        self._by_subject: OrderedDict[str, SubjectKey] = OrderedDict()
        self._by_id: OrderedDict[str, SubjectKey | None] = OrderedDict()
        """Keys by id; None is a destroyed key."""
        self._checked_at = float("-inf")
        self._last_erasure: int | None = None
        self._is_checked = False

    # -- sealing --------------------------------------------------------------------------------------

    def prepare(self, subjects: Iterable[str]) -> None:
        """Fetch the keys of these subjects in one step, and make missing ones. Raises VaultError."""
        with self._lock:
            self._ask()
            missing = [name for name in dict.fromkeys(map(subject_name, subjects)) if name not in self._by_subject]
            for start in range(0, len(missing), _AT_ONCE):
                self._fetch(missing[start : start + _AT_ONCE])

    def seal(self, subject: str, field: str, text: str) -> str:
        """Seal a personal text for storage and transport; a blank text stays blank. Raises VaultError."""
        if not text.strip():
            return text
        key = self._key_of(subject_name(subject))
        if key is None:
            return text
        length = length_name(len(text))
        return sealed_text(
            key.key_id, field, length, key.cipher.encrypt(text.encode(), _text_associated_data(key, field, length))
        )

    def seal_file(self, subject: str, content: bytes) -> bytes:
        """Seal the content of a file; empty content stays empty. Raises VaultError."""
        key = self._key_of(subject_name(subject))
        if key is None or not content:
            return content
        head = _FILE + key.key_id.encode() + _NAME_END
        return head + key.cipher.encrypt(content, [key.subject.encode(), b"file"])

    # -- opening --------------------------------------------------------------------------------------

    def opened(self, text: str) -> str:
        """Return the text with every sealed part opened, or replaced by `[erased]`."""
        return self._replaced(text, lambda plain: plain)

    def opened_json(self, text: str) -> str:
        """Return a JSON text with every sealed part opened and escaped, so that the text stays JSON."""
        return self._replaced(text, lambda plain: json.dumps(plain, ensure_ascii=False)[1:-1])

    def opened_html(self, text: str) -> str:
        """Return an HTML text with every sealed part opened and escaped, so that it is text and never markup."""
        return self._replaced(text, lambda plain: html.escape(plain, quote=True))

    def open_file(self, content: bytes) -> bytes | None:
        """Return the content of a sealed file, or None once it is erased. Raises VaultError if the file was altered."""
        if not content.startswith(_FILE):
            return content
        key_id, _, ciphertext = content[len(_FILE) :].partition(_NAME_END)
        key = self._key_by_id(key_id.decode("ascii", "replace"))
        if key is None:
            return None
        try:
            return key.cipher.decrypt(ciphertext, [key.subject.encode(), b"file"])
        except InvalidTag as error:
            raise VaultError("the file was altered after it was sealed") from error

    def _replaced(self, text: str, escape: Callable[[str], str]) -> str:
        if MARK not in text:
            return text
        return SEALED.sub(lambda found: escape(self._open(found)), text)

    def _open(self, found: Match[str]) -> str:
        key_id, field, length, signs = found.groups()
        try:
            key = self._key_by_id(key_id)
            if key is None:
                return ERASED
            return key.cipher.decrypt(ciphertext_of(signs), _text_associated_data(key, field, length)).decode()
        except (InvalidTag, ValueError, VaultError):
            return UNREADABLE

    # -- erasing --------------------------------------------------------------------------------------

    def erase(self, subjects: Collection[str], actor: str, reason: str) -> list[KeyErasure]:
        """Destroy the keys of subjects for good, and note one erasure for each. Raises ScrubbingError.

        Other processes drop their copies within SETTLED_S seconds. Nobody can undo an erasure.
        """
        names = list(dict.fromkeys(map(subject_name, subjects)))
        with write_session(self._engine) as session:
            rows = {name: session.scalars(_select_subject_keys(name)).first() for name in names}
            wrapped = [row.wrapped for row in rows.values() if row is not None]
            erased = [self._noted(session, name, row, actor, reason) for name, row in rows.items()]
            gone = [row.key_id for row in rows.values() if row is not None]
            for key_id in gone:  # overwritten first: a store that keeps deleted rows for a while then keeps zeros
                mine = SubjectKeyRow.key_id == key_id
                session.execute(update(SubjectKeyRow).where(mine).values(wrapped=bytes(len(wrapped[0]))))
                session.execute(delete(SubjectKeyRow).where(mine))
        with self._lock:
            self._checked_at = float("-inf")
        scrub(self._engine, SubjectKeyRow.__tablename__, wrapped)
        return erased

    def known(self, subject: str) -> SubjectKeyHistory:
        """Return the history of a subject's keys, without reading a key."""
        name = subject_name(subject)
        with read_session(self._engine) as session:
            row = session.scalars(_select_subject_keys(name)).first()
            erasures = session.scalars(select(ErasureRow).where(ErasureRow.subject == name).order_by(ErasureRow.number))
            return SubjectKeyHistory(
                subject=name,
                generation=row.generation if row else None,
                made_at_ms=row.made_at_ms if row else None,
                erasures=tuple(_key_erasure(each) for each in erasures),
            )

    def erasures(self, limit: int) -> list[KeyErasure]:
        """Return the last `limit` erasures, newest first."""
        with read_session(self._engine) as session:
            wanted = select(ErasureRow).order_by(ErasureRow.number.desc()).limit(limit)
            return [_key_erasure(row) for row in session.scalars(wanted)]

    def _noted(self, session: Session, name: str, row: SubjectKeyRow | None, actor: str, reason: str) -> KeyErasure:
        noted = ErasureRow(
            at_ms=self._now_ms(),
            actor=actor[:64],
            subject=name,
            generation=row.generation if row else 0,
            key_id=row.key_id if row else None,
            reason=reason,
        )
        session.add(noted)
        session.flush()
        return _key_erasure(noted)

    # -- cached keys ------------------------------------------------------------------------------------

    def _key_of(self, name: str) -> SubjectKey | None:
        with self._lock:
            self._ask()
            if name not in self._by_subject:
                self._fetch([name])
            key = self._by_subject.get(name)
            if key is not None:
                self._by_subject.move_to_end(name)
            return key

    def _key_by_id(self, key_id: str) -> SubjectKey | None:
        """Return the key of this id, or None for a destroyed one. Raises VaultError for an id that the store never
        had.
        """
        with self._lock:
            self._ask()
            if key_id not in self._by_id:
                with read_session(self._engine) as session:
                    row = session.get(SubjectKeyRow, key_id)
                    was = (
                        row is None
                        and session.scalars(select(ErasureRow.number).where(ErasureRow.key_id == key_id)).first()
                    )
                if row is None and was is None:
                    raise VaultError(f"the control store has no key {key_id}")
                self._keep_id(key_id, None if row is None else self._unwrapped(row))
            self._by_id.move_to_end(key_id)
            return self._by_id[key_id]

    def _ask(self) -> None:
        """Drop the keys that were erased since the last check, at most once in RECHECK_S seconds. The caller holds
        the lock.

        Every read of a key comes after this call and under the same lock: a key that is destroyed after its read is
        dropped by the next check.
        """
        now = self._monotonic()
        if now - self._checked_at < RECHECK_S:
            return
        with read_session(self._engine) as session:
            if self._last_erasure is None:
                self._last_erasure = session.scalars(select(func.max(ErasureRow.number))).one() or 0
            newer = select(ErasureRow).where(ErasureRow.number > self._last_erasure).order_by(ErasureRow.number)
            for row in session.scalars(newer):
                self._last_erasure = row.number
                self._by_subject.pop(row.subject, None)
                if row.key_id is not None:
                    self._by_id.pop(row.key_id, None)
        self._checked_at = now

    def _fetch(self, names: list[str]) -> None:
        """Fetch the keys of these subjects, and make missing ones. The caller holds the lock."""
        with read_session(self._engine) as session:
            rows = list(session.scalars(select(SubjectKeyRow).where(SubjectKeyRow.subject.in_(names))))
        found = {row.subject for row in rows}
        missing = [name for name in names if name not in found]
        if missing and self._makes_keys:
            rows += self._made(missing)
        for row in rows:
            key = self._unwrapped(row)
            self._by_subject[row.subject] = key
            self._keep_id(row.key_id, key)
        while len(self._by_subject) > MAX_KEYS:
            self._by_subject.popitem(last=False)

    def _keep_id(self, key_id: str, key: SubjectKey | None) -> None:
        self._by_id[key_id] = key
        while len(self._by_id) > MAX_KEYS:
            self._by_id.popitem(last=False)

    def _made(self, names: list[str]) -> list[SubjectKeyRow]:
        """Make new keys, except for subjects for which another process has just made one."""
        with write_session(self._engine) as session:
            self._check_master(session)
            rows = list(session.scalars(select(SubjectKeyRow).where(SubjectKeyRow.subject.in_(names))))
            found = {row.subject for row in rows}
            erased = dict(
                session.execute(
                    select(ErasureRow.subject, func.max(ErasureRow.generation))
                    .where(ErasureRow.subject.in_(names))
                    .group_by(ErasureRow.subject)
                ).all()
            )
            new = [self._new(name, 1 + erased.get(name, 0)) for name in names if name not in found]
            session.add_all(new)
            session.flush()
            return rows + new

    def _new(self, name: str, generation: int) -> SubjectKeyRow:
        key_id = key_name(secrets.token_bytes(8))
        wrapped = self._master.encrypt(secrets.token_bytes(KEY_BYTES), _key_associated_data(key_id, name, generation))
        return SubjectKeyRow(
            key_id=key_id, subject=name, generation=generation, wrapped=wrapped, made_at_ms=self._now_ms()
        )

    def _check_master(self, session: Session) -> None:
        """Check that the master key opens the stored keys, before new keys are stored beside them. Raises
        VaultError.
        """
        if not self._is_checked:
            row = session.scalars(select(SubjectKeyRow).limit(1)).first()
            if row is not None:
                self._unwrapped(row)
            self._is_checked = True

    def _unwrapped(self, row: SubjectKeyRow) -> SubjectKey:
        try:
            key = self._master.decrypt(row.wrapped, _key_associated_data(row.key_id, row.subject, row.generation))
        except InvalidTag as error:
            raise VaultError(
                "the master key is not the one that wraps the subjects' keys. Cure: restore "
                "FRAUDCASE_MASTER_KEY, or the file master.key under FRAUDCASE_HOME/keys"
            ) from error
        return SubjectKey(row.key_id, row.subject, AESSIV(key))


def subject_name(subject: str) -> str:
    """Return the subject's name in the store: its digest if it is too long or not printable."""
    is_plain = len(subject) <= MAX_SUBJECT and subject.isprintable()
    return subject if is_plain else f"digest/{sha256(subject.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _text_associated_data(key: SubjectKey, field: str, length: str) -> list[bytes]:
    """Return the data that a ciphertext is bound to, so that it opens only for its own subject and field."""
    return [key.subject.encode(), field.encode(), length.encode()]


def _key_associated_data(key_id: str, subject: str, generation: int) -> list[bytes]:
    """Return the data that a wrapped key is bound to, so that it does not open in another row."""
    return [key_id.encode(), subject.encode(), str(generation).encode()]


def _select_subject_keys(name: str) -> Select[SubjectKeyRow]:
    return select(SubjectKeyRow).where(SubjectKeyRow.subject == name)


def _key_erasure(row: ErasureRow) -> KeyErasure:
    return KeyErasure(
        subject=row.subject,
        generation=row.generation,
        key_id=row.key_id,
        at_ms=row.at_ms,
        actor=row.actor,
        reason=row.reason,
    )
