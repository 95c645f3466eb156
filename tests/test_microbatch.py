"""Where a partition's state stands in Flink: snapshots in one map, the journal in another."""

from collections.abc import Iterator
from typing import Any

from stream.journal import Journal, Record
from stream.microbatch import KeptState


class Map:
    """Flink's map, as thread mode shows it."""

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


def records(*offsets: int) -> list[Record]:
    return [Record(offset, 7, b"%d" % offset) for offset in offsets]


def test_a_batch_writes_to_the_journal_and_a_snapshot_empties_it() -> None:
    entries, journal = Map(), Map()
    state: Any = KeptState(entries, journal)
    state.write({"anna": b"1"})
    kept = Journal(0, state.get)
    state.write(kept.add(records(1, 2)))
    state.write(kept.add(records(3)))
    assert entries.entries == {"anna": b"1"}
    assert list(Journal(0, KeptState(entries, journal).get).read()) == records(1, 2, 3)
    state.write({"anna": None, "bela": b"2", **kept.clear()})
    assert (entries.entries, journal.entries) == ({"bela": b"2"}, {})
    assert (state.get("anna"), state.get("bela"), list(state.keys())) == (None, b"2", ["bela"])


def test_a_journal_of_earlier_code_is_read_where_it_stands_and_goes_with_the_next_snapshot() -> None:
    entries, journal = Map(), Map()
    earlier = Journal(0, entries.get)
    entries.put_all({"anna": b"1", **{key: entry for key, entry in earlier.add(records(1, 2)).items() if entry}})
    state = KeptState(entries, journal)
    kept = Journal(0, state.get)
    assert list(kept.read()) == records(1, 2)
    state.write(kept.add(records(3)))
    assert len(journal.entries) == 1
    again = Journal(0, KeptState(entries, journal).get)
    assert list(again.read()) == records(1, 2, 3)
    state.write({"anna": b"4", **kept.clear()})
    assert (entries.entries, journal.entries) == ({"anna": b"4"}, {})
