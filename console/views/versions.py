"""The versions of a view, the live one among them, and the progress of rebuilds: rows of the control store.

Readers and writers find the table of a view through the row in state `live`. A switch changes two rows in one
transaction, so that a reader sees either the old version or the new one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, Engine, func, inspect, select, update
from sqlalchemy.dialects.postgresql import insert as insert_postgres
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.orm import Session

from migrations.models import ViewCheckRow, ViewShardRow, ViewVersionRow
from migrations.store import read_transaction, write_session, write_transaction
from projections.views.rebuild import PartitionShard, ShardResult

CASES: Final = "cases"
VIEWS: Final = (CASES,)


class ViewVersionError(ValueError):
    """An operation that a view version does not allow; the message says why, and how to cure it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewVersion:
    """A version of a view: its number and its table."""

    number: int
    table: str


class ViewVersions:
    """The versions of one view. `first_table` is the table of the version before any rebuild."""

    def __init__(self, engine: Engine, first_table: str, now_ms: Callable[[], int], view: str = CASES) -> None:
        self.engine = engine
        self._first = ViewVersion(number=1, table=first_table)
        self._now_ms = now_ms
        self._view = view
        self._is_there = False

    def live(self) -> ViewVersion:
        """Return the live version."""
        if not self._is_there and not inspect(self.engine).has_table(ViewVersionRow.__tablename__):
            return self._first  # an old store without versions, or an empty one: nothing was ever rebuilt
        self._is_there = True
        wanted = select(ViewVersionRow.version, ViewVersionRow.table_name).where(
            ViewVersionRow.view == self._view, ViewVersionRow.state == "live"
        )
        with read_transaction(self.engine) as connection:
            found = connection.execute(wanted).first()
        return self._first if found is None else ViewVersion(number=found[0], table=found[1])

    def every(self) -> list[ViewVersionRow]:
        """Return all versions, oldest first."""
        with Session(self.engine) as session:
            wanted = select(ViewVersionRow).where(ViewVersionRow.view == self._view).order_by(ViewVersionRow.version)
            return list(session.scalars(wanted))

    def row(self, number: int) -> ViewVersionRow:
        """Return the row of a version. Raises ViewVersionError if there is none of this number."""
        found = [row for row in self.every() if row.version == number]
        if not found:
            raise ViewVersionError(f"{self._view} has no version {number}. List the versions: fraudcase views list")
        return found[0]

    def unfinished(self) -> ViewVersionRow | None:
        """Return the version that is being built, or is built and has never been live; None if there is none."""
        return next((row for row in self.every() if row.state in ("building", "built") and not row.live_at_ms), None)

    def begin(self, source: str, shares: Sequence[PartitionShard]) -> ViewVersionRow:
        """Begin a version, to be built from `kafka` or `s3` in these shards. Raises ViewVersionError if one
        is unfinished.
        """
        with write_session(self.engine) as session:
            self._ensure_first(session)
            of_view = ViewVersionRow.view == self._view
            half = session.scalar(
                select(ViewVersionRow).where(of_view, ViewVersionRow.state.in_(("building", "built")))
            )
            if half is not None:
                raise ViewVersionError(f"version {half.version} of {self._view} is not finished yet")
            number = 1 + (session.scalar(select(func.max(ViewVersionRow.version)).where(of_view)) or 0)
            session.add(
                ViewVersionRow(
                    view=self._view, version=number, table_name=f"{self._first.table}-v{number}", state="building",
                    source=source, begun_at_ms=self._now_ms(),
                )
            )  # fmt: skip
            session.flush()
            session.add_all(
                ViewShardRow(
                    view=self._view, version=number, partition=share.partition, share=share.number,
                    shares=share.of, until=share.until, events=0, items=0, digest="",
                )
                for share in shares
            )  # fmt: skip
        return self.row(number)

    def _ensure_first(self, session: Session) -> None:
        if session.scalar(select(func.count()).where(ViewVersionRow.view == self._view)) == 0:
            session.add(
                ViewVersionRow(
                    view=self._view, version=1, table_name=self._first.table, state="live", source="",
                    begun_at_ms=self._now_ms(), live_at_ms=self._now_ms(),
                )
            )  # fmt: skip
            session.flush()

    def shares(self, number: int) -> list[ViewShardRow]:
        """Return the rows of all shards of a version."""
        with Session(self.engine) as session:
            wanted = select(ViewShardRow).where(ViewShardRow.view == self._view, ViewShardRow.version == number)
            return list(session.scalars(wanted.order_by(ViewShardRow.partition, ViewShardRow.share)))

    def done(self, number: int, share: PartitionShard, written: ShardResult) -> None:
        """Mark a shard as completely written."""
        values = {"done_at_ms": self._now_ms(), "events": written.events, "items": written.items}
        change = update(ViewShardRow).where(
            ViewShardRow.view == self._view, ViewShardRow.version == number,
            ViewShardRow.partition == share.partition, ViewShardRow.share == share.number,
        )  # fmt: skip
        with write_transaction(self.engine) as connection:
            connection.execute(change.values(**values, digest=f"{written.digest:064x}"))

    def undo(self, number: int) -> None:
        """Mark all shards of a version as not written, because its items differ from what the log results in."""
        change = update(ViewShardRow).where(ViewShardRow.view == self._view, ViewShardRow.version == number)
        with write_transaction(self.engine) as connection:
            connection.execute(change.values(done_at_ms=None))

    def built(self, number: int, items: int, digest: str) -> None:
        """Mark a version as built: it holds what the log resulted in when the build began."""
        with write_transaction(self.engine) as connection:
            self._set(connection, number, state="built", built_at_ms=self._now_ms(), items=items, digest=digest)

    def switch(self, number: int) -> None:
        """Make a version the live one. Raises ViewVersionError unless it is built or was live before."""
        with write_transaction(self.engine) as connection:
            state = self._state(connection, number)
            if state == "live":
                return
            if state not in ("built", "old"):
                raise ViewVersionError(
                    f"version {number} of {self._view} is {state}: only a built version can become live"
                )
            live = update(ViewVersionRow).where(ViewVersionRow.view == self._view, ViewVersionRow.state == "live")
            connection.execute(live.values(state="old", ended_at_ms=self._now_ms()))
            self._set(connection, number, state="live", live_at_ms=self._now_ms(), ended_at_ms=None)

    def drop(self, number: int) -> str:
        """Mark a version as dropped and return the name of its table, which can be deleted. Raises ViewVersionError
        for the live version.
        """
        with write_transaction(self.engine) as connection:
            if self._state(connection, number) == "live":
                raise ViewVersionError(f"version {number} of {self._view} is live: everybody reads it")
            self._set(connection, number, state="dropped", ended_at_ms=self._now_ms())
        return self.row(number).table_name

    def _state(self, connection: Connection, number: int) -> str:
        wanted = select(ViewVersionRow.state).where(ViewVersionRow.view == self._view, ViewVersionRow.version == number)
        state = connection.scalar(wanted)
        if state is None:
            raise ViewVersionError(f"{self._view} has no version {number}. List the versions: fraudcase views list")
        return str(state)

    def _set(self, connection: Connection, number: int, **values: object) -> None:
        change = update(ViewVersionRow).where(ViewVersionRow.view == self._view, ViewVersionRow.version == number)
        connection.execute(change.values(**values))

    # -- verification -------------------------------------------------------------------------------------

    def check(self) -> ViewCheckRow | None:
        """Return the progress of the verification of the stored view, or None before it has begun."""
        with Session(self.engine) as session:
            return session.get(ViewCheckRow, self._view)

    def save_check(self, values: Mapping[str, object]) -> None:
        """Save the progress of the verification."""
        insert = insert_postgres if self.engine.dialect.name == "postgresql" else insert_sqlite
        row = insert(ViewCheckRow).values(view=self._view, **values)
        with write_transaction(self.engine) as connection:
            connection.execute(row.on_conflict_do_update(index_elements=["view"], set_=dict(values)))
