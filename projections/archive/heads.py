"""Signed, counted heads: `heads/{number}.json` says what all trees of the archive were when it was made.

A head holds the size and root of every partition's tree, the largest Kafka timestamp below them, its number, and the
SHA-256 of the head before it. Who keeps the last head that they saw can tell an archive that was rolled back, cut
off or rewritten, even by the owner of the key.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol

from domain.digest import canonical_json
from projections.archive.bucket import Bucket
from projections.archive.case_counts import CaseCounts
from projections.archive.segments import ArchivePosition, partition_folder, read_segment, segment_mark, segments
from projections.archive.signing import Signer, fingerprint, is_signed

FORMAT = "fraudcase head v1"
FOLDER = "heads/"


class BadHead(ValueError):
    """Bytes that are no head of ours; the message says why."""


class ArchiveContradiction(Exception):
    """The archive is not what the last head says: no further head may be signed over it."""


class ArchivedPartition(Protocol):
    """A partition, as far as it is stored."""

    topic: str
    partition: int
    mark: ArchivePosition
    cases: CaseCounts | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeHead:
    """The tree of a partition: of case events with the root over the counts of its cases."""

    topic: str
    partition: int
    size: int
    root: str
    last_offset: int
    cases: str | None

    def fields(self) -> dict[str, Any]:
        """As a head holds it."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True)
class Head:
    """A head, and the bytes that it was read from."""

    number: int
    time_ms: int
    records: int
    trees: Mapping[tuple[str, int], TreeHead]
    previous: str | None
    key: str
    body: bytes

    @property
    def sha256(self) -> str:
        """What the next head names it by."""
        return sha256(self.body).hexdigest()


def head_key(number: int) -> str:
    """Where a head lies."""
    return f"{FOLDER}{number:012d}.json"


def make_head(signer: Signer, before: Head | None, trees: Iterable[TreeHead], time_ms: int) -> Head:
    """The head after another one."""
    listed = sorted(trees, key=lambda tree: (tree.topic, tree.partition))
    document = {
        "format": FORMAT,
        "number": 1 if before is None else before.number + 1,
        "time_ms": max(time_ms, 0 if before is None else before.time_ms),
        "records": sum(tree.size for tree in listed),
        "trees": [tree.fields() for tree in listed],
        "previous": None if before is None else before.sha256,
        "key": fingerprint(signer.public_key),
    }
    signature = signer.sign(FORMAT.encode() + b"\n" + canonical_json(document)).hex()
    return read_head(canonical_json({**document, "signature": signature}), signer.public_key)


def read_head(body: bytes, public_key: bytes) -> Head:
    """A head from its bytes. Raises BadHead where it is not signed by the key, or not in its one form."""
    try:
        document = json.loads(body)
        signature = bytes.fromhex(document["signature"])
        unsigned = canonical_json({name: value for name, value in document.items() if name != "signature"})
        if not is_signed(public_key, signature, FORMAT.encode() + b"\n" + unsigned):
            raise BadHead(f"it is not signed by the key {fingerprint(public_key)}")
        if document["format"] != FORMAT or canonical_json(document) != body:
            raise BadHead("it is not in the form of a head")
        trees = [TreeHead(**{"cases": None, **tree}) for tree in document["trees"]]
        return Head(
            document["number"],
            document["time_ms"],
            document["records"],
            {(tree.topic, tree.partition): tree for tree in trees},
            document["previous"],
            document["key"],
            body,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise error if isinstance(error, BadHead) else BadHead(f"it cannot be read: {error}") from error


def head_numbers(bucket: Bucket) -> list[int]:
    """The numbers of the heads that there are, ascending."""
    names = (key.removeprefix(FOLDER).removesuffix(".json") for key in bucket.keys(FOLDER))
    return [int(name) for name in names if name.isdecimal()]


def stored_head(bucket: Bucket, number: int, public_key: bytes) -> Head | None:
    """A head by its number, None if there is none. Raises BadHead."""
    body = bucket.get(head_key(number))
    return None if body is None else read_head(body, public_key)


class HeadWriter:
    """Signs heads over what the writers of partitions have stored, one after the other.

    It goes on from the last head in the bucket, if the archive still is what that says: it is looked at where the head
    was made, and from there to the end. `seen` is the last head that was written here, if anybody kept it.
    """

    def __init__(
        self, bucket: Bucket, signer: Signer, writers: Iterable[ArchivedPartition], seen: bytes | None = None
    ) -> None:
        self._bucket, self._signer, self._writers = bucket, signer, list(writers)
        self.last: Head | None = None
        self._recall()
        if seen is not None:
            number = read_head(seen, signer.public_key).number
            if bucket.get(head_key(number)) != seen:
                raise ArchiveContradiction(
                    f"head {number}, the last one signed here, is not in the bucket: it was rolled back"
                )

    @property
    def number(self) -> int:
        """How many heads there are."""
        return 0 if self.last is None else self.last.number

    def _recall(self) -> None:
        numbers = head_numbers(self._bucket)
        if numbers != list(range(1, len(numbers) + 1)):
            raise ArchiveContradiction(f"heads are missing: there are {len(numbers)}, the last is number {numbers[-1]}")
        if not numbers:
            return
        try:
            self.last = stored_head(self._bucket, numbers[-1], self._signer.public_key)
        except BadHead as error:
            raise ArchiveContradiction(f"head {numbers[-1]}: {error}") from error
        assert self.last is not None
        for tree in self.last.trees.values():
            check_tree(self._bucket, tree)

    def write(self) -> Head | None:
        """One more head, if there is anything new; None if there is not. Raises Contradiction."""
        while True:
            trees = {(tree.topic, tree.partition): tree for tree in self._trees()}
            before = {} if self.last is None else self.last.trees
            for place, tree in before.items():
                if place not in trees or trees[place].size < tree.size:
                    trees[place] = tree  # another worker's: its writer here has yet to notice
                elif trees[place].size == tree.size and trees[place] != tree:
                    raise ArchiveContradiction(
                        f"{place[0]} partition {place[1]}: another tree of the same {tree.size} records"
                    )
            if trees == before:
                return None
            time_ms = max((writer.mark.time_ms for writer in self._writers), default=0)
            head = make_head(self._signer, self.last, trees.values(), time_ms)
            if self._bucket.put_new(head_key(head.number), head.body):
                self.last = head
                return head
            taken = self._bucket.get(head_key(head.number))
            if taken == head.body:  # an earlier attempt came through after all
                self.last = head
                return head
            self._recall()

    def _trees(self) -> Iterator[TreeHead]:
        for writer in self._writers:
            if writer.mark.tree.size:
                yield tree_head(writer)


def tree_head(writer: ArchivedPartition) -> TreeHead:
    """What a head says of a partition."""
    return TreeHead(
        topic=writer.topic,
        partition=writer.partition,
        size=writer.mark.tree.size,
        root=writer.mark.tree.root().hex(),
        last_offset=writer.mark.last_offset,
        cases=None if writer.cases is None else writer.cases.root().hex(),
    )


def check_tree(bucket: Bucket, tree: TreeHead) -> None:
    """Raise Contradiction unless a segment ended with this tree, and those after it lead from there to their own."""
    later = []
    for segment in reversed(segments(bucket, partition_folder(tree.topic, tree.partition))):
        mark = segment_mark(bucket, segment)
        if mark is None:
            return  # of old, without a tree: `fraudcase audit verify` reads it through
        if mark.tree.size <= tree.size:
            break
        later.append((segment, mark))
    else:
        mark = None
    if mark is None or (mark.tree.size, mark.tree.root().hex()) != (tree.size, tree.root):
        raise ArchiveContradiction(
            f"{tree.topic} partition {tree.partition}: it never was at the {tree.size} records that were signed"
        )
    grown = mark.tree.copy()
    for segment, mark in reversed(later):
        grown.extend(read_segment(bucket.get(segment.key))["leaf"].to_pylist())
        if (grown.size, grown.peaks) != (mark.tree.size, mark.tree.peaks):
            raise ArchiveContradiction(f"{segment.key} does not lead to the tree that is noted beside it")
