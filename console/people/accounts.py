"""People and machines that may come in, in the control store: passwords by Argon2id, sessions and tokens by hash."""

import hashlib
import hmac
import re
import secrets
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Engine, delete, select, update
from sqlalchemy.orm import Session

from console.people.roles import Permission, Role, permissions_of
from migrations.models import AccessLogRow, ApiTokenRow, PersonRow, SessionRow
from migrations.store import read_session, write_session

IDLE_MS: Final = 30 * 60_000
ABSOLUTE_MS: Final = 12 * 3_600_000
SEEN_EVERY_MS: Final = 60_000
"""How exactly a session's last use is kept: not every request needs a write."""
KNOWN_MS, RENEWED_MS = 2_000, 1_500
"""How long a session or token is known without the store, and from when on it is asked behind a request's back."""
MAX_KNOWN: Final = 10_000
MIN_PASSWORD, MAX_PASSWORD = 12, 256
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_HASHER: Final = PasswordHasher()  # Argon2id with the parameters of RFC 9106's low-memory profile
_NOBODYS: Final = "$argon2id$v=19$m=65536,t=3,p=4$ZHE39vgIFX9AMdifb8t+5g$4vauuln5M8KVdoOzDdOEMg9aEJss3+o589t+tV9QNmw"
"""Checked where there is no such person, so that the time it takes tells nothing."""


class UserAccountError(ValueError):
    """Something that cannot be done with an account; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody who has come in."""

    person_id: str
    name: str
    roles: frozenset[Role]
    permissions: frozenset[Permission]

    def may(self, permission: str) -> bool:
        """Whether a role of theirs allows it."""
        return permission in self.permissions


class _CachedPerson(NamedTuple):
    """Whom a session or token belongs to, since when that is known, and whether it is asked for again already."""

    person: Person
    since_ms: int
    is_renewed: bool = False


class UserAccountStore:
    """The accounts of a control store, and the log of what happened at the doors."""

    def __init__(self, engine: Engine, now_ms: Callable[[], int]) -> None:
        self._engine = engine
        self._now_ms = now_ms
        self._known: dict[str, _CachedPerson] = {}
        """By digest."""

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        with write_session(self._engine) as session:
            yield session
        self._known = {}

    # -- accounts ---------------------------------------------------------------------------------

    def everybody(self) -> list[PersonRow]:
        """All of them, by name."""
        with read_session(self._engine) as session:
            return list(session.scalars(select(PersonRow).order_by(PersonRow.name)))

    def add(self, name: str, roles: frozenset[Role], actor: str, password: str | None = None) -> str:
        """A new account; returns its password, a random one unless given."""
        if not _NAME.fullmatch(name):
            raise UserAccountError(
                "a name has 1 to 64 letters, digits and . _ @ + -, and begins with a letter or digit"
            )
        chosen = password or new_password()
        row = _person(name, roles, self._now_ms(), password_hash=hash_password(chosen))
        with self._writing() as session:
            if session.scalars(select(PersonRow).where(PersonRow.name == name)).first() is not None:
                raise UserAccountError(f"there is a {name} already")
            session.add(row)
            self._log(session, actor, "add-person", name, "done", row.roles)
        return chosen

    def first(self, name: str, role: Role) -> str | None:
        """An account of a new system: its password if it was made just now."""
        try:
            return self.add(name, frozenset({role}), "system")
        except UserAccountError:
            return None

    def set_password(self, name: str, actor: str, password: str | None = None) -> str:
        """Another password, a random one unless given; every session and token of theirs ends."""
        chosen = password or new_password()
        hashed = hash_password(chosen)
        with self._writing() as session:
            row = _find_account(session, name)
            row.password_hash = hashed
            _end_sessions(session, row.person_id)
            self._log(session, actor, "set-password", name, "done", "")
        return chosen

    def set_disabled(self, name: str, actor: str, *, is_disabled: bool) -> None:
        """Nobody comes in by this account any more, or again."""
        with self._writing() as session:
            row = _find_account(session, name)
            row.is_disabled = is_disabled
            _end_sessions(session, row.person_id)
            self._log(session, actor, "disable-person" if is_disabled else "enable-person", name, "done", "")

    def set_roles(self, name: str, roles: frozenset[Role], actor: str) -> None:
        """Other roles, from the next request on."""
        with self._writing() as session:
            row = _find_account(session, name)
            before, row.roles = row.roles, _roles_text(roles)
            self._log(session, actor, "set-roles", name, "done", f"{before} -> {row.roles}")

    def check_password(self, name: str, password: str) -> Person | None:
        """Whoever has this name and password; it takes as long for nobody. About 50 ms of work, by design."""
        with read_session(self._engine) as session:
            row = session.scalars(select(PersonRow).where(PersonRow.name == name)).first()
        is_right = _verify(row.password_hash if row and row.password_hash else _NOBODYS, password)
        return _as_person(row) if row and row.password_hash and is_right and not row.is_disabled else None

    def is_known(self, name: str) -> bool:
        """Whether somebody has this name."""
        with read_session(self._engine) as session:
            return session.scalars(select(PersonRow).where(PersonRow.name == name)).first() is not None

    def of_provider(self, issuer: str, subject: str, name: str, roles: frozenset[Role]) -> Person | None:
        """Whoever an identity provider vouches for, with the roles that it says; made at their first sign-in.

        None for a disabled account. A name that somebody else has gets the subject's digest behind it.
        """
        with self._writing() as session:
            wanted = select(PersonRow).where(PersonRow.issuer == issuer, PersonRow.subject == subject)
            row = session.scalars(wanted).first()
            if row is None:
                row = _person(self._free_name(session, name, subject), roles, self._now_ms(), issuer, subject)
                session.add(row)
                self._log(session, "system", "add-person", row.name, "done", f"{row.roles} by {issuer}")
            elif row.roles != _roles_text(roles):
                before, row.roles = row.roles, _roles_text(roles)
                self._log(session, "system", "set-roles", row.name, "done", f"{before} -> {row.roles} by {issuer}")
            return None if row.is_disabled else _as_person(row)

    @staticmethod
    def _free_name(session: Session, name: str, subject: str) -> str:
        digest = hashlib.sha256(subject.encode()).hexdigest()[:12]
        if not _NAME.fullmatch(name):
            return f"sso-{digest}"
        taken = session.scalars(select(PersonRow).where(PersonRow.name == name)).first() is not None
        return f"{name[:51]}-{digest}" if taken else name

    # -- sessions and tokens ----------------------------------------------------------------------

    def start_session(self, person: Person) -> str:
        """What the cookie is to hold: new at every sign-in."""
        token, now = secrets.token_urlsafe(32), self._now_ms()
        with self._writing() as session:
            session.execute(delete(SessionRow).where(SessionRow.started_at_ms < now - ABSOLUTE_MS))
            session.add(
                SessionRow(session_id=digest_of(token), person_id=person.person_id, started_at_ms=now, seen_at_ms=now)
            )
        return token

    def known(self, token: str) -> Person | None:
        """Whoever came with this session or token a moment ago: most requests ask the store nothing.

        What this process writes is forgotten at once; what another one does (the command line) counts KNOWN_MS later.
        """
        found = self._known.get(digest_of(token))
        return found.person if found is not None and self._now_ms() < found.since_ms + KNOWN_MS else None

    def is_to_renew(self, token: str) -> bool:
        """Whether to ask the store now, so that a later request need not wait for it; said once."""
        key, known = digest_of(token), self._known
        found = known.get(key)
        if found is None or found.is_renewed or self._now_ms() < found.since_ms + RENEWED_MS:
            return False
        known[key] = found._replace(is_renewed=True)
        return True

    def _remember(self, known: "dict[str, _CachedPerson]", key: str, person: Person) -> Person:
        """`known` as it was before the store was asked: what was forgotten meanwhile stays forgotten."""
        if len(known) >= MAX_KNOWN:
            known.clear()
        known[key] = _CachedPerson(person, self._now_ms())
        return person

    def of_session(self, token: str, *, is_use: bool = True) -> Person | None:
        """Whoever is signed in with this cookie; idle and old sessions are nobody's. To watch only is no use of it."""
        now, key, known = self._now_ms(), digest_of(token), self._known
        with read_session(self._engine) as session:
            found = session.execute(
                select(SessionRow, PersonRow).join(PersonRow, PersonRow.person_id == SessionRow.person_id)
                .where(SessionRow.session_id == key)
            ).first()  # fmt: skip
        if found is None:
            return None
        row, person = found
        if now - row.seen_at_ms > IDLE_MS or now - row.started_at_ms > ABSOLUTE_MS or person.is_disabled:
            return None
        if is_use and now - row.seen_at_ms > SEEN_EVERY_MS:
            with self._writing() as session:
                session.execute(update(SessionRow).where(SessionRow.session_id == key).values(seen_at_ms=now))
            known = self._known
        return self._remember(known, key, _as_person(person))

    def end_session(self, token: str) -> None:
        """Signed out."""
        with self._writing() as session:
            session.execute(delete(SessionRow).where(SessionRow.session_id == digest_of(token)))

    def add_token(self, name: str, label: str, days: int, actor: str) -> str:
        """A token for a machine, with the roles of a person; shown once."""
        token, now = f"fct_{secrets.token_urlsafe(32)}", self._now_ms()
        with self._writing() as session:
            row = _find_account(session, name)
            expires = now + days * 86_400_000
            session.add(
                ApiTokenRow(
                    token_id=digest_of(token), person_id=row.person_id, label=label, created_at_ms=now,
                    expires_at_ms=expires,
                )
            )  # fmt: skip
            self._log(session, actor, "add-token", name, "done", label)
        return token

    def of_token(self, token: str) -> Person | None:
        """Whose machine comes with this token."""
        known = self._known
        with read_session(self._engine) as session:
            found = session.execute(
                select(ApiTokenRow, PersonRow).join(PersonRow, PersonRow.person_id == ApiTokenRow.person_id)
                .where(ApiTokenRow.token_id == digest_of(token))
            ).first()  # fmt: skip
        if found is None:
            return None
        row, person = found
        if person.is_disabled or row.expires_at_ms < self._now_ms():
            return None
        return self._remember(known, row.token_id, _as_person(person))

    # -- what happened at the doors ---------------------------------------------------------------

    def log(self, actor: str, action: str, subject: str, outcome: str, detail: str = "") -> None:
        """Note something that is in no other log."""
        with self._writing() as session:
            self._log(session, actor, action, subject, outcome, detail)

    def door_log(self, before: int | None = None, limit: int = 100) -> list[AccessLogRow]:
        """What happened, newest first, before an entry."""
        wanted = select(AccessLogRow).order_by(AccessLogRow.number.desc()).limit(limit)
        if before is not None:
            wanted = wanted.where(AccessLogRow.number < before)
        with read_session(self._engine) as session:
            return list(session.scalars(wanted))

    def _log(self, session: Session, actor: str, action: str, subject: str, outcome: str, detail: str) -> None:
        session.add(
            AccessLogRow(
                at_ms=self._now_ms(), actor=actor[:64], action=action, subject=subject, outcome=outcome, detail=detail
            )
        )


def digest_of(token: str) -> str:
    """What we keep of a random secret: who reads the store cannot come in with it."""
    return hashlib.sha256(token.encode()).hexdigest()


def csrf_token(session_token: str) -> str:
    """What a page of this session sends back with a write; from the cookie alone nobody else's page can make it."""
    return hmac.new(session_token.encode(), b"fraudcase csrf", hashlib.sha256).hexdigest()


def new_password() -> str:
    """120 random bits."""
    return secrets.token_urlsafe(15)


def hash_password(password: str) -> str:
    """By Argon2id. Raises NotPossible for one that is too short or too long."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise UserAccountError(f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters")
    return _HASHER.hash(password)


def _verify(hashed: str, password: str) -> bool:
    try:
        return _HASHER.verify(hashed, password[: MAX_PASSWORD + 1])
    except (VerificationError, InvalidHashError):
        return False


def _person(
    name: str, roles: frozenset[Role], now_ms: int, issuer: str | None = None, subject: str | None = None,
    password_hash: str | None = None,
) -> PersonRow:  # fmt: skip
    return PersonRow(
        person_id=str(uuid.uuid4()),
        name=name,
        roles=_roles_text(roles),
        password_hash=password_hash,
        issuer=issuer,
        subject=subject,
        is_disabled=False,
        created_at_ms=now_ms,
    )


def _roles_text(roles: frozenset[Role]) -> str:
    return " ".join(sorted(roles))


def _as_person(row: PersonRow) -> Person:
    roles = frozenset(Role(role) for role in row.roles.split())
    return Person(person_id=row.person_id, name=row.name, roles=roles, permissions=permissions_of(roles))


def _find_account(session: Session, name: str) -> PersonRow:
    row = session.scalars(select(PersonRow).where(PersonRow.name == name)).first()
    if row is None:
        raise UserAccountError(f"there is nobody called {name}")
    return row


def _end_sessions(session: Session, person_id: str) -> None:
    session.execute(delete(SessionRow).where(SessionRow.person_id == person_id))
    session.execute(delete(ApiTokenRow).where(ApiTokenRow.person_id == person_id))
