"""The verifier finds every alteration of a stored view, and reports no other; a table may be slightly ahead of its
offsets.
"""

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import start_http_server

from console.monitor.health import ConsumerGroupMonitor
from console.views.versions import ViewVersion, ViewVersions
from console.workers.view_verifier import DIFFERING, LAST_ROUND, VerificationRounds
from migrations.store import connect, upgrade
from projections.views import verifier as view_verifier
from projections.views.case_table import MemoryCaseTable
from projections.views.verifier import ViewVerifier, WorkPacer
from schemas.topics import Topics
from tests.support.views import DECODER, TOPIC, MemoryEventLog, live, stream

KNOWN = stream(4)
LOG = MemoryEventLog(KNOWN)


def checked(table: MemoryCaseTable, log: MemoryEventLog = LOG, written: dict[int, int] | None = None) -> list[str]:
    """Return the differences that a complete round reports."""
    verifier = ViewVerifier(log, TOPIC, DECODER)
    ends = log.ends(TOPIC) if written is None else written
    found = [verifier.check(shard, table, ends) for shard in verifier.shards()] + [verifier.unknown_cases(table)]
    return [message for each in found for message in each.messages]


def test_views_stored_by_the_worker_have_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    table = live(KNOWN)
    assert checked(table) == []
    monkeypatch.setattr(view_verifier, "SHARD_EVENTS", 9)
    assert checked(table) == []


def test_every_altered_field_of_every_item_is_found() -> None:
    known = stream(4, accounts=4)
    table, log = live(known), MemoryEventLog(known)
    for key, item in list(table.items.items()):
        for name in [name for name in item if name not in ("pk", "sk")]:
            table.items[key] = {**item, name: "x" if isinstance(item[name], str) else 7_777_777}
            said = checked(table, log)
            assert any(item["pk"].removeprefix("case#") in each for each in said), (key, name)
        table.items[key] = item


def test_missing_and_forged_items_are_found() -> None:
    known = stream(4, accounts=6)
    table, log = live(known), MemoryEventLog(known)
    for key, item in list(table.items.items()):
        del table.items[key]
        assert checked(table, log), key
        table.items[key] = item
    for pk, sk in (("case#nobody", "view"), (next(iter(table.items))[0], "event#0000000099")):
        table.items[pk, sk] = {"pk": pk, "sk": sk, "sequence": 1}
        assert len(checked(table, log)) == 1
        del table.items[pk, sk]


@pytest.mark.parametrize("seed", range(6))
def test_table_ahead_of_its_offsets_is_no_difference_but_behind_is_one(seed: int) -> None:
    draw = random.Random(seed)
    ends = LOG.ends(TOPIC)
    upto = {number: draw.randrange(end // 2, end) for number, end in ends.items()}
    known = MemoryEventLog([])
    known.records = {number: records[: upto[number]] for number, records in LOG.records.items()}
    part = live([each for each in KNOWN if _is_in(known, each.known_at_ms)])
    committed = {number: draw.randrange(at) for number, at in upto.items()}
    assert checked(part, LOG, committed) == []
    assert checked(part, LOG, upto) == []
    assert checked(part, LOG, ends)  # its offsets claim that it holds all events


def _is_in(log: MemoryEventLog, known_at_ms: int) -> bool:
    return any(record.timestamp_ms == known_at_ms for records in log.records.values() for record in records)


def test_view_with_a_version_beyond_the_log_is_found() -> None:
    table = live(KNOWN)
    key = next(key for key in table.items if key[1] == "view")
    table.items[key] = {**table.items[key], "sequence": 500}
    assert len(checked(table)) == 1


class LiveTable:
    """Live table with a version number."""

    def __init__(self, table: MemoryCaseTable) -> None:
        self.table, self.number = table, 1

    def now(self) -> tuple[ViewVersion, MemoryCaseTable]:
        return ViewVersion(number=self.number, table="t"), self.table


def test_rounds_cover_all_cases_and_continue_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(view_verifier, "SHARD_EVENTS", 15)
    engine = connect(f"sqlite:///{tmp_path / 'control.db'}")
    upgrade(engine)
    versions, table = ViewVersions(engine, "t", lambda: 1), LiveTable(live(KNOWN))
    key = next(key for key in table.table.items if key[1] == "view")
    original = table.table.items[key]
    table.table.items[key] = {**original, "score_max": 1}
    ends: Callable[[int], dict[int, int]] = lambda _: LOG.ends(TOPIC)  # noqa: E731

    def rounds() -> VerificationRounds:
        return VerificationRounds(ViewVerifier(LOG, TOPIC, DECODER), versions, lambda: 77)

    steps = 1
    while not rounds().step(table, ends):  # type: ignore[arg-type]  # a restart after each step
        steps += 1
    assert steps > 4
    row = versions.check()
    assert row is not None
    cases = {event.case_id for event, _ in KNOWN}
    assert (row.round, row.step, row.last_round_at_ms) == (2, 0, 77)
    assert (row.last_round_checked, row.last_round_differing) == (len(cases), 1)
    assert key[0].removeprefix("case#") in row.found
    assert "DIFFERS FROM THE LOG" in capsys.readouterr().err
    table.table.items[key] = original
    again = rounds()
    while not again.step(table, ends):  # type: ignore[arg-type]
        pass
    row = versions.check()
    assert row is not None
    assert (row.round, row.last_round_differing, row.found) == (3, 0, "[]")
    engine.dispose()


def test_pace_leaves_most_of_the_time_idle() -> None:
    waits: list[float] = []
    pace = WorkPacer(waits.append, busy_fraction=0.05)
    sum(number * number for number in range(300_000))
    pace.rest()
    pace.rest()
    assert waits[0] > 19 * 0.005
    assert waits[1] < waits[0] / 5
    time.sleep(0.05)  # the longest time that a store may take for a page, without waiting here
    pace.rest()
    assert 19 * 0.05 <= waits[2] < 19 * 5


def test_monitor_shows_the_counts_of_the_verifier() -> None:
    server, thread = start_http_server(0, addr="127.0.0.1")
    url = f"http://127.0.0.1:{server.server_address[1]}/metrics"
    version = [1]
    readers = ConsumerGroupMonitor("127.0.0.1:1", Topics(), url, url, lambda: version[0])
    try:
        DIFFERING.set(3)
        LAST_ROUND.set(1_750_000_123)
        readers._read_metrics()
        health = readers.health()
        assert health["verified"]["differing"] == 3
        assert health["verified"]["round_at_s"] == 1_750_000_123
        assert "stored views differ from the log" in health["worst"]
        DIFFERING.set(0)
        readers._read_metrics()
        assert readers.health()["worst"] == "well"
        before = readers._views.consumer
        version[0] = 4
        readers._follow_live_version()
        assert readers._views.consumer is not before
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()
    readers._read_metrics()
    assert readers.health()["verified"] is None  # the store does not answer: the page shows "unknown"
