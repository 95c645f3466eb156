"""Programs of the system itself beside the stores: the Flink jobs, the workers, the console, the clock."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from infra.errors import StackError
from infra.flink_cluster import cluster
from infra.jars import jar_path, locked_jars
from infra.parts import StackProgram, make_health_check, python_command, read_json
from infra.settings import Settings

RISK_JOB, CASE_JOB, CASE_VIEWS, ARCHIVE, CLOCK = "risk-job", "case-job", "case-views", "archive", "clock"
PROCESS, ENTITY_JOB, CONSOLE = "process", "entity-job", "console"
FLINK_JOBS = "flink-jobs"
"""Service that runs all jobs in one process, without a cluster."""
WEBHOOKS, VERIFIER = "webhooks", "view-verifier"
MODULES = {RISK_JOB: "stream.risk_job", CASE_JOB: "stream.case_job", ENTITY_JOB: "stream.entity_job"}
METRICS_PORTS = {
    RISK_JOB: 0,
    CASE_JOB: 1,
    CASE_VIEWS: 2,
    ARCHIVE: 3,
    CLOCK: 4,
    PROCESS: 5,
    ENTITY_JOB: 6,
    CONSOLE: 7,
    WEBHOOKS: 8,
    VERIFIER: 9,
}
"""Number of each service's port for Prometheus, added to `settings.metrics_port`."""


def services(settings: Settings) -> tuple[StackProgram, ...]:
    """Return every program of one system and its jobs' cluster. The clock is left out if `clock_every_s` is 0."""
    clock = (_clock(settings),) if settings.clock_every_s else ()
    workers = (
        _case_views(settings),
        _archive(settings),
        _process(settings),
        _console(settings),
        _webhooks(settings),
        _console_worker(settings, VERIFIER, "console.workers.view_verifier"),
    )
    return (*cluster(settings), *jobs(settings), *workers, *clock)


def jobs(settings: Settings) -> tuple[StackProgram, ...]:
    """Return the Flink jobs: one process with a MiniCluster per job, or one keeper per job on the cluster."""
    if settings.flink_cluster_taskmanagers:
        return tuple(_cluster_job(settings, name) for name in MODULES)
    return (_mini_clusters(settings),)


def check_slots(settings: Settings) -> None:
    """Raise StackError if the cluster has fewer slots than the jobs need: they would wait forever."""
    slots = settings.flink_cluster_taskmanagers * settings.flink_cluster_slots
    wanted = len(MODULES) * settings.flink_parallelism
    if 0 < slots < wanted:
        raise StackError(
            f"{len(MODULES)} jobs of parallelism {settings.flink_parallelism} need {wanted} slots, but the cluster has "
            f"{slots}. Cure: export FRAUDCASE_FLINK_CLUSTER_SLOTS=… (slots of each TaskManager) or "
            "FRAUDCASE_FLINK_CLUSTER_TASKMANAGERS=… (number of TaskManagers)"
        )


def service_name(settings: Settings, name: str) -> str:
    """Return the name of a service's program. The prefix separates the systems that share a stack."""
    return f"{settings.prefix}{name}"


def job_name(settings: Settings, name: str) -> str:
    """Return Flink's name of a service's job."""
    return f"{settings.prefix}{name.removesuffix('-job')}"


def connector_jars(settings: Settings) -> list[str]:
    """Return the paths of the jars that a Flink job takes along."""
    return [str(jar_path(settings.jar_folder, jar).resolve()) for jar in locked_jars() if jar.part == "flink"]


def metrics_port(settings: Settings, name: str) -> int:
    """Return the port at which Prometheus reads a service's metrics."""
    return settings.metrics_port + METRICS_PORTS[name]


def checkpoints(settings: Settings, name: str) -> Path:
    """Return the folder of a job's checkpoints."""
    return (settings.home / "checkpoints" / service_name(settings, name)).resolve()


def job_arguments(settings: Settings, name: str) -> tuple[str, ...]:
    """Return the arguments of a job that are the same in a MiniCluster and on a cluster."""
    folder = checkpoints(settings, name)
    folder.mkdir(parents=True, exist_ok=True)
    return (
        *("--bootstrap", settings.kafka_bootstrap, "--registry", settings.registry_url),
        f"--prefix={settings.prefix}",
        *("--partitions", str(settings.partitions)),
        *("--parallelism", str(settings.flink_parallelism), "--window-ms", str(settings.flink_window_ms)),
        *("--snapshot-every", str(settings.flink_snapshot_every)),
        *("--mode", settings.flink_mode, "--state-backend", settings.flink_state_backend),
        *("--checkpoint-dir", str(folder)),
        *("--checkpoint-interval-ms", str(settings.checkpoint_every_ms), "--heap", settings.flink_heap),
        *("--jars", *connector_jars(settings)),
    )


def _mini_clusters(settings: Settings) -> StackProgram:
    rest_ports = {name: settings.flink_port + number for number, name in enumerate(MODULES)}
    ports = dict.fromkeys(rest_ports.values(), "FRAUDCASE_FLINK_PORT")
    command = list[str]()
    for name, rest_port in rest_ports.items():
        command += ["--", name, *job_arguments(settings, name), "--rest-port", str(rest_port)]
        if settings.flink_prometheus:
            port = metrics_port(settings, name)
            ports[port] = "FRAUDCASE_METRICS_PORT"
            command += ["--metrics-port", str(port)]
    checks = [make_job_check(f"{settings.host}:{rest_ports[name]}", job_name(settings, name)) for name in MODULES]
    return StackProgram(
        name=service_name(settings, FLINK_JOBS),
        command=python_command("stream.all_jobs", *command),
        ports=ports,
        is_ready=lambda: all(check() for check in checks),
        stop_within_s=30,
    )


def _cluster_job(settings: Settings, name: str) -> StackProgram:
    address, job = f"{settings.host}:{settings.flink_port}", job_name(settings, name)
    submit = python_command(MODULES[name], *job_arguments(settings, name), "--cluster", address)
    return StackProgram(
        name=service_name(settings, name),
        command=python_command("stream.keeper", "--cluster", address, "--name", job, "--", *submit),
        ports={},
        is_ready=make_job_check(address, job),
        after=tuple(part.name for part in cluster(settings)),
        ready_within_s=180,
        stop_within_s=30,
    )


def make_job_check(address: str, name: str) -> Callable[[], bool]:
    """Return a check that every task of a job runs. Flink reports a job as running long before that."""

    def is_ready() -> bool:
        jobs = [job for job in read_json(f"http://{address}/jobs/overview")["jobs"] if job["name"] == name]
        return any(job["tasks"]["running"] == job["tasks"]["total"] > 0 for job in jobs)

    return is_ready


def _case_views(settings: Settings) -> StackProgram:
    return _console_worker(settings, CASE_VIEWS, "console.workers.case_views")


def _archive(settings: Settings) -> StackProgram:
    part = _worker(
        settings,
        ARCHIVE,
        "projections.archive.worker",
        *("--s3-url", settings.s3_url, "--bucket", settings.bucket, "--last-head", str(settings.last_head.resolve())),
        *("--lock-mode", settings.audit_lock_mode, "--lock-days", str(settings.audit_lock_days)),
    )
    return replace(part, environment={**part.environment, "FRAUDCASE_AUDIT_KEY": settings.audit_key_source})


def _process(settings: Settings) -> StackProgram:
    return _worker(settings, PROCESS, "projections.process_worker")


def _clock(settings: Settings) -> StackProgram:
    return _worker(settings, CLOCK, "console.workers.clock", "--every", str(settings.clock_every_s))


def _console(settings: Settings) -> StackProgram:
    port, metrics = settings.console_port, metrics_port(settings, CONSOLE)
    return StackProgram(
        name=service_name(settings, CONSOLE),
        command=python_command("console.web"),
        ports={port: "FRAUDCASE_CONSOLE_PORT", metrics: "FRAUDCASE_METRICS_PORT"},
        environment=settings.variables(),
        is_ready=make_health_check(f"http://{settings.host}:{port}/health"),
        stop_within_s=30,
    )


def _webhooks(settings: Settings) -> StackProgram:
    return _console_worker(settings, WEBHOOKS, "console.workers.webhooks")


def _console_worker(settings: Settings, name: str, module: str) -> StackProgram:
    """Return a worker that needs the control store. It takes all settings from its environment."""
    port = metrics_port(settings, name)
    return StackProgram(
        name=service_name(settings, name),
        command=python_command(module),
        ports={port: "FRAUDCASE_METRICS_PORT"},
        environment=settings.variables(),
        is_ready=make_health_check(f"http://{settings.host}:{port}/metrics"),
        stop_within_s=30,
    )


def _worker(settings: Settings, name: str, module: str, *arguments: str) -> StackProgram:
    port = metrics_port(settings, name)
    return StackProgram(
        name=service_name(settings, name),
        command=python_command(
            module,
            *("--bootstrap", settings.kafka_bootstrap, "--registry", settings.registry_url),
            f"--prefix={settings.prefix}",
            *("--metrics-port", str(port), *arguments),
        ),
        ports={port: "FRAUDCASE_METRICS_PORT"},
        environment={
            "AWS_ACCESS_KEY_ID": settings.aws_access_key_id,
            "AWS_SECRET_ACCESS_KEY": settings.aws_secret_access_key.get_secret_value(),
            "AWS_DEFAULT_REGION": settings.aws_region,
        },
        is_ready=make_health_check(f"http://{settings.host}:{port}/metrics"),
        stop_within_s=30,
    )
