"""Connection to the control store, its transactions, and the upgrade of its schema."""

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

BUSY_MS = 10_000
"""Maximum time that a writer of SQLite waits for another one."""
_READS = "fraudcase_reads"
_WRITER = 0x6672617564
"""Advisory lock of PostgreSQL that lets one writer work at a time, as in SQLite."""


def connect(url: str) -> Engine:
    """Return an engine for a SQLAlchemy URL. `postgresql://…` uses psycopg."""
    parsed = make_url(url)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    engine = create_engine(parsed)
    if engine.dialect.name == "sqlite":
        if parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    """Set up a SQLite connection. We begin transactions ourselves.

    Python's driver begins them late, so that two writers could read the same state.
    """
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA secure_delete = ON")  # overwrites the bytes of a destroyed key
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get(_READS) else "BEGIN IMMEDIATE")


@contextmanager
def read_transaction(engine: Engine) -> Iterator[Connection]:
    """Open a transaction that only reads. In SQLite it does not wait for a writer that has not begun to commit."""
    with engine.connect().execution_options(**{_READS: True}) as connection:
        yield connection


@contextmanager
def write_transaction(engine: Engine) -> Iterator[Connection]:
    """Open a transaction without other writers: what it reads stays true until it ends."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _WRITER})
        yield connection


@contextmanager
def read_session(engine: Engine) -> Iterator[Session]:
    """Open a session in a transaction that only reads; its rows stay readable after it ends."""
    with read_transaction(engine) as connection, Session(connection, expire_on_commit=False) as session:
        yield session


@contextmanager
def write_session(engine: Engine) -> Iterator[Session]:
    """Open a session in a transaction without other writers, and commit it unless an exception leaves it."""
    with write_transaction(engine) as connection, Session(connection, expire_on_commit=False) as session:
        yield session
        session.commit()


class LockHeld(RuntimeError):
    """Error of a lock that another process holds."""


@contextmanager
def exclusive_lock(engine: Engine, what: str) -> Iterator[None]:
    """Hold a lock that one process of the system can hold at a time. Raise LockHeld at once if another one has it.

    The lock ends with the process that holds it; a stopped process keeps it. In SQLite it is a file beside the
    database, in PostgreSQL an advisory lock of a session.
    """
    if engine.dialect.name == "postgresql":
        key = int.from_bytes(hashlib.sha256(what.encode()).digest()[:7], "big")
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": key}):
                raise LockHeld(f"{what} is running already, in another process")
            try:
                yield
            finally:
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": key})
        return
    with Path(f"{engine.url.database}.{what.replace(' ', '-')}.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockHeld(f"{what} is running already, in another process") from error
        yield


def upgrade(engine: Engine) -> None:
    """Run the missing steps of the schema. Repeated or parallel calls change nothing."""
    from alembic import command  # slow to import, and needed only here
    from alembic.config import Config

    with write_transaction(engine) as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
