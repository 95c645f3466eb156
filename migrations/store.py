"""Opens the control store and brings its schema up to date."""

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

BUSY_MS = 10_000
"""How long a writer of SQLite waits for another one."""
_READS = "fraudcase_reads"
_WRITER = 0x6672617564
"""The advisory lock of PostgreSQL that makes writers take turns, as SQLite does by itself."""


def connect(url: str) -> Engine:
    """The store at a URL of SQLAlchemy; `postgresql://…` is taken by psycopg."""
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
    """Python's driver begins transactions late, which lets two writers read the same state: we begin them ourselves."""
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA secure_delete = ON")  # a destroyed key's bytes are overwritten, not only let go
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get(_READS) else "BEGIN IMMEDIATE")


@contextmanager
def read_transaction(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads: with SQLite it waits for no writer that has not begun to commit."""
    with engine.connect().execution_options(**{_READS: True}) as connection:
        yield connection


@contextmanager
def write_transaction(engine: Engine) -> Iterator[Connection]:
    """A transaction in which no other writer is at work: what it reads stays true until it ends."""
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
    """Somebody else does what only one may do at a time."""


@contextmanager
def exclusive_lock(engine: Engine, what: str) -> Iterator[None]:
    """Do something that only one process of the system may do at a time. Raises Busy at once if another one does.

    The lock is the system's that keeps the store: it goes with the process that holds it, and one that is merely
    stopped keeps it. With SQLite a file beside the database, with PostgreSQL a lock of a session.
    """
    if engine.dialect.name == "postgresql":
        key = int.from_bytes(hashlib.sha256(what.encode()).digest()[:7], "big")
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": key}):
                raise LockHeld(f"{what} is at work already, in another process")
            try:
                yield
            finally:
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": key})
        return
    with Path(f"{engine.url.database}.{what.replace(' ', '-')}.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockHeld(f"{what} is at work already, in another process") from error
        yield


def upgrade(engine: Engine) -> None:
    """Run the steps that the store lacks; doing it again, or side by side, changes nothing."""
    with write_transaction(engine) as connection:
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
