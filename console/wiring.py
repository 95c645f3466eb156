"""What commands share: settings, a place to print, progress that fits where it is printed, errors that end well."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from console.people.accounts import UserAccountStore
from console.privacy.key_files import console_key
from console.privacy.vault import Vault, VaultError
from console.rules.activation_log import KafkaRulesLog
from console.rules.engines import EngineStore
from console.rules.store import RulePackStore, WhatifRequirement
from console.views.live_table import LiveCaseTable
from console.views.versions import ViewVersions
from console.webhooks.store import Webhooks
from infra.settings import Settings
from migrations.store import connect
from projections.archive.bucket import Bucket
from projections.archive.stores import StoreOptions, dynamodb_client, s3_client
from projections.logs.kafka_logs import KafkaLogs
from projections.views.case_table import DynamoCaseTable
from schemas.topics import Topics

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client

MIN_MASTER_KEY = 32


def topics(settings: Settings) -> Topics:
    """The names of the logs."""
    return Topics(prefix=settings.prefix)


def kafka_logs(settings: Settings) -> KafkaLogs:
    """Return the system's logs: Kafka, the schema registry and the topics' names."""
    return KafkaLogs(bootstrap=settings.kafka_bootstrap, registry_url=settings.registry_url, topics=topics(settings))


def store_options(settings: Settings, url: str) -> StoreOptions:
    """How to get into a store."""
    return StoreOptions(
        url=url,
        region=settings.aws_region,
        access_key_id=settings.aws_access_key_id,
        secret_access_key=settings.aws_secret_access_key.get_secret_value(),
    )


def case_tables(settings: Settings) -> Callable[[str], DynamoCaseTable]:
    """Opens tables of case views by their names."""
    client = table_store(settings)
    return lambda name: DynamoCaseTable(client, name)


def view_versions(settings: Settings) -> ViewVersions:
    """The versions of the case views."""
    return ViewVersions(connect(settings.control_database), settings.table, lambda: time.time_ns() // 1_000_000)


def live_case_table(settings: Settings) -> LiveCaseTable:
    """The table of the version of the case views that is live, for whoever runs on while that changes."""
    return LiveCaseTable(case_tables(settings), view_versions(settings).live)


def case_table(settings: Settings) -> DynamoCaseTable:
    """The table of the version of the case views that is live now."""
    return live_case_table(settings).now()[1]


def control_store(settings: Settings) -> RulePackStore:
    """The control store as it stands: `fraudcase up` and `fraudcase control upgrade` make its tables."""
    needed = (
        WhatifRequirement(settings.rules_whatif_payments, settings.rules_whatif_days)
        if settings.rules_need_whatif
        else None
    )
    return RulePackStore(connect(settings.control_database), lambda: time.time_ns() // 1_000_000, needed)


def people(settings: Settings) -> UserAccountStore:
    """The accounts of people and machines."""
    return UserAccountStore(connect(settings.control_database), lambda: time.time_ns() // 1_000_000)


def master_key(settings: Settings) -> bytes:
    """What wraps the keys of subjects: given, or made when it is first needed, for its owner's eyes only."""
    if settings.master_key is None:
        return console_key(settings.home / "keys" / f"{settings.prefix}master.key")
    given = settings.master_key.get_secret_value().encode()
    if len(given) < MIN_MASTER_KEY:
        raise VaultError(f"FRAUDCASE_MASTER_KEY needs {MIN_MASTER_KEY} bytes. Cure: openssl rand -hex 32")
    return given


def vault(settings: Settings, *, makes_keys: bool = True) -> Vault:
    """The keys of subjects, which are made as they are needed."""
    store, key = connect(settings.control_database), master_key(settings)
    return Vault(store, key, lambda: time.time_ns() // 1_000_000, makes_keys=makes_keys)


def rules_log(settings: Settings) -> KafkaRulesLog:
    """The logs that rule packs are activated in."""
    return KafkaRulesLog(settings.kafka_bootstrap, settings.registry_url, topics(settings).ruled_logs)


def engines(settings: Settings) -> EngineStore:
    """The engines of the system, as the control store has them."""
    return EngineStore(connect(settings.control_database), lambda: time.time_ns() // 1_000_000)


def engine_log(settings: Settings) -> KafkaRulesLog:
    """The logs that engines are activated in."""
    return KafkaRulesLog(settings.kafka_bootstrap, settings.registry_url, topics(settings).engined_logs)


def object_store(settings: Settings) -> "S3Client":
    """Everything that the object store holds."""
    return s3_client(store_options(settings, settings.s3_url))


def table_store(settings: Settings) -> "DynamoDBClient":
    """Every table."""
    return dynamodb_client(store_options(settings, settings.dynamodb_url))


def bucket(settings: Settings) -> Bucket:
    """The archive's objects."""
    return Bucket(object_store(settings), settings.bucket, settings.prefix)


def webhooks_of(settings: Settings) -> Webhooks:
    """The webhooks of a system."""
    key = console_key(settings.home / f"{settings.prefix}console.key")
    return Webhooks(connect(settings.control_database), key, lambda: time.time_ns() // 1_000_000)
