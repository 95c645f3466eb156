"""Rule packs in the control store, from draft to retirement, and their activations, which are written into the logs
from here.

A transition that concerns the logs (an activation, a shadow pack) has three steps: its begin is noted in the store with
the current ends of the logs, its record is written into the logs, its end is noted in the store. After a crash in
between, the same command finds the partitions that have the record already, reading from the noted ends on, and writes
it into the others. No other transition can begin while one is unfinished.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session, defer

from domain.durations import DAY_MS
from domain.risk.events import RulesActivated
from domain.risk.fold import MAX_SHADOWS
from domain.risk.packs import RulePack
from migrations.models import RulePackLogRow, RulePackRow, WhatifRunRow
from migrations.store import write_session

SYSTEM: Final = "system"
Offsets = Mapping[str, Mapping[int, int]]
"""The offset after the last record, by topic and partition."""
_ID: Final = re.compile(r"[0-9a-f]{8,64}")


class RulePackActionError(ValueError):
    """An action that a rule pack does not allow; the message says why, and how to cure it."""


class RulePackTransition(NamedTuple):
    """A transition that is written into the logs: the mode of its record, and the names of its begin and end in the
    store.
    """

    mode: str
    begin: str
    end: str


ACTIVATION: Final = RulePackTransition("active", "activating", "activated")
SHADOWING: Final = RulePackTransition("shadow", "shadowing", "shadowed")
UNSHADOWING: Final = RulePackTransition("retired-shadow", "unshadowing", "unshadowed")
_CHANGES: Final = (ACTIVATION, SHADOWING, UNSHADOWING)
_BEGINS: Final = {change.begin: change for change in _CHANGES}
_ENDS: Final = {change.end: change for change in _CHANGES}


class WhatifRequirement(NamedTuple):
    """The minimum history that a what-if of a pack must cover before the pack can be approved: payments and days."""

    payments: int
    days: int


class RulesLog(Protocol):
    """The logs into which activations of rule packs are written."""

    def ends(self) -> Offsets:
        """Return the offset after the last record of each partition."""

    def write(self, record: RulesActivated, since: Offsets) -> int:
        """Write a record into every partition that has no record of its pack and mode from these offsets on.

        Return the number of partitions written.
        """


class RulePackStore:
    """The rule packs of a control store."""

    def __init__(self, engine: Engine, now_ms: Callable[[], int], needed: WhatifRequirement | None = None) -> None:
        """Open the store. With `needed`, a pack is approved only after a what-if that covers this much history."""
        self._engine = engine
        self._now_ms = now_ms
        self.needed = needed

    def packs(self) -> list[RulePackRow]:
        """Return all packs, sorted by name and version."""
        with Session(self._engine) as session:
            return list(session.scalars(select(RulePackRow).order_by(RulePackRow.name, RulePackRow.version)))

    def pack(self, reference: str) -> RulePackRow:
        """Return the pack that `reference` names: NAME (its highest version), NAME@VERSION, or the first digits of
        its id. Raises RulePackActionError.
        """
        with Session(self._engine) as session:
            return _find(session, reference)

    def history(self, pack_id: str) -> list[RulePackLogRow]:
        """Return the actions on a pack, oldest first."""
        with Session(self._engine) as session:
            wanted = select(RulePackLogRow).where(RulePackLogRow.pack_id == pack_id).order_by(RulePackLogRow.number)
            return list(session.scalars(wanted))

    def first(self, pack: RulePack) -> str:
        """Return the document of the active pack. If there is none, make this pack the active one."""
        with write_session(self._engine) as session:
            active = _active(session)
            if active is None:
                active = _row(pack, SYSTEM, self._now_ms())
                active.state, active.approver = "active", SYSTEM
                active.approved_at_ms = active.activated_at_ms = active.drafted_at_ms
                session.add(active)
                session.flush()
                self._log(session, active, "activated", SYSTEM)
            return active.document

    def draft(self, pack: RulePack, actor: str) -> RulePackRow:
        """Store a pack as a draft. Content that is stored already is returned as it is, in its present state. Raises
        RulePackActionError if the version exists with other content.
        """
        with write_session(self._engine) as session:
            known = session.get(RulePackRow, pack.pack_id)
            if known is not None:
                return known
            same = select(RulePackRow).where(RulePackRow.name == pack.name, RulePackRow.version == pack.version)
            if session.scalars(same).first() is not None:
                raise RulePackActionError(
                    f"{pack.name} has a version {pack.version} already, with other content. Cure: use a higher version"
                )
            row = _row(pack, actor, self._now_ms())
            session.add(row)
            session.flush()
            self._log(session, row, "drafted", actor)
            return row

    def approve(self, reference: str, actor: str) -> RulePackRow:
        """Approve a draft as a second person, with the what-if that qualifies it if one is required. Raises
        RulePackActionError.
        """
        with write_session(self._engine) as session:
            row = _find(session, reference)
            if row.state != "draft":
                raise RulePackActionError(f"{_pack_label(row)} is {row.state}: only a draft is approved")
            if _is_same_person(row.author, actor):
                raise RulePackActionError(
                    f"{_pack_label(row)} was drafted by {row.author}: another person must approve it"
                )
            tried = _qualifying_whatif(session, row, self.needed or WhatifRequirement(0, 0))
            if tried is None and self.needed is not None:
                raise RulePackActionError(_missing_whatif_text(row, self.needed))
            row.state, row.approver, row.approved_at_ms = "approved", actor, self._now_ms()
            self._log(session, row, "approved", actor, {"whatif_run": tried.run_id} if tried else None)
            return row

    def activate(self, reference: str, actor: str, log: RulesLog) -> tuple[RulePackRow, int]:
        """Make an approved pack the active one and retire the former. Return its row and the number of partitions
        written.
        """

        def is_needed(_: Session, row: RulePackRow) -> bool:
            if row.approver is None:
                raise RulePackActionError(
                    f"{_pack_label(row)} is not approved. Cure: fraudcase rules approve, by another person"
                )
            return row.state != "active"

        def finish(session: Session, row: RulePackRow, now_ms: int) -> None:
            former = _active(session)
            if former is not None:
                former.state, former.retired_at_ms = "retired", now_ms
                self._log(session, former, "retired", actor)
                session.flush()  # there is one active pack at any time
            row.state, row.activated_at_ms, row.retired_at_ms, row.shadow = "active", now_ms, None, False

        return self._change(ACTIVATION, reference, actor, log, is_needed, finish)

    def shadow(self, reference: str, actor: str, log: RulesLog) -> tuple[RulePackRow, int]:
        """Run a pack as a shadow: its scores are recorded and decide nothing, so it needs no approval. Return as
        `activate` does.
        """

        def is_needed(session: Session, row: RulePackRow) -> bool:
            if row.state == "active":
                raise RulePackActionError(f"{_pack_label(row)} is active: the active pack cannot be a shadow of itself")
            shadows = session.scalars(select(RulePackRow).where(RulePackRow.shadow)).all()
            if len(shadows) >= MAX_SHADOWS and row not in shadows:
                raise RulePackActionError(f"{', '.join(map(_pack_label, shadows))} are shadow packs: retire one first")
            return row not in shadows

        def finish(_: Session, row: RulePackRow, __: int) -> None:
            row.shadow = True

        return self._change(SHADOWING, reference, actor, log, is_needed, finish)

    def retire(self, reference: str, actor: str, log: RulesLog) -> tuple[RulePackRow, int]:
        """Retire a pack that is not active; a shadow pack stops scoring. The active pack retires when another is
        activated.
        """

        def is_needed(_: Session, row: RulePackRow) -> bool:
            if row.state == "active":
                raise RulePackActionError(
                    f"{_pack_label(row)} is active, and payments need a pack. Cure: activate another one"
                )
            return row.state != "retired" or row.shadow

        def finish(_: Session, row: RulePackRow, now_ms: int) -> None:
            row.shadow, row.state, row.retired_at_ms = False, "retired", now_ms

        row = self.pack(reference)
        if row.shadow:
            return self._change(UNSHADOWING, reference, actor, log, is_needed, finish)
        with write_session(self._engine) as session:
            row = _find(session, reference)
            _unfinished_offsets(session, row, UNSHADOWING)  # nothing retires while its activation is under way
            if is_needed(session, row):
                finish(session, row, self._now_ms())
                self._log(session, row, "retired", actor)
            return row, 0

    def _change(
        self,
        change: RulePackTransition,
        reference: str,
        actor: str,
        log: RulesLog,
        is_needed: Callable[[Session, RulePackRow], bool],
        finish: Callable[[Session, RulePackRow, int], None],
    ) -> tuple[RulePackRow, int]:
        """Carry out a transition in its three steps. A state that is reached already is left unchanged."""
        ends = log.ends()
        with write_session(self._engine) as session:
            row = _find(session, reference)
            since = _unfinished_offsets(session, row, change)
            if since is None:
                if not is_needed(session, row):
                    return row, 0
                since = ends
                self._log(session, row, change.begin, actor, {"since": since})
        record = RulesActivated(pack_id=row.pack_id, pack=row.document, activated_by=actor, mode=change.mode)
        written = log.write(record, since)
        with write_session(self._engine) as session:
            row = _find(session, row.pack_id)
            if (
                _unfinished_offsets(session, row, change) is not None
            ):  # else another run of the same command has ended it
                finish(session, row, self._now_ms())
                self._log(session, row, change.end, actor)
        return row, written

    def _log(
        self, session: Session, row: RulePackRow, action: str, actor: str, detail: dict[str, Any] | None = None
    ) -> None:
        entry = {"pack_id": row.pack_id, "action": action, "actor": actor, "at_ms": self._now_ms()}
        session.add(RulePackLogRow(**entry, detail=json.dumps(detail or {})))
        session.flush()


def _unfinished_offsets(session: Session, row: RulePackRow, wanted: RulePackTransition) -> Offsets | None:
    """Return the offsets noted at the begin of this transition, or None if none is unfinished. Raises
    RulePackActionError if another one is.
    """
    steps = select(RulePackLogRow).where(RulePackLogRow.action.in_([*_BEGINS, *_ENDS]))
    last = session.scalars(steps.order_by(RulePackLogRow.number.desc()).limit(1)).first()
    if last is None or last.action in _ENDS:
        return None
    if (last.pack_id, _BEGINS[last.action]) == (row.pack_id, wanted):
        since = json.loads(last.detail)["since"]
        return {topic: {int(number): end for number, end in ends.items()} for topic, ends in since.items()}
    other = session.get_one(RulePackRow, last.pack_id)
    raise RulePackActionError(
        f"{last.action} {_pack_label(other)} by {last.actor} is unfinished. Cure: run that command again first"
    )


def _qualifying_whatif(session: Session, row: RulePackRow, needed: WhatifRequirement) -> WhatifRunRow | None:
    """Return the newest finished what-if of this pack that covers the required history, or None."""
    wanted = select(WhatifRunRow).where(
        WhatifRunRow.pack_id == row.pack_id,
        WhatifRunRow.state == "done",
        WhatifRunRow.payments >= needed.payments,
        WhatifRunRow.span_ms >= needed.days * DAY_MS,
    )
    newest = wanted.order_by(WhatifRunRow.ended_at_ms.desc()).limit(1)
    return session.scalars(newest.options(defer(WhatifRunRow.result))).first()


def _missing_whatif_text(row: RulePackRow, needed: WhatifRequirement) -> str:
    days = f" over {needed.days} days" if needed.days else ""
    return (
        f"{_pack_label(row)} has no what-if of at least {needed.payments:,} payments{days}, which this system asks for "
        f"before an approval. Cure: run fraudcase whatif --rules {_pack_label(row)}, or use the pack's page"
    )


def _find(session: Session, reference: str) -> RulePackRow:
    name, _, version = reference.partition("@")
    by_name = select(RulePackRow).where(RulePackRow.name == name).order_by(RulePackRow.version.desc())
    if version.isdecimal():
        by_name = by_name.where(RulePackRow.version == int(version))
    row = session.scalars(by_name).first()
    if row is None and _ID.fullmatch(reference):
        found = session.scalars(select(RulePackRow).where(RulePackRow.pack_id.startswith(reference))).all()
        row = found[0] if len(found) == 1 else None
    if row is None:
        raise RulePackActionError(f"there is no rule pack {reference}. Cure: fraudcase rules list shows all packs")
    return row


def _active(session: Session) -> RulePackRow | None:
    return session.scalars(select(RulePackRow).where(RulePackRow.state == "active")).first()


def _row(pack: RulePack, actor: str, now_ms: int) -> RulePackRow:
    return RulePackRow(
        pack_id=pack.pack_id,
        name=pack.name,
        version=pack.version,
        document=pack.canonical,
        state="draft",
        shadow=False,
        author=actor,
        drafted_at_ms=now_ms,
    )


def _pack_label(row: RulePackRow) -> str:
    return f"{row.name}@{row.version}"


def _is_same_person(one: str, other: str) -> bool:
    return one.strip().casefold() == other.strip().casefold()
