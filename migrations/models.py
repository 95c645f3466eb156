"""The tables of the control store. A change here needs a step in `versions/`: a test compares the two."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """All of them. Times are UTC milliseconds."""


class RulePackRow(Base):
    """A rule pack and how far it has come: draft, approved by a second person, active (one), retired."""

    __tablename__ = "rule_packs"
    __table_args__ = (
        UniqueConstraint("name", "version", name="rule_packs_name_version"),
        CheckConstraint("state IN ('draft', 'approved', 'active', 'retired')", name="rule_packs_state"),
        CheckConstraint("approver IS NULL OR approver <> author OR author = 'system'", name="rule_packs_four_eyes"),
        Index(
            "rule_packs_one_active",
            "state",
            unique=True,
            sqlite_where=text("state = 'active'"),
            postgresql_where=text("state = 'active'"),
        ),
    )

    pack_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    """SHA-256 of the document."""
    name: Mapped[str] = mapped_column(Text)
    version: Mapped[int] = mapped_column(Integer)
    document: Mapped[str] = mapped_column(Text)
    """Canonical JSON: what activation writes into the log."""
    state: Mapped[str] = mapped_column(String(16))
    shadow: Mapped[bool]
    """Whether it scores beside the active pack, and is only recorded."""
    author: Mapped[str] = mapped_column(Text)
    approver: Mapped[str | None] = mapped_column(Text)
    drafted_at_ms: Mapped[int] = mapped_column(BigInteger)
    approved_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    activated_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    retired_at_ms: Mapped[int | None] = mapped_column(BigInteger)


class RulePackLogRow(Base):
    """Who did what to a rule pack, in order. Append-only: the database refuses to change or delete a row."""

    __tablename__ = "rule_pack_log"

    number: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    pack_id: Mapped[str] = mapped_column(ForeignKey("rule_packs.pack_id"), index=True)
    action: Mapped[str] = mapped_column(String(16))
    actor: Mapped[str] = mapped_column(Text)
    at_ms: Mapped[int] = mapped_column(BigInteger)
    detail: Mapped[str] = mapped_column(Text)
    """JSON; of the begin of a change in the log: from which offsets on to look whether it was written."""


class PersonRow(Base):
    """Somebody who may come in: with a password of ours, or as the subject of an identity provider."""

    __tablename__ = "people"
    __table_args__ = (UniqueConstraint("issuer", "subject", name="people_issuer_subject"),)

    person_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    """What the logs call them: the actor of their commands."""
    roles: Mapped[str] = mapped_column(Text)
    """Names of roles, sorted, with spaces between."""
    password_hash: Mapped[str | None] = mapped_column(Text)
    issuer: Mapped[str | None] = mapped_column(Text)
    subject: Mapped[str | None] = mapped_column(Text)
    is_disabled: Mapped[bool]
    created_at_ms: Mapped[int] = mapped_column(BigInteger)


class SessionRow(Base):
    """Somebody is signed in: the row's key is the SHA-256 of what their cookie holds."""

    __tablename__ = "sessions"

    session_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("people.person_id"), index=True)
    started_at_ms: Mapped[int] = mapped_column(BigInteger)
    seen_at_ms: Mapped[int] = mapped_column(BigInteger)


class ApiTokenRow(Base):
    """A machine may come in with a person's roles: the row's key is the SHA-256 of its token."""

    __tablename__ = "api_tokens"

    token_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("people.person_id"), index=True)
    label: Mapped[str] = mapped_column(String(64))
    created_at_ms: Mapped[int] = mapped_column(BigInteger)
    expires_at_ms: Mapped[int] = mapped_column(BigInteger)


class AccessLogRow(Base):
    """What happened at the doors and is in no other log: sign-ins, refusals, changes to people. Append-only."""

    __tablename__ = "door_log"

    number: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    at_ms: Mapped[int] = mapped_column(BigInteger)
    actor: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(Text)
    outcome: Mapped[str] = mapped_column(String(16))
    detail: Mapped[str] = mapped_column(Text)


class RequestRow(Base):
    """A write that was asked for with an idempotency key, and its answer once there is one."""

    __tablename__ = "requests"

    command_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    """SHA-256 of what was asked: the same key for something else is a mistake."""
    begun_at_ms: Mapped[int] = mapped_column(BigInteger, index=True)
    status: Mapped[int | None] = mapped_column(Integer)
    etag: Mapped[str | None] = mapped_column(String(32))
    body: Mapped[str | None] = mapped_column(Text)


class WebhookRow(Base):
    """An address that is told of case events. Its secret is not stored: it derives from the console's key."""

    __tablename__ = "webhooks"

    webhook_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    url: Mapped[str] = mapped_column(Text)
    kinds: Mapped[str] = mapped_column(Text)
    """Names of events, with spaces between; empty: all of them."""
    secret_number: Mapped[int] = mapped_column(Integer)
    is_active: Mapped[bool]
    created_by: Mapped[str] = mapped_column(String(64))
    created_at_ms: Mapped[int] = mapped_column(BigInteger)


class WebhookDeliveryRow(Base):
    """One event on its way to one webhook: due, delivered, or dead after too many attempts."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        CheckConstraint("state IN ('due', 'delivered', 'dead')", name="webhook_deliveries_state"),
        Index("webhook_deliveries_due", "state", "next_at_ms"),
    )

    delivery_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.webhook_id"), index=True)
    kind: Mapped[str] = mapped_column(String(64))
    body: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(Integer)
    made_at_ms: Mapped[int] = mapped_column(BigInteger)
    next_at_ms: Mapped[int] = mapped_column(BigInteger)
    last_error: Mapped[str | None] = mapped_column(Text)


class EngineRow(Base):
    """An engine that was put in force, or is being put so; see `console/rules/engines.py`."""

    __tablename__ = "engine_activations"

    engine: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    actor: Mapped[str] = mapped_column(Text)
    begun_at_ms: Mapped[int] = mapped_column(BigInteger)
    since: Mapped[str] = mapped_column(Text)
    """JSON: from which offsets on to look whether the activation was written."""
    activated_at_ms: Mapped[int | None] = mapped_column(BigInteger)


class SubjectKeyRow(Base):
    """The key that a subject's personal fields are sealed with, wrapped by the master key. To erase is to delete it."""

    __tablename__ = "subject_keys"
    __table_args__ = (UniqueConstraint("subject", name="subject_keys_one_of_a_subject"),)

    key_id: Mapped[str] = mapped_column(String(16), primary_key=True)
    subject: Mapped[str] = mapped_column(Text)
    """An account's token; or a run of the intake, for rows that name no account."""
    generation: Mapped[int] = mapped_column(Integer)
    """Above 1 where earlier keys of the subject were destroyed."""
    wrapped: Mapped[bytes] = mapped_column(LargeBinary)
    made_at_ms: Mapped[int] = mapped_column(BigInteger)


class ErasureRow(Base):
    """A subject was erased: when, by whom, and which key is gone. Append-only: the database refuses to change a row."""

    __tablename__ = "erasures"

    number: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    at_ms: Mapped[int] = mapped_column(BigInteger)
    actor: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(Text, index=True)
    generation: Mapped[int] = mapped_column(Integer)
    """Of the key that was destroyed; 0 where there was none."""
    key_id: Mapped[str | None] = mapped_column(String(16), index=True)
    reason: Mapped[str] = mapped_column(Text)


class WhatifRunRow(Base):
    """What a rule pack would have done, asked once: how far that is, and what was found. Packs need not be drafted."""

    __tablename__ = "whatif_runs"
    __table_args__ = (CheckConstraint("state IN ('running', 'done', 'failed')", name="whatif_runs_state"),)

    run_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    pack_id: Mapped[str] = mapped_column(String(64), index=True)
    pack: Mapped[str] = mapped_column(Text)
    """NAME@VERSION."""
    document: Mapped[str] = mapped_column(Text)
    """The pack's canonical JSON."""
    state: Mapped[str] = mapped_column(String(16))
    actor: Mapped[str] = mapped_column(Text)
    source: Mapped[str] = mapped_column(String(16))
    from_ms: Mapped[int | None] = mapped_column(BigInteger)
    to_ms: Mapped[int | None] = mapped_column(BigInteger)
    minutes_per_case: Mapped[int] = mapped_column(Integer)
    begun_at_ms: Mapped[int] = mapped_column(BigInteger)
    seen_at_ms: Mapped[int] = mapped_column(BigInteger)
    """When whoever runs it was last heard of."""
    ended_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    records: Mapped[int] = mapped_column(BigInteger)
    """Read so far."""
    records_in_all: Mapped[int] = mapped_column(BigInteger)
    payments: Mapped[int] = mapped_column(BigInteger)
    """Decided on, once it is done."""
    span_ms: Mapped[int] = mapped_column(BigInteger)
    """From the first of these to the last."""
    error: Mapped[str | None] = mapped_column(Text)
    result: Mapped[str | None] = mapped_column(Text)
    """JSON: the document of docs/whatif.md, with the changed cases that matter most."""


class ViewVersionRow(Base):
    """A version of a view: a table of its own, of which one is live: the one that everybody reads and writes."""

    __tablename__ = "view_versions"
    __table_args__ = (
        CheckConstraint("state IN ('building', 'built', 'live', 'old', 'dropped')", name="view_versions_state"),
        Index(
            "view_versions_one_live",
            "view",
            unique=True,
            sqlite_where=text("state = 'live'"),
            postgresql_where=text("state = 'live'"),
        ),
    )

    view: Mapped[str] = mapped_column(String(32), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    table_name: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    source: Mapped[str] = mapped_column(String(8))
    """kafka or s3; empty for the first version, which was never built but grew."""
    begun_at_ms: Mapped[int] = mapped_column(BigInteger)
    built_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    live_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    ended_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    items: Mapped[int | None] = mapped_column(BigInteger)
    digest: Mapped[str | None] = mapped_column(String(64))


class ViewShardRow(Base):
    """A share of a rebuild: the events of some keys of one partition, up to an offset. Done, or to be done whole."""

    __tablename__ = "view_shares"

    view: Mapped[str] = mapped_column(String(32), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    partition: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    share: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    shares: Mapped[int] = mapped_column(Integer)
    """Into how many the partition was divided."""
    until: Mapped[int] = mapped_column(BigInteger)
    done_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    events: Mapped[int] = mapped_column(BigInteger)
    items: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str] = mapped_column(String(64))


class ViewCheckRow(Base):
    """How far the verifier has come with a view: it goes on there after a restart."""

    __tablename__ = "view_checks"

    view: Mapped[str] = mapped_column(String(32), primary_key=True)
    round: Mapped[int] = mapped_column(Integer)
    step: Mapped[int] = mapped_column(Integer)
    checked: Mapped[int] = mapped_column(BigInteger)
    """Cases in this round so far."""
    differing: Mapped[int] = mapped_column(BigInteger)
    found: Mapped[str] = mapped_column(Text)
    """JSON: the first differences of this round and of the one before, in words."""
    last_round_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    last_round_checked: Mapped[int] = mapped_column(BigInteger)
    last_round_differing: Mapped[int] = mapped_column(BigInteger)
