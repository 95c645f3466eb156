"""The console's server: `python -m console.web`, with the settings of its environment."""

import sys

import uvicorn
from fastapi import FastAPI
from prometheus_client import Gauge

from console.cases.archived_payments import ArchivedPayments
from console.cases.attachments import Attachments
from console.cases.board_feed import BoardFeed
from console.cases.desk import CaseDesk
from console.cases.timelines import TimelineCache
from console.history.whatif_job import WhatifJobs
from console.history.whatif_runs import WhatifRuns
from console.monitor.feed import LiveFeed, LiveFeedSources
from console.people.open_id import OpenIdClient, provider_from
from console.privacy.vault import Vault
from console.times import now_ms
from console.web.app import create_app
from console.web.idempotency import IdempotencyStore
from console.web.pages.parts import PageServices
from console.web.services import ConsoleServices
from console.wiring import (
    bucket,
    control_database,
    control_store,
    kafka_logs,
    live_case_table,
    people,
    rules_log,
    topics,
    vault,
    webhooks_of,
)
from infra.services import CASE_VIEWS, CONSOLE, VERIFIER, metrics_port
from infra.settings import Settings
from projections.archive.columns import ArchiveColumns
from projections.logs.worker import serve_metrics

TIMELINES = Gauge("fraudcase_console_timelines", "Timelines in memory; others are read from the table")
SWITCH_S = 0.0005
"""Switch interval of threads, in seconds: short, so that threads that read tables do not delay answers."""


def make_services(
    settings: Settings, feed: BoardFeed, timelines: TimelineCache, desk: CaseDesk, keys: Vault
) -> ConsoleServices:
    """Make the services of the console from its settings and parts."""
    provider = provider_from(
        settings.oidc_issuer,
        settings.oidc_client_id,
        settings.oidc_client_secret.get_secret_value(),
        settings.oidc_roles_claim,
        settings.oidc_roles,
    )
    callback = f"{settings.console_url}/sign-in/oidc/callback"
    return ConsoleServices(
        people=people(settings),
        requests=IdempotencyStore(control_database(settings), now_ms),
        board=feed.board,
        changes=feed.changes,
        is_ready=lambda: feed.is_ready,
        desk=desk,
        table=live_case_table(settings),
        timelines=timelines,
        webhooks=webhooks_of(settings),
        webhooks_may_be_private=settings.webhooks_may_be_private,
        attachments=Attachments(bucket(settings), keys),
        vault=keys,
        now_ms=now_ms,
        public_url=settings.console_url,
        open_id=OpenIdClient(provider, callback) if provider else None,
    )


def main() -> None:
    """Serve until stopped by SIGTERM or SIGINT."""
    settings = Settings()
    sys.setswitchinterval(SWITCH_S)
    serve_metrics(metrics_port(settings, CONSOLE))
    table = live_case_table(settings)
    timelines = TimelineCache(table)
    feed = BoardFeed(kafka_logs(settings), table, timelines.stored)
    TIMELINES.set_function(lambda: len(timelines))
    feed.changes.tell(lambda change: timelines.changed(change.case_id, change.item))
    figures = LiveFeed(live_sources(settings))
    feed.start()
    figures.start()
    jobs = WhatifJobs(settings.variables())
    objects = bucket(settings)
    parts = PageServices(
        control=control_store(settings),
        runs=WhatifRuns(control_database(settings), now_ms),
        rules_log=lambda: rules_log(settings),
        carry_out=jobs.start,
        figures=figures,
        past=ArchivedPayments(lambda: ArchiveColumns(objects), topics(settings).payments_inbound, settings.partitions),
    )
    keys = vault(settings)
    with CaseDesk(kafka_logs(settings), keys) as desk:
        _serve(settings, create_app(make_services(settings, feed, timelines, desk, keys), parts))
    jobs.stop()
    figures.stop()
    feed.stop()


def live_sources(settings: Settings) -> LiveFeedSources:
    """Return the addresses that the live figures are counted from."""
    return LiveFeedSources(
        logs=kafka_logs(settings),
        view_metrics_url=f"http://{settings.host}:{metrics_port(settings, CASE_VIEWS)}/metrics",
        verifier_metrics_url=f"http://{settings.host}:{metrics_port(settings, VERIFIER)}/metrics",
        control_url=settings.control_database,
        first_table=settings.table,
    )


def _serve(settings: Settings, app: FastAPI) -> None:
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.console_port,
        access_log=False,  # it would write down what people search for
        server_header=False,
        date_header=True,
        proxy_headers=True,
        forwarded_allow_ips="127.0.0.1",
        timeout_graceful_shutdown=5,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
