"""The system's own programs, as parts that run beside the stores: the Flink jobs, the workers, the clock."""

import json
import urllib.request
from collections.abc import Callable

from infra.jars import locked, target
from infra.parts import Part, answers, python
from infra.settings import Settings

RISK_JOB, CASE_JOB, CASE_VIEWS, ARCHIVE, CLOCK = "risk-job", "case-job", "case-views", "archive", "clock"
PROCESS = "process"
METRICS_PORTS = {RISK_JOB: 0, CASE_JOB: 1, CASE_VIEWS: 2, ARCHIVE: 3, CLOCK: 4, PROCESS: 5}
"""Each service's port for Prometheus, counted from the first."""


def services(settings: Settings) -> tuple[Part, ...]:
    """Every program of one system; the clock only where it is to tick by itself."""
    clock = (_clock(settings),) if settings.clock_every_s else ()
    return (
        _job(settings, RISK_JOB, 0),
        _job(settings, CASE_JOB, 1),
        _case_views(settings),
        _archive(settings),
        _process(settings),
        *clock,
    )


def service_name(settings: Settings, name: str) -> str:
    """The name of a service's part: several systems can share one stack."""
    return f"{settings.prefix}{name}"


def connector_jars(settings: Settings) -> list[str]:
    """The jars that a Flink job takes along."""
    return [str(target(settings.jar_folder, jar).resolve()) for jar in locked() if jar.part == "flink"]


def metrics_port(settings: Settings, name: str) -> int:
    """Where a service tells Prometheus how it is."""
    return settings.metrics_port + METRICS_PORTS[name]


def job_arguments(settings: Settings, name: str) -> tuple[str, ...]:
    """What a job needs to know wherever it runs."""
    folder = (settings.home / "checkpoints" / service_name(settings, name)).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return (
        *("--bootstrap", settings.kafka_bootstrap, "--registry", settings.registry_url),
        f"--prefix={settings.prefix}",
        *("--parallelism", str(settings.flink_parallelism), "--window-ms", str(settings.flink_window_ms)),
        *("--mode", settings.flink_mode, "--checkpoint-dir", str(folder)),
        *("--checkpoint-interval-ms", str(settings.checkpoint_every_ms), "--heap", settings.flink_heap),
        *("--jars", *connector_jars(settings)),
    )


def _job(settings: Settings, name: str, number: int) -> Part:
    rest_port = settings.flink_port + number
    module = {RISK_JOB: "stream.risk_job", CASE_JOB: "stream.case_job"}[name]
    port = metrics_port(settings, name)
    return Part(
        name=service_name(settings, name),
        command=python(
            module, *job_arguments(settings, name), "--rest-port", str(rest_port), "--metrics-port", str(port)
        ),
        ports={"FRAUDCASE_FLINK_PORT": rest_port, "FRAUDCASE_METRICS_PORT": port},
        is_ready=_runs(f"http://{settings.host}:{rest_port}/jobs/overview"),
        stop_within_s=30,
    )


def _runs(url: str) -> Callable[[], bool]:
    """Every task of the one job of a cluster runs: a job counts as running long before."""

    def is_ready() -> bool:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - our own loopback address
            jobs = json.load(response)["jobs"]
        return any(job["tasks"]["running"] == job["tasks"]["total"] > 0 for job in jobs)

    return is_ready


def _case_views(settings: Settings) -> Part:
    return _worker(
        settings,
        CASE_VIEWS,
        "projections.view_worker",
        *("--dynamodb-url", settings.dynamodb_url, "--table", settings.table),
    )


def _archive(settings: Settings) -> Part:
    return _worker(
        settings, ARCHIVE, "projections.archive_worker", *("--s3-url", settings.s3_url, "--bucket", settings.bucket)
    )


def _process(settings: Settings) -> Part:
    return _worker(settings, PROCESS, "projections.process_worker")


def _clock(settings: Settings) -> Part:
    return _worker(settings, CLOCK, "console.clock", "--every", str(settings.clock_every_s))


def _worker(settings: Settings, name: str, module: str, *arguments: str) -> Part:
    port = metrics_port(settings, name)
    return Part(
        name=service_name(settings, name),
        command=python(
            module,
            *("--bootstrap", settings.kafka_bootstrap, "--registry", settings.registry_url),
            f"--prefix={settings.prefix}",
            *("--metrics-port", str(port), *arguments),
        ),
        ports={"FRAUDCASE_METRICS_PORT": port},
        environment={
            "AWS_ACCESS_KEY_ID": settings.aws_access_key_id,
            "AWS_SECRET_ACCESS_KEY": settings.aws_secret_access_key.get_secret_value(),
            "AWS_DEFAULT_REGION": settings.aws_region,
        },
        is_ready=answers(f"http://{settings.host}:{port}/metrics"),
        stop_within_s=30,
    )
