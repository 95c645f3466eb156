"""Where things are on this machine: read from `FRAUDCASE_…` variables or from `fraudcase.env` in the working folder."""

import json
from pathlib import Path
from typing import Literal

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

CHECKOUT = Path(__file__).resolve().parents[1]


class Settings(BaseSettings):
    """One system's addresses, folders and sizes. Ports are on loopback, below the range that Linux hands out itself."""

    model_config = SettingsConfigDict(env_prefix="FRAUDCASE_", env_file="fraudcase.env", frozen=True, extra="ignore")

    home: Path = CHECKOUT / ".fraudcase"
    jars: Path | None = None
    """Where jars lie; `home/jars` unless several homes share them."""
    host: str = "127.0.0.1"
    kafka_port: int = 19092
    kafka_controller_port: int = 19093
    registry_port: int = 18081
    dynamodb_port: int = 18000
    s3_port: int = 19090
    flink_port: int = 18082
    """The web page of the risk job, those of the others on the next ports; or of the cluster that runs them all."""
    flink_cluster_port: int = 19500
    """The first of the ports on which a cluster's processes speak to each other: four for each."""
    metrics_port: int = 19400
    """The first of the ports on which services tell Prometheus how they are."""
    console_port: int = 18080
    """The console: its pages and its API."""
    console_public_url: str = ""
    """Where people reach the console if not at its own port, `https://…` behind a proxy that speaks TLS."""

    partitions: int = 8
    """Of the decision logs, fixed when they are made: account histories cannot move to another partition."""
    engine: int | Literal["latest"] = 1
    """Which engine a new system begins with; one that has decided anything keeps its own: `fraudcase engine`."""
    prefix: str = ""
    """Before the name of every topic and table, and every key in the bucket: systems side by side on one stack."""
    bucket: str = "fraudcase"
    aws_region: str = "eu-central-1"
    aws_access_key_id: str = "local"
    aws_secret_access_key: SecretStr = SecretStr("local")
    """The local stores take any key; real ones come from the environment."""

    audit_key: SecretStr | None = None
    """What signs the audit log's heads: a file, or 64 hexadecimal digits; without it, a file in `home/keys`."""
    audit_lock_mode: Literal["GOVERNANCE", "COMPLIANCE"] = "GOVERNANCE"
    audit_lock_days: int = 0
    """How long what is archived cannot be deleted, where the bucket has Object Lock; 0: as the bucket itself says."""

    control_url: SecretStr | None = None
    """The control store, as SQLAlchemy's URL (`postgresql://…`); without one it is SQLite in `home`."""

    master_key: SecretStr | None = None
    """What wraps the keys of subjects, at least 32 random bytes as text; without one it is made, into `home/keys`."""
    location_decimals: int | None = None
    """How exact coordinates may enter, in decimal places of a degree (3: about 100 m); None: as they come."""

    flink_mode: str = "thread"
    flink_parallelism: int = 1
    flink_window_ms: int = 100
    flink_snapshot_every: int = 32_768
    """Records of a partition between two snapshots of what its histories are; a restart reads as many again."""
    flink_state_backend: Literal["hashmap", "rocksdb"] = "hashmap"
    """Where a job keeps its state: on the heap, or on disk: a quarter slower, and a checkpoint is only what is new."""
    flink_heap: str = "1536m"
    """Of each TaskManager of a cluster; without one, of the JVM of all jobs."""
    flink_jvm_options: tuple[str, ...] = ("-XX:TieredStopAtLevel=1",)
    """Of a cluster's TaskManagers: compiling twice does not pay where Python is what a job waits for."""
    flink_cluster_taskmanagers: int = 0
    """Of a standalone cluster that runs the jobs; 0: all run in one process, each in a MiniCluster of its own."""
    flink_cluster_slots: int = 3
    """Of one TaskManager: with three, the other one carries all jobs while one is away."""
    flink_prometheus: bool = False
    """Whether Flink shows Prometheus its figures. Its reporter listens on every interface and knows no other way."""
    checkpoint_every_ms: int = 10_000
    clock_every_s: float = 60
    """How often time itself becomes a record of cases.inbox; 0 for ticks from a file only (`fraudcase clock`)."""

    rules_need_whatif: bool = False
    """Whether a rule pack is approved only after a what-if of it, over at least what the next two say."""
    rules_whatif_payments: int = 100
    rules_whatif_days: int = 0

    def variables(self) -> dict[str, str]:
        """The variables from which another process makes the same settings."""
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
        """Where downloaded jars are kept."""
        return self.jars or self.home / "jars"

    @property
    def audit_key_file(self) -> Path:
        """Where the audit key lies if none is given."""
        return self.home / "keys" / f"{self.prefix}audit.key"

    @property
    def audit_key_source(self) -> str:
        """The audit key as it is handed to those who sign: a file, or itself."""
        return str(self.audit_key_file.resolve()) if self.audit_key is None else self.audit_key.get_secret_value()

    @property
    def last_head(self) -> Path:
        """Where the last signed head is kept, outside the bucket."""
        return self.home / "data" / f"{self.prefix}last-head.json"

    @property
    def control_database(self) -> str:
        """The URL of the control store."""
        if self.control_url is not None:
            return self.control_url.get_secret_value()
        return f"sqlite:///{self.home.resolve() / f'{self.prefix}control.db'}"

    webhooks_may_be_private: bool = False
    """Whether webhooks may go to this machine and its private network, and without TLS: for tests."""
    oidc_issuer: str = ""
    """The identity provider that people may sign in at; its client must allow CONSOLE/sign-in/oidc/callback."""
    oidc_client_id: str = ""
    oidc_client_secret: SecretStr = SecretStr("")
    oidc_roles_claim: str = "roles"
    oidc_roles: str = ""
    """JSON: what the provider calls a role, and which of ours it is; by default they have our names."""

    @property
    def console_url(self) -> str:
        """Where people reach the console."""
        return self.console_public_url.rstrip("/") or f"http://{self.host}:{self.console_port}"

    @property
    def kafka_bootstrap(self) -> str:
        """The broker's address."""
        return f"{self.host}:{self.kafka_port}"

    @property
    def registry_url(self) -> str:
        """The schema registry, where it speaks Confluent's protocol."""
        return f"http://{self.host}:{self.registry_port}/apis/ccompat/v7"

    @property
    def dynamodb_url(self) -> str:
        """The document store."""
        return f"http://{self.host}:{self.dynamodb_port}"

    @property
    def s3_url(self) -> str:
        """The object store."""
        return f"http://{self.host}:{self.s3_port}"

    @property
    def table(self) -> str:
        """The table of the case views."""
        return f"{self.prefix}cases"
