"""The door into payments.inbound: every row that comes in enters the log, as a Transaction or as an IntakeRefused."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, Message, Producer

from domain.events import IntakeRefused, to_fields
from domain.payment import Refusal, holds_card_number
from schemas.codec import MAX_BODY, MAX_RECORD, Encoder

ROW_HEADER, RUN_HEADER = "row", "run"
FLUSH_S = 60
_POLL_EVERY = 500


class NotWritten(RuntimeError):
    """Kafka did not acknowledge some payments; the message says how many, and why."""


class Intake:
    """Writes payments, keyed by account, in order. `run` names one run of one door, `row` counts within it."""

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        encoder: Encoder,
        run: str,
        *,
        acknowledged: Callable[[Message], None] | None = None,
    ) -> None:
        self._topic, self._encoder, self._run = topic, encoder, run.encode()
        self._acknowledged = acknowledged
        self._failures: list[KafkaError] = []
        self._last_ms = 0
        self.rows = 0
        self.refused = 0
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",  # the same as Java's: an account's records share one number everywhere
                "enable.idempotence": True,
                "linger.ms": 5,
                "compression.type": "lz4",
                "message.max.bytes": 16 << 20,
                "queue.buffering.max.messages": 500_000,
                "queue.buffering.max.kbytes": 1 << 18,
            }
        )

    def send(self, row: Mapping[str, Any], source: str) -> Refusal | None:
        """Write a row with the fields of Transaction; why it was refused, if it was: then that is in the log."""
        refusal = None
        try:
            value = self._encoder.encode("Transaction", row)
            if len(value) > MAX_RECORD:
                refusal = Refusal("too_large", f"{len(value)} bytes, {MAX_RECORD} are allowed")
        except (ValueError, TypeError, KeyError, OverflowError, AttributeError) as error:
            refusal = Refusal("bad_fields", f"not the fields of a Transaction: {str(error)[:200]}")
        if refusal is not None:
            self.refuse(row, refusal, source)
            return refusal
        self._produce(str(row["account_id"]), value)
        return None

    def refuse(self, row: Mapping[str, Any], refusal: Refusal, source: str) -> None:
        """Write down that a row was refused: nothing that came in is lost."""
        body = json.dumps(row, default=str, ensure_ascii=False).encode("utf-8", "backslashreplace")
        secret = refusal.reason == "card_number" or holds_card_number(body.decode())
        event = IntakeRefused(
            reason=refusal.reason,
            detail=refusal.detail,
            source=source,
            size=len(body),
            sha256=hashlib.sha256(body).hexdigest(),
            body=None if secret or len(body) > MAX_BODY else body,
        )
        self.refused += 1
        self._produce(str(row.get("account_id") or ""), self._encoder.encode("IntakeRefused", to_fields(event)))

    def flush(self) -> None:
        """Wait until all is acknowledged. Raises NotWritten."""
        left = self._producer.flush(FLUSH_S)
        if self._failures or left:
            why = self._failures[0].str() if self._failures else f"no answer within {FLUSH_S} s"
            raise NotWritten(f"{len(self._failures) + left} of {self.rows} rows are not in {self._topic}: {why}")

    def _produce(self, key: str, value: bytes) -> None:
        self._last_ms = max(self._last_ms, time.time_ns() // 1_000_000)
        headers = [(ROW_HEADER, self.rows.to_bytes(8, "big")), (RUN_HEADER, self._run)]
        self.rows += 1
        while True:
            try:
                self._producer.produce(
                    self._topic, value, key, headers=headers, timestamp=self._last_ms, on_delivery=self._delivered
                )
                break
            except BufferError:
                self._producer.poll(0.1)
        if self.rows % _POLL_EVERY == 0:
            self._producer.poll(0)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failures.append(error)
        elif self._acknowledged is not None:
            self._acknowledged(message)


class Place(NamedTuple):
    """Which row of which run a record is."""

    run: str
    row: int


def place_of(headers: Mapping[str, bytes]) -> Place | None:
    """The place in a record's headers; None for a record that came by another door."""
    if ROW_HEADER not in headers or RUN_HEADER not in headers:
        return None
    return Place(headers[RUN_HEADER].decode(), int.from_bytes(headers[ROW_HEADER], "big"))
