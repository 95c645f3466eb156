"""Worker from cases.events to other logs: fraud labels to payments.inbound, chained commands to cases.inbox.

This is the step between accounts that docs/decisions/0001 asks for. It reads an event in one log and appends the next
records to two others, with ids derived from their cause. It keeps no state, because each event holds all that it needs.
It commits its position after the records are acknowledged. A record may therefore be written twice; the folds recognise
it by its id.
"""

from collections.abc import Sequence
from functools import partial

from confluent_kafka import Consumer

from domain.cases.chain import next_steps
from domain.cases.events import CONFIRMED_FRAUD, CaseClosed, CaseEvent
from domain.record_types import to_fields
from domain.risk.events import FraudConfirmed, label_id
from projections.logs.partition_writer import BY_KEY, AddressedRecord, partitions_of
from projections.logs.worker import (
    EVENTS,
    WRITTEN,
    StopSignal,
    decode_case_events,
    logs_of,
    parser,
    poll_records,
    serve_metrics,
)
from schemas.codec import Decoder, Encoder

NAME = "process"


def case_labels(event: CaseClosed) -> list[FraudConfirmed]:
    """Return one label for each payment of a case closed as fraud; for any other disposition, an empty list."""
    if event.disposition != CONFIRMED_FRAUD:
        return []
    by_id = {
        label_id(payment.account_id or event.account_id, payment.transaction_id, payment.content_digest): payment
        for payment in event.payments
    }
    return [
        FraudConfirmed(
            label_id=label,
            account_id=payment.account_id or event.account_id,
            transaction_id=payment.transaction_id,
            event_time=payment.event_time,
            merchant_id=payment.merchant_id,
            terminal_id=payment.terminal_id,
            device_id=payment.device_id,
            card_id=payment.card_id,
            source="case",
            cause_id=event.command_id,
            actor=event.actor,
            confirmed_at_ms=event.closed_at_ms,
        )
        for label, payment in by_id.items()
    ]


def address_labels(
    labels: Sequence[FraudConfirmed], partitions: Sequence[int], encoder: Encoder
) -> list[AddressedRecord]:
    """Return a copy of each label for each of the partitions, ordered by label."""
    encoded = [(label.label_id.encode(), encoder.encode("FraudConfirmed", to_fields(label))) for label in labels]
    return [AddressedRecord(partition, key, value) for key, value in encoded for partition in partitions]


def label_records(events: Sequence[CaseEvent], partitions: Sequence[int], encoder: Encoder) -> list[AddressedRecord]:
    """Return the records for payments.inbound that these case events result in."""
    labels = [label for event in events if isinstance(event, CaseClosed) for label in case_labels(event)]
    return address_labels(labels, partitions, encoder)


def chain_records(events: Sequence[CaseEvent], encoder: Encoder) -> list[AddressedRecord]:
    """Return the records for cases.inbox that these case events result in, in their order."""
    steps = [step for event in events for step in next_steps(event)]
    return [
        AddressedRecord(BY_KEY, step.account_id.encode(), encoder.encode(type(step).__name__, to_fields(step)))
        for step in steps
    ]


def main() -> None:
    """Run until stopped by SIGTERM or SIGINT."""
    known = parser().parse_args()
    stop, logs = StopSignal(), logs_of(known)
    source, target = logs.topics.cases_events, logs.topics.payments_inbound
    registry = logs.registry()
    decoder = Decoder(stop.retry_while_unavailable(registry.schema_text))
    encoder = Encoder(stop.retry_while_unavailable(registry.ids)())
    partitions, writer = partitions_of(logs.bootstrap, target), logs.writer(target)
    inbox = logs.writer(logs.topics.cases_inbox)
    consumer = Consumer(
        {
            "bootstrap.servers": logs.bootstrap,
            "group.id": f"{source}-{NAME}",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 6_000,  # the brokers' minimum: how long a killed worker's partitions wait
        }
    )
    consumer.subscribe([source])
    serve_metrics(known.metrics_port)
    while not stop.is_set:
        taken = poll_records(consumer)
        if not taken:
            continue
        events = [event for event, _ in decode_case_events(decoder, taken)]
        records, chained = label_records(events, partitions, encoder), chain_records(events, encoder)
        if stop.persist(partial(writer.write, records)) and stop.persist(partial(inbox.write, chained)):
            consumer.commit(asynchronous=True)
        EVENTS.labels(NAME, source).inc(len(taken))
        WRITTEN.labels(NAME, "labels").inc(len(records) // len(partitions))
        WRITTEN.labels(NAME, "steps").inc(len(chained))
    consumer.close()


if __name__ == "__main__":
    main()
