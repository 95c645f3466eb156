"""Versions of the case views without a stack: how they are built, digested, switched and found."""

import random
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from console.history import rebuild as rebuilding
from console.views.live_table import LOOK_EVERY_S, LiveCaseTable
from console.views.versions import ViewVersion, ViewVersionError, ViewVersions
from migrations.store import LockHeld, connect, exclusive_lock, upgrade
from projections.views.case_table import MemoryCaseTable, _from_dynamo, _to_dynamo
from projections.views.rebuild import (
    PartitionShard,
    ShardResult,
    build,
    divide,
    events_of,
    fold,
    item_digest,
    write_views,
)
from projections.views.worker import group_of
from tests.support.views import DECODER, TOPIC, MemoryEventLog, live, stream


@pytest.mark.parametrize("seed", range(12))
def test_rebuilt_items_equal_those_of_the_worker(seed: int) -> None:
    """For any batches of the worker, and any partitions of the rebuild."""
    known = stream(seed)
    log, wanted = MemoryEventLog(known), live(known).items
    assert live(known, random.Random(seed)).items == wanted
    for share_events in (7, 50, 10_000):
        table, written = MemoryCaseTable(), list[ShardResult]()
        shares = divide(log.ends(TOPIC), share_events)
        build(log, TOPIC, DECODER, shares, table, lambda _, what, __: written.append(what))  # noqa: B023
        assert table.items == wanted
        assert sum(each.items for each in written) == len(wanted)
        assert sum(each.events for each in written) == len(known)
        assert sum(each.digest for each in written) % (1 << 256) == item_digest(table.scan())


def test_repeated_partition_changes_nothing_and_any_changed_item_changes_the_digest() -> None:
    log, table = MemoryEventLog(stream(5)), MemoryCaseTable()
    for share in [*divide(log.ends(TOPIC), 20), *divide(log.ends(TOPIC), 20)[::-1]]:
        write_views(table, fold(events_of(log, TOPIC, share, DECODER)).items())
    before, digest = dict(table.items), item_digest(table.scan())
    for key, item in before.items():
        for name in item:
            changed = {**item, name: "x" if isinstance(item[name], str) else 7_777_777}
            table.items[key] = changed
            assert item_digest(table.scan()) != digest
        table.items[key] = item
    assert item_digest(reversed(list(table.scan()))) == digest


def test_every_key_is_in_exactly_one_partition() -> None:
    for of in (1, 2, 7):
        for number in range(50):
            assert sum(PartitionShard(0, share, of, 1).has(f"acct-{number}".encode()) for share in range(of)) == 1
    assert divide({0: 0, 1: 10, 2: 11}, 10) == [
        PartitionShard(1, 0, 1, 10),
        PartitionShard(2, 0, 2, 11),
        PartitionShard(2, 1, 2, 11),
    ]


def test_dynamodb_items_are_read_back_as_written() -> None:
    items = list(live(stream(1)).items.values())
    assert [_from_dynamo(_to_dynamo(item)) for item in items] == items
    with pytest.raises(TypeError):
        _to_dynamo({"amount": 1.5})


@pytest.fixture
def versions(engine: Engine) -> ViewVersions:
    clock = count(1_750_000_000_000)
    return ViewVersions(engine, "t.cases", lambda: next(clock))


def test_built_version_becomes_live_and_the_earlier_one_can_return(versions: ViewVersions) -> None:
    assert versions.live() == ViewVersion(number=1, table="t.cases")
    row = versions.begin("kafka", [PartitionShard(0, 0, 1, 10)])
    assert (row.version, row.table_name, row.state) == (2, "t.cases-v2", "building")
    assert versions.live().number == 1
    with pytest.raises(ViewVersionError, match="is building"):
        versions.switch(2)
    with pytest.raises(ViewVersionError, match="not finished"):
        versions.begin("s3", [])
    versions.done(2, PartitionShard(0, 0, 1, 10), ShardResult(10, 12, 99))
    [share] = versions.shares(2)
    assert (share.events, share.items, int(share.digest, 16), share.done_at_ms is None) == (10, 12, 99, False)
    versions.built(2, 12, "0" * 64)
    versions.switch(2)
    assert versions.live() == ViewVersion(number=2, table="t.cases-v2")
    assert [(row.version, row.state) for row in versions.every()] == [(1, "old"), (2, "live")]
    with pytest.raises(ViewVersionError, match="everybody reads it"):
        versions.drop(2)
    versions.switch(1)
    assert [(row.version, row.state) for row in versions.every()] == [(1, "live"), (2, "old")]
    assert versions.unfinished() is None  # this version was live: a rebuild starts a new one
    assert versions.drop(2) == "t.cases-v2"
    with pytest.raises(ViewVersionError, match="is dropped"):
        versions.switch(2)
    assert versions.begin("s3", []).version == 3  # a number is used once
    with pytest.raises(ViewVersionError, match="no version 9"):
        versions.drop(9)


def test_store_without_versions_reports_the_first_one(tmp_path: Path) -> None:
    bare = connect(f"sqlite:///{tmp_path / 'bare.db'}")
    versions = ViewVersions(bare, "cases", lambda: 1)
    assert versions.live() == ViewVersion(number=1, table="cases")
    upgrade(bare)
    versions.begin("kafka", [])
    versions.built(2, 0, "")
    versions.switch(2)
    assert versions.live().table == "cases-v2"
    bare.dispose()


def test_readers_follow_a_switch_and_keep_the_table_while_the_store_is_unreachable() -> None:
    now, live_now, asked = [0.0], [ViewVersion(number=1, table="a")], count()

    def look() -> ViewVersion:
        next(asked)
        if live_now[0].number < 0:
            raise OperationalError("the store", None, Exception("is away"))
        return live_now[0]

    tables: dict[str, MemoryCaseTable] = {}
    table = LiveCaseTable(lambda name: tables.setdefault(name, MemoryCaseTable()), look, lambda: now[0])  # type: ignore[arg-type,return-value]
    item = {"pk": "case#1", "sk": "event#1", "body": ""}
    table.put([item])
    live_now[0] = ViewVersion(number=2, table="b")
    assert table.items_of("1") == [item]  # within the half second
    now[0] += LOOK_EVERY_S
    assert table.items_of("1") == []
    assert list(tables) == ["a", "b"]
    live_now[0] = ViewVersion(number=-1, table="")
    now[0] += LOOK_EVERY_S
    assert table.now()[0].number == 2
    assert next(asked) == 3


def test_only_one_rebuild_runs_and_a_crash_releases_the_lock(engine: Engine) -> None:
    with exclusive_lock(engine, "some work"):
        with pytest.raises(LockHeld, match="some work is running already"), exclusive_lock(engine, "some work"):
            pass
        with exclusive_lock(engine, "other work"):
            pass
    code = (
        "import sys, time; from migrations.store import connect, exclusive_lock\n"
        "with exclusive_lock(connect(sys.argv[1]), 'some work'): print('in', flush=True); time.sleep(60)"
    )
    url = engine.url.render_as_string(hide_password=False)
    other = subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdout.readline() == b"in\n"
    with pytest.raises(LockHeld), exclusive_lock(engine, "some work"):
        pass
    other.kill()
    other.wait()
    other.stdout.close()
    for _ in range(100):  # PostgreSQL notices the end of a session by itself
        try:
            with exclusive_lock(engine, "some work"):
                break
        except LockHeld:
            pass
    else:
        pytest.fail("the lock outlived its holder")


def test_each_version_has_offsets_of_its_own() -> None:
    assert group_of("cases.events", 1) == "cases.events-case-views"  # its name before there were versions
    assert len({group_of("cases.events", number) for number in range(1, 50)}) == 49


def test_rebuild_modules_cannot_write_to_a_log() -> None:
    """No side effect is sent again: they contain no producer and no sender."""
    code = (
        "import sys\nimport console.history.rebuild\n"
        "bad = [m for m in sys.modules if m in ('console.webhooks.sender', 'projections.process_worker')]\n"
        "assert not bad, bad"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert not [name for name in vars(rebuilding) if "Producer" in name or "Writer" in name]
