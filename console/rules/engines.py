"""The engine in force: begun in the control store, written into every log that decides, ended in the store.

As with rule packs (`console/rules/store.py`): after a crash the same command writes only what is missing.
"""

import json
from collections.abc import Callable
from typing import Protocol

from sqlalchemy import Engine as Database
from sqlalchemy import select
from sqlalchemy.orm import Session

from console.rules.store import Offsets, RulePackActionError
from domain.engines import ENGINES, FIRST, EngineActivated, activation
from migrations.models import EngineRow
from migrations.store import write_session


class EngineLog(Protocol):
    """The logs that engines are activated in."""

    def ends(self) -> Offsets:
        """Where they end now."""

    def write(self, record: EngineActivated, since: Offsets) -> int:
        """Write a record into every partition that has none of its engine from these offsets on; into how many."""


class EngineStore:
    """The engines of one system, as its control store has them."""

    def __init__(self, database: Database, now_ms: Callable[[], int]) -> None:
        self._database, self._now_ms = database, now_ms

    def rows(self) -> list[EngineRow]:
        """What was activated, in order; the last one may be unfinished."""
        with Session(self._database) as session:
            return list(session.scalars(select(EngineRow).order_by(EngineRow.engine)))

    def active(self) -> int:
        """The engine in force."""
        return max([FIRST.number, *(row.engine for row in self.rows() if row.activated_at_ms is not None)])

    def activate(self, engine: int, actor: str, log: EngineLog) -> int:
        """Decide by this engine from here on; returns into how many partitions it was written. Raises Refused.

        One that is in force stays so, and nothing is written.
        """
        if engine not in ENGINES:
            raise RulePackActionError(f"there is no engine {engine}. Those there are: {', '.join(map(str, ENGINES))}")
        ends = log.ends()
        with write_session(self._database) as session:
            last = session.scalars(select(EngineRow).order_by(EngineRow.engine.desc()).limit(1)).first()
            now = FIRST.number if last is None else last.engine
            if last is not None and last.activated_at_ms is None and engine != now:
                raise RulePackActionError(
                    f"activating engine {now} by {last.actor} is unfinished. Cure: activate {now} again first"
                )
            if engine < now:
                raise RulePackActionError(
                    f"engine {now} is active: what it decided cannot be decided by an older one any more"
                )
            if engine == now and (last is None or last.activated_at_ms is not None):
                return 0
            if last is None or last.engine != engine:
                last = EngineRow(engine=engine, actor=actor, begun_at_ms=self._now_ms(), since=json.dumps(ends))
                session.add(last)
                session.flush()
            begun_by, noted = last.actor, json.loads(last.since)
        since = {topic: {int(number): end for number, end in offsets.items()} for topic, offsets in noted.items()}
        written = log.write(activation(engine, begun_by), since)
        with write_session(self._database) as session:
            row = session.get_one(EngineRow, engine)
            row.activated_at_ms = row.activated_at_ms or self._now_ms()
        return written
