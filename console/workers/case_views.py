"""Runs the worker of the case views: `python -m console.view_worker`, with the settings of its environment."""

from console.views.live_table import LiveCaseTable
from console.wiring import live_case_table, topics
from infra.services import CASE_VIEWS, metrics_port
from infra.settings import Settings
from projections.logs.worker import StopSignal, serve_metrics
from projections.views.worker import ViewTarget, group_of, work
from schemas.codec import Decoder
from schemas.registry import SchemaRegistry


def target_of(table: LiveCaseTable, topic: str) -> ViewTarget:
    """The version that is live by now."""
    version, now = table.now()
    return ViewTarget(version.number, now, group_of(topic, version.number))


def main() -> None:
    """Run until told to stop."""
    settings, stop = Settings(), StopSignal()
    topic, table = topics(settings).cases_events, live_case_table(settings)
    decoder = Decoder(stop.retry_while_unavailable(SchemaRegistry(settings.registry_url).schema_text))
    serve_metrics(metrics_port(settings, CASE_VIEWS))
    work(settings.kafka_bootstrap, topic, decoder, lambda: target_of(table, topic), stop)


if __name__ == "__main__":
    main()
