"""Turns settings into the parts of a system: clients, logs, stores and keys.

Only entry points call these functions: the command line, the console's main module, the workers' main functions, and
benchmarks. All other code takes its parts as arguments.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from console.people.accounts import UserAccountStore
from console.privacy.key_files import console_key
from console.privacy.plain_text_sealer import PlainTextSealer
from console.privacy.vault import Vault, VaultError
from console.rules.activation_log import KafkaRulesLog
from console.rules.engines import EngineStore
from console.rules.store import RulePackStore, WhatifRequirement
from console.times import now_ms
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
    from sqlalchemy import Engine

    from projections.replay.sources import BucketSource, KafkaSource

MIN_MASTER_KEY = 32
"""Bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeParts:
    """Parts of an intake: the logs, the keys that seal personal data, and the precision of locations.

    `location_decimals` counts decimal places of a degree; None keeps coordinates exact.
    """

    logs: KafkaLogs
    keys: Vault
    location_decimals: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RebuildParts:
    """Parts of a rebuild of the case views: the logs, their archive, the versions, and the tables by name."""

    logs: KafkaLogs
    archive: "BucketSource"
    versions: ViewVersions
    open_table: Callable[[str], DynamoCaseTable]


# -- logs -----------------------------------------------------------------------------------------------


def topics(settings: Settings) -> Topics:
    """Return the names of the topics."""
    return Topics(prefix=settings.prefix)


def kafka_logs(settings: Settings) -> KafkaLogs:
    """Return the logs: Kafka, the schema registry and the names of the topics."""
    return KafkaLogs(bootstrap=settings.kafka_bootstrap, registry_url=settings.registry_url, topics=topics(settings))


def rules_log(settings: Settings) -> KafkaRulesLog:
    """Return the logs in which rule packs are activated."""
    return KafkaRulesLog(kafka_logs(settings), topics(settings).ruled_logs)


def engine_log(settings: Settings) -> KafkaRulesLog:
    """Return the logs in which engines are activated."""
    return KafkaRulesLog(kafka_logs(settings), topics(settings).engined_logs)


# -- object store and document store --------------------------------------------------------------------


def store_options(settings: Settings, url: str) -> StoreOptions:
    """Return the address, region and credentials of a store."""
    return StoreOptions(
        url=url,
        region=settings.aws_region,
        access_key_id=settings.aws_access_key_id,
        secret_access_key=settings.aws_secret_access_key.get_secret_value(),
    )


def object_store(settings: Settings) -> "S3Client":
    """Return a client of the object store."""
    return s3_client(store_options(settings, settings.s3_url))


def table_store(settings: Settings) -> "DynamoDBClient":
    """Return a client of the document store."""
    return dynamodb_client(store_options(settings, settings.dynamodb_url))


def bucket(settings: Settings) -> Bucket:
    """Return the bucket of the archive."""
    return Bucket(object_store(settings), settings.bucket, settings.prefix)


def archive_source(settings: Settings) -> "BucketSource":
    """Return the archive as a source of replays; it connects when it is opened."""
    from projections.replay.sources import BucketSource  # PyArrow is slow to import, and few commands need it

    return BucketSource(store_options(settings, settings.s3_url), settings.bucket, settings.prefix)


def replay_source(settings: Settings, name: str) -> "KafkaSource | BucketSource":
    """Return the source of a replay: the archive for `s3`, Kafka for any other name."""
    from projections.replay.sources import KafkaSource

    archive = archive_source(settings)
    return archive if name == "s3" else KafkaSource(kafka_logs(settings), archive)


def case_tables(settings: Settings) -> Callable[[str], DynamoCaseTable]:
    """Return a function that opens a table of case views by its name; it connects at the first call."""
    client = cache(lambda: table_store(settings))
    return lambda name: DynamoCaseTable(client(), name)


def live_case_table(settings: Settings) -> LiveCaseTable:
    """Return the table of the live version of the case views; it follows a switch to another version."""
    return LiveCaseTable(case_tables(settings), view_versions(settings).live)


def case_table(settings: Settings) -> DynamoCaseTable:
    """Return the table of the version of the case views that is live now."""
    return live_case_table(settings).now()[1]


# -- control store --------------------------------------------------------------------------------------


def control_database(settings: Settings) -> "Engine":
    """Return the database of the control store; `fraudcase up` and `fraudcase control upgrade` make its tables."""
    return connect(settings.control_database)


def view_versions(settings: Settings) -> ViewVersions:
    """Return the versions of the case views."""
    return ViewVersions(control_database(settings), settings.table, now_ms)


def control_store(settings: Settings) -> RulePackStore:
    """Return the store of rule packs."""
    required = (
        WhatifRequirement(settings.rules_whatif_payments, settings.rules_whatif_days)
        if settings.rules_need_whatif
        else None
    )
    return RulePackStore(control_database(settings), now_ms, required)


def engines(settings: Settings) -> EngineStore:
    """Return the store of activated engines."""
    return EngineStore(control_database(settings), now_ms)


def people(settings: Settings) -> UserAccountStore:
    """Return the accounts of people and machines."""
    return UserAccountStore(control_database(settings), now_ms)


def webhooks_of(settings: Settings) -> Webhooks:
    """Return the webhooks, with the key that signs their deliveries."""
    key = console_key(settings.home / f"{settings.prefix}console.key")
    return Webhooks(control_database(settings), key, now_ms)


# -- keys -----------------------------------------------------------------------------------------------


def master_key(settings: Settings) -> bytes:
    """Return the key that wraps the subjects' keys. Raise VaultError if the given one is too short.

    If none is given, it is made at the first call, in a file that only its owner can read.
    """
    if settings.master_key is None:
        return console_key(_master_key_file(settings))
    given = settings.master_key.get_secret_value().encode()
    if len(given) < MIN_MASTER_KEY:
        raise VaultError(f"FRAUDCASE_MASTER_KEY needs {MIN_MASTER_KEY} bytes. Cure: openssl rand -hex 32")
    return given


def vault(settings: Settings, *, makes_keys: bool = True) -> Vault:
    """Return the vault of the subjects' keys; with `makes_keys`, a missing key is made when it is needed."""
    return Vault(control_database(settings), master_key(settings), now_ms, makes_keys=makes_keys)


def existing_keys(settings: Settings) -> Vault | PlainTextSealer:
    """Return the vault of this system without making any key, or a sealer of plain text if there is no system."""
    if settings.control_url is None and not Path(settings.control_database.removeprefix("sqlite:///")).exists():
        return PlainTextSealer()
    if settings.master_key is None and not _master_key_file(settings).exists():
        return PlainTextSealer()
    found = vault(settings, makes_keys=False)
    try:
        found.prepare(())
    except SQLAlchemyError:  # the store cannot be reached, or is older than keys are
        return PlainTextSealer()
    return found


def _master_key_file(settings: Settings) -> Path:
    return settings.home / "keys" / f"{settings.prefix}master.key"


# -- parts that belong together -------------------------------------------------------------------------


def intake_parts(settings: Settings) -> IntakeParts:
    """Return the parts of an intake."""
    return IntakeParts(logs=kafka_logs(settings), keys=vault(settings), location_decimals=settings.location_decimals)


def rebuild_parts(settings: Settings) -> RebuildParts:
    """Return the parts of a rebuild of the case views."""
    return RebuildParts(
        logs=kafka_logs(settings),
        archive=archive_source(settings),
        versions=view_versions(settings),
        open_table=case_tables(settings),
    )
