"""Store of what-if runs in the control store: their options, progress and results."""

import json
import uuid
from collections.abc import Callable
from typing import Any, Final, cast

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session, defer

from console.history.whatif import Progress, Source, WhatifRequest, shorten_document
from domain.risk.packs import RulePack, parse_pack
from migrations.models import WhatifRunRow
from migrations.store import read_session, write_session
from projections.replay.whatif import WhatifPeriod

MAX_KEPT: Final = 500
"""Changed cases stored with a run, most important first; `--out` writes all of them."""
SILENT_MS: Final = 120_000
"""A run without a report for this long counts as dead."""
SAY_EVERY_MS: Final = 500


class WhatifRunError(ValueError):
    """A run that may not begin; the message gives the reason."""


class WhatifRuns:
    """The what-if runs of a control store."""

    def __init__(self, engine: Engine, now_ms: Callable[[], int]) -> None:
        self._engine = engine
        self._now_ms = now_ms

    def begin(self, pack: RulePack, asked: WhatifRequest, actor: str, *, alone: bool = False) -> str:
        """Store a new run and return its id. With `alone`, raise WhatifRunError if another run is under way."""
        now_ms, run_id = self._now_ms(), str(uuid.uuid4())
        with write_session(self._engine) as session:
            if alone:
                _refuse_beside_another(session, now_ms)
            session.add(
                WhatifRunRow(
                    run_id=run_id, pack_id=pack.pack_id, pack=f"{pack.name}@{pack.version}", document=pack.canonical,
                    state="running", actor=actor, source=asked.source, from_ms=asked.period.from_ms,
                    to_ms=asked.period.to_ms, minutes_per_case=asked.minutes_per_case, begun_at_ms=now_ms,
                    seen_at_ms=now_ms, records=0, records_in_all=0, payments=0, span_ms=0,
                )
            )  # fmt: skip
        return run_id

    def asked(self, run_id: str) -> tuple[RulePack, WhatifRequest]:
        """Return the rule pack and the options of a run."""
        with read_session(self._engine) as session:
            row = session.get_one(WhatifRunRow, run_id)
        source = cast(Source, row.source)
        return parse_pack(row.document), WhatifRequest(
            source, WhatifPeriod(row.from_ms, row.to_ms), row.minutes_per_case
        )

    def progress_writer(self, run_id: str) -> Progress:
        """Return a function that stores the progress of a run, at most every SAY_EVERY_MS."""
        last_ms = 0

        def tell(done: int, total: int) -> None:
            nonlocal last_ms
            now_ms = self._now_ms()
            if now_ms - last_ms < SAY_EVERY_MS:
                return
            last_ms = now_ms
            with write_session(self._engine) as session:
                row = session.get_one(WhatifRunRow, run_id)
                row.records, row.records_in_all, row.seen_at_ms = done, total, now_ms

        return tell

    def done(self, run_id: str, found: dict[str, Any]) -> None:
        """Store the result of a run."""
        with write_session(self._engine) as session:
            row = session.get_one(WhatifRunRow, run_id)
            row.state, row.ended_at_ms, row.seen_at_ms = "done", self._now_ms(), self._now_ms()
            row.records = row.records_in_all = found["records"]
            row.payments = found["payments"]
            row.span_ms = (found["last_payment_ms"] or 0) - (found["first_payment_ms"] or 0)
            row.result = json.dumps({**shorten_document(found, MAX_KEPT), "run_id": run_id})

    def failed(self, run_id: str, why: str) -> None:
        """Store the reason why a run failed."""
        with write_session(self._engine) as session:
            row = session.get_one(WhatifRunRow, run_id)
            row.state, row.ended_at_ms, row.error = "failed", self._now_ms(), why

    def of_pack(self, pack_id: str) -> list[WhatifRunRow]:
        """Return the runs of a rule pack, newest first, without their results."""
        wanted = select(WhatifRunRow).where(WhatifRunRow.pack_id == pack_id)
        with read_session(self._engine) as session:
            newest = wanted.order_by(WhatifRunRow.begun_at_ms.desc(), WhatifRunRow.run_id)
            return list(session.scalars(newest.options(defer(WhatifRunRow.result), defer(WhatifRunRow.document))))

    def latest_states(self) -> list[tuple[str, str, int]]:
        """Return id, state and records of the last five runs, by which pages notice changes."""
        columns = WhatifRunRow.run_id, WhatifRunRow.state, WhatifRunRow.records
        with read_session(self._engine) as session:
            newest = select(*columns).order_by(WhatifRunRow.begun_at_ms.desc()).limit(5)
            return [(run_id, state, records) for run_id, state, records in session.execute(newest)]

    def run(self, run_id: str) -> WhatifRunRow | None:
        """Return a run, or None if there is none of this id."""
        with read_session(self._engine) as session:
            return session.get(WhatifRunRow, run_id)

    def state(self, row: WhatifRunRow) -> str:
        """Return the state of a run: `dead` if it has reported nothing for SILENT_MS."""
        is_silent = row.state == "running" and self._now_ms() - row.seen_at_ms > SILENT_MS
        return "dead" if is_silent else row.state


def _refuse_beside_another(session: Session, now_ms: int) -> None:
    running = select(WhatifRunRow).where(WhatifRunRow.state == "running", WhatifRunRow.seen_at_ms > now_ms - SILENT_MS)
    other = session.scalars(running.options(defer(WhatifRunRow.result))).first()
    if other is not None:
        raise WhatifRunError(f"a what-if of {other.pack} by {other.actor} is under way: one at a time. Try again later")
