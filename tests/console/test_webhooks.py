"""Webhooks: deliveries are signed, retried, abandoned and resent, and never go to a forbidden address."""

import base64
import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from console.people.roles import Role
from console.privacy.key_files import console_key
from console.webhooks.sender import ForbiddenAddress, send, target_of
from console.webhooks.store import BACKOFF_S
from console.workers.webhooks import WebhookSender
from domain.cases.events import CaseEvent
from projections.logs.log import LogRecord
from tests.support.desk import Desk, opened


class Receiver(HTTPServer):
    """Server that records deliveries, or answers with another status."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = 204
        self.got: list[tuple[dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hook?x=1"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.server.status)
        self.send_header("Location", "http://127.0.0.1/elsewhere")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with opened(tmp_path, webhooks_may_be_private=True) as made:
        yield made


def recorded(events: list[CaseEvent], offset: int = 0) -> list[tuple[CaseEvent, LogRecord]]:
    return [
        (event, LogRecord("cases.events", 0, offset + number, 7, None, None, ())) for number, event in enumerate(events)
    ]


def webhook(desk: Desk, url: str, *kinds: str) -> dict[str, Any]:
    answer = desk.signed_in(Role.ADMIN).post("/api/v1/webhooks", json={"url": url, "kinds": list(kinds)})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_delivery_is_signed_with_the_secret_that_was_shown_once(desk: Desk, receiver: Receiver) -> None:
    made = webhook(desk, receiver.url)
    assert desk.signed_in(Role.ADMIN).get("/api/v1/webhooks").json()[0]["secret"] is None
    assert made["secret"].encode() not in Path(str(desk.engine.url.database)).read_bytes()
    events = desk.flag()
    desk.services.webhooks.take_in(recorded(events))
    assert WebhookSender(desk.services.webhooks, may_be_private=True).run_once() == 1
    [(headers, body)] = receiver.got
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(made["secret"].removeprefix("whsec_"))
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert json.loads(body) == {
        "type": "CaseOpened", "timestamp_ms": 7,
        "data": {"case_id": events[0].case_id, "account_id": "acct-1", "sequence": 1},
    }  # fmt: skip
    assert WebhookSender(desk.services.webhooks, may_be_private=True).run_once() == 0, (
        "a delivered event is not sent again"
    )


def test_event_is_sent_once_and_only_to_its_subscribers(desk: Desk, receiver: Receiver) -> None:
    webhook(desk, receiver.url, "CaseEscalated")
    events = [*desk.flag(), *desk.flag(score=990)]
    assert [type(event).__name__ for event in events] == ["CaseOpened", "RiskLinked", "CaseEscalated"]
    for _ in range(2):
        desk.services.webhooks.take_in(recorded(events))
        WebhookSender(desk.services.webhooks, may_be_private=True).run_once()
    assert [json.loads(body)["type"] for _, body in receiver.got] == ["CaseEscalated"]


def test_failed_delivery_is_retried_with_growing_delays_then_dead_and_can_be_resent(
    desk: Desk, receiver: Receiver
) -> None:
    made = webhook(desk, receiver.url)
    desk.services.webhooks.take_in(recorded(desk.flag()))
    sender = WebhookSender(desk.services.webhooks, may_be_private=True)
    path = f"/api/v1/webhooks/{made['webhook_id']}/deliveries"
    receiver.status = 500
    for wait_s in BACKOFF_S:
        assert sender.run_once() == 1
        desk.clock.now_ms += wait_s * 1_000 - 1
        assert sender.run_once() == 0
        desk.clock.now_ms += 1
    assert sender.run_once() == 1
    admin = desk.signed_in(Role.ADMIN)
    [delivery] = admin.get(path, params={"state": "dead"}).json()
    assert (delivery["attempts"], delivery["last_error"]) == (len(BACKOFF_S) + 1, "answered 500")
    desk.clock.now_ms += 60_000
    assert sender.run_once() == 0
    receiver.status = 200
    again = f"/api/v1/webhooks/deliveries/{delivery['delivery_id']}/send-again"
    assert admin.post(again).status_code == 204
    assert sender.run_once() == 1
    assert admin.get(path).json()[0]["state"] == "delivered"
    ids = {headers["webhook-id"] for headers, _ in receiver.got}
    assert ids == {delivery["delivery_id"]}, "a receiver can recognise a delivery that comes twice"


def test_disabled_webhook_sends_nothing_and_a_new_secret_differs(desk: Desk, receiver: Receiver) -> None:
    made = webhook(desk, receiver.url)
    admin, path = desk.signed_in(Role.ADMIN), f"/api/v1/webhooks/{made['webhook_id']}"
    assert admin.patch(path, json={"new_secret": True}).json()["secret"] not in (None, made["secret"])
    assert admin.patch(path, json={"is_active": False}).json()["is_active"] is False
    desk.services.webhooks.take_in(recorded(desk.flag()))
    assert WebhookSender(desk.services.webhooks, may_be_private=True).run_once() == 0


def test_redirects_are_not_followed(receiver: Receiver) -> None:
    receiver.status = 302
    assert send(receiver.url, "whsec_AAAA", "id", b"{}", may_be_private=True) == "answered 302"
    assert len(receiver.got) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/", "https://127.0.0.1/", "https://localhost:8443/", "https://10.1.2.3/", "https://[::1]/",
        "https://169.254.169.254/latest/meta-data", "https://192.168.0.1/", "https://[::ffff:127.0.0.1]/",
        "https://0.0.0.0/", "https://2130706433/", "https://0x7f000001/", "https://100.64.0.1/", "https://[fe80::1]/",
        "https://user:password@example.com/", "https:///nowhere", "https://224.0.0.1/", "https://[2002:7f00:1::]/",
        "ftp://example.com/", "https://no-such-host.invalid/",
    ],
)  # fmt: skip
def test_forbidden_addresses_are_refused(url: str) -> None:
    with pytest.raises(ForbiddenAddress):
        target_of(url)


def test_checked_address_is_the_one_that_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that resolves to a public address first and a private one later is resolved only once."""
    answers = iter(["93.184.216.34", "127.0.0.1"])
    connected: list[str] = []

    def look_up(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), 443))]

    def connect(address: tuple[str, int], _: float) -> socket.socket:
        connected.append(address[0])
        raise OSError("far enough")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(socket, "create_connection", connect)
    assert send("https://rebound.example/", "whsec_AAAA", "id", b"{}") == "OSError: far enough"
    assert connected == ["93.184.216.34"]


def test_addresses_are_checked_at_set_up_and_at_each_delivery(tmp_path: Path) -> None:
    with opened(tmp_path) as made:
        answer = made.signed_in(Role.ADMIN).post("/api/v1/webhooks", json={"url": "https://127.0.0.1/"})
        assert (answer.status_code, answer.json()["detail"]) == (422, "the host is in a private network")
        made.services.webhooks.add("https://127.0.0.1/", [], "test")
        made.services.webhooks.take_in(recorded(made.flag()))
        assert WebhookSender(made.services.webhooks, may_be_private=False).run_once() == 1
        row = made.services.webhooks.deliveries(made.services.webhooks.all()[0].webhook_id, None, 1)[0]
        assert row.last_error == "the host is in a private network"


def test_key_is_created_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "home" / "console.key"
    assert console_key(file) == console_key(file)
    assert len(console_key(file)) == 32
    assert file.stat().st_mode & 0o077 == 0
    assert [each.name for each in file.parent.iterdir()] == ["console.key"]
