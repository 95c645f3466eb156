"""Engines in the control store, and their activations in every log that decides.

An activation has the three steps of a rule pack's (console/rules/store.py): after a crash the same command writes only
what is missing.
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
    """The logs into which activations of engines are written."""

    def ends(self) -> Offsets:
        """Return the offset after the last record of each partition."""

    def write(self, record: EngineActivated, since: Offsets) -> int:
        """Write a record into every partition that has none of its engine from these offsets on. Return the number
        of partitions written.
        """


class EngineStore:
    """The activations of engines in a control store."""

    def __init__(self, database: Database, now_ms: Callable[[], int]) -> None:
        self._database, self._now_ms = database, now_ms

    def rows(self) -> list[EngineRow]:
        """Return the activations, lowest engine first; the last one may be unfinished."""
        with Session(self._database) as session:
            return list(session.scalars(select(EngineRow).order_by(EngineRow.engine)))

    def active(self) -> int:
        """Return the number of the active engine."""
        return max([FIRST.number, *(row.engine for row in self.rows() if row.activated_at_ms is not None)])

    def activate(self, engine: int, actor: str, log: EngineLog) -> int:
        """Make this engine the active one and return the number of partitions written: 0 if it is active already.
        Raises RulePackActionError.
        """
        if engine not in ENGINES:
            raise RulePackActionError(f"there is no engine {engine}. Known engines: {', '.join(map(str, ENGINES))}")
        ends = log.ends()
        with write_session(self._database) as session:
            last = session.scalars(select(EngineRow).order_by(EngineRow.engine.desc()).limit(1)).first()
            now = FIRST.number if last is None else last.engine
            if last is not None and last.activated_at_ms is None and engine != now:
                raise RulePackActionError(
                    f"activating engine {now} by {last.actor} is unfinished. Cure: activate {now} again first"
                )
            if engine < now:
                raise RulePackActionError(f"engine {now} is active, and an older engine cannot follow a newer one")
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
