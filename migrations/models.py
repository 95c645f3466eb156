"""Tables of the control store. A change needs a step in `versions/`: a test compares the two."""

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
    """Base of all tables. Times are UTC milliseconds."""


class RulePackRow(Base):
    """Rule pack and its state: draft, approved by a second person, active (at most one), retired."""

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
    """SHA-256 of the pack's document."""
    name: Mapped[str] = mapped_column(Text)
    version: Mapped[int] = mapped_column(Integer)
    document: Mapped[str] = mapped_column(Text)
    """Canonical JSON of the pack, which an activation writes into the log."""
    state: Mapped[str] = mapped_column(String(16))
    shadow: Mapped[bool]
    """True if the pack runs as a shadow of the active pack: its scores are only recorded."""
    author: Mapped[str] = mapped_column(Text)
    approver: Mapped[str | None] = mapped_column(Text)
    drafted_at_ms: Mapped[int] = mapped_column(BigInteger)
    approved_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    activated_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    retired_at_ms: Mapped[int | None] = mapped_column(BigInteger)


class RulePackLogRow(Base):
    """Act of a person on a rule pack, in order. Append-only: the database refuses to change or delete a row."""

    __tablename__ = "rule_pack_log"

    number: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    pack_id: Mapped[str] = mapped_column(ForeignKey("rule_packs.pack_id"), index=True)
    action: Mapped[str] = mapped_column(String(16))
    actor: Mapped[str] = mapped_column(Text)
    at_ms: Mapped[int] = mapped_column(BigInteger)
    detail: Mapped[str] = mapped_column(Text)
    """JSON. For the begin of a change in the log: the offsets from which to search whether it was written."""


class PersonRow(Base):
    """User of the console, with a password or as the subject of an identity provider."""

    __tablename__ = "people"
    __table_args__ = (UniqueConstraint("issuer", "subject", name="people_issuer_subject"),)

    person_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    """Name in the logs: the actor of the person's commands."""
    roles: Mapped[str] = mapped_column(Text)
    """Names of roles, sorted, separated by spaces."""
    password_hash: Mapped[str | None] = mapped_column(Text)
    issuer: Mapped[str | None] = mapped_column(Text)
    subject: Mapped[str | None] = mapped_column(Text)
    is_disabled: Mapped[bool]
    created_at_ms: Mapped[int] = mapped_column(BigInteger)


class SessionRow(Base):
    """Session of a signed-in person. The key is the SHA-256 of the cookie's value."""

    __tablename__ = "sessions"

    session_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("people.person_id"), index=True)
    started_at_ms: Mapped[int] = mapped_column(BigInteger)
    seen_at_ms: Mapped[int] = mapped_column(BigInteger)


class ApiTokenRow(Base):
    """API token with a person's roles. The key is the SHA-256 of the token."""

    __tablename__ = "api_tokens"

    token_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("people.person_id"), index=True)
    label: Mapped[str] = mapped_column(String(64))
    created_at_ms: Mapped[int] = mapped_column(BigInteger)
    expires_at_ms: Mapped[int] = mapped_column(BigInteger)


class AccessLogRow(Base):
    """Access event that no other log has: a sign-in, a refusal, a change to a person. Append-only."""

    __tablename__ = "door_log"

    number: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    at_ms: Mapped[int] = mapped_column(BigInteger)
    actor: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(Text)
    outcome: Mapped[str] = mapped_column(String(16))
    detail: Mapped[str] = mapped_column(Text)


class RequestRow(Base):
    """Write request with an idempotency key, and its answer once there is one."""

    __tablename__ = "requests"

    command_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the request: a second request with the same key and another fingerprint is refused."""
    begun_at_ms: Mapped[int] = mapped_column(BigInteger, index=True)
    status: Mapped[int | None] = mapped_column(Integer)
    etag: Mapped[str | None] = mapped_column(String(32))
    body: Mapped[str | None] = mapped_column(Text)


class WebhookRow(Base):
    """Webhook that receives case events. Its secret is not stored: it derives from the console's key."""

    __tablename__ = "webhooks"

    webhook_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    url: Mapped[str] = mapped_column(Text)
    kinds: Mapped[str] = mapped_column(Text)
    """Names of events, separated by spaces; empty: all events."""
    secret_number: Mapped[int] = mapped_column(Integer)
    is_active: Mapped[bool]
    created_by: Mapped[str] = mapped_column(String(64))
    created_at_ms: Mapped[int] = mapped_column(BigInteger)


class WebhookDeliveryRow(Base):
    """Delivery of one event to one webhook: due, delivered, or dead after too many attempts."""

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
    """Activation of an engine, complete or in progress; see `console/rules/engines.py`."""

    __tablename__ = "engine_activations"

    engine: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    actor: Mapped[str] = mapped_column(Text)
    begun_at_ms: Mapped[int] = mapped_column(BigInteger)
    since: Mapped[str] = mapped_column(Text)
    """JSON: the offsets from which to search whether the activation was written."""
    activated_at_ms: Mapped[int | None] = mapped_column(BigInteger)


class SubjectKeyRow(Base):
    """Key that seals a subject's personal fields, wrapped by the master key. An erasure deletes it."""

    __tablename__ = "subject_keys"
    __table_args__ = (UniqueConstraint("subject", name="subject_keys_one_of_a_subject"),)

    key_id: Mapped[str] = mapped_column(String(16), primary_key=True)
    subject: Mapped[str] = mapped_column(Text)
    """Token of an account; or a run of the intake, for rows that name no account."""
    generation: Mapped[int] = mapped_column(Integer)
    """Number of the subject's key: above 1 if earlier keys were destroyed."""
    wrapped: Mapped[bytes] = mapped_column(LargeBinary)
    made_at_ms: Mapped[int] = mapped_column(BigInteger)


class ErasureRow(Base):
    """Erasure of a subject: its time, its actor, and the destroyed key. The database refuses to change a row."""

    __tablename__ = "erasures"

    number: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    at_ms: Mapped[int] = mapped_column(BigInteger)
    actor: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(Text, index=True)
    generation: Mapped[int] = mapped_column(Integer)
    """Generation of the destroyed key; 0 if there was none."""
    key_id: Mapped[str | None] = mapped_column(String(16), index=True)
    reason: Mapped[str] = mapped_column(Text)


class WhatifRunRow(Base):
    """What-if run of a rule pack: its progress and its result. The pack need not be drafted."""

    __tablename__ = "whatif_runs"
    __table_args__ = (CheckConstraint("state IN ('running', 'done', 'failed')", name="whatif_runs_state"),)

    run_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    pack_id: Mapped[str] = mapped_column(String(64), index=True)
    pack: Mapped[str] = mapped_column(Text)
    """Name and version of the pack, as NAME@VERSION."""
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
    """Time of the last sign of life from the process that runs it."""
    ended_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    records: Mapped[int] = mapped_column(BigInteger)
    """Number of records read so far."""
    records_in_all: Mapped[int] = mapped_column(BigInteger)
    payments: Mapped[int] = mapped_column(BigInteger)
    """Number of payments decided, once the run is done."""
    span_ms: Mapped[int] = mapped_column(BigInteger)
    """Time from the first of these payments to the last."""
    error: Mapped[str | None] = mapped_column(Text)
    result: Mapped[str | None] = mapped_column(Text)
    """JSON: the document of docs/whatif.md, with the most important changed cases."""


class ViewVersionRow(Base):
    """Version of a view, in a table of its own. One version is live: all readers and writers use it."""

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
    """kafka or s3; empty for the first version, which the worker filled instead of a rebuild."""
    begun_at_ms: Mapped[int] = mapped_column(BigInteger)
    built_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    live_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    ended_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    items: Mapped[int | None] = mapped_column(BigInteger)
    digest: Mapped[str | None] = mapped_column(String(64))


class ViewShardRow(Base):
    """Shard of a rebuild: the events of some keys of a partition, up to an offset. It is repeated as a whole."""

    __tablename__ = "view_shares"

    view: Mapped[str] = mapped_column(String(32), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    partition: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    share: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    shares: Mapped[int] = mapped_column(Integer)
    """Number of shards of the partition."""
    until: Mapped[int] = mapped_column(BigInteger)
    done_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    events: Mapped[int] = mapped_column(BigInteger)
    items: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str] = mapped_column(String(64))


class ViewCheckRow(Base):
    """Progress of the verifier with a view, from which it continues after a restart."""

    __tablename__ = "view_checks"

    view: Mapped[str] = mapped_column(String(32), primary_key=True)
    round: Mapped[int] = mapped_column(Integer)
    step: Mapped[int] = mapped_column(Integer)
    checked: Mapped[int] = mapped_column(BigInteger)
    """Number of cases checked in this round so far."""
    differing: Mapped[int] = mapped_column(BigInteger)
    found: Mapped[str] = mapped_column(Text)
    """JSON: descriptions of the first differences of this round and of the round before."""
    last_round_at_ms: Mapped[int | None] = mapped_column(BigInteger)
    last_round_checked: Mapped[int] = mapped_column(BigInteger)
    last_round_differing: Mapped[int] = mapped_column(BigInteger)
