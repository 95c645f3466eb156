"""Cases over the API: the queue, the results of commands, and the events that watchers get."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from console.people.roles import Role
from domain.cases.events import ClockTicked
from domain.cases.state import SLA_MS
from tests.support.desk import NOON, Desk, opened

pytestmark = pytest.mark.no_cover  # line counting makes folds three times slower, and other tests cover this code

PAN = "4111 1111 1111 1111"
MASKED = "[card number ending 1111]"
NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with opened(tmp_path) as made:
        yield made


def act(client: TestClient, case_id: str, slug: str, seen: int | None, key: str | None = None, **body: Any) -> Response:
    headers = {"If-Match": f'"{seen}"'} if seen is not None else {}
    if key:
        headers["Idempotency-Key"] = key
    return client.post(f"/api/v1/cases/{case_id}/{slug}", json=body, headers=headers)


def ids(response: Response) -> list[str]:
    return [row["case_id"] for row in response.json()["cases"]]


def test_the_queue_is_sorted_filtered_and_paged(desk: Desk) -> None:
    for number in range(25):
        desk.clock.now_ms += 1_000
        desk.case(f"acct-{number:02}", score=500 + number % 5, typology="a" if number % 2 else "b")
    client = desk.signed_in(Role.ANALYST)
    pages, cursor = [], None
    while True:
        answer = client.get("/api/v1/queue", params={"limit": 10, **({"cursor": cursor} if cursor else {})}).json()
        pages.append(answer["cases"])
        cursor = answer["next"]
        if cursor is None:
            break
    rows = [row for page in pages for row in page]
    assert [len(page) for page in pages] == [10, 10, 5]
    assert answer["total"] == 25
    assert rows == sorted(rows, key=lambda row: (-row["score_max"], row["opened_at_ms"], row["case_id"]))
    found = client.get("/api/v1/queue", params={"typology": "a", "score_from": 503, "sort": "-opened"}).json()["cases"]
    expected = [row for row in rows if row["typology"] == "a" and row["score_max"] >= 503]
    assert found == sorted(expected, key=lambda row: -row["opened_at_ms"])
    assert client.get("/api/v1/queue", params={"status": ["closed", "snoozed"]}).json()["total"] == 0
    assert client.get("/api/v1/queue/counts").json()["statuses"]["new"] == 25


def test_queue_by_due_time_ends_with_cases_without_deadline_in_a_total_order(desk: Desk) -> None:
    for number in range(6):
        desk.clock.now_ms += 1_000
        desk.case(f"acct-{number}", score=950 if number % 2 else 500)  # the former are escalated and have no deadline
    client = desk.signed_in(Role.ANALYST)
    rows, cursor = [], ""
    while cursor is not None:
        answer = client.get(
            "/api/v1/queue", params={"sort": "due", "limit": 1, **({"cursor": cursor} if cursor else {})}
        )
        rows += answer.json()["cases"]
        cursor = answer.json()["next"]
    assert [row["account_id"] for row in rows] == [f"acct-{number}" for number in (0, 2, 4, 5, 3, 1)]
    assert [row["sla_due_ms"] is None for row in rows] == [False] * 3 + [True] * 3


@pytest.mark.parametrize(
    "params",
    [{"sort": "name"}, {"limit": 0}, {"limit": 201}, {"cursor": "x"}, {"cursor": "W10"}, {"colour": "red"}],
)
def test_queue_refuses_unknown_parameters(desk: Desk, params: dict[str, Any]) -> None:
    answer = desk.signed_in(Role.ANALYST).get("/api/v1/queue", params=params)
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_case_with_its_version_and_timeline(desk: Desk) -> None:
    case_id = desk.case(event_time=NOON - 9_000)
    desk.clock.now_ms += 5
    desk.flag(event_time=NOON - 90_000)
    client = desk.signed_in(Role.AUDITOR)
    answer = client.get(f"/api/v1/cases/{case_id}")
    assert (answer.json()["sequence"], answer.headers["etag"]) == (2, '"2"')
    assert client.get(f"/api/v1/cases/{case_id}", headers={"If-None-Match": '"2"'}).status_code == 304
    path = f"/api/v1/cases/{case_id}/timeline"
    known, happened = (client.get(path, params={"order": order}).json() for order in ("known", "happened"))
    assert [entry["sequence"] for entry in known["entries"]] == [1, 2]
    assert [entry["sequence"] for entry in happened["entries"]] == [2, 1]
    assert [entry["known_at_ms"] for entry in known["entries"]] == [NOON, NOON + 5]
    assert known["entries"][0]["event"]["type"] == "CaseOpened"
    page = client.get(path, params={"limit": 1}).json()
    assert (page["total"], page["next"], client.get(path, params={"after": 1}).json()["next"]) == (2, 1, None)
    assert client.get(f"/api/v1/cases/{case_id}", params={"known_at_ms": NOON}).json()["flags"] == 1
    assert client.get(f"/api/v1/cases/{case_id}", params={"as_of_ms": NOON - 50_000}).json()["flags"] == 1
    assert client.get(f"/api/v1/cases/{case_id}", params={"known_at_ms": NOON - 1}).status_code == 404
    assert client.get(f"/api/v1/cases/{NOBODY}").status_code == 404
    assert client.get("/api/v1/cases/../x").status_code == 404


def test_a_command_is_answered_by_its_event(desk: Desk) -> None:
    case_id = desk.case()
    answer = act(desk.signed_in(Role.ANALYST, name="ann"), case_id, "take", 1)
    assert answer.status_code == 200, answer.text
    assert answer.headers["etag"] == '"2"'
    said = answer.json()
    assert (said["answer"], said["sequence"], said["event"]["assignee"]) == ("CaseAssigned", 2, "ann")
    assert desk.signed_in(Role.ANALYST).get(f"/api/v1/cases/{case_id}").json()["assignee"] == "ann"


def test_command_without_the_seen_version_is_refused(desk: Desk) -> None:
    case_id = desk.case()
    client = desk.signed_in(Role.ANALYST)
    assert act(client, case_id, "take", None).status_code == 428
    headers = {"If-Match": "*"}
    assert client.post(f"/api/v1/cases/{case_id}/take", json={}, headers=headers).status_code == 400
    assert desk.log.commands == []


def test_stale_command_gets_the_missed_events(desk: Desk) -> None:
    case_id = desk.case()
    ann, bob = desk.signed_in(Role.ANALYST, name="ann"), desk.signed_in(Role.ANALYST, name="bob")
    assert act(ann, case_id, "take", 1).status_code == 200
    answer = act(bob, case_id, "take", 1)
    assert answer.status_code == 412
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["code"], problem["missed"]) == ("stale", [{"sequence": 2, "kind": "CaseAssigned"}])
    assert act(bob, case_id, "take", 2).json()["code"] == "held"
    assert act(bob, case_id, "take", 2).status_code == 409


def test_repeated_key_gets_the_answer_of_the_first_command(desk: Desk) -> None:
    case_id = desk.case()
    client = desk.signed_in(Role.ANALYST, name="ann")
    first, again = (act(client, case_id, "note", 1, "key-1", text="looks odd") for _ in range(2))
    assert (first.status_code, first.text, first.headers["etag"]) == (200, again.text, again.headers["etag"])
    assert len(desk.log.commands) == 1
    assert act(client, case_id, "note", 1, "key-1", text="other words").status_code == 422
    another = desk.signed_in(Role.ANALYST, name="bob")
    assert act(another, case_id, "note", 1, "key-1", text="looks odd").status_code == 412, "a key belongs to one person"
    notes = [entry for entry in timeline(client, case_id) if entry["kind"] == "NoteAdded"]
    assert len(notes) == 1


def test_key_stays_valid_after_a_late_answer(desk: Desk) -> None:
    """The command is in the log, but its answer did not reach the console in time: a retry has no second effect."""
    case_id = desk.case()
    client = desk.signed_in(Role.ANALYST)
    desk.log.is_silent = True
    assert act(client, case_id, "escalate", 1, "key-2", reason="big").status_code == 504
    desk.log.is_silent = False
    answer = act(client, case_id, "escalate", 1, "key-2", reason="big")
    assert (answer.status_code, answer.json()["answer"]) == (200, "CaseEscalated")
    assert len(desk.log.commands) == 1


def timeline(client: TestClient, case_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.get(f"/api/v1/cases/{case_id}/timeline").json()["entries"]
    return found


def test_card_numbers_are_masked_before_they_are_sent(desk: Desk) -> None:
    case_id = desk.case()
    client = desk.signed_in(Role.ANALYST)
    assert act(client, case_id, "note", 1, text=f"card {PAN} was used").status_code == 200
    assert act(client, case_id, "escalate", 2, reason=f"{PAN}!").status_code == 200
    assert act(client, case_id, "escalate", 2, key=PAN, reason="x").status_code == 422
    assert client.get("/api/v1/search", params={"by": "card", "value": PAN}).status_code == 422
    sent = str(desk.log.commands)
    assert MASKED in sent
    assert "4111" not in sent + client.get(f"/api/v1/cases/{case_id}/timeline").text
    assert b"4111" not in Path(str(desk.engine.url.database)).read_bytes()


@pytest.mark.parametrize(
    ("slug", "body"),
    [
        ("note", {}), ("note", {"text": ""}), ("note", {"text": "x" * 10_001}), ("note", {"text": "a\x00b"}),
        ("escalate", {"reason": "   "}), ("close", {"reason": "x", "disposition": "who knows"}),
        ("assign", {"assignee": "a b"}), ("snooze", {"reason": "x", "until_ms": -1}), ("take", {"force": True}),
        ("note", {"text": "x", "attachments": ["0" * 64]}),
    ],
)  # fmt: skip
def test_invalid_command_is_not_sent(desk: Desk, slug: str, body: dict[str, Any]) -> None:
    case_id = desk.case()
    assert act(desk.signed_in(Role.LEAD), case_id, slug, 1, **body).status_code == 422
    assert desk.log.commands == []


def test_four_eyes_on_a_reopening(desk: Desk) -> None:
    case_id = desk.case()
    ann, bob = desk.signed_in(Role.ANALYST, name="ann"), desk.signed_in(Role.ANALYST, name="bob")
    assert act(ann, case_id, "close", 1, disposition="false_positive", reason="known").status_code == 200
    assert act(ann, case_id, "reopen", 2, reason="new facts").json()["answer"] == "ReopeningRequested"
    assert act(ann, case_id, "approve-reopening", 3, reason="me").json()["code"] == "second_person"
    assert act(bob, case_id, "approve-reopening", 3, reason="agreed").json()["answer"] == "CaseReopened"


def test_several_commands_are_answered_one_by_one(desk: Desk) -> None:
    cases = [desk.case(f"acct-{number}") for number in range(3)]
    client = desk.signed_in(Role.LEAD)
    commands = [
        {"command": "assign", "case_id": cases[0], "seen_sequence": 1, "assignee": "ann"},
        {"command": "assign", "case_id": cases[1], "seen_sequence": 7, "assignee": "ann"},
        {"command": "note", "case_id": cases[2], "seen_sequence": 1, "text": f"see {PAN}"},
        {"command": "take", "case_id": NOBODY, "seen_sequence": 1},
    ]
    headers = {"Idempotency-Key": "bulk-1"}
    first, again = (client.post("/api/v1/commands", json={"commands": commands}, headers=headers) for _ in range(2))
    assert [outcome["status"] for outcome in first.json()["outcomes"]] == [200, 412, 200, 404]
    assert first.json() == again.json()
    assert len(desk.log.commands) == 3
    assert MASKED in str(desk.log.commands)
    assert client.post("/api/v1/commands", json={"commands": commands * 26}).status_code == 422


def test_take_next_gives_each_case_to_one_analyst(desk: Desk) -> None:
    low, high = desk.case("acct-1", score=500), desk.case("acct-2", score=700)
    ann, bob = desk.signed_in(Role.ANALYST, name="ann"), desk.signed_in(Role.ANALYST, name="bob")
    path = "/api/v1/queue/take-next"
    first = ann.post(path, json={}, headers={"Idempotency-Key": "k"})
    assert (first.json()["case_id"], first.json()["assignee"], first.headers["etag"]) == (high, "ann", '"2"')
    assert ann.post(path, json={}, headers={"Idempotency-Key": "k"}).json() == first.json()
    assert bob.post(path, json={"score_from": 600}).status_code == 404
    assert bob.post(path, json={}).json()["case_id"] == low
    assert bob.post(path, json={}).status_code == 404


def test_take_next_skips_recently_offered_cases(desk: Desk) -> None:
    first, second = desk.case("acct-1", score=700), desk.case("acct-2", score=600)
    board = desk.log.board
    from console.cases.board import QueueFilter

    assert [view.case_id for view in board.first(QueueFilter(), 1, reserved_for="ann")] == [first]
    assert [view.case_id for view in board.first(QueueFilter(), 1, reserved_for="bob")] == [second]
    assert [view.case_id for view in board.first(QueueFilter(), 1, reserved_for="ann")] == [first]


def test_searches_and_neighbours(desk: Desk) -> None:
    one = desk.case("acct-1", card_id="tok-1", merchant_id="bakery", device_id="phone")
    two = desk.case("acct-2", card_id="tok-1", merchant_id="bank")
    three = desk.case("acct-3", card_id="tok-3", merchant_id="bakery")
    client = desk.signed_in(Role.ANALYST)

    def found(by: str, value: str) -> list[str]:
        return ids(client.get("/api/v1/search", params={"by": by, "value": value}))

    assert found("account", "acct-2") == [two]
    assert found("card", "tok-1") == [two, one]
    assert found("merchant", "bakery") == [three, one]
    assert found("device", "phone") == [one]
    assert found("transaction", "tx-acct-3-1") == [three]
    assert found("case", one) == [one]
    assert found("terminal", "nothing") == []
    shared = client.get(f"/api/v1/cases/{one}/neighbours").json()["shared"]
    assert {(each["kind"], each["value"]): [row["case_id"] for row in each["cases"]] for each in shared} == {
        ("card", "tok-1"): [two], ("merchant", "bakery"): [three],
    }  # fmt: skip
    assert client.get("/api/v1/search", params={"by": "account", "value": "acct-1", "limit": 1}).json()["is_complete"]


def test_files_are_downloaded_as_uploaded(desk: Desk) -> None:
    case_id, body = desk.case(), b"%PDF-1.7 receipt"
    client = desk.signed_in(Role.ANALYST)
    path = f"/api/v1/cases/{case_id}/attachments"
    stored = client.post(path, files={"file": (f"../C:\\of {PAN}.PDF", body)})
    assert stored.status_code == 201, stored.text
    kept = next(value for key, value in desk.objects.objects.items() if not key.endswith(".json"))
    digest = hashlib.sha256(kept).hexdigest()
    assert body not in kept
    expected = {"file_name": f"of {MASKED}.pdf", "size": 16, "media_type": "application/pdf", "sha256": digest}
    assert stored.json() == expected
    answer = act(client, case_id, "note", 1, text="see the receipt", attachments=[digest])
    assert answer.json()["event"]["attachments"][0]["sha256"] == digest
    found = client.get(f"{path}/{digest}")
    assert (found.content, found.headers["x-content-type-options"]) == (body, "nosniff")
    assert found.headers["content-type"] == "application/octet-stream"
    assert found.headers["digest"] == f"sha-256={hashlib.sha256(body).hexdigest()}"
    assert found.headers["content-disposition"].startswith("attachment; ")
    assert desk.people.door_log()[0].action == "download"
    other = desk.case("acct-2")
    assert client.get(f"/api/v1/cases/{other}/attachments/{digest}").status_code == 404
    desk.objects.objects[f"attachments/{case_id}/{digest}"] = b"altered"
    assert client.get(f"{path}/{digest}").status_code == 404


@pytest.mark.parametrize(
    ("name", "body", "status"),
    [
        ("page.html", b"<script>", 415), ("run.exe", b"MZ", 415), ("a.pdf", b"<script>", 415), ("noend", b"x", 415),
        ("a.txt", b"\xff\xfe", 415), ("a.txt", b"", 422), (".txt", b"x", 415), ("a.png", b"x" * (10 << 20), 415),
        ("a.txt", b"x" * ((10 << 20) + 1), 413), ("a.txt", b"x" * (11 << 20), 413),
    ],
)  # fmt: skip
def test_other_file_types_are_refused(desk: Desk, name: str, body: bytes, status: int) -> None:
    case_id = desk.case()
    answer = desk.signed_in(Role.ANALYST).post(f"/api/v1/cases/{case_id}/attachments", files={"file": (name, body)})
    assert answer.status_code == status, answer.text
    assert desk.objects.objects == {}


def test_request_bodies_are_bounded(desk: Desk) -> None:
    case_id = desk.case()
    answer = act(desk.signed_in(Role.ANALYST), case_id, "note", 1, text="x" * 70_000)
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"


def test_queue_is_unavailable_before_the_board_is_filled(tmp_path: Path) -> None:
    with opened(tmp_path, is_ready=lambda: False) as made:
        answer = made.signed_in(Role.ANALYST).get("/api/v1/queue")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "3")


def test_clock_ticks_update_cases_for_all_watchers(desk: Desk) -> None:
    case_id = desk.case()
    desk.log.step(ClockTicked(tick_id="t", now_ms=NOON + SLA_MS))
    row = desk.signed_in(Role.ANALYST).get("/api/v1/queue", params={"escalated": True}).json()["cases"][0]
    assert (row["case_id"], row["escalation_trigger"], row["sla_due_ms"]) == (case_id, "sla", None)
