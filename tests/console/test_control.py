"""The control store on SQLite and on a real PostgreSQL: permissions on rule packs, and recovery after a crash."""

from collections.abc import Callable
from dataclasses import replace
from threading import Thread

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, delete, update
from sqlalchemy.exc import DBAPIError

from console.rules.store import Offsets, RulePackActionError, RulePackStore
from domain.risk.default_packs import THREE
from domain.risk.events import RulesActivated
from domain.risk.fold import MAX_SHADOWS
from domain.risk.packs import RulePack, parse_pack
from migrations.models import Base, RulePackLogRow, RulePackRow
from migrations.store import upgrade

FIRST = replace(THREE, name="first")


class SecondsClock:
    """Clock that advances by one second at each reading."""

    def __init__(self) -> None:
        self.now_ms = 1_750_000_000_000

    def __call__(self) -> int:
        self.now_ms += 1_000
        return self.now_ms


@pytest.fixture
def store(engine: Engine) -> RulePackStore:
    made = RulePackStore(engine, SecondsClock())
    made.first(FIRST)
    return made


class ActivationLogs:
    """Two logs of two partitions in memory; after `crash_after` records, writing fails once."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, int], list[RulesActivated]] = {
            (topic, partition): [] for topic in ("entities", "payments") for partition in (0, 1)
        }
        self.crash_after: int | None = None

    def ends(self) -> Offsets:
        return {
            topic: {partition: len(self.records[topic, partition]) for partition in (0, 1)}
            for topic in ("entities", "payments")
        }

    def write(self, record: RulesActivated, since: Offsets) -> int:
        written = 0
        for (topic, partition), records in self.records.items():
            same = [(found.pack_id, found.mode) for found in records[since[topic][partition] :]]
            if (record.pack_id, record.mode) in same:
                continue
            if self.crash_after is not None and written == self.crash_after:
                self.crash_after = None
                raise ConnectionError("the broker is gone")
            records.append(record)
            written += 1
        return written

    @property
    def modes(self) -> list[list[str]]:
        """Return, for each partition, mode and name of each pack that was written."""
        return [[f"{found.mode} {parse_pack(found.pack).name}" for found in each] for each in self.records.values()]


@pytest.fixture
def logs() -> ActivationLogs:
    return ActivationLogs()


def pack(name: str = "strict", version: int = 1, points: int = 600) -> RulePack:
    return replace(THREE, name=name, version=version, rules=(replace(THREE.rules[0], points=points),))


def states(store: RulePackStore) -> dict[str, str]:
    return {f"{row.name}@{row.version}": f"{row.state}{'+shadow' * row.shadow}" for row in store.packs()}


def actions(store: RulePackStore, name: str) -> list[tuple[str, str]]:
    return [(entry.action, entry.actor) for entry in store.history(store.pack(name).pack_id)]


def approved(store: RulePackStore, made: RulePack) -> RulePack:
    store.draft(made, "ana")
    store.approve(f"{made.name}@{made.version}", "ben")
    return made


def test_tables_match_the_models(engine: Engine) -> None:
    upgrade(engine)  # repeating the act changes nothing
    with engine.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_new_store_has_the_default_pack_active(store: RulePackStore) -> None:
    assert states(store) == {"first@1": "active"}
    assert store.first(pack()) == FIRST.canonical  # one pack is active
    assert actions(store, "first") == [("activated", "system")]


def test_a_pack_becomes_active_after_a_second_person_approved_it(store: RulePackStore, logs: ActivationLogs) -> None:
    made = pack()
    drafted = store.draft(made, "ana")
    assert (drafted.state, drafted.author, drafted.document) == ("draft", "ana", made.canonical)
    assert store.approve("strict", "ben").approver == "ben"
    row, written = store.activate("strict", "carl", logs)
    assert (row.state, written) == ("active", 4)
    assert states(store) == {"first@1": "retired", "strict@1": "active"}
    expected = RulesActivated(pack_id=made.pack_id, pack=made.canonical, activated_by="carl")
    assert list(logs.records.values()) == [[expected]] * 4
    assert actions(store, "strict") == [
        ("drafted", "ana"), ("approved", "ben"), ("activating", "carl"), ("activated", "carl"),
    ]  # fmt: skip
    assert actions(store, "first")[-1] == ("retired", "carl")
    times = [row.drafted_at_ms, row.approved_at_ms, row.activated_at_ms]
    assert times == sorted(times)  # type: ignore[type-var]


def refused(action: Callable[[], object]) -> str:
    with pytest.raises(RulePackActionError) as caught:
        action()
    return str(caught.value)


def test_refused_act_gives_the_reason(store: RulePackStore, logs: ActivationLogs) -> None:
    store.draft(pack(), "Ana")
    assert "not approved" in refused(lambda: store.activate("strict", "ben", logs))
    assert "another person must approve it" in refused(lambda: store.approve("strict", " ana "))
    assert "there is no rule pack lax" in refused(lambda: store.approve("lax", "ben"))
    assert "version 1 already" in refused(lambda: store.draft(pack(points=1), "ben"))
    store.approve("strict", "ben")
    assert "only a draft is approved" in refused(lambda: store.approve("strict", "carl"))
    assert "activate another one" in refused(lambda: store.retire("first", "ben", logs))
    assert "cannot be a shadow of itself" in refused(lambda: store.shadow("first", "ben", logs))
    store.activate("strict", "ben", logs)
    assert logs.modes == [["active strict"]] * 4


def test_repeated_act_changes_nothing(store: RulePackStore, logs: ActivationLogs) -> None:
    approved(store, pack())
    assert [store.activate("strict", "ben", logs)[1] for _ in range(2)] == [4, 0]
    store.draft(pack(version=2), "ana")
    assert [store.shadow("strict@2", "ana", logs)[1] for _ in range(2)] == [4, 0]
    assert [store.retire("strict@2", "ana", logs)[1] for _ in range(2)] == [4, 0]
    assert store.retire("first", "ana", logs)[1] == 0
    assert len(actions(store, "strict@1")) == 4


def test_equal_content_is_one_pack(store: RulePackStore) -> None:
    store.draft(pack(), "ana")
    assert store.draft(pack(), "ben").author == "ana"
    assert len(store.packs()) == 2


def test_packs_are_found_by_name_version_and_id(store: RulePackStore) -> None:
    first, second = store.draft(pack(), "ana"), store.draft(pack(version=2), "ana")
    assert store.pack("strict").pack_id == second.pack_id
    assert store.pack("strict@1").pack_id == store.pack(first.pack_id[:8]).pack_id == first.pack_id
    assert "there is no rule pack strict@3" in refused(lambda: store.pack("strict@3"))


def test_a_shadow_pack_scores_until_it_retires(store: RulePackStore, logs: ActivationLogs) -> None:
    store.draft(pack(), "ana")
    store.shadow("strict", "ana", logs)
    assert states(store)["strict@1"] == "draft+shadow"
    store.retire("strict", "ana", logs)
    assert states(store)["strict@1"] == "retired"
    assert logs.modes == [["shadow strict", "retired-shadow strict"]] * 4


def test_number_of_shadow_packs_is_bounded(store: RulePackStore, logs: ActivationLogs) -> None:
    for version in range(1, MAX_SHADOWS + 2):
        store.draft(pack(version=version), "ana")
    for version in range(1, MAX_SHADOWS + 1):
        store.shadow(f"strict@{version}", "ana", logs)
    assert "retire one first" in refused(lambda: store.shadow("strict", "ana", logs))
    store.retire("strict@1", "ana", logs)
    store.shadow("strict", "ana", logs)


def test_shadow_pack_that_becomes_active_is_no_shadow(store: RulePackStore, logs: ActivationLogs) -> None:
    approved(store, pack())
    store.shadow("strict", "ana", logs)
    store.activate("strict", "ana", logs)
    assert states(store)["strict@1"] == "active"


def test_earlier_pack_can_be_activated_again(store: RulePackStore, logs: ActivationLogs) -> None:
    approved(store, pack())
    store.activate("strict", "ben", logs)
    store.activate("first", "ben", logs)
    store.activate("strict", "ben", logs)
    assert states(store) == {"first@1": "retired", "strict@1": "active"}
    assert logs.modes == [["active strict", "active first", "active strict"]] * 4


@pytest.mark.parametrize("written", [0, 1, 3])
def test_after_a_crash_the_same_command_writes_only_what_is_missing(
    store: RulePackStore, logs: ActivationLogs, written: int
) -> None:
    approved(store, pack())
    approved(store, pack("lax"))
    logs.crash_after = written
    with pytest.raises(ConnectionError):
        store.activate("strict", "ben", logs)
    assert states(store)["strict@1"] == "approved"
    assert "activating strict@1 by ben is unfinished" in refused(lambda: store.activate("lax", "ben", logs))
    assert "is unfinished" in refused(lambda: store.retire("strict", "ben", logs))
    row, rest = store.activate("strict", "carl", logs)
    assert (row.state, rest) == ("active", 4 - written)
    assert logs.modes == [["active strict"]] * 4
    assert actions(store, "strict")[2:] == [("activating", "ben"), ("activated", "carl")]


def test_the_log_is_append_only(store: RulePackStore, engine: Engine) -> None:
    for change in (update(RulePackLogRow).values(actor="nobody"), delete(RulePackLogRow)):
        with pytest.raises(DBAPIError, match="append-only"), engine.begin() as connection:
            connection.execute(change)
    assert actions(store, "first") == [("activated", "system")]


def test_database_enforces_one_active_pack_and_four_eyes(store: RulePackStore, engine: Engine) -> None:
    store.draft(pack(), "ana")
    mine = update(RulePackRow).where(RulePackRow.name == "strict")
    for change in (mine.values(state="active"), mine.values(approver="ana"), mine.values(state="odd")):
        with pytest.raises(DBAPIError), engine.begin() as connection:
            connection.execute(change)


def test_of_two_simultaneous_approvals_one_wins(engine: Engine, store: RulePackStore) -> None:
    for version in range(1, 11):
        store.draft(pack(version=version), "ana")
    refusals: list[str] = []

    def approve_all(actor: str) -> None:
        mine = RulePackStore(engine, SecondsClock())
        for version in range(1, 11):
            try:
                mine.approve(f"strict@{version}", actor)
            except RulePackActionError as refusal:
                refusals.append(str(refusal))

    people = [Thread(target=approve_all, args=(actor,)) for actor in ("ben", "carl")]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert len(refusals) == 10
    assert all("only a draft is approved" in refusal for refusal in refusals)
    assert {row.approver for row in store.packs() if row.name == "strict"} <= {"ben", "carl"}
