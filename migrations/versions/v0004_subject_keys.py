"""Keys of subjects, which seal personal fields, and erasures."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_REFUSAL = "erasures is append-only"


def upgrade() -> None:
    """Create the tables, and the triggers that keep the erasures append-only."""
    op.create_table(
        "subject_keys",
        sa.Column("key_id", sa.String(16), primary_key=True),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("made_at_ms", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("subject", name="subject_keys_one_of_a_subject"),
    )
    op.create_table(
        "erasures",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("key_id", sa.String(16), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
    )
    op.create_index("ix_erasures_subject", "erasures", ["subject"])
    op.create_index("ix_erasures_key_id", "erasures", ["key_id"])
    if op.get_bind().dialect.name == "sqlite":
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER erasures_no_{change.lower()} BEFORE {change} ON erasures "
                f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
            )
    else:
        op.execute(
            "CREATE FUNCTION erasures_refuse() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$"
        )
        op.execute(
            "CREATE TRIGGER erasures_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON erasures "
            "FOR EACH STATEMENT EXECUTE FUNCTION erasures_refuse()"
        )


def downgrade() -> None:
    """Remove the tables. Sealed texts stay sealed forever."""
    for table in ("erasures", "subject_keys"):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION erasures_refuse()")
