"""Caches that make pages fast never show outdated data."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from console.bench.console import ANALYSTS, case_id_of, choose_page, synthetic_case
from console.cases import timelines
from console.cases.seen_payment import SeenPayment
from console.cases.timelines import TimelineCache, join_items
from console.people.roles import Role
from console.web.pages.case_evidence import CaseFlag, build_evidence
from console.web.pages.rendering import QueueRowCache
from projections.logs.known import KnownEvent
from projections.views.case_table import MemoryCaseTable
from projections.views.case_view import Item
from projections.views.worker import ViewProjector
from tests.support.desk import NOON, Desk, opened


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with opened(tmp_path) as made:
        yield made


def test_cached_case_page_shows_later_events(desk: Desk) -> None:
    case_id, client = desk.case(score=700), desk.signed_in(Role.ANALYST, name="ana")
    for _ in range(2):
        assert "tx-acct-1-2" not in client.get(f"/cases/{case_id}").text
    assert desk.services.timelines.kept_items(case_id) is not None
    desk.clock.now_ms += 5_000
    desk.flag(score=710)
    assert client.get(f"/cases/{case_id}").text.count("tx-acct-1-2") >= 1
    assert len(client.get(f"/api/v1/cases/{case_id}/timeline").json()["entries"]) == 2


def test_page_and_timeline_together_read_the_table_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    case_id, client, asked = desk.case(), desk.signed_in(Role.ANALYST), list[str]()
    read = desk.log.table.items_of

    def items_of(case_id: str) -> list[Item]:
        asked.append(case_id)
        return read(case_id)

    monkeypatch.setattr(desk.log.table, "items_of", items_of)
    for path in (f"/cases/{case_id}", f"/api/v1/cases/{case_id}/timeline", f"/cases/{case_id}?by=happened"):
        assert client.get(path).status_code == 200
    assert asked == [case_id]


def test_a_page_does_not_wait_for_the_view_worker(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    case_id, client = desk.case(score=700), desk.signed_in(Role.ANALYST)
    desk.flag(score=710)
    stored = desk.log.table.items_of(case_id)
    first = [item for item in stored if item["sk"].endswith("1")]
    assert len(first) == 1
    monkeypatch.setattr(desk.log.table, "items_of", lambda _: first)
    assert "tx-acct-1-2" in client.get(f"/cases/{case_id}").text
    entries = client.get(f"/api/v1/cases/{case_id}/timeline").json()["entries"]
    assert [each["event"] for each in entries] == [json.loads(item["body"]) for item in stored if item["sk"] != "view"]


def test_joined_items_keep_the_earliest_copy_of_each_event() -> None:
    def item(place: str, known_at_ms: int) -> Item:
        return {"pk": "case#1", "sk": place, "known_at_ms": known_at_ms}

    stored = [item("event#1", 1), item("event#2", 2)]
    fresh = [item("event#2", 9), item("event#3", 3), item("event#3", 9), item("answer#a", 4)]
    assert [(each["sk"], each["known_at_ms"]) for each in join_items(stored, fresh)] == [
        ("answer#a", 4), ("event#1", 1), ("event#2", 2), ("event#3", 3),
    ]  # fmt: skip


def test_cached_log_events_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timelines, "MAX_FRESH", 2)
    found = TimelineCache(MemoryCaseTable())
    for case_id in ("a", "b", "a", "b"):
        found.changed(case_id, {"sk": f"event#{len(found._fresh)}", "kind": "NoteAdded", "body": "{}"})
    assert list(found._fresh) == ["a", "b"]
    assert {case_id: len(items) for case_id, items in found._fresh_of.items()} == {"a": 1, "b": 1}
    found.changed("b", {"sk": "event#9", "kind": "NoteAdded", "body": "{}"})
    assert set(found._fresh_of) == {"b"}
    assert found.read_items("a") == []


def test_a_timeline_that_missed_an_event_is_read_again(desk: Desk) -> None:
    case_id, client = desk.case(score=700), desk.signed_in(Role.ANALYST)
    path = f"/api/v1/cases/{case_id}/timeline"
    assert client.get(path).json()["total"] == 1
    desk.log.changes.tell(lambda _: None)  # as after a restart of the board: it has not read the next event
    desk.flag(score=710)
    assert client.get(path).json()["total"] == 2
    assert desk.services.timelines.kept(case_id, 2) is not None


def note(case_id: str, number: int) -> Item:
    return {"pk": f"case#{case_id}", "sk": f"event#{number:09}", "kind": "NoteAdded", "body": f'{{"n":{number}}}'}


def full_table(**cases: int) -> MemoryCaseTable:
    """Return a table of cases with this number of events each."""
    table = MemoryCaseTable()
    table.put([note(case_id, number) for case_id, many in cases.items() for number in range(many)])
    return table


def test_cached_table_rows_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timelines, "MAX_ENTRIES", 12)
    monkeypatch.setattr(timelines, "MAX_PACKED", 0)
    table = full_table(a=3, b=3, c=2, long=40)
    found = TimelineCache(table)
    for case_id in ("a", "b", "c"):
        assert found.read_items(case_id) == table.items_of(case_id)
    for number in (1, 2, 2, 3):
        found.changed("c", note("c", number))
    assert found.kept_items("a") is None, "the least recently read one is evicted"
    assert found.kept_items("b") == table.items_of("b")
    assert found.kept_items("c") == [note("c", number) for number in range(4)], "each item is listed once"
    found.read_items("long")
    assert found.kept_items("c") is None
    assert found.kept_items("long") == table.items_of("long"), "a long timeline is cached alone"


def test_evicted_timelines_are_packed_and_the_table_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timelines, "MAX_ENTRIES", 8)
    table = full_table(a=3, b=5, c=2, late=1)
    found = TimelineCache(table)
    found.changed("b", note("b", 5))  # the log is ahead of the table when the table is read
    for case_id in ("a", "b", "c"):
        found.stored(case_id, table.items_of(case_id))
    found.changed("c", note("c", 2))
    monkeypatch.setattr(table, "items_of", lambda _: pytest.fail("the table was asked"))
    draw = random.Random(1)
    expected = {
        case_id: [note(case_id, number) for number in range(many)] for case_id, many in (("a", 3), ("b", 6), ("c", 3))
    }
    for _ in range(300):
        case_id = draw.choice("abc")
        if draw.random() < 0.1:
            item = note(case_id, len(expected[case_id]))
            expected[case_id].append(item)
            found.changed(case_id, item)
        else:
            assert found.items(case_id) == expected[case_id]
            entries = found.kept(case_id)
            assert entries is not None
            assert [entry.place for entry in sorted(entries)] == [item["sk"] for item in expected[case_id]]
        assert found._packed.keys().isdisjoint(found._kept)
        assert found._packed_bytes == sum(map(len, found._packed.values()))
        assert found._entries == sum(1 + len(kept.items) for kept in found._kept.values())
    assert found.kept_items("late") is None
    found.stored("c", [note("c", 0)])
    assert found.items("c") == expected["c"], "events that the table lacks are kept"


def test_page_shows_the_end_of_a_long_timeline_and_all_of_it_on_request(desk: Desk) -> None:
    case_id, client = desk.case(score=700), desk.signed_in(Role.ANALYST)
    for _ in range(44):
        desk.clock.now_ms += 1_000
        desk.flag(score=710)
    total = client.get(f"/api/v1/cases/{case_id}/timeline").json()["total"]
    assert total >= 45
    brief = client.get(f"/cases/{case_id}").text
    assert (brief.count('id="event-'), brief.count('id="flag-')) == (40, 6)
    assert f">Timeline <small>{total}</small>" in brief
    assert f"Show all {total}" in brief
    assert "Show 39 earlier flags" in brief
    assert f'id="event-{total}"' in brief
    assert 'id="event-5"' not in brief
    asked = f"/cases/{case_id}?by=known&amp;whole=true"
    assert f'href="{asked}"' in brief
    whole = client.get(asked.replace("&amp;", "&")).text
    assert (whole.count('id="event-'), whole.count('id="flag-')) == (total, 45)
    assert "Show all" not in whole
    assert f'hx-get="/cases/{case_id}?by=happened&amp;whole=true"' in whole, "the other order shows all events too"


def test_payments_at_one_location_are_one_dot_with_their_number() -> None:
    def flag(number: int, country: str) -> CaseFlag:
        paid = SeenPayment(
            transaction_id=f"tx-{number}", event_time=NOON, amount_minor=100, currency="EUR", country=country
        )
        return CaseFlag(
            flag_id=f"f-{number}", payment=paid, score=700, rules=("velocity",), reasons=(), card_id=None,
            device_id=None, terminal_id=None, sequence=number,
        )  # fmt: skip

    places = build_evidence([flag(1, "DE"), flag(2, "DE"), flag(3, "FR")], {}).places
    assert sorted(place.label.partition(" at ")[0] for place in places) == ["1.00 EUR", "2 payments, 2 of them flagged"]


def test_row_is_rendered_once_for_each_case_version_and_kind_of_reader(desk: Desk) -> None:
    view = desk.log.board.view(desk.case(account_id="<b>bold</b>"))
    assert view is not None
    rows = QueueRowCache()
    first = rows.row(view, may_choose=False)
    assert rows.row(view, may_choose=False) is first
    assert "<b>bold" not in first
    assert "&lt;b&gt;bold" in first
    assert 'name="case"' not in first
    assert f'value="{view.case_id}@{view.sequence}"' in rows.row(view, may_choose=True)
    desk.flag(account_id="<b>bold</b>", score=990)
    after = desk.log.board.view(view.case_id)
    assert after is not None
    assert "990" in rows.row(after, may_choose=False)
    assert "990" not in first


def test_every_request_of_the_console_benchmark_is_answered(desk: Desk) -> None:
    projector, client = ViewProjector(desk.log.table), desk.signed_in(Role.ANALYST, name=ANALYSTS[0])
    for number in range(30):
        events = synthetic_case(number, 1)
        projector.apply([KnownEvent(event, NOON) for event in events])
        for event in events:
            desk.log.board.apply(event)
    draw, kinds = random.Random(5), set()
    for _ in range(150):
        kind, path = choose_page(draw, 30, [case_id_of(3)])
        kinds.add(kind)
        answer = client.get(path.replace("cursor=NEXT", ""))
        assert answer.status_code == 200, (kind, path, answer.text[:300])
    assert {"queue", "queue page", "case", "case page", "timeline"} <= kinds
