"""The engines: numbered versions of the folds. The log records which engine decides.

A new engine is activated in the log like a rule pack, by an EngineActivated record in each partition that decides. The
behaviour of an older engine stays in the folds as long as there are logs of its time, so that an old range of a log
replays to its old bytes. A log without an activation is decided by the first engine.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid5

from domain.payment import Refusal
from domain.record import Record

ACTIVATIONS = UUID("0c9a4c0e-1d0b-5b57-9f5e-6b8e2a7f4d31")
"""Namespace of the ids of activations."""
ENGINE_KEY: Final = "\x1fengine"
"""State entry of a partition's engine. It is no key of an account or entity, since U+001F is refused in ids."""


class EngineActivated(Record, frozen=True, kw_only=True):
    """The record that activates an engine in one partition of payments.inbound, entities.inbound or cases.inbox.

    `activation_id` derives from the engine, so it is equal in every partition.
    """

    activation_id: str
    engine: int
    activated_by: str


class Engine(NamedTuple):
    """One version of the folds. Each change of behaviour is a field; `description` states it for users."""

    number: int
    description: str
    weighs_restatements: bool
    """Whether a restatement that raises the weight of a flag wakes and escalates its open case, as a new flag does."""
    counts_for_the_case: bool
    """Whether a RiskRevised event holds the change to its case, which may count the flag differently."""


FIRST: Final = Engine(
    1, "the engine of a log without an activation", weighs_restatements=False, counts_for_the_case=False
)
SECOND: Final = FIRST._replace(
    number=2,
    description="a restatement that raises the weight of a flag wakes and escalates its open case",
    weighs_restatements=True,
)
THIRD: Final = SECOND._replace(
    number=3,
    description="a restatement records by how many flags the count of its case changes",
    counts_for_the_case=True,
)
ENGINES: Final = {engine.number: engine for engine in (FIRST, SECOND, THIRD)}
LATEST: Final = THIRD


def activation(engine: int, activated_by: str) -> EngineActivated:
    """Return the record that activates an engine. Its id derives from the engine alone, since engines only go up."""
    return EngineActivated(
        activation_id=str(uuid5(ACTIVATIONS, str(engine))), engine=engine, activated_by=activated_by
    )  # fmt: skip


class ActiveEngine:
    """The engine of one partition: the last one that its log activated. `load` reads a state entry by key."""

    def __init__(self, load: Callable[[str], bytes | None]) -> None:
        self.now = ENGINES[int(load(ENGINE_KEY) or FIRST.number)]
        self._changed = False

    def read(self, data: Mapping[str, Any]) -> Refusal | None:
        """Apply an EngineActivated record, given as its fields, or return why it is refused; then the engine stays.

        Activating the active engine again changes nothing.
        """
        try:
            record = EngineActivated(**data)
            wanted = ENGINES.get(record.engine)
        except TypeError as error:
            return Refusal("bad_fields", f"not the fields of an EngineActivated: {error}")
        if wanted is None:
            return Refusal("unknown_engine", f"there is no engine {record.engine!r} here, only up to {LATEST.number}")
        if wanted.number < self.now.number:
            return Refusal("engine_went_back", f"engine {self.now.number} is active, {wanted.number} is an older one")
        self._changed = self._changed or wanted != self.now
        self.now = wanted
        return None

    def take_writes(self) -> dict[str, bytes | None]:
        """Return the state entry of the engine if it changed since the last call, else {}."""
        changed, self._changed = self._changed, False
        return {ENGINE_KEY: str(self.now.number).encode()} if changed else {}
