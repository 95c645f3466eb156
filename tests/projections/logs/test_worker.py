"""A worker that waits for the schema registry, or that waited longer than the broker allows: it logs so and
continues.
"""

import json
import signal
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from httpx2 import HTTPError

from projections.logs import worker
from projections.logs.log import LogRecord
from projections.logs.worker import StopSignal, poll_records
from schemas.registry import SchemaRegistry
from tests.support.stage import free_port


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Iterator[StopSignal]:
    monkeypatch.setattr(worker, "RETRY_S", 0.1)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield StopSignal()
    for number, handler in before.items():
        signal.signal(number, handler)


class RegistryHandler(BaseHTTPRequestHandler):
    """Handler of a registry with one schema, 7, that denies access to schema 9."""

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
        """Log nothing."""


def serving(port: int) -> HTTPServer:
    server = HTTPServer(("127.0.0.1", port), RegistryHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def test_worker_waits_for_an_unreachable_registry(stop: StopSignal, capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    ask = stop.retry_while_unavailable(SchemaRegistry(f"http://127.0.0.1:{port}", retries=0).schema_text)
    servers: list[HTTPServer] = []
    threading.Timer(0.5, lambda: servers.append(serving(port))).start()
    assert ask(7) == '"string"'
    assert "the schema registry does not answer" in capsys.readouterr().err
    assert ask(8) is None, "an unknown id is no reason to wait"
    with pytest.raises(SchemaRegistryError, match="not for you"):
        ask(9)
    servers[0].shutdown()
    servers[0].server_close()


def test_waiting_worker_can_be_stopped(stop: StopSignal) -> None:
    port = free_port()
    ask = stop.retry_while_unavailable(SchemaRegistry(f"http://127.0.0.1:{port}", retries=0).schema_text)
    threading.Timer(0.5, lambda: signal.raise_signal(signal.SIGTERM)).start()
    with pytest.raises((HTTPError, SchemaRegistryError)):
        ask(7)
    assert stop.is_set


def test_worker_that_waited_too_long_continues_at_its_committed_offset(
    capsys: pytest.CaptureFixture[str],
) -> None:
    consumer = Consumer(
        {
            "test.mock.num.brokers": 1, "bootstrap.servers": "mock", "group.id": "workers", "log_level": 0,
            "enable.auto.commit": False, "auto.offset.reset": "earliest",
            "session.timeout.ms": 4_000, "heartbeat.interval.ms": 500, "max.poll.interval.ms": 4_000,
        }
    )  # fmt: skip
    broker = next(iter(consumer.list_topics().brokers.values()))
    producer = Producer({"bootstrap.servers": f"{broker.host}:{broker.port}", "log_level": 0})

    def append(value: bytes) -> None:
        producer.produce("log", value)
        assert producer.flush(10) == 0

    append(b"first")
    consumer.subscribe(["log"])
    assert [record.value for record in until_there(consumer)] == [b"first"]
    consumer.commit(asynchronous=False)
    append(b"second")
    assert [record.value for record in until_there(consumer)] == [b"second"]
    time.sleep(5)  # longer than the broker allows: this worker is no longer in its group
    consumer.commit(asynchronous=True)
    assert [record.value for record in until_there(consumer)] == [b"second"]
    assert "maximum poll interval" in capsys.readouterr().err
    consumer.close()


def until_there(consumer: Consumer) -> list[LogRecord]:
    begun = time.monotonic()
    while not (records := poll_records(consumer)):
        assert time.monotonic() - begun < 20, "no record arrived"
    return records
