"""The versions of our engine: what the folds make of the same log, and how a log says by which one it is decided.

A new version is activated in the log like a rule pack, by an EngineActivated in each partition of what decides. The
behaviour of an older one stays here and in the folds as long as there are logs: so an old stretch of a log replays to
its old bytes. A log without any activation is decided by the first engine.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid5

from domain.payment import Refusal
from domain.record import Record

ACTIVATIONS = UUID("0c9a4c0e-1d0b-5b57-9f5e-6b8e2a7f4d31")
ENGINE_KEY: Final = "\x1fengine"
"""The state entry of a partition's engine: no account's or entity's key, since U+001F is refused in ids."""


class EngineActivated(Record, frozen=True, kw_only=True):
    """From here on this partition is decided by this version of the engine: also in entities.inbound and cases.inbox.

    `activation_id` derives from the engine, so that it is the same in every partition.
    """

    activation_id: str
    engine: int
    activated_by: str


class Engine(NamedTuple):
    """One version. What it does otherwise than the one before is a field here, and `says` it for people."""

    number: int
    says: str
    weighs_restatements: bool
    """Whether a restatement that makes a flag weigh more wakes and escalates its open case, as a new flag does."""
    counts_for_the_case: bool
    """Whether a RiskRevised says what it changes in its case, which may have known otherwise of the flag."""


FIRST: Final = Engine(1, "how all logs begin", weighs_restatements=False, counts_for_the_case=False)
SECOND: Final = FIRST._replace(
    number=2,
    says="a restatement that makes a flag weigh more wakes and escalates its open case",
    weighs_restatements=True,
)
THIRD: Final = SECOND._replace(
    number=3, says="a restatement tells each case by how many flags more, or fewer, it stands", counts_for_the_case=True
)
ENGINES: Final = {engine.number: engine for engine in (FIRST, SECOND, THIRD)}
LATEST: Final = THIRD


def activation(engine: int, activated_by: str) -> EngineActivated:
    """The record that puts an engine in force. Engines only go up, so that its id derives from the engine alone."""
    return EngineActivated(
        activation_id=str(uuid5(ACTIVATIONS, str(engine))), engine=engine, activated_by=activated_by
    )  # fmt: skip


class ActiveEngine:
    """The engine of one partition: the one that its log has activated last. `load` reads a state entry by key."""

    def __init__(self, load: Callable[[str], bytes | None]) -> None:
        self.now = ENGINES[int(load(ENGINE_KEY) or FIRST.number)]
        self._changed = False

    def read(self, data: Mapping[str, Any]) -> Refusal | None:
        """Take in an EngineActivated, from its fields; or why not: then the engine stays. Again, it adds nothing."""
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
        """The state entry, if it changed since the last call."""
        changed, self._changed = self._changed, False
        return {ENGINE_KEY: str(self.now.number).encode()} if changed else {}
