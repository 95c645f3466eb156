"""What Alembic runs: the steps in `versions/`, on the connection that `store.upgrade` hands over."""

from alembic import context

from migrations.models import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
