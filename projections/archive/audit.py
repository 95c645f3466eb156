"""Is the archive what its heads say? Every record is read, every leaf made again, every head's signature checked."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from projections.archive.bucket import Bucket
from projections.archive.case_counts import CaseCounts
from projections.archive.heads import BadHead, Head, TreeHead, head_key, head_numbers, read_head
from projections.archive.merkle import Frontier
from projections.archive.segments import (
    SchemaArchive,
    Segment,
    partition_folder,
    read_segment,
    record_sha256,
    row_leaf,
    row_record,
    segment_mark,
    segments,
)

Progress = Callable[[int], None]


@dataclass(slots=True)
class AuditResult:
    """What came out. Problems name the place; what no head covers yet is only counted."""

    problems: list[str] = field(default_factory=list)
    heads: int = 0
    records: int = 0
    uncovered: int = 0
    last: Head | None = None


def audit(
    bucket: Bucket, public_key: bytes, seen: bytes | None = None, progress: Progress = lambda _: None
) -> AuditResult:
    """Check the whole archive against its heads, and these against the last one that somebody has seen."""
    found = AuditResult()
    signed: dict[tuple[str, int], dict[int, TreeHead]] = defaultdict(dict)
    for head in _heads(bucket, public_key, found):
        for place, tree in head.trees.items():
            signed[place].setdefault(tree.size, tree)
            if signed[place][tree.size] != tree:
                found.problems.append(f"head {head.number} has another tree of {tree.size} records of {_name(place)}")
    if seen is not None:
        _check_seen(bucket, public_key, seen, found)
    for place in sorted({*signed, *_places(bucket)}):
        _check_partition(bucket, place, signed[place], found, progress)
    return found


def _heads(bucket: Bucket, public_key: bytes, found: AuditResult) -> Iterator[Head]:
    numbers = head_numbers(bucket)
    if numbers != list(range(1, len(numbers) + 1)):
        missing = sorted(set(range(1, numbers[-1] + 1)) - set(numbers))[:5]
        found.problems.append(f"heads are missing: {', '.join(map(str, missing))}")
    if not numbers:
        found.problems.append("there is no head: nothing of the archive is signed")
    for number in numbers:
        try:
            head = read_head(bucket.get(head_key(number)) or b"", public_key)
        except BadHead as error:
            found.problems.append(f"head {number}: {error}")
            continue
        _check_order(number, head, found)
        found.heads, found.last = found.heads + 1, head
        yield head


def _check_order(number: int, head: Head, found: AuditResult) -> None:
    before = found.last
    if head.number != number:
        found.problems.append(f"head {number} is really head {head.number}")
    if before is None:
        if number == 1 and head.previous is not None:
            found.problems.append("head 1 names one before it")
        return
    if before.number == number - 1 and head.previous != before.sha256:
        found.problems.append(f"head {number} does not follow head {before.number}")
    for place, tree in before.trees.items():
        if place not in head.trees or head.trees[place].size < tree.size:
            found.problems.append(f"head {number} has fewer records of {_name(place)} than head {before.number}")


def _check_seen(bucket: Bucket, public_key: bytes, seen: bytes, found: AuditResult) -> None:
    try:
        head = read_head(seen, public_key)
    except BadHead as error:
        found.problems.append(f"the head that was seen: {error}")
        return
    last = 0 if found.last is None else found.last.number
    if head.number > last:
        found.problems.append(f"head {head.number} was seen, the last one here is {last}: the archive was rolled back")
    elif bucket.get(head_key(head.number)) != head.body:
        found.problems.append(f"head {head.number} is another one than was seen: the archive was rewritten")


def _places(bucket: Bucket) -> Iterator[tuple[str, int]]:
    folders = {key.rpartition("/")[0] for key in bucket.keys("log/")}
    for folder in folders:
        _, topic, partition = folder.rsplit("/", 2)
        yield topic, int(partition.removeprefix("partition="))


def _check_partition(
    bucket: Bucket, place: tuple[str, int], signed: dict[int, TreeHead], found: AuditResult, progress: Progress
) -> None:
    """Read a partition from its start, and stop at every size that a head has signed."""
    tree, cases = Frontier(), CaseCounts() if place[0].endswith("cases.events") else None
    schemas, is_right, covered = SchemaArchive(bucket), True, -1
    for segment in segments(bucket, partition_folder(*place)):
        if segment.first_offset <= covered:
            found.problems.append(f"{segment.key} begins before the segment before it ends")
        for row in _rows(bucket, segment, found):
            record = row_record(bucket, row)
            name = f"the record at {record.topic} partition {record.partition} offset {record.offset}"
            leaf = row_leaf(record, row, schemas)
            if row["leaf"] not in (None, leaf) or record_sha256(record) != row["sha256"]:
                found.problems.append(f"{name} was altered")
            if (record.topic, record.partition) != place:
                found.problems.append(f"{name} lies in {segment.key}")
            tree.add(leaf)
            if cases is not None and row["identity"] is not None:
                cases.extend([row["identity"]])
            if is_right and tree.size in signed:
                is_right = _is_right(signed[tree.size], tree, cases, found)
            found.records += 1
            if found.records % 1000 == 0:
                progress(found.records)
        covered = _noted(bucket, segment, tree, found)
    last = max(signed, default=0)
    if tree.size < last:
        found.problems.append(f"{_name(place)} has {tree.size} records, {last} were signed: records are missing")
    found.uncovered += max(0, tree.size - last)


def _rows(bucket: Bucket, segment: Segment, found: AuditResult) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = read_segment(bucket.get(segment.key)).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        found.problems.append(f"segment {segment.key} cannot be read: {error}")
        return []
    return rows


def _noted(bucket: Bucket, segment: Segment, tree: Frontier, found: AuditResult) -> int:
    """The last offset that is noted beside a segment, if that and the tree are what they should be."""
    try:
        mark = segment_mark(bucket, segment)
        last_offset = int(bucket.metadata(segment.key)["last-offset"])
    except (KeyError, ValueError) as error:
        found.problems.append(f"{segment.key}: what is noted beside it cannot be read: {error}")
        return segment.first_offset
    if mark is not None and (mark.tree.size, mark.tree.peaks) != (tree.size, tree.peaks):
        found.problems.append(f"{segment.key}: what is noted beside it is not the tree up to there")
    return last_offset


def _is_right(signed: TreeHead, tree: Frontier, cases: CaseCounts | None, found: AuditResult) -> bool:
    place = _name((signed.topic, signed.partition))
    if signed.root != tree.root().hex():
        found.problems.append(f"{place}: the first {tree.size} records are not those that were signed")
        return False
    if cases is not None and signed.cases != cases.root().hex():
        found.problems.append(f"{place}: the counts of cases after {tree.size} records are not what was signed")
        return False
    return True


def _name(place: tuple[str, int]) -> str:
    return f"{place[0]} partition {place[1]}"
