"""Settings of this machine, read from `FRAUDCASE_…` variables or from `fraudcase.env` in the working folder."""

import json
from pathlib import Path
from typing import Literal

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

CHECKOUT = Path(__file__).resolve().parents[1]


class Settings(BaseSettings):
    """Addresses, folders and sizes of one system. Ports are on loopback, below the range that Linux assigns itself."""

    model_config = SettingsConfigDict(env_prefix="FRAUDCASE_", env_file="fraudcase.env", frozen=True, extra="ignore")

    home: Path = CHECKOUT / ".fraudcase"
    jars: Path | None = None
    """Folder of the jars, which several homes can share; `home/jars` if not set."""
    host: str = "127.0.0.1"
    kafka_port: int = 19092
    kafka_controller_port: int = 19093
    registry_port: int = 18081
    dynamodb_port: int = 18000
    s3_port: int = 19090
    flink_port: int = 18082
    """Port of the risk job's web page; the other jobs use the next ports. With a cluster, the port of its web page."""
    flink_cluster_port: int = 19500
    """First port of the cluster's processes; each process uses four."""
    metrics_port: int = 19400
    """First port of the services' metrics for Prometheus."""
    console_port: int = 18080
    """Port of the console's pages and its API."""
    console_public_url: str = ""
    """URL of the console if people do not reach it at its own port, e.g. `https://…` behind a proxy with TLS."""

    partitions: int = 8
    """Number of partitions of the decision logs. It is fixed: histories cannot move to another partition."""
    engine: int | Literal["latest"] = 1
    """Engine of a new system. An existing system keeps its engine; `fraudcase engine` changes it."""
    prefix: str = ""
    """Prefix of every topic, table and key in the bucket, so that several systems can share one stack."""
    bucket: str = "fraudcase"
    aws_region: str = "eu-central-1"
    aws_access_key_id: str = "local"
    aws_secret_access_key: SecretStr = SecretStr("local")
    """Secret key of the stores. The local stores accept any key; set FRAUDCASE_AWS_SECRET_ACCESS_KEY for others."""

    audit_key: SecretStr | None = None
    """Key that signs the audit log's heads: the path of a file, or 64 hexadecimal digits. Default: `audit_key_file`."""
    audit_lock_mode: Literal["GOVERNANCE", "COMPLIANCE"] = "GOVERNANCE"
    audit_lock_days: int = 0
    """Days for which archived objects cannot be deleted, if the bucket has Object Lock. 0: the bucket's own default."""

    control_url: SecretStr | None = None
    """SQLAlchemy URL of the control store (`postgresql://…`). Default: a SQLite file in `home`."""

    master_key: SecretStr | None = None
    """Key that wraps the keys of subjects: at least 32 random bytes as text. Default: a new file in `home/keys`."""
    location_decimals: int | None = None
    """Decimal places of a degree to which coordinates are rounded at intake (3: about 100 m). None: no rounding."""

    flink_mode: str = "thread"
    flink_parallelism: int = 1
    flink_window_ms: int = 100
    flink_snapshot_every: int = 32_768
    """Records of a partition between two snapshots of its histories. A restart reads up to this number again."""
    flink_state_backend: Literal["hashmap", "rocksdb"] = "hashmap"
    """State backend: on the heap (hashmap), or on disk (rocksdb): 25% slower, with incremental checkpoints."""
    flink_heap: str = "1536m"
    """Maximum heap of each TaskManager of a cluster, or of the JVM of all jobs."""
    flink_jvm_options: tuple[str, ...] = ("-XX:TieredStopAtLevel=1",)
    """JVM options of a cluster's TaskManagers. A second compiler tier does not pay off, as jobs wait for Python."""
    flink_cluster_taskmanagers: int = 0
    """Number of TaskManagers of a standalone cluster. 0: all jobs run in one process, each in its own MiniCluster."""
    flink_cluster_slots: int = 3
    """Slots of each TaskManager. With three, one of two TaskManagers can run all jobs while the other is away."""
    flink_prometheus: bool = False
    """Expose Flink's metrics to Prometheus. The reporter always listens on all interfaces."""
    checkpoint_every_ms: int = 10_000
    clock_every_s: float = 60
    """Seconds between two clock ticks in cases.inbox. 0: ticks come only from a file (`fraudcase clock`)."""

    rules_need_whatif: bool = False
    """Require a what-if run before a rule pack's approval, over at least the payments and days of the next two."""
    rules_whatif_payments: int = 100
    """Minimum number of payments of this what-if run."""
    rules_whatif_days: int = 0
    """Minimum number of days of this what-if run."""

    def variables(self) -> dict[str, str]:
        """Return the environment variables from which another process makes the same settings."""
        plain = {
            name: value.get_secret_value() if isinstance(value, SecretStr) else value
            for name in type(self).model_fields
            if (value := getattr(self, name)) is not None
        }
        return {
            f"FRAUDCASE_{name.upper()}": json.dumps(value) if isinstance(value, tuple) else str(value)
            for name, value in plain.items()
        }

    @property
    def jar_folder(self) -> Path:
        """Return the folder of downloaded jars."""
        return self.jars or self.home / "jars"

    @property
    def audit_key_file(self) -> Path:
        """Return the file of the audit key if no key is set."""
        return self.home / "keys" / f"{self.prefix}audit.key"

    @property
    def audit_key_source(self) -> str:
        """Return the audit key for the processes that sign: the path of a file, or the key itself."""
        return str(self.audit_key_file.resolve()) if self.audit_key is None else self.audit_key.get_secret_value()

    @property
    def last_head(self) -> Path:
        """Return the file of the last signed head, outside the bucket."""
        return self.home / "data" / f"{self.prefix}last-head.json"

    @property
    def control_database(self) -> str:
        """Return the URL of the control store."""
        if self.control_url is not None:
            return self.control_url.get_secret_value()
        return f"sqlite:///{self.home.resolve() / f'{self.prefix}control.db'}"

    webhooks_may_be_private: bool = False
    """Allow webhooks to this machine and its private network, and without TLS; for tests."""
    oidc_issuer: str = ""
    """URL of the identity provider for sign-in. Its client must allow the redirect CONSOLE/sign-in/oidc/callback."""
    oidc_client_id: str = ""
    oidc_client_secret: SecretStr = SecretStr("")
    oidc_roles_claim: str = "roles"
    oidc_roles: str = ""
    """JSON object from the provider's role names to ours. Default: the provider uses our names."""

    @property
    def console_url(self) -> str:
        """Return the URL at which people reach the console."""
        return self.console_public_url.rstrip("/") or f"http://{self.host}:{self.console_port}"

    @property
    def kafka_bootstrap(self) -> str:
        """Return the address of the Kafka broker, host:port."""
        return f"{self.host}:{self.kafka_port}"

    @property
    def registry_url(self) -> str:
        """Return the URL of the schema registry's Confluent API."""
        return f"http://{self.host}:{self.registry_port}/apis/ccompat/v7"

    @property
    def dynamodb_url(self) -> str:
        """Return the URL of the document store."""
        return f"http://{self.host}:{self.dynamodb_port}"

    @property
    def s3_url(self) -> str:
        """Return the URL of the object store."""
        return f"http://{self.host}:{self.s3_port}"

    @property
    def table(self) -> str:
        """Return the name of the table of case views."""
        return f"{self.prefix}cases"
