"""What a worker does while the schema registry is away: it waits, says so, and goes on."""

import json
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from confluent_kafka.schema_registry.error import SchemaRegistryError
from httpx2 import HTTPError

from projections import worker
from projections.worker import Stop
from schemas.registry import Registry
from tests.stage import free_port


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stop]:
    monkeypatch.setattr(worker, "RETRY_S", 0.1)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield Stop()
    for number, handler in before.items():
        signal.signal(number, handler)


class Answers(BaseHTTPRequestHandler):
    """A registry of one schema, 7; it does not let anybody see 9."""

    def do_GET(self) -> None:
        number = int(self.path.split("?")[0].rpartition("/")[2])
        status, body = {
            7: (200, {"schema": '"string"'}),
            9: (403, {"error_code": 40301, "message": "not for you"}),
        }.get(number, (404, {"error_code": 40403, "message": "no such schema"}))
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def serving(port: int) -> HTTPServer:
    server = HTTPServer(("127.0.0.1", port), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def test_a_registry_that_is_away_is_waited_for(stop: Stop, capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    ask = stop.patiently(Registry(f"http://127.0.0.1:{port}", retries=0).schema_text)
    servers: list[HTTPServer] = []
    threading.Timer(0.5, lambda: servers.append(serving(port))).start()
    assert ask(7) == '"string"'
    assert "the schema registry does not answer" in capsys.readouterr().err
    assert ask(8) is None, "an id that it does not know is no reason to wait"
    with pytest.raises(SchemaRegistryError, match="not for you"):
        ask(9)
    servers[0].shutdown()
    servers[0].server_close()


def test_who_waits_can_be_told_to_stop(stop: Stop) -> None:
    port = free_port()
    ask = stop.patiently(Registry(f"http://127.0.0.1:{port}", retries=0).schema_text)
    threading.Timer(0.5, lambda: signal.raise_signal(signal.SIGTERM)).start()
    with pytest.raises((HTTPError, SchemaRegistryError)):
        ask(7)
    assert stop.is_set
