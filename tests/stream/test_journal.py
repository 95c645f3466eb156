"""The times at which the partitions of one task write their state: one write pauses all partitions of its thread."""

from itertools import pairwise

import pytest

from stream.journal import MAX_RECORDS, Journal, PartitionRecord

BATCH = 100


def snapshots(partition: int, records: int) -> list[int]:
    """Return the record counts at which a partition writes its state. No earlier state exists."""
    journal, found = Journal(partition, lambda _: None), list[int]()
    for number in range(0, records, BATCH):
        journal.add([PartitionRecord(number, 0, b"")] * BATCH)
        if journal.is_full:
            journal.mark()
            assert len(journal.clear()) > 1
            found.append(number)
    return found


@pytest.mark.parametrize("partitions", [2, 8, 12])
def test_equally_filled_partitions_write_their_state_one_after_the_other(partitions: int) -> None:
    every = [snapshots(partition, 4 * MAX_RECORDS) for partition in range(partitions)]
    moments = sorted(moment for found in every for moment in found)
    assert min(later - earlier for earlier, later in pairwise(moments)) > MAX_RECORDS / partitions / 3
    for found in every:
        assert all(later - earlier <= MAX_RECORDS + BATCH for earlier, later in pairwise([0, *found]))


def test_restart_reads_the_records_since_the_last_snapshot_started() -> None:
    kept: dict[str, bytes | None] = {}
    records = [PartitionRecord(number, 7, b"%d" % number) for number in range(5)]
    journal = Journal(5, kept.get)
    for record in records[:3]:
        kept |= journal.add([record])
    journal.mark()
    kept |= journal.add(records[3:4])
    assert list(Journal(5, kept.get).read()) == records[:4], "the snapshot is not written yet"
    kept |= journal.clear()
    again = Journal(5, kept.get)
    assert list(again.read()) == records[3:4]
    kept |= again.add(records[4:])
    assert list(Journal(5, kept.get).read()) == records[3:]
