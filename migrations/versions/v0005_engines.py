"""Activations of engines."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "engine_activations",
        sa.Column("engine", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("begun_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("since", sa.Text(), nullable=False),
        sa.Column("activated_at_ms", sa.BigInteger(), nullable=True),
    )


def downgrade() -> None:
    """Remove the table."""
    op.drop_table("engine_activations")
