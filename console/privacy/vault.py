"""Personal fields, sealed with a key of their subject before they enter any log; without the key nobody reads them.

A subject is an account (its token). Its key lies in the control store, wrapped by the master key, which does not. The
same text of the same subject and field is sealed to the same bytes (AES-SIV, RFC 5297), so that what comes twice is
still recognised by its content. To erase a subject is to destroy its key: every copy of what was sealed with it, in
logs, archives and exports, is noise from then on, and no byte of them changes.
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
"""How long a process goes on with what it knows of erasures before it asks the store again."""
SETTLED_S: Final = RECHECK_S + 0.5
"""How long after an erasure no process that asks the store still holds the key."""
MAX_KEYS: Final = 100_000
"""Keys that a process holds; those that were not used the longest leave first."""
MAX_SUBJECT: Final = 512
_AT_ONCE: Final = 500
_FILE: Final = b"sealed file\n"
_NAME_END: Final = b"\n"


class VaultError(RuntimeError):
    """What should be sealed cannot be; the message says why, and the cure."""


@dataclass(frozen=True, slots=True)
class SubjectKey:
    """A key that is not destroyed, as far as is known."""

    key_id: str
    subject: str
    cipher: AESSIV


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyErasure:
    """That a subject was erased; `key_id` is None where nothing had been sealed for it."""

    subject: str
    generation: int
    key_id: str | None
    at_ms: int
    actor: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectKeyHistory:
    """What the store knows of a subject: the key in use, and the erasures so far, oldest first."""

    subject: str
    generation: int | None
    made_at_ms: int | None
    erasures: tuple[KeyErasure, ...]


class Vault:
    """The keys of a control store, as one process uses them, from as many threads as there are."""

    def __init__(
        self,
        engine: Engine,
        master: bytes,
        now_ms: Callable[[], int],
        *,
        makes_keys: bool = True,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without `makes_keys`, what belongs to a subject that has no key yet stays as it is."""
        self._engine, self._now_ms, self._monotonic = engine, now_ms, monotonic
        self._makes_keys = makes_keys
        self._master = AESSIV(HKDF(SHA256(), KEY_BYTES, None, b"fraudcase master key").derive(master))
        self._lock = threading.Lock()
        self._by_subject: OrderedDict[str, SubjectKey] = OrderedDict()
        self._by_id: OrderedDict[str, SubjectKey | None] = OrderedDict()
        """None stands for a destroyed one: it stays destroyed."""
        self._checked_at = float("-inf")
        self._last_erasure: int | None = None
        self._is_checked = False

    # -- sealing --------------------------------------------------------------------------------------

    def prepare(self, subjects: Iterable[str]) -> None:
        """Have the keys of these subjects at hand, made where missing: one step for many. Raises VaultError."""
        with self._lock:
            self._ask()
            missing = [name for name in dict.fromkeys(map(subject_name, subjects)) if name not in self._by_subject]
            for start in range(0, len(missing), _AT_ONCE):
                self._fetch(missing[start : start + _AT_ONCE])

    def seal(self, subject: str, field: str, text: str) -> str:
        """A personal text as it may be stored and sent; a blank one stays blank. Raises VaultError."""
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
        """The same of a file's content. Raises VaultError."""
        key = self._key_of(subject_name(subject))
        if key is None or not content:
            return content
        head = _FILE + key.key_id.encode() + _NAME_END
        return head + key.cipher.encrypt(content, [key.subject.encode(), b"file"])

    # -- opening --------------------------------------------------------------------------------------

    def opened(self, text: str) -> str:
        """A text for people, with every sealed text in it opened, or `[erased]` in its place."""
        return self._replaced(text, lambda plain: plain)

    def opened_json(self, text: str) -> str:
        """The same of JSON, which stays JSON."""
        return self._replaced(text, lambda plain: json.dumps(plain, ensure_ascii=False)[1:-1])

    def opened_html(self, text: str) -> str:
        """The same of HTML: what was sealed is text there, never markup."""
        return self._replaced(text, lambda plain: html.escape(plain, quote=True))

    def open_file(self, content: bytes) -> bytes | None:
        """A file's content; None once it is erased. Raises VaultError for one that was altered."""
        if not content.startswith(_FILE):
            return content
        key_id, _, ciphertext = content[len(_FILE) :].partition(_NAME_END)
        key = self._key_by_id(key_id.decode("ascii", "replace"))
        if key is None:
            return None
        try:
            return key.cipher.decrypt(ciphertext, [key.subject.encode(), b"file"])
        except InvalidTag as error:
            raise VaultError("the file is not what was sealed") from error

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
        """Destroy the keys of subjects for good, and note it: one erasure for each. Raises Unscrubbed.

        What other processes hold is gone SETTLED_S later; nobody can take it back.
        """
        names = list(dict.fromkeys(map(subject_name, subjects)))
        with write_session(self._engine) as session:
            rows = {name: session.scalars(_select_subject_keys(name)).first() for name in names}
            wrapped = [row.wrapped for row in rows.values() if row is not None]
            erased = [self._noted(session, name, row, actor, reason) for name, row in rows.items()]
            gone = [row.key_id for row in rows.values() if row is not None]
            for key_id in gone:  # overwritten first: where a store keeps deleted rows for a while, it keeps zeros
                mine = SubjectKeyRow.key_id == key_id
                session.execute(update(SubjectKeyRow).where(mine).values(wrapped=bytes(len(wrapped[0]))))
                session.execute(delete(SubjectKeyRow).where(mine))
        with self._lock:
            self._checked_at = float("-inf")
        scrub(self._engine, SubjectKeyRow.__tablename__, wrapped)
        return erased

    def known(self, subject: str) -> SubjectKeyHistory:
        """What the store knows of a subject; reads no key."""
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
        """The last of them, newest first."""
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

    # -- keys at hand -----------------------------------------------------------------------------------

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
        """The key of this name; None for a destroyed one. Raises VaultError for one that was never here."""
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
        """Let go of what was erased since the store was asked last, which is not long ago. The lock is held.

        Everything that reads keys does so after this and under the same lock: a key that is destroyed between a read
        and the next question is found by that question.
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
        """Take in the keys of these subjects, made where they are missing. The lock is held."""
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
        """New keys, but for subjects that somebody else made one of at this moment."""
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
        """No key is made beside others that this master key does not open."""
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
                "the master key is not the one that wraps the subjects' keys. Cure: bring back "
                "FRAUDCASE_MASTER_KEY, or the file master.key under FRAUDCASE_HOME/keys"
            ) from error
        return SubjectKey(row.key_id, row.subject, AESSIV(key))


def subject_name(subject: str) -> str:
    """A subject as the store names it: one that is no plain token, by its digest."""
    is_plain = len(subject) <= MAX_SUBJECT and subject.isprintable()
    return subject if is_plain else f"digest/{sha256(subject.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _text_associated_data(key: SubjectKey, field: str, length: str) -> list[bytes]:
    """What a ciphertext is bound to: it opens as nobody else's, and as no other field."""
    return [key.subject.encode(), field.encode(), length.encode()]


def _key_associated_data(key_id: str, subject: str, generation: int) -> list[bytes]:
    """What a wrapped key is for: moved into another row, it does not open."""
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
