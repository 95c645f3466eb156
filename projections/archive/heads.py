"""Signed, numbered heads: `heads/{number}.json` holds the state of all trees of the archive at signing time.

A head holds the size and root of every partition's tree, the largest Kafka timestamp below them, its number, and the
SHA-256 of the previous head. A reader who keeps the last head can detect an archive that was rolled back, truncated or
rewritten, even by the owner of the key.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol

from domain.digest import canonical_json
from projections.archive.bucket import Bucket
from projections.archive.case_counts import CaseCounts
from projections.archive.segments import ArchivePosition, partition_folder, read_segment, segment_position, segments
from projections.archive.signing import Signer, fingerprint, is_signed

FORMAT = "fraudcase head v1"
FOLDER = "heads/"


class BadHead(ValueError):
    """Error: bytes that are not a valid head. The message says why."""


class ArchiveContradiction(Exception):
    """Error: the archive does not match its last head, so no further head may be signed."""


class ArchivedPartition(Protocol):
    """A partition with its archive position."""

    topic: str
    partition: int
    archive_position: ArchivePosition
    cases: CaseCounts | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeHead:
    """The tree of one partition; for case events also the root of the tree of case counts."""

    topic: str
    partition: int
    size: int
    root: str
    last_offset: int
    cases: str | None

    def fields(self) -> dict[str, Any]:
        """Return the fields as a head holds them, without those that are None."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True)
class Head:
    """A head with the bytes that it was read from."""

    number: int
    time_ms: int
    records: int
    trees: Mapping[tuple[str, int], TreeHead]
    previous: str | None
    key: str
    body: bytes

    @property
    def sha256(self) -> str:
        """Return the SHA-256 by which the next head names this one."""
        return sha256(self.body).hexdigest()


def head_key(number: int) -> str:
    """Return the key of a head's object."""
    return f"{FOLDER}{number:012d}.json"


def make_head(signer: Signer, before: Head | None, trees: Iterable[TreeHead], time_ms: int) -> Head:
    """Sign the head that follows another one."""
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
    """Parse a head and check its signature. Raises BadHead if the signature or the canonical form is wrong."""
    try:
        document = json.loads(body)
        signature = bytes.fromhex(document["signature"])
        unsigned = canonical_json({name: value for name, value in document.items() if name != "signature"})
        if not is_signed(public_key, signature, FORMAT.encode() + b"\n" + unsigned):
            raise BadHead(f"it is not signed by the key {fingerprint(public_key)}")
        if document["format"] != FORMAT or canonical_json(document) != body:
            raise BadHead("it is not in the canonical form of a head")
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
    """Return the numbers of all stored heads in ascending order."""
    names = (key.removeprefix(FOLDER).removesuffix(".json") for key in bucket.keys(FOLDER))
    return [int(name) for name in names if name.isdecimal()]


def stored_head(bucket: Bucket, number: int, public_key: bytes) -> Head | None:
    """Return a stored head by its number, or None if it does not exist. Raises BadHead."""
    body = bucket.get(head_key(number))
    return None if body is None else read_head(body, public_key)


class HeadWriter:
    """Signer of consecutive heads over the stored records of all partitions.

    It continues from the last head in the bucket. It first checks that the archive matches this head, and the segments
    that follow it. `kept_head` is the last head signed by this installation, if it was kept. Raises
    ArchiveContradiction.
    """

    def __init__(
        self, bucket: Bucket, signer: Signer, writers: Iterable[ArchivedPartition], kept_head: bytes | None = None
    ) -> None:
        self._bucket, self._signer, self._writers = bucket, signer, list(writers)
        self.last: Head | None = None
        self._resume()
        if kept_head is not None:
            number = read_head(kept_head, signer.public_key).number
            if bucket.get(head_key(number)) != kept_head:
                raise ArchiveContradiction(
                    f"head {number}, the last one signed here, is not in the bucket: the archive was rolled back"
                )

    @property
    def number(self) -> int:
        """Return the number of heads."""
        return 0 if self.last is None else self.last.number

    def _resume(self) -> None:
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
        """Sign and store the next head; return None if nothing is new. Raises ArchiveContradiction."""
        while True:
            trees = {(tree.topic, tree.partition): tree for tree in self._trees()}
            before = {} if self.last is None else self.last.trees
            for place, tree in before.items():
                if place not in trees or trees[place].size < tree.size:
                    trees[place] = tree  # written by another worker; our writer has not read it yet
                elif trees[place].size == tree.size and trees[place] != tree:
                    raise ArchiveContradiction(
                        f"{place[0]} partition {place[1]}: two different trees of {tree.size} records"
                    )
            if trees == before:
                return None
            time_ms = max((writer.archive_position.time_ms for writer in self._writers), default=0)
            head = make_head(self._signer, self.last, trees.values(), time_ms)
            if self._bucket.put_new(head_key(head.number), head.body):
                self.last = head
                return head
            taken = self._bucket.get(head_key(head.number))
            if taken == head.body:  # an earlier attempt succeeded without an acknowledgement
                self.last = head
                return head
            self._resume()

    def _trees(self) -> Iterator[TreeHead]:
        for writer in self._writers:
            if writer.archive_position.tree.size:
                yield tree_head(writer)


def tree_head(writer: ArchivedPartition) -> TreeHead:
    """Return a partition's entry in a head."""
    return TreeHead(
        topic=writer.topic,
        partition=writer.partition,
        size=writer.archive_position.tree.size,
        root=writer.archive_position.tree.root().hex(),
        last_offset=writer.archive_position.last_offset,
        cases=None if writer.cases is None else writer.cases.root().hex(),
    )


def check_tree(bucket: Bucket, tree: TreeHead) -> None:
    """Raise ArchiveContradiction unless a segment ended with this tree and later segments extend it correctly."""
    later = []
    for segment in reversed(segments(bucket, partition_folder(tree.topic, tree.partition))):
        mark = segment_position(bucket, segment)
        if mark is None:
            return  # an early segment without a tree: `fraudcase audit verify` reads all of its records
        if mark.tree.size <= tree.size:
            break
        later.append((segment, mark))
    else:
        mark = None
    if mark is None or (mark.tree.size, mark.tree.root().hex()) != (tree.size, tree.root):
        raise ArchiveContradiction(
            f"{tree.topic} partition {tree.partition}: no segment ends with the {tree.size} records that were signed"
        )
    grown = mark.tree.copy()
    for segment, mark in reversed(later):
        grown.extend(read_segment(bucket.get(segment.key))["leaf"].to_pylist())
        if (grown.size, grown.peaks) != (mark.tree.size, mark.tree.peaks):
            raise ArchiveContradiction(f"{segment.key}: its records do not match the tree in its metadata")
