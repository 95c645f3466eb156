"""Runs the worker of the case views: `python -m console.workers.case_views`, with the settings of its environment."""

from console.views.live_table import LiveCaseTable
from console.wiring import kafka_logs, live_case_table
from infra.services import CASE_VIEWS, metrics_port
from infra.settings import Settings
from projections.logs.worker import StopSignal, serve_metrics
from projections.views.worker import ViewTarget, group_of, work
from schemas.codec import Decoder


def target_of(table: LiveCaseTable, topic: str) -> ViewTarget:
    """Return the version that is live now, with its table and consumer group."""
    version, now = table.now()
    return ViewTarget(version.number, now, group_of(topic, version.number))


def main() -> None:
    """Run until stopped by SIGTERM or SIGINT."""
    settings, stop = Settings(), StopSignal()
    logs, table = kafka_logs(settings), live_case_table(settings)
    topic = logs.topics.cases_events
    decoder = Decoder(stop.retry_while_unavailable(logs.registry().schema_text))
    serve_metrics(metrics_port(settings, CASE_VIEWS))
    work(logs.bootstrap, topic, decoder, lambda: target_of(table, topic), stop)


if __name__ == "__main__":
    main()
