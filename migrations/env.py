"""Alembic environment: runs the steps in `versions/` on the connection that `store.upgrade` passes."""

from alembic import context

from migrations.models import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
