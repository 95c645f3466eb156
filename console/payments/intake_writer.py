"""Writer of payments.inbound: every row enters the log, as a Transaction or as an IntakeRefused."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, Message, Producer

from console.payments.sealing import prepare_row
from console.privacy.sealer import Sealer
from console.times import now_ms
from domain.payment import MAX_TEXT, IntakeRefused, Refusal, holds_card_number
from domain.record_types import to_fields
from schemas.codec import MAX_BODY, MAX_RECORD, Encoder

ROW_HEADER, RUN_HEADER = "row", "run"
FLUSH_S = 60
_POLL_EVERY = 500
ROW_FIELD = "row"
"""Field name of a sealed refused row; it is bound into the sealed text."""


class NotWritten(RuntimeError):
    """Payments that Kafka did not acknowledge; the message gives their number and the reason."""


class IntakeWriter:
    """Writer of payments, keyed by account, in order. `run` names one run of one source; rows are counted within it."""

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        encoder: Encoder,
        run: str,
        *,
        sealer: Sealer,
        location_decimals: int | None = None,
        acknowledged: Callable[[Message], None] | None = None,
    ) -> None:
        self._topic, self._encoder, self._run = topic, encoder, run.encode()
        self._sealer, self._decimals = sealer, location_decimals
        self._acknowledged = acknowledged
        self._failures: list[KafkaError] = []
        self._last_ms = 0
        self.rows = 0
        self.refused = 0
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",  # Java's partitioner: an account has one partition number in all logs
                "enable.idempotence": True,
                "log_level": 3,  # errors only: it warns while a broker is starting, and retries
                "linger.ms": 5,
                "compression.type": "lz4",
                "message.max.bytes": 16 << 20,
                "queue.buffering.max.messages": 500_000,
                "queue.buffering.max.kbytes": 1 << 18,
            }
        )

    def send(self, row: Mapping[str, Any], source: str) -> Refusal | None:
        """Write a row with the fields of Transaction, or its refusal. Return the refusal, if any."""
        refusal = None
        try:
            entered = prepare_row(row, self._sealer, self._decimals)
            if isinstance(entered, Refusal):
                refusal = entered
            elif len(value := self._encoder.encode("Transaction", entered)) > MAX_RECORD:
                refusal = Refusal("too_large", f"{len(value)} bytes, {MAX_RECORD} are allowed")
        except (ValueError, TypeError, KeyError, OverflowError, AttributeError) as error:
            refusal = Refusal("bad_fields", f"not the fields of a Transaction: {type(error).__name__}")
        if refusal is not None:
            self.refuse(row, refusal, source)
            return refusal
        self._produce(str(row["account_id"]), value)
        return None

    def refuse(self, row: Mapping[str, Any], refusal: Refusal, source: str) -> None:
        """Write the refusal of a row, so that nothing that came in is lost.

        Any field of a refused row may hold any text, so all of it but the payment's id is sealed: with the account's
        key, or with a key of this run if no account is named. A row with a card number, or one that is too large,
        leaves only its id.
        """
        whole = _text_of(row)
        secret = refusal.reason == "card_number" or holds_card_number(_text_of(_without_time(row)))
        account, payment = _token(row, "account_id"), _token(row, "transaction_id")
        sealed = self._sealer.seal(account or run_subject(self._run.decode()), ROW_FIELD, whole)
        body = json.dumps({"transaction_id": payment, ROW_FIELD: sealed}, ensure_ascii=False).encode()
        short = json.dumps({"transaction_id": payment}, ensure_ascii=False).encode()
        event = IntakeRefused(
            reason=refusal.reason,
            detail=refusal.detail,
            source=source,
            size=len(body),
            sha256=hashlib.sha256(body).hexdigest(),
            body=short if secret or len(body) > MAX_BODY else body,
        )
        self.refused += 1
        self._produce(account, self._encoder.encode("IntakeRefused", to_fields(event)))

    def flush(self) -> None:
        """Wait until Kafka has acknowledged all rows, at most FLUSH_S seconds. Raise NotWritten."""
        left = self._producer.flush(FLUSH_S)
        if self._failures or left:
            reason = self._failures[0].str() if self._failures else f"no answer within {FLUSH_S} s"
            raise NotWritten(f"{len(self._failures) + left} of {self.rows} rows are not in {self._topic}: {reason}")

    def _produce(self, key: str, value: bytes) -> None:
        self._last_ms = max(self._last_ms, now_ms())
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


def run_subject(run: str) -> str:
    """Return the subject of a run's refused rows that name no account."""
    return f"intake/{run}"


def _text_of(row: Mapping[str, Any]) -> str:
    return json.dumps(row, default=str, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def _without_time(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row without a numeric event time: it has 13 digits, and one in ten passes for a card number."""
    return {name: value for name, value in row.items() if name != "event_time" or not isinstance(value, int)}


def _token(row: Mapping[str, Any], name: str) -> str:
    """Return a field if it is a token that may be shown, else an empty text."""
    value = row.get(name)
    if not isinstance(value, str) or len(value) > MAX_TEXT or not value.isprintable():
        return ""
    return "" if holds_card_number(value) else value


class RunPosition(NamedTuple):
    """Position of a record: its run, and its row within the run."""

    run: str
    row: int


def place_of(headers: Mapping[str, bytes]) -> RunPosition | None:
    """Return the position in a record's headers, or None for a record that another source wrote."""
    if ROW_HEADER not in headers or RUN_HEADER not in headers:
        return None
    return RunPosition(headers[RUN_HEADER].decode(), int.from_bytes(headers[ROW_HEADER], "big"))
