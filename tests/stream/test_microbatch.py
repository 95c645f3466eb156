"""A partition's state in Flink: snapshots in one map, the journal in another."""

from collections.abc import Iterator
from typing import Any

import pytest

from stream.journal import FIRST_KEY, KEY, Journal, PartitionRecord
from stream.microbatch import PartitionState


class FlinkMap:
    """Flink's map state as thread mode shows it."""

    def __init__(self) -> None:
        self.entries: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        return self.entries.get(key)

    def keys(self) -> Iterator[str]:
        return iter(self.entries)

    def put_all(self, entries: dict[str, bytes]) -> None:
        self.entries.update(entries.items())

    def remove(self, key: str) -> None:
        del self.entries[key]


def records(*offsets: int) -> list[PartitionRecord]:
    return [PartitionRecord(offset, 7, b"%d" % offset) for offset in offsets]


def test_a_batch_writes_to_the_journal_and_a_snapshot_empties_it() -> None:
    entries, journal = FlinkMap(), FlinkMap()
    state: Any = PartitionState(entries, journal)
    state.write({"anna": b"1"})
    kept = Journal(0, state.get)
    state.write(kept.add(records(1, 2)))
    kept.mark()
    state.write(kept.add(records(3)))
    assert entries.entries == {"anna": b"1"}
    assert list(Journal(0, PartitionState(entries, journal).get).read()) == records(1, 2, 3)
    state.write({"anna": None, "bela": b"2", **kept.clear()})
    assert entries.entries == {"bela": b"2"}
    assert list(Journal(0, PartitionState(entries, journal).get).read()) == records(3)
    assert journal.entries.keys() == {FIRST_KEY, f"{KEY}1"}
    assert (state.get("anna"), state.get("bela"), list(state.keys())) == (None, b"2", ["bela"])


def test_journal_of_earlier_code_is_read_and_removed_by_the_next_snapshot() -> None:
    entries, journal = FlinkMap(), FlinkMap()
    earlier = Journal(0, entries.get)
    entries.put_all({"anna": b"1", **{key: entry for key, entry in earlier.add(records(1, 2)).items() if entry}})
    state = PartitionState(entries, journal)
    kept = Journal(0, state.get)
    assert list(kept.read()) == records(1, 2)
    state.write(kept.add(records(3)))
    assert len(journal.entries) == 1
    again = Journal(0, PartitionState(entries, journal).get)
    assert list(again.read()) == records(1, 2, 3)
    kept.mark()
    state.write({"anna": b"4", **kept.clear()})
    assert (entries.entries, journal.entries) == ({"anna": b"4"}, {FIRST_KEY: b"2"})


def test_long_entries_are_packed_and_unpacked_ones_of_earlier_code_are_read() -> None:
    entries, journal = FlinkMap(), FlinkMap()
    state: Any = PartitionState(entries, journal)
    alike = b"a payment much like the others, " * 100
    entries.put_all({"earlier": alike})
    state.write({"later": alike, f"{KEY}0": alike, "short": b"1"})
    assert [state.get(key) for key in ("earlier", "later", f"{KEY}0", "short")] == [alike, alike, alike, b"1"]
    assert len(entries.entries["later"]) + len(journal.entries[f"{KEY}0"]) < len(alike) / 10
    assert entries.entries["short"] == b"1"


def test_a_damaged_entry_is_refused() -> None:
    entries = FlinkMap()
    state: Any = PartitionState(entries, FlinkMap())
    state.write({"anna": bytes(range(256)) * 4})
    entries.entries["anna"] = entries.entries["anna"][:-9]
    with pytest.raises(OSError, match=r"(?i)lz4"):
        state.get("anna")
