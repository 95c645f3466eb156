"""From cases.events to other logs: labels on the payments of a confirmed fraud, steps in the cases of other accounts.

The step between two accounts' worlds that docs/decisions/0001 asks for: it reads an event in one log and appends the
next records to payments.inbound and cases.inbox, with ids that derive from their cause. It holds no state: everything
it needs stands in the event. Its position is committed after the records are acknowledged, so a record may be written
again and is then recognised by its id, in the folds.
"""

from collections.abc import Sequence
from functools import partial

from confluent_kafka import Consumer

from domain.cases.chain import next_steps
from domain.cases.events import CONFIRMED_FRAUD, CaseClosed, CaseEvent
from domain.record_types import to_fields
from domain.risk.events import FraudConfirmed, label_id
from projections.logs.partition_writer import BY_KEY, AddressedRecord, PartitionWriter, partitions_of
from projections.logs.worker import EVENTS, WRITTEN, StopSignal, decode_case_events, parser, poll_records, serve_metrics
from schemas.codec import Decoder, Encoder
from schemas.registry import SchemaRegistry

NAME = "process"


def case_labels(event: CaseClosed) -> list[FraudConfirmed]:
    """One label for each payment of a case that turned out to be fraud; of any other case, none."""
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
    found: Sequence[FraudConfirmed], partitions: Sequence[int], encoder: Encoder
) -> list[AddressedRecord]:
    """Each label into each of these partitions, label by label."""
    encoded = [(label.label_id.encode(), encoder.encode("FraudConfirmed", to_fields(label))) for label in found]
    return [AddressedRecord(partition, key, value) for key, value in encoded for partition in partitions]


def label_records(events: Sequence[CaseEvent], partitions: Sequence[int], encoder: Encoder) -> list[AddressedRecord]:
    """What these case events lead to in payments.inbound."""
    found = [label for event in events if isinstance(event, CaseClosed) for label in case_labels(event)]
    return address_labels(found, partitions, encoder)


def chain_records(events: Sequence[CaseEvent], encoder: Encoder) -> list[AddressedRecord]:
    """What these case events lead to in cases.inbox, in their order."""
    found = [step for event in events for step in next_steps(event)]
    return [
        AddressedRecord(BY_KEY, step.account_id.encode(), encoder.encode(type(step).__name__, to_fields(step)))
        for step in found
    ]


def main() -> None:
    """Run until told to stop."""
    known = parser().parse_args()
    stop = StopSignal()
    source, target = known.topics.cases_events, known.topics.payments_inbound
    registry = SchemaRegistry(known.registry)
    decoder, encoder = Decoder(stop.patiently(registry.schema_text)), Encoder(stop.patiently(registry.ids)())
    partitions, writer = partitions_of(known.bootstrap, target), PartitionWriter(known.bootstrap, target)
    inbox = PartitionWriter(known.bootstrap, known.topics.cases_inbox)
    consumer = Consumer(
        {
            "bootstrap.servers": known.bootstrap,
            "group.id": f"{source}-{NAME}",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 6_000,  # the least that brokers allow: how long a killed worker's share waits
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
