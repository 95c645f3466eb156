"""Live events: sent within a second, resumed without a gap, and ended with the session."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from console.cases.board_feed import MAX_CHANGES, CaseChange, CaseChangeBuffer, offsets_of, offsets_text
from console.people.roles import Role
from console.web.api import events
from tests.support.desk import Desk, opened
from tests.support.served import served

PATIENCE_S = 10.0


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with opened(tmp_path) as made:
        yield made


class EventStream:
    """Reader of server-sent events."""

    def __init__(self, response: httpx2.Response) -> None:
        self._lines = response.iter_lines()

    def next(self) -> dict[str, str]:
        """Return the next event; skip comments."""
        found: dict[str, str] = {}
        for line in self._lines:
            if not line and found:
                return found
            name, _, value = line.partition(": ")
            if name:
                found[name] = value
        raise EOFError

    def case(self) -> tuple[str, dict[str, Any]]:
        """Return id and content of the next event of a case."""
        found = self.next()
        while found.get("event") != "case":
            found = self.next()
        return found["id"], json.loads(found["data"])


@contextmanager
def watching(desk: Desk, address: str, **headers: str) -> Iterator[EventStream]:
    token = desk.people.start_session(desk.person(Role.ANALYST))
    cookies = {"fraudcase": token}
    with (
        httpx2.Client(base_url=address, cookies=cookies, timeout=PATIENCE_S) as client,
        client.stream("GET", "/api/v1/events", headers=headers) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        yield EventStream(response)


def test_each_event_is_sent_within_a_second_with_the_current_row(desk: Desk) -> None:
    with served(desk.app) as address, watching(desk, address) as one, watching(desk, address) as two:
        one.next()
        two.next()
        for number in range(5):
            begun = time.monotonic()
            case_id = desk.case(f"acct-{number}")
            for stream in (one, two):
                _, told = stream.case()
                assert (told["kind"], told["case_id"], told["row"]["status"]) == ("CaseOpened", case_id, "new")
            assert time.monotonic() - begun < 1


def test_returning_client_gets_each_missed_event_once(desk: Desk) -> None:
    with served(desk.app) as address:
        with watching(desk, address) as stream:
            stream.next()
            desk.case("acct-0")
            seen, _ = stream.case()
        missed = [desk.case(f"acct-{number}") for number in range(1, 4)]
        with watching(desk, address, **{"Last-Event-ID": seen}) as stream:
            heard = [stream.case()[1]["case_id"] for _ in missed]
            later = desk.case("acct-9")
            assert stream.case()[1]["case_id"] == later
        assert heard == missed


def test_client_that_missed_too_many_events_gets_a_reset(desk: Desk) -> None:
    desk.log.changes.start_from((5,))
    with served(desk.app) as address, watching(desk, address, **{"Last-Event-ID": "4"}) as stream:
        assert [stream.next().get("event"), stream.next().get("event")] == [None, "reset"]


def test_a_stream_ends_with_its_session(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "QUIET_S", 0.1)
    with served(desk.app) as address, watching(desk, address) as stream:
        stream.next()
        desk.people.set_disabled("analyst", "test", is_disabled=True)
        with pytest.raises(EOFError):
            stream.case()


def test_malformed_event_id_is_refused(desk: Desk) -> None:
    client = desk.signed_in(Role.ANALYST)
    assert client.get("/api/v1/events", headers={"Last-Event-ID": "x"}).status_code == 400


def change(offset: int) -> CaseChange:
    return CaseChange(
        partition=0, offset=offset, after=(offset + 1,), kind="k", case_id="c", sequence=offset + 1, body="{}", item={}
    )


def test_changes_are_bounded_and_report_dropped_ones() -> None:
    changes = CaseChangeBuffer((0,))
    for offset in range(MAX_CHANGES + 2):
        changes.add(change(offset))
    assert changes.missed((1,)) is None
    found = changes.missed((2,))
    assert found is not None
    assert [each.offset for each in found[:2]] == [2, 3]
    assert changes.missed((2, 0)) is None
    assert len(changes.since(0)[0]) == MAX_CHANGES


@pytest.mark.parametrize("text", ["", "a", "1..2", "-1", "1.x", "\u0661"])
def test_ids_are_offsets(text: str) -> None:
    assert offsets_of(text) is None
    assert offsets_of(offsets_text((1, 20, 300))) == (1, 20, 300)
