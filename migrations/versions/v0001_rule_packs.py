"""Rule packs and their log."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_REFUSAL = "rule_pack_log is append-only"


def upgrade() -> None:
    """Create the tables, and the triggers that keep the log append-only."""
    op.create_table(
        "rule_packs",
        sa.Column("pack_id", sa.String(64), primary_key=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("shadow", sa.Boolean(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("approver", sa.Text(), nullable=True),
        sa.Column("drafted_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("approved_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("activated_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("retired_at_ms", sa.BigInteger(), nullable=True),
        sa.UniqueConstraint("name", "version", name="rule_packs_name_version"),
        sa.CheckConstraint("state IN ('draft', 'approved', 'active', 'retired')", name="rule_packs_state"),
        sa.CheckConstraint("approver IS NULL OR approver <> author OR author = 'system'", name="rule_packs_four_eyes"),
    )
    active = sa.text("state = 'active'")
    op.create_index(
        "rule_packs_one_active", "rule_packs", ["state"], unique=True, sqlite_where=active, postgresql_where=active
    )
    op.create_table(
        "rule_pack_log",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        sa.Column("pack_id", sa.String(64), sa.ForeignKey("rule_packs.pack_id"), nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
    )
    op.create_index("ix_rule_pack_log_pack_id", "rule_pack_log", ["pack_id"])
    if op.get_bind().dialect.name == "sqlite":
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER rule_pack_log_no_{change.lower()} BEFORE {change} ON rule_pack_log "
                f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
            )
    else:
        op.execute(
            "CREATE FUNCTION rule_pack_log_refuse() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$"
        )
        op.execute(
            "CREATE TRIGGER rule_pack_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON rule_pack_log "
            "FOR EACH STATEMENT EXECUTE FUNCTION rule_pack_log_refuse()"
        )


def downgrade() -> None:
    """Remove the tables."""
    op.drop_table("rule_pack_log")
    op.drop_table("rule_packs")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION rule_pack_log_refuse()")
