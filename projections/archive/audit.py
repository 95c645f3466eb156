"""Audit of the archive: read every record, recompute every leaf, check every head's signature."""

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
    segment_position,
    segments,
)

Progress = Callable[[int], None]


@dataclass(slots=True)
class AuditResult:
    """Outcome of an audit. Each problem names its place; records that no head covers yet are only counted."""

    problems: list[str] = field(default_factory=list)
    heads: int = 0
    records: int = 0
    uncovered: int = 0
    last: Head | None = None


def audit(
    bucket: Bucket, public_key: bytes, kept_head: bytes | None = None, progress: Progress = lambda _: None
) -> AuditResult:
    """Check the whole archive against its heads, and the heads against the last one that the auditor kept."""
    result = AuditResult()
    signed: dict[tuple[str, int], dict[int, TreeHead]] = defaultdict(dict)
    for head in _heads(bucket, public_key, result):
        for place, tree in head.trees.items():
            signed[place].setdefault(tree.size, tree)
            if signed[place][tree.size] != tree:
                name = _partition_name(place)
                result.problems.append(f"head {head.number} has a different tree for {tree.size} records of {name}")
    if kept_head is not None:
        _check_kept_head(bucket, public_key, kept_head, result)
    for place in sorted({*signed, *_archived_partitions(bucket)}):
        _check_partition(bucket, place, signed[place], result, progress)
    return result


def _heads(bucket: Bucket, public_key: bytes, result: AuditResult) -> Iterator[Head]:
    numbers = head_numbers(bucket)
    if numbers != list(range(1, len(numbers) + 1)):
        missing = sorted(set(range(1, numbers[-1] + 1)) - set(numbers))[:5]
        result.problems.append(f"heads are missing: {', '.join(map(str, missing))}")
    if not numbers:
        result.problems.append("there is no head: no part of the archive is signed")
    for number in numbers:
        try:
            head = read_head(bucket.get(head_key(number)) or b"", public_key)
        except BadHead as error:
            result.problems.append(f"head {number}: {error}")
            continue
        _check_order(number, head, result)
        result.heads, result.last = result.heads + 1, head
        yield head


def _check_order(number: int, head: Head, result: AuditResult) -> None:
    before = result.last
    if head.number != number:
        result.problems.append(f"head {number}: the object contains head {head.number}")
    if before is None:
        if number == 1 and head.previous is not None:
            result.problems.append("head 1 names a previous head")
        return
    if before.number == number - 1 and head.previous != before.sha256:
        result.problems.append(f"head {number} does not follow head {before.number}")
    for place, tree in before.trees.items():
        if place not in head.trees or head.trees[place].size < tree.size:
            name = _partition_name(place)
            result.problems.append(f"head {number} has fewer records of {name} than head {before.number}")


def _check_kept_head(bucket: Bucket, public_key: bytes, kept_head: bytes, result: AuditResult) -> None:
    try:
        head = read_head(kept_head, public_key)
    except BadHead as error:
        result.problems.append(f"the kept head: {error}")
        return
    last = 0 if result.last is None else result.last.number
    if head.number > last:
        result.problems.append(
            f"head {head.number} was kept, but the last head here is {last}: the archive was rolled back"
        )
    elif bucket.get(head_key(head.number)) != head.body:
        result.problems.append(f"head {head.number} differs from the kept one: the archive was rewritten")


def _archived_partitions(bucket: Bucket) -> Iterator[tuple[str, int]]:
    folders = {key.rpartition("/")[0] for key in bucket.keys("log/")}
    for folder in folders:
        _, topic, partition = folder.rsplit("/", 2)
        yield topic, int(partition.removeprefix("partition="))


def _check_partition(
    bucket: Bucket, place: tuple[str, int], signed: dict[int, TreeHead], result: AuditResult, progress: Progress
) -> None:
    """Read a partition from its start and compare its tree at each size that a head has signed."""
    tree, cases = Frontier(), CaseCounts() if place[0].endswith("cases.events") else None
    schemas, matches_heads, covered = SchemaArchive(bucket), True, -1
    for segment in segments(bucket, partition_folder(*place)):
        if segment.first_offset <= covered:
            result.problems.append(f"{segment.key} begins before the end of the previous segment")
        for row in _rows(bucket, segment, result):
            record = row_record(bucket, row)
            name = f"the record at {record.topic} partition {record.partition} offset {record.offset}"
            leaf = row_leaf(record, row, schemas)
            if row["leaf"] not in (None, leaf) or record_sha256(record) != row["sha256"]:
                result.problems.append(f"{name} was altered")
            if (record.topic, record.partition) != place:
                result.problems.append(f"{name} is stored in {segment.key}")
            tree.add(leaf)
            if cases is not None and row["identity"] is not None:
                cases.extend([row["identity"]])
            if matches_heads and tree.size in signed:
                matches_heads = _matches_head(signed[tree.size], tree, cases, result)
            result.records += 1
            if result.records % 1000 == 0:
                progress(result.records)
        covered = _check_segment_metadata(bucket, segment, tree, result)
    last = max(signed, default=0)
    if tree.size < last:
        name = _partition_name(place)
        result.problems.append(f"{name} has {tree.size} records, but {last} were signed: records are missing")
    result.uncovered += max(0, tree.size - last)


def _rows(bucket: Bucket, segment: Segment, result: AuditResult) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = read_segment(bucket.get(segment.key)).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        result.problems.append(f"segment {segment.key} cannot be read: {error}")
        return []
    return rows


def _check_segment_metadata(bucket: Bucket, segment: Segment, tree: Frontier, result: AuditResult) -> int:
    """Return the last offset in a segment's metadata; add a problem if the metadata does not match the tree."""
    try:
        mark = segment_position(bucket, segment)
        last_offset = int(bucket.metadata(segment.key)["last-offset"])
    except (KeyError, ValueError) as error:
        result.problems.append(f"{segment.key}: its metadata cannot be read: {error}")
        return segment.first_offset
    if mark is not None and (mark.tree.size, mark.tree.peaks) != (tree.size, tree.peaks):
        result.problems.append(f"{segment.key}: its metadata does not match the tree up to its end")
    return last_offset


def _matches_head(signed: TreeHead, tree: Frontier, cases: CaseCounts | None, result: AuditResult) -> bool:
    place = _partition_name((signed.topic, signed.partition))
    if signed.root != tree.root().hex():
        result.problems.append(f"{place}: the first {tree.size} records differ from the signed ones")
        return False
    if cases is not None and signed.cases != cases.root().hex():
        result.problems.append(f"{place}: the counts of cases after {tree.size} records differ from the signed ones")
        return False
    return True


def _partition_name(place: tuple[str, int]) -> str:
    return f"{place[0]} partition {place[1]}"
