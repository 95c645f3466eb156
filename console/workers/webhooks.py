"""Delivers case events to webhooks: reads cases.events in a consumer group, stores each delivery, then sends it."""

from concurrent.futures import ThreadPoolExecutor

from confluent_kafka import Consumer

from console.webhooks.sender import send
from console.webhooks.store import Webhooks
from console.wiring import kafka_logs, webhooks_of
from infra.services import WEBHOOKS, metrics_port
from infra.settings import Settings
from migrations.models import WebhookDeliveryRow, WebhookRow
from projections.logs.worker import EVENTS, WRITTEN, StopSignal, decode_case_events, poll_records, serve_metrics
from schemas.codec import Decoder

SENDERS, AT_ONCE, MAX_BATCH = 8, 64, 500
POLL_S = 0.5


class WebhookSender:
    """Sends due deliveries, SENDERS at a time."""

    def __init__(self, webhooks: Webhooks, *, may_be_private: bool) -> None:
        self._webhooks = webhooks
        self._may_be_private = may_be_private
        self._pool = ThreadPoolExecutor(SENDERS)

    def run_once(self) -> int:
        """Send the deliveries that are due now. Return the number of attempts."""
        due = self._webhooks.due(AT_ONCE)
        list(self._pool.map(lambda pair: self._send(*pair), due))
        return len(due)

    def _send(self, delivery: WebhookDeliveryRow, webhook: WebhookRow) -> None:
        secret, body = self._webhooks.secret(webhook), delivery.body.encode()
        error = send(webhook.url, secret, delivery.delivery_id, body, may_be_private=self._may_be_private)
        self._webhooks.tried(delivery, error)
        WRITTEN.labels(WEBHOOKS, "delivered" if error is None else "failed").inc()


def main() -> None:
    """Run until stopped by SIGTERM or SIGINT."""
    settings, stop = Settings(), StopSignal()
    logs = kafka_logs(settings)
    topic = logs.topics.cases_events
    webhooks = webhooks_of(settings)
    decoder = Decoder(stop.retry_while_unavailable(logs.registry().schema_text))
    sender = WebhookSender(webhooks, may_be_private=settings.webhooks_may_be_private)
    consumer = Consumer(
        {
            "bootstrap.servers": logs.bootstrap,
            "group.id": f"{topic}-{WEBHOOKS}",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([topic])
    serve_metrics(metrics_port(settings, WEBHOOKS))
    while not stop.is_set:
        records = poll_records(consumer, POLL_S, MAX_BATCH)
        if records:
            webhooks.take_in(
                [(event, record) for record in records for event, _ in decode_case_events(decoder, [record])]
            )
            consumer.commit(asynchronous=True)
            EVENTS.labels(WEBHOOKS, topic).inc(len(records))
        sender.run_once()
    consumer.close()


if __name__ == "__main__":
    main()
