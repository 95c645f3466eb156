"""Versions of the views, the progress of their rebuilds, and the progress of their verification."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "view_versions",
        sa.Column("view", sa.String(32), primary_key=True),
        sa.Column("version", sa.Integer(), primary_key=True),
        sa.Column("table_name", sa.Text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("source", sa.String(8), nullable=False),
        sa.Column("begun_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("built_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("live_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("ended_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("items", sa.BigInteger(), nullable=True),
        sa.Column("digest", sa.String(64), nullable=True),
        sa.CheckConstraint("state IN ('building', 'built', 'live', 'old', 'dropped')", name="view_versions_state"),
    )
    op.create_index(
        "view_versions_one_live",
        "view_versions",
        ["view"],
        unique=True,
        sqlite_where=sa.text("state = 'live'"),
        postgresql_where=sa.text("state = 'live'"),
    )
    op.create_table(
        "view_shares",
        sa.Column("view", sa.String(32), primary_key=True),
        sa.Column("version", sa.Integer(), primary_key=True),
        sa.Column("partition", sa.Integer(), primary_key=True),
        sa.Column("share", sa.Integer(), primary_key=True),
        sa.Column("shares", sa.Integer(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("done_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("events", sa.BigInteger(), nullable=False),
        sa.Column("items", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
    )
    op.create_table(
        "view_checks",
        sa.Column("view", sa.String(32), primary_key=True),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("checked", sa.BigInteger(), nullable=False),
        sa.Column("differing", sa.BigInteger(), nullable=False),
        sa.Column("found", sa.Text(), nullable=False),
        sa.Column("last_round_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("last_round_checked", sa.BigInteger(), nullable=False),
        sa.Column("last_round_differing", sa.BigInteger(), nullable=False),
    )


def downgrade() -> None:
    """Remove the tables."""
    for table in ("view_checks", "view_shares", "view_versions"):
        op.drop_table(table)
