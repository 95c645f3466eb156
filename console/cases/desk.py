"""Command desk: send commands into cases.inbox and match their answers in cases.events by command id.

One desk serves a whole process, from any number of threads:

    with CaseDesk(logs, keys) as desk:
        answer = desk.ask(TakeCase(...))      # waits for an event of the case, or for CommandRejected
        future = desk.send(TakeCase(...))     # does not wait; asyncio.wrap_future(future) waits in a coroutine
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from types import TracebackType

from confluent_kafka import KafkaException, Producer

from console.privacy.command_sealing import seal_command
from console.privacy.vault import Vault
from console.waiting import end_offsets
from domain.cases.commands import Command
from domain.cases.events import CaseEvent, command_answered
from domain.record_types import from_fields, to_fields
from projections.logs.kafka_logs import KafkaLogs
from projections.logs.log import LogRecord
from schemas.codec import UnreadableRecord

PATIENCE_S = 30.0
"""Default time to wait for an answer, in seconds."""
MAX_WAITING = 10_000
"""Maximum number of commands that wait for an answer."""
POLL_S, RETRY_S = 0.05, 1.0
DELIVERY_S = 20.0


class AnswerTimeout(RuntimeError):
    """The command is in the log and was not answered in time. It may still be answered."""


class CommandNotSent(RuntimeError):
    """The command is not in the log and has no effect. The message says why."""


class CaseDesk:
    """Sender of commands, and reader of their answers."""

    def __init__(
        self,
        logs: KafkaLogs,
        keys: Vault,
        heard: Callable[[CaseEvent, LogRecord], None] | None = None,
    ) -> None:
        """Connect to Kafka and start to read answers.

        `keys` is the vault that seals what people write. `heard` is called with every case event, on the desk's own
        thread.
        """
        self._keys, names = keys, logs.topics
        self._inbox, self._encoder = names.cases_inbox, logs.encoder()
        self._decoder, self._heard = logs.decoder(), heard
        self._waiting: dict[tuple[str, str], tuple[Future[CaseEvent], float]] = {}
        """Future and deadline of each unanswered command, by case id and command id."""
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._broken: BaseException | None = None
        self._producer = Producer(
            {
                "bootstrap.servers": logs.bootstrap,
                "partitioner": "murmur2_random",  # the same as Java's: an account's records share one number everywhere
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 0,
                "message.timeout.ms": int(DELIVERY_S * 1000),
            }
        )
        self._log = logs.reader()
        ends = end_offsets(logs.bootstrap, names.cases_events)
        self._places = {(names.cases_events, number): end for number, end in ends.items()}
        """Next offset of each partition, from before the first command, so that no answer is missed."""
        self._reader = threading.Thread(target=self._read, name="case-desk", daemon=True)
        self._reader.start()

    def ask(self, command: Command, patience_s: float = PATIENCE_S) -> CaseEvent:
        """Send a command and return its answer. Raise AnswerTimeout, CommandNotSent, VaultError."""
        return self.send(command, patience_s).result()

    def send(self, command: Command, patience_s: float = PATIENCE_S) -> "Future[CaseEvent]":
        """Send a command and return the future of its answer, which can raise AnswerTimeout or CommandNotSent.

        Raise CommandNotSent, VaultError.
        """
        self._check()
        value = self._encoder.encode(type(command).__name__, to_fields(seal_command(command, self._keys)))
        place = (command.case_id, command.command_id)
        with self._lock:
            if len(self._waiting) >= MAX_WAITING:
                raise CommandNotSent(f"{MAX_WAITING} commands wait for their answers: try again later")
            future: Future[CaseEvent] = self._waiting[place][0] if place in self._waiting else Future()
            if place not in self._waiting:
                future.set_running_or_notify_cancel()  # a caller that stops waiting cannot cancel the command
            self._waiting[place] = future, time.monotonic() + patience_s

        def delivered(error: object, _: object) -> None:
            if error is not None:
                self._forget(command)
                with suppress(InvalidStateError):
                    future.set_exception(
                        CommandNotSent(f"the command was not written: {error}. Look: fraudcase status")
                    )

        try:
            self._producer.produce(self._inbox, value, command.account_id.encode(), on_delivery=delivered)
        except (BufferError, KafkaException) as error:
            self._forget(command)
            raise CommandNotSent(f"the command was not written: {error}. Look: fraudcase status") from error
        self._producer.poll(0)
        return future

    def close(self) -> None:
        """Close the connections. Commands that still wait get CommandNotSent."""
        self._ended.set()
        self._reader.join()
        self._producer.flush(DELIVERY_S)
        self._give_up(CommandNotSent("the desk was closed; the command may be in the log"))

    def __enter__(self) -> "CaseDesk":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _read(self) -> None:
        while not self._ended.is_set():
            try:
                self._follow()
            except KafkaException:  # the broker is unreachable: missed records are read after it is back
                self._expire()
                self._ended.wait(RETRY_S)
            except Exception as error:  # no caller may wait for a thread that has ended
                self._broken = error
                self._give_up(error)
                return

    def _follow(self) -> None:
        follower = self._log.follow(self._places)
        try:
            while not self._ended.is_set():
                self._producer.poll(0)
                self._expire()
                for record in follower.next(POLL_S):
                    self._take(record)
                    self._places[record.topic, record.partition] = record.offset + 1
        finally:
            follower.close()

    def _take(self, record: LogRecord) -> None:
        try:
            event = from_fields(*self._decoder.decode(record.value))
        except (UnreadableRecord, KeyError, TypeError):
            return  # not a case event of ours; the view worker reports it
        if not isinstance(event, CaseEvent):
            return
        command_id = command_answered(event)
        if command_id is not None:
            with self._lock:
                future, _ = self._waiting.pop((event.case_id, command_id), (None, 0.0))
            if future is not None:
                with suppress(InvalidStateError):
                    future.set_result(event)
        if self._heard is not None:
            self._heard(event, record)

    def _expire(self) -> None:
        now = time.monotonic()
        with self._lock:
            late = {place: future for place, (future, until) in self._waiting.items() if until <= now}
            for place in late:
                del self._waiting[place]
        for (_, command_id), future in late.items():
            with suppress(InvalidStateError):
                future.set_exception(
                    AnswerTimeout(
                        f"command {command_id} is recorded and was not answered in time. It may still be "
                        "answered: look at the case again. Look: fraudcase status"
                    )
                )

    def _check(self) -> None:
        if self._broken is not None or self._ended.is_set():
            raise CommandNotSent(f"answers are no longer read: {self._broken or 'the desk is closed'}")

    def _forget(self, command: Command) -> None:
        with self._lock:
            self._waiting.pop((command.case_id, command.command_id), None)

    def _give_up(self, error: BaseException) -> None:
        with self._lock:
            waiting, self._waiting = list(self._waiting.values()), {}
        for future, _ in waiting:
            with suppress(InvalidStateError):
                future.set_exception(error)
