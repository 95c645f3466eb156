"""Results of replay tasks, with the digests and block sums that they consist of.

Results are small, because worker processes send them to the parent: digests by account, counts, and the bytes of flags
and case events. Rows that exist for every payment are summarised by block; only the rows of differing blocks are sent.
"""

import hashlib
import marshal
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from domain.digest import canonical_bytes, place_of
from domain.record_types import Event
from domain.risk.events import EntityPayment
from projections.archive.segments import Alteration
from projections.logs.log import ColumnBatch

BLOCK_BITS: Final = 10
"""Binary logarithm of the number of payments.inbound offsets in a block; blocks are compared by their hashes."""
SENT: Final = EntityPayment.__struct_fields__
_MODULUS: Final = 1 << 256
EventPlace = tuple[str, tuple[Any, ...]]
"""Account id, and place in the account's history."""
Row = tuple[Any, ...]
BlockSum = tuple[int, int]
"""Number of rows of a block, and a hash over them."""
Block = tuple[int, int]
"""A partition of payments.inbound, and a block number in it."""
NONE: Final[BlockSum] = (0, 0)


class ComparedEvent(NamedTuple):
    """A flag or case event in the form that is compared. `offset` and `timestamp_ms` are -1 for a derived one."""

    kind: str
    account_id: str
    place: tuple[Any, ...]
    encoded: bytes
    offset: int = -1
    timestamp_ms: int = -1


class DerivedItem(NamedTuple):
    """A derived case event with its item in the case table."""

    event: ComparedEvent
    pk: str
    sk: str
    item: bytes


class BlockDifference(NamedTuple):
    """A block whose recorded answers or forwarded payments differ from the derived ones, with the derived rows."""

    number: int
    answers: list[Row]
    sent: list[Row]


@dataclass(slots=True, kw_only=True)
class TaskResult:
    """Result that all tasks have in common."""

    topic: str
    partition: int
    records: int = 0
    content: bytes = b""
    """SHA-256 over the records: values, offsets, timestamps."""
    schemas: dict[str, str] = field(default_factory=dict)
    """Record names of the writers' schemas that were used, by their texts."""
    altered: list[Alteration] = field(default_factory=list)
    events: list[ComparedEvent] = field(default_factory=list)
    """Derived flags or case events; for cases.events, the recorded ones."""


@dataclass(slots=True, kw_only=True)
class InboundResult(TaskResult):
    """Result of folding a partition of payments.inbound."""

    chains: dict[int, "PaymentChains"] = field(default_factory=dict)
    """Digest chains by partition, as in AnswersResult; here there is only one."""
    payments: int = 0
    duplicates: int = 0
    quarantined: int = 0
    packs: list[str] = field(default_factory=list)
    decisions: bytes = b""
    """SHA-256 over the decisions with a score or a shadow score."""
    differing: list[BlockDifference] = field(default_factory=list)
    more_differing: int = 0
    missing: int = 0
    """Number of answers and forwarded payments that are not recorded yet, in blocks without any recorded row."""


@dataclass(slots=True, kw_only=True)
class AnswersResult(TaskResult):
    """Result of reading a partition of risk.scored."""

    chains: dict[int, "PaymentChains"] = field(default_factory=dict)
    """Digest chains by partition of payments.inbound."""
    payments: int = 0
    duplicates: int = 0
    blocks: dict[Block, BlockSum] = field(default_factory=dict)
    rows: dict[Block, list[Row]] = field(default_factory=dict)
    """Rows of the requested blocks."""


@dataclass(slots=True, kw_only=True)
class EntitiesResult(TaskResult):
    """Result of folding a partition of entities.inbound, with sums of the payments forwarded to it."""

    sums: dict[Block, BlockSum] = field(default_factory=dict)
    rows: dict[Block, list[tuple[int, Row]]] = field(default_factory=dict)
    """Rows of the requested blocks, each after the offset of its record in this partition."""


@dataclass(slots=True, kw_only=True)
class InboxResult(TaskResult):
    """Result of folding a partition of cases.inbox."""

    flags: list[ComparedEvent] = field(default_factory=list)
    """Flags recorded in the partition."""
    case_events: list[DerivedItem] = field(default_factory=list)
    views: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """Sort key and encoded item of each view, by partition key."""


@dataclass(slots=True, kw_only=True)
class EventsResult(TaskResult):
    """Case events recorded in a partition of cases.events."""

    foreign: list[tuple[int, str]] = field(default_factory=list)
    """Offset and description of each record that is not a case event."""


class PaymentChains:
    """Chained digests of accounts' payments in log order, as `HistoryDigest.add_payment` makes them.

    `wanted` are accounts with payments in several partitions. Their links are kept, to be chained in one order.
    """

    def __init__(self, wanted: frozenset[str] = frozenset()) -> None:
        self.digests: dict[str, bytes] = {}
        self.links: dict[str, list[bytes]] = {account: [] for account in sorted(wanted)}

    def add(self, rows: Iterable[Row], at: int = 0) -> None:
        """Add decided payments: account id, transaction id and content digest begin at column `at` of each row."""
        links, add_link = self.links, self.add_link
        for row in rows:
            account_id, link = row[at], row[at + 2] + row[at + 1].encode()
            add_link(account_id, link)
            if account_id in links:
                links[account_id].append(link)

    def add_link(self, account_id: str, link: bytes) -> None:
        """Add the link of one payment to its account's chain."""
        self.digests[account_id] = hashlib.sha256(self.digests.get(account_id, b"") + link).digest()


class ContentDigest:
    """SHA-256 over records, independent of their batches."""

    def __init__(self) -> None:
        self._values, self._numbers = hashlib.sha256(), hashlib.sha256()

    def add(self, batch: ColumnBatch) -> None:
        """Add the next records."""
        self._values.update(b"".join([value for value in batch.values if value is not None]))
        lines = [
            f"{offset} {at_ms} {-1 if value is None else len(value)}\n"
            for offset, at_ms, value in zip(batch.offsets, batch.timestamps_ms, batch.values, strict=True)
        ]
        self._numbers.update("".join(lines).encode())

    def digest(self) -> bytes:
        """Return the digest of all records added."""
        return hashlib.sha256(self._values.digest() + self._numbers.digest()).digest()


def block_sum(scored: list[Row], duplicates: list[Row]) -> BlockSum:
    """Return the count and hash of a block of answers.

    Valid within one run of a replay, because the format of `marshal` may differ between Python versions.
    """
    columns = tuple(zip(*scored, strict=True)), tuple(zip(*duplicates, strict=True))
    content = hashlib.sha256(marshal.dumps(columns, 0)).digest()  # version 0 writes equal values as equal bytes
    return len(scored) + len(duplicates), int.from_bytes(content, "big")


def sent_sum(rows: list[Row]) -> BlockSum:
    """Return the count and hash of forwarded payments, independent of their order."""
    total = 0
    for row in rows:
        total += int.from_bytes(hashlib.sha256(marshal.dumps(row, 0)).digest(), "big")
    return len(rows), total % _MODULUS


def add_sums(one: BlockSum, other: BlockSum) -> BlockSum:
    """Add the sums of two partitions of entities.inbound."""
    return one[0] + other[0], (one[1] + other[1]) % _MODULUS


def compared_event(event: Event, offset: int = -1, timestamp_ms: int = -1) -> ComparedEvent:
    """Return a flag or case event in the form that is compared."""
    account_id, place = place_of(event)
    return ComparedEvent(type(event).__name__, account_id, place, canonical_bytes(event), offset, timestamp_ms)
