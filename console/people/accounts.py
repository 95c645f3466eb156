"""Accounts of people and machines in the control store. Passwords are hashed with Argon2id; of sessions and tokens
only digests are stored.
"""

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
from domain.durations import DAY_MS
from migrations.models import AccessLogRow, ApiTokenRow, PersonRow, SessionRow
from migrations.store import read_session, write_session

IDLE_MS: Final = 30 * 60_000
ABSOLUTE_MS: Final = 12 * 3_600_000
SEEN_EVERY_MS: Final = 60_000
"""Precision of a session's last use, so that not every request needs a write."""
KNOWN_MS, RENEWED_MS = 2_000, 1_500
"""Age at which a cached owner expires, and age from which the store is asked in the background."""
MAX_KNOWN: Final = 10_000
MIN_PASSWORD, MAX_PASSWORD = 12, 256
MAX_NAME: Final = 64
"""Maximum length of a user name, in characters."""
NAME_PATTERN: Final = f"[A-Za-z0-9][A-Za-z0-9._@+-]{{0,{MAX_NAME - 1}}}"
"""Regular expression of a user name, without anchors."""
_HASHER: Final = PasswordHasher()  # Argon2id with the parameters of RFC 9106's low-memory profile
_UNKNOWN_NAME_HASH: Final = (
    "$argon2id$v=19$m=65536,t=3,p=4$ZHE39vgIFX9AMdifb8t+5g$4vauuln5M8KVdoOzDdOEMg9aEJss3+o589t+tV9QNmw"
)
"""Checked for an unknown name, so that the time of the answer does not show whether a name exists."""


class UserAccountError(ValueError):
    """An account operation that is refused; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A signed-in person or machine, with roles and permissions."""

    person_id: str
    name: str
    roles: frozenset[Role]
    permissions: frozenset[Permission]

    def may(self, permission: str) -> bool:
        """Return True if one of the person's roles gives this permission."""
        return permission in self.permissions


class _CachedPerson(NamedTuple):
    """The owner of a session or token, the time of the last look-up, and a mark that a renewal is under way."""

    person: Person
    since_ms: int
    is_renewed: bool = False


class UserAccountStore:
    """The accounts of a control store, and the access log: sign-ins and changes of accounts."""

    def __init__(self, engine: Engine, now_ms: Callable[[], int]) -> None:
        self._engine = engine
        self._now_ms = now_ms
        self._known: dict[str, _CachedPerson] = {}
        """Cached owners by the digest of their session or token."""

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        with write_session(self._engine) as session:
            yield session
        self._known = {}

    # -- accounts ---------------------------------------------------------------------------------

    def everybody(self) -> list[PersonRow]:
        """Return all accounts, sorted by name."""
        with read_session(self._engine) as session:
            return list(session.scalars(select(PersonRow).order_by(PersonRow.name)))

    def add(self, name: str, roles: frozenset[Role], actor: str, password: str | None = None) -> str:
        """Add an account and return its password: the given one, or a random one. Raises UserAccountError."""
        if not re.fullmatch(NAME_PATTERN, name):
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
        """Add the first account of a new system. Return its password, or None if the account exists already."""
        try:
            return self.add(name, frozenset({role}), "system")
        except UserAccountError:
            return None

    def set_password(self, name: str, actor: str, password: str | None = None) -> str:
        """Set a password and return it: the given one, or a random one. End all sessions and tokens of the account."""
        chosen = password or new_password()
        hashed = hash_password(chosen)
        with self._writing() as session:
            row = _find_account(session, name)
            row.password_hash = hashed
            _end_sessions(session, row.person_id)
            self._log(session, actor, "set-password", name, "done", "")
        return chosen

    def set_disabled(self, name: str, actor: str, *, is_disabled: bool) -> None:
        """Disable or enable an account, and end all of its sessions and tokens."""
        with self._writing() as session:
            row = _find_account(session, name)
            row.is_disabled = is_disabled
            _end_sessions(session, row.person_id)
            self._log(session, actor, "disable-person" if is_disabled else "enable-person", name, "done", "")

    def set_roles(self, name: str, roles: frozenset[Role], actor: str) -> None:
        """Replace the roles of an account. They apply from the next request on."""
        with self._writing() as session:
            row = _find_account(session, name)
            before, row.roles = row.roles, _roles_text(roles)
            self._log(session, actor, "set-roles", name, "done", f"{before} -> {row.roles}")

    def check_password(self, name: str, password: str) -> Person | None:
        """Return the person with this name and password, or None. Takes about 50 ms, by design, and as long for an
        unknown name.
        """
        with read_session(self._engine) as session:
            row = session.scalars(select(PersonRow).where(PersonRow.name == name)).first()
        is_right = _verify(row.password_hash if row and row.password_hash else _UNKNOWN_NAME_HASH, password)
        return _as_person(row) if row and row.password_hash and is_right and not row.is_disabled else None

    def is_known(self, name: str) -> bool:
        """Return True if an account has this name."""
        with read_session(self._engine) as session:
            return session.scalars(select(PersonRow).where(PersonRow.name == name)).first() is not None

    def of_provider(self, issuer: str, subject: str, name: str, roles: frozenset[Role]) -> Person | None:
        """Return the person whom an identity provider has verified, with the roles that it gives; add the account at
        the first sign-in.

        Return None for a disabled account. If another account has the name, the digest of the subject is appended to
        it.
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
        if not re.fullmatch(NAME_PATTERN, name):
            return f"sso-{digest}"
        taken = session.scalars(select(PersonRow).where(PersonRow.name == name)).first() is not None
        return f"{name[:51]}-{digest}" if taken else name

    # -- sessions and tokens ----------------------------------------------------------------------

    def start_session(self, person: Person) -> str:
        """Start a session and return the token for its cookie. Each sign-in gets a new token."""
        token, now = secrets.token_urlsafe(32), self._now_ms()
        with self._writing() as session:
            session.execute(delete(SessionRow).where(SessionRow.started_at_ms < now - ABSOLUTE_MS))
            session.add(
                SessionRow(session_id=digest_of(token), person_id=person.person_id, started_at_ms=now, seen_at_ms=now)
            )
        return token

    def known(self, token: str) -> Person | None:
        """Return the cached owner of a session or token, or None. Most requests need no look-up in the store.

        A write by this process clears the cache; a write by another process (the command line) takes effect after
        KNOWN_MS.
        """
        found = self._known.get(digest_of(token))
        return found.person if found is not None and self._now_ms() < found.since_ms + KNOWN_MS else None

    def is_to_renew(self, token: str) -> bool:
        """Return True, once per entry, if the cached owner is old enough to be looked up again behind a request."""
        key, known = digest_of(token), self._known
        found = known.get(key)
        if found is None or found.is_renewed or self._now_ms() < found.since_ms + RENEWED_MS:
            return False
        known[key] = found._replace(is_renewed=True)
        return True

    def _remember(self, known: "dict[str, _CachedPerson]", key: str, person: Person) -> Person:
        """Remember a person in `known`, the cache as it was before the look-up: a cache that was cleared meanwhile
        stays empty.
        """
        if len(known) >= MAX_KNOWN:
            known.clear()
        known[key] = _CachedPerson(person, self._now_ms())
        return person

    def of_session(self, token: str, *, is_use: bool = True) -> Person | None:
        """Return the person of this session, or None if it has expired: 30 minutes without use, or 12 hours after
        sign-in.

        `is_use` is False for a request that only watches; it does not extend the session.
        """
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
        """End a session."""
        with self._writing() as session:
            session.execute(delete(SessionRow).where(SessionRow.session_id == digest_of(token)))

    def add_token(self, name: str, label: str, days: int, actor: str) -> str:
        """Add an API token with the roles of a person, valid for `days`. Return the token, which is shown only once."""
        token, now = f"fct_{secrets.token_urlsafe(32)}", self._now_ms()
        with self._writing() as session:
            row = _find_account(session, name)
            expires = now + days * DAY_MS
            session.add(
                ApiTokenRow(
                    token_id=digest_of(token), person_id=row.person_id, label=label, created_at_ms=now,
                    expires_at_ms=expires,
                )
            )  # fmt: skip
            self._log(session, actor, "add-token", name, "done", label)
        return token

    def of_token(self, token: str) -> Person | None:
        """Return the person whose API token this is, or None if it is unknown or has expired."""
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

    # -- access log -----------------------------------------------------------------------------

    def log(self, actor: str, action: str, subject: str, outcome: str, detail: str = "") -> None:
        """Write an entry into the access log."""
        with self._writing() as session:
            self._log(session, actor, action, subject, outcome, detail)

    def door_log(self, before: int | None = None, limit: int = 100) -> list[AccessLogRow]:
        """Return entries of the access log, newest first: at most `limit` entries before entry number `before`."""
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
    """Return the digest under which a random secret is stored. A reader of the store cannot sign in with it."""
    return hashlib.sha256(token.encode()).hexdigest()


def csrf_token(session_token: str) -> str:
    """Derive the token that a page of this session sends with each write. Another site cannot derive it, since it
    cannot read the cookie.
    """
    return hmac.new(session_token.encode(), b"fraudcase csrf", hashlib.sha256).hexdigest()


def new_password() -> str:
    """Return a random password of 120 bits."""
    return secrets.token_urlsafe(15)


def hash_password(password: str) -> str:
    """Hash a password with Argon2id. Raises UserAccountError if it is too short or too long."""
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
